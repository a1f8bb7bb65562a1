use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::packet::{InterfaceOptions, PacketOptions, Receive};
use crate::rule::{Dscp, Ttl};
use crate::watch::Inspect;

impl RuleSpec {
    /// A rule without options; one with an empty name has none.
    pub(crate) fn plain(name: &str, input: &str, outputs: &[&str]) -> Self {
        Self {
            name: (!name.is_empty()).then(|| name.into()),
            comment: None,
            input: input.into(),
            sources: Vec::new(),
            outputs: outputs.iter().map(|output| output.parse().unwrap()).collect(),
            enabled: true,
            local: None,
            join: None,
            max_rate: None,
            silence: None,
            inspect: None,
        }
    }
}

fn spec(value: Value) -> RuleSpec {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_rule_of_json_becomes_a_rule() {
    let rule = spec(json!({
        "name": "camera-1", "comment": "studio A", "input": "10.0.0.2@232.1.1.1:5000@eth0",
        "sources": ["10.0.0.1", "10.0.0.2"], "enabled": false, "local": "no", "join": "no",
        "outputs": ["239.10.1.1:6000@eth1", { "to": "10.9.0.7:6000", "ttl": 8, "dscp": 46 },
            { "to": "keep@239.10.1.2@eth1", "ttl": "decrement", "dscp": "keep" }],
    }));
    let rule = rule.check().unwrap();
    assert_eq!(rule.input.to_string(), "10.0.0.1,10.0.0.2@232.1.1.1:5000@eth0");
    assert_eq!((rule.enabled, rule.local, rule.join), (false, Local::No, false));
    assert_eq!(rule.name.as_deref(), Some("camera-1"));
    let options: Vec<(Ttl, Dscp)> = rule.outputs.iter().map(|o| (o.ttl, o.dscp)).collect();
    let eight = Ttl::Set(8.try_into().unwrap());
    let expected =
        [(Ttl::default(), Dscp::Keep), (eight, Dscp::Set(46)), (Ttl::Decrement, Dscp::Keep)];
    assert_eq!(options, expected);

    let plain = spec(json!({"input": "239.1.1.1:5@eth0", "outputs": ["239.2.1.1:6@eth1"]}));
    let rule = plain.check().unwrap();
    assert_eq!((rule.enabled, rule.local, rule.join), (true, Local::Auto, true));
    assert_eq!(RuleSpec::from(&rule), plain);
}

#[test]
fn settings_of_outputs_are_checked() {
    let check = |option: &str, value: Value| {
        let output = json!({"to": "239.2.1.1:6@eth1", option: value});
        spec(json!({"input": "239.1.1.1:5@eth0", "outputs": [output]})).check()
    };
    for good in [json!(1), json!(255), json!("keep"), json!("decrement"), json!(null)] {
        assert!(check("ttl", good.clone()).is_ok(), "ttl {good}");
    }
    for good in [json!(0), json!(63), json!("keep"), json!(null)] {
        assert!(check("dscp", good.clone()).is_ok(), "dscp {good}");
    }
    for (option, values) in [
        ("ttl", [json!(0), json!(256), json!("16"), json!("Keep"), json!("")]),
        ("dscp", [json!(64), json!(u64::MAX), json!("ef"), json!("decrement"), json!("46")]),
    ] {
        for bad in values {
            let refusal = check(option, bad.clone()).expect_err(option);
            assert!(refusal.message.contains(option), "{option} {bad}: {refusal}");
            assert!(refusal.message.contains("output 239.2.1.1:6@eth1"), "{refusal}");
            assert!(refusal.hint.contains("keep"), "{refusal}");
        }
    }
}

#[test]
fn words_and_addresses_of_a_rule_are_checked() {
    let cases = [
        (json!({"local": "maybe"}), "local = \"maybe\"", "auto, yes, no"),
        (json!({"join": "auto"}), "join = \"auto\"", "yes, no"),
        (json!({"max_rate": "5000"}), "max_rate = \"5000\" is not a rate", "5000pps"),
        (json!({"max_rate": "0pps"}), "max_rate = \"0pps\" is not a rate", "mbit"),
        (json!({"sources": ["eth0"]}), "source \"eth0\"", "sources = ["),
        (json!({"input": "239.1.1.1"}), "input 239.1.1.1: ", "ADDRESS:PORT@INTERFACE"),
        (json!({"outputs": ["239.2.1.1:x@eth1"]}), "output 239.2.1.1:x@eth1: ", "65535"),
        (json!({"outputs": []}), "no outputs", "at least one"),
    ];
    for (change, message, hint) in cases {
        let mut rule =
            json!({"name": "n", "input": "239.1.1.1:5@eth0", "outputs": ["239.2.1.1:6@eth1"]});
        rule.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refusal = spec(rule).check().expect_err(message);
        assert!(refusal.message.starts_with("rule n: "), "{refusal}");
        assert!(refusal.message.contains(message), "{message}: {refusal}");
        assert!(refusal.hint.contains(hint), "{hint}: {refusal}");
    }
}

#[test]
fn requests_refuse_unknown_and_missing_fields() {
    let rule = r#"{"input": "239.1.1.1:5@eth0", "outputs": ["239.2.1.1:6@eth1"]"#;
    let rules = [
        (format!("{rule}, \"colour\": 1}}"), "unknown field `colour`"),
        (r#"{"input": "x", "outputs": [{"to": "y", "tll": 3}]}"#.into(), "unknown field `tll`"),
        (r#"{"input": "x", "outputs": [{"ttl": 3}]}"#.into(), "missing field `to`"),
        (r#"{"input": "x", "outputs": [3]}"#.into(), "an output"),
        (r#"{"input": "x", "outputs": [{"to": "y", "ttl": -3}]}"#.into(), "negative"),
        (r#"{"input": "x", "outputs": [{"to": "y", "ttl": 3.5}]}"#.into(), "a number, or a word"),
        (r#"{"input": "x"}"#.into(), "missing field `outputs`"),
        (r#"{"outputs": []}"#.into(), "missing field `input`"),
    ];
    for (text, message) in rules {
        let error = serde_json::from_str::<RuleSpec>(&text).expect_err(&text).to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
    let steps = [
        format!(r#"{{"replace": {{"name": "a", "rule": {rule}}}, "x": 1}}}}"#),
        r#"{"rename": "a"}"#.into(),
        format!(r#"{{"add": {rule}}}, "remove": "a"}}"#),
    ];
    for text in steps {
        assert!(serde_json::from_str::<Step>(&text).is_err(), "{text}");
    }
    assert!(serde_json::from_str::<RuleSet>(r#"{"rules": [], "force": true}"#).is_err());
}

#[test]
fn steps_are_spelled_add_replace_remove() {
    let rule = spec(json!({"input": "239.1.1.1:5@eth0", "outputs": ["239.2.1.1:6@eth1"]}));
    let text = serde_json::to_value([
        Step::Add(rule.clone()),
        Step::Replace { name: "a".into(), rule: rule.clone() },
        Step::Remove("b".into()),
    ])
    .unwrap();
    let inner = json!({"input": "239.1.1.1:5@eth0", "outputs": ["239.2.1.1:6@eth1"]});
    let expected = json!([
        {"add": inner}, {"replace": {"name": "a", "rule": inner}}, {"remove": "b"}
    ]);
    assert_eq!(text, expected);
    let back: Vec<Step> = serde_json::from_value(expected).unwrap();
    assert_eq!(back[2], Step::Remove("b".into()));
}

#[test]
fn replies_may_grow() {
    let rule = json!({"input": "239.1.1.1:5@eth0", "outputs": ["239.2.1.1:6@eth1"]});
    let view = |rule: Value| {
        json!({"generation": 1, "later": 2, "rules": [{"name": "a", "named": true,
            "origin": "file", "state": "idle", "later": 3, "rule": rule}]})
    };
    assert!(serde_json::from_value::<RuleList>(view(rule.clone())).is_ok());
    let mut grown = rule;
    grown["later"] = json!(4);
    grown["outputs"] = json!([{"to": "239.2.1.1:6@eth1", "later": 5}]);
    if let Err(error) = serde_json::from_value::<RuleList>(view(grown)) {
        panic!("a client refuses a reply that has grown: {error}");
    }
}

#[test]
fn config_errors_say_file_line_and_column() {
    let rule = "[[rule]]\ninput = \"239.1.1.1:5@eth0\"\n";
    let cases = [
        ("a = ".into(), "1:5", ""),
        ("\n[[rule]\n".into(), "2:8", ""),
        ("[defaults]\nttl = 16\n[[rules]]\n".into(), "3:3", "unknown field `rules`"),
        ("[defaults]\nttl = 16\nhops = 3\n".into(), "3:1", "unknown field `hops`"),
        (format!("{rule}outputs = []\n  speed = 3\n"), "4:3", "unknown field `speed`"),
        (
            format!("{rule}outputs = [\"239.2.1.1:6@eth1\",\n  {{ to = \"x\", tll = 3 }}]\n"),
            "4:15",
            "unknown field `tll`",
        ),
        (format!("# ä\n{rule}"), "2:1", "missing field `outputs`"),
        (format!("\n\n{rule}outputs = []\n"), "3:1", "has no outputs (give at least one output)"),
        (
            format!("{rule}outputs = [\"239.2.1.1:6@eth1\"]\n\n{rule}outputs = [\"eth1\"]\n"),
            "5:1",
            "output eth1: \"eth1\" is not an IP address",
        ),
    ];
    for (text, place, message) in cases {
        let error = parse_config("/etc/mcr/mcr.toml", &text).expect_err(&text).to_string();
        let place = format!("/etc/mcr/mcr.toml:{place}: ");
        assert!(error.starts_with(&place), "{text}\n{error}\nis not at {place}");
        assert!(error.contains(message), "{text}\n{error}\nlacks {message}");
    }
}

#[test]
fn defaults_hold_where_a_rule_says_nothing() {
    let text = r#"
        [defaults]
        ttl = "decrement"
        dscp = 46
        local = "yes"
        [[rule]]
        input = "239.1.1.1:5000@eth0"
        outputs = ["239.2.1.1@eth1", { to = "239.2.1.2@eth1", ttl = 32, dscp = "keep" }]
        [[rule]]
        input = "239.1.1.2:5000@eth0"
        local = "auto"
        outputs = ["239.2.1.3@eth1"]
    "#;
    let rules = parse_config("f", text).unwrap().rules;
    let options: Vec<_> =
        rules.iter().flat_map(|r| r.outputs.iter().map(|o| (r.local, o.ttl, o.dscp))).collect();
    let expected = [
        (Local::Yes, Ttl::Decrement, Dscp::Set(46)),
        (Local::Yes, Ttl::default(), Dscp::Keep),
        (Local::Auto, Ttl::Decrement, Dscp::Set(46)),
    ];
    assert_eq!(options, expected);
    assert_eq!(parse_config("f", "").unwrap().rules, []);
}

#[test]
fn limits_are_1_to_a_million() {
    let limits =
        |text: &str| parse_config("f", text).map(|c| c.limits.map(|l| (l.rules, l.outputs)));
    assert_eq!(limits(""), Ok(None));
    assert_eq!(limits("[limits]\nmax_rules = 1\nmax_outputs = 1000000"), Ok(Some((1, 1_000_000))));
    let standard = crate::relay::Limits::default();
    assert_eq!(limits("[limits]\nmax_rules = 7"), Ok(Some((7, standard.outputs))));
    for bad in ["max_rules = 0", "max_outputs = 1000001", "max_rules = -1", "rules = 5"] {
        let error = limits(&format!("\n[limits]\n{bad}\n")).expect_err(bad).to_string();
        assert!(error.starts_with("f:2:") || error.starts_with("f:3:"), "{error}");
    }
}

#[test]
fn options_of_the_packet_plane() {
    let text = r#"
        [packet]
        ring_mib = 4096
        [interface.eth0]
        receive = "block"
        ring_mib = 1
        qdisc_bypass = true
        [interface."eth0.10"]
        receive = "frame"
    "#;
    let options = parse_config("f", text).unwrap().packet.unwrap();
    let [eth0, vlan, eth1] = ["eth0", "eth0.10", "eth1"].map(|name| name.parse().unwrap());
    let block = InterfaceOptions { receive: Receive::Block, ring_mib: Some(1), qdisc_bypass: true };
    assert_eq!((options.interface(&eth0), options.ring_mib(&eth0)), (block, 1));
    assert_eq!(options.interfaces.keys().collect::<Vec<_>>(), [&eth0, &vlan]);
    for standard in [vlan, eth1] {
        assert_eq!(options.interface(&standard), InterfaceOptions::default());
        assert_eq!(options.ring_mib(&standard), 4096);
    }
    let packet = |text: &str| parse_config("f", text).unwrap().packet;
    assert_eq!(packet(""), None);
    assert_eq!(packet("[packet]"), Some(PacketOptions::default()));
    assert_eq!(packet("[interface.eth0]").map(|options| options.ring_mib), Some(64));
}

#[test]
fn mistakes_in_options_of_the_packet_plane_have_a_place() {
    let cases = [
        ("[packet]\nring_mib = 0", "2:12", "ring_mib = 0 is out of range (it goes from 1 to 4096)"),
        ("[packet]\nring_mib = -1", "2:12", ""),
        ("[packet]\nring = 1", "2:1", "unknown field `ring`"),
        ("[interface.eth0]\nring_mib = 4097", "2:12", "ring_mib = 4097"),
        ("[interface.eth0]\nreceive = \"frames\"", "2:11", "use one of: frame, block"),
        ("[interface.eth0]\nqdisc_bypass = \"yes\"", "2:16", "boolean"),
        ("[interface.eth0]\nttl = 3", "2:1", "unknown field `ttl`"),
        ("[interface.eth0.10]", "1:17", "unknown field `10`"),
        ("[interface]\neth0 = 3", "2:8", ""),
        ("\n[interface.\"eth0%x:\"]", "2:12", "eth0%x:"),
        ("[interface.a-name-of-16-byt]", "1:12", "a-name-of-16-byt"),
    ];
    for (text, place, message) in cases {
        let error = parse_config("f", text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("f:{place}: ")), "{text}\n{error}\nis not at {place}");
        assert!(error.contains(message), "{text}\n{error}\nlacks {message}");
    }
}

#[test]
fn metrics_by_tcp_have_an_address_of_the_host() {
    let metrics = |text: &str| parse_config("f", text).map(|config| config.metrics);
    assert_eq!(metrics(""), Ok(None));
    assert_eq!(metrics("[metrics]"), Ok(Some(MetricsOptions { listen: None })));
    for address in ["127.0.0.1:9464", "[::1]:9464", "0.0.0.0:1", "[::]:65535"] {
        let listen = Some(address.parse().unwrap());
        let text = format!("[metrics]\nlisten = {address:?}");
        assert_eq!(metrics(&text), Ok(Some(MetricsOptions { listen })));
    }
    for (listen, place, message) in [
        ("\"127.0.0.1\"", "2:10", "listen = \"127.0.0.1\" under [metrics]"),
        ("\"127.0.0.1\"", "2:10", "the port is missing"),
        ("\"127.0.0.1\"", "2:10", "as in 127.0.0.1:9464"),
        ("\"::1\"", "2:10", "the port is missing"),
        ("\"fe80::x:9464\"", "2:10", "stands in brackets"),
        ("\"localhost:9464\"", "2:10", "is no address to listen on"),
        ("\"127.0.0.1:0\"", "2:10", "port 0"),
        ("\"127.0.0.1:65536\"", "2:10", "is no address"),
        ("\"239.1.1.1:9464\"", "2:10", "a multicast group"),
        ("9464", "2:10", "expected a string"),
        ("\"127.0.0.1:9464\"\nport = 1", "3:1", "unknown field `port`"),
    ] {
        let text = format!("[metrics]\nlisten = {listen}");
        let error = metrics(&text).expect_err(&text).to_string();
        assert!(error.starts_with(&format!("f:{place}: ")), "{error}\nis not at {place}");
        assert!(error.contains(message), "{error}\nlacks {message}");
    }
}

#[test]
fn rules_of_a_file_are_checked_together_without_a_machine() {
    let rule = |input: &str, output: &str| {
        spec(json!({"input": input, "outputs": [output]})).check().unwrap()
    };
    let good = rule("239.1.1.1:5@eth0", "239.2.1.1:6@eth1");
    let ssm = rule("232.7.1.1:5@eth0", "239.2.1.1:6@eth1");
    assert_eq!(check_rules(std::slice::from_ref(&good)), Ok(vec![]));
    assert_eq!(check_rules(&[good.clone(), ssm]).map(|warnings| warnings.len()), Ok(3));
    let circle = rule("239.2.1.1:6@eth1", "keep@239.3.1.1:6@eth1");
    let back = rule("239.3.1.1:6@eth1", "keep@239.2.1.1:6@eth1");
    let cases = [
        (vec![good.clone(), good.clone()], Code::Conflict),
        (vec![good, rule("10.0.0.1@239.1.1.1:5@eth0", "239.3.1.1:6@eth1")], Code::Conflict),
        (vec![circle, back], Code::Conflict),
    ];
    for (rules, code) in cases {
        assert_eq!(check_rules(&rules).unwrap_err().1.code, code, "{rules:?}");
    }
}

#[test]
fn defaults_are_checked_where_they_stand() {
    for (option, value) in [("ttl", "999"), ("dscp", "\"ef\""), ("local", "\"maybe\"")] {
        let text = format!("[defaults]\n{option} = {value}\n");
        assert!(parse_config("f", &text).is_err(), "{text}");
    }
}

#[test]
fn outputs_of_the_command_line_read_back() {
    for text in [
        "239.10.1.1:6000@eth1",
        "239.10.1.1:6000@eth1,ttl=16",
        "10.0.0.1@239.10.1.1@eth1,ttl=keep,dscp=46",
        "keep@10.9.0.7:6000,ttl=decrement,dscp=keep",
    ] {
        let output: OutputSpec = text.parse().unwrap();
        assert_eq!(output.to_string(), text);
        assert_eq!(output.to_string().parse(), Ok(output));
    }
    for bad in ["239.10.1.1:6000@eth1,", "x,hops=3", "x,ttl", "x,TTL=3", "x, ttl=3"] {
        let refusal = bad.parse::<OutputSpec>().expect_err(bad);
        assert!(refusal.message.contains("is not an option"), "{refusal}");
        assert!(refusal.hint.contains(",ttl=N or ,dscp=N"), "{refusal}");
    }
}

#[test]
fn an_option_given_twice_is_refused() {
    assert!("239.10.1.1:6000@eth1,ttl=16,ttl=17".parse::<OutputSpec>().is_err());
}

fn valid_rule() -> impl Strategy<Value = Rule> {
    let ttl = prop_oneof![
        Just(Ttl::Keep),
        Just(Ttl::Decrement),
        Just(Ttl::default()),
        (1..=255u8).prop_map(|ttl| Ttl::Set(ttl.try_into().unwrap())),
    ];
    let dscp = prop_oneof![Just(Dscp::Keep), (0..64u8).prop_map(Dscp::Set)];
    let source = prop_oneof![Just(""), Just("keep@"), Just("10.0.0.1@"), Just("10.0.0.1:7@")];
    let output = (source, 0..99u8, proptest::option::of(1..9u16), ttl, dscp);
    let places = proptest::collection::vec(output, 1..5);
    let name = proptest::option::of("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
    let comment = proptest::option::of("[^\\p{Cc}]{0,40}");
    let sources = proptest::collection::vec(any::<u8>(), 0..3);
    let local = prop_oneof![Just(Local::Auto), Just(Local::Yes), Just(Local::No)];
    let rate = prop_oneof![Just("1pps"), Just("5kpps"), Just("1001bit"), Just("20mbit")];
    let max_rate = proptest::option::of(rate.prop_map(|rate| rate.parse().unwrap()));
    let time = (1_000..86_400_000u64).prop_map(|ms| Silence::After(Duration::from_millis(ms)));
    let silence = prop_oneof![Just(Silence::Never), Just(Silence::default()), time];
    let inspect = proptest::option::of(proptest::sample::select(&Inspect::ALL[..]));
    let watch = (silence, inspect);
    let options = (any::<bool>(), local, any::<bool>(), max_rate, watch);
    let rule = (name, comment, sources, places, options);
    rule.prop_map(|(name, comment, sources, places, options)| {
        let (enabled, local, join, max_rate, (silence, inspect)) = options;
        let mut input: Input = "232.1.1.1:5000@eth0".parse().unwrap();
        input.sources = sources.iter().map(|n| [10, 0, 0, *n].into()).collect();
        input.sources.sort_unstable();
        input.sources.dedup();
        let outputs =
            places.into_iter().enumerate().map(|(n, (source, group, port, ttl, dscp))| {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                let to = format!("{source}239.{n}.1.{group}{port}@eth1").parse().unwrap();
                Output { to, ttl, dscp }
            });
        let outputs = outputs.collect();
        let rule = Rule {
            name,
            comment,
            input,
            outputs,
            enabled,
            local,
            join,
            max_rate,
            silence,
            inspect,
        };
        rule.check().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rendered_config_reads_back_as_the_same_rules(
        rules in proptest::collection::vec(valid_rule(), 0..4),
    ) {
        let specs: Vec<RuleSpec> = rules.iter().map(RuleSpec::from).collect();
        let text = render_config(specs.iter());
        prop_assert_eq!(parse_config("saved", &text).map(|c| c.rules).map_err(|e| format!("{e}\n{text}")), Ok(rules));
    }

    #[test]
    fn a_rule_reads_back_from_json(rule in valid_rule()) {
        let text = serde_json::to_string(&RuleSpec::from(&rule)).unwrap();
        let back: RuleSpec = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.check(), Ok(rule));
    }

    #[test]
    fn an_output_reads_back_from_the_command_line(rule in valid_rule()) {
        for output in RuleSpec::from(&rule).outputs {
            prop_assert_eq!(output.to_string().parse(), Ok(output));
        }
    }

    #[test]
    fn no_config_makes_the_parser_panic(text in "(\\[\\[rule\\]\\]|input|outputs|to|=|\\{|\\}|\"|\n|ä| |1){0,30}") {
        let _ = parse_config("f", &text);
    }
}
