use clap::Parser;
use serde_json::json;

use super::*;
use crate::args::Line;

/// Two rules, one with a name.
fn two_rules() -> RuleList {
    let view = |name: &str, named: bool, rule: serde_json::Value| json!({"name": name, "named": named, "origin": "file", "state": "idle", "rule": rule});
    let a = json!({"name": "a", "comment": "one", "input": "239.1.1.1:5000@eth0",
        "outputs": ["239.2.1.1:6000@eth1", {"to": "239.2.1.2:6000@eth1", "ttl": 8, "dscp": 46}]});
    let b = json!({"input": "239.1.1.2:5000@eth0", "outputs": ["239.2.1.3:6000@eth1"]});
    let rules = [view("a", true, a), view("239.1.1.2:5000@eth0", false, b)];
    serde_json::from_value(json!({"generation": 7, "rules": rules})).unwrap()
}

/// The steps of commands, as JSON.
fn steps(lines: &[&str]) -> Result<serde_json::Value, Refusal> {
    let mut draft = Draft::new(two_rules());
    for line in lines {
        let words = shell_words::split(line).unwrap();
        draft.make(&Line::try_parse_from(words).unwrap().change)?;
    }
    Ok(serde_json::to_value(draft.steps()).unwrap())
}

/// The one rule that a command makes of `a`.
fn a_after(line: &str) -> serde_json::Value {
    let steps = steps(&[line]).unwrap();
    assert_eq!(steps.as_array().unwrap().len(), 1, "{steps}");
    assert_eq!(steps[0]["replace"]["name"], "a");
    steps[0]["replace"]["rule"].clone()
}

#[test]
fn a_new_rule_has_the_options_of_the_command_line() {
    let added = steps(&["add 239.1.1.9:5000@eth0 239.2.1.9:1@eth1 239.2.1.8:1@eth1,ttl=4,dscp=0 \
                         --name n --ttl keep --dscp 46 --comment 'studio A' --local no --join no \
                         --max-rate 5000pps --disabled --wait"]);
    let expected = json!([{"add": {"name": "n", "comment": "studio A", "local": "no", "join": "no",
        "max_rate": "5kpps", "input": "239.1.1.9:5000@eth0", "enabled": false, "outputs": [
            {"to": "239.2.1.9:1@eth1", "ttl": "keep", "dscp": 46},
            {"to": "239.2.1.8:1@eth1", "ttl": 4, "dscp": 0}]}}]);
    assert_eq!(added, Ok(expected));
}

#[test]
fn set_changes_what_it_names_and_nothing_else() {
    let unchanged = serde_json::to_value(&two_rules().rules[0].rule).unwrap();
    for (options, key, value) in [
        ("--name c", "name", json!("c")),
        ("--name ''", "name", json!(null)),
        ("--comment two", "comment", json!("two")),
        ("--comment ''", "comment", json!(null)),
        ("--input 239.1.1.3:5000@eth0", "input", json!("239.1.1.3:5000@eth0")),
        ("--local yes", "local", json!("yes")),
        ("--join no", "join", json!("no")),
        ("--max-rate 20mbit", "max_rate", json!("20mbit")),
        (
            "--output 239.3.1.1:1@eth1 --output 239.3.1.2:1@eth1,ttl=2 --ttl 3",
            "outputs",
            json!([{"to": "239.3.1.1:1@eth1", "ttl": 3}, {"to": "239.3.1.2:1@eth1", "ttl": 2}]),
        ),
        (
            "--ttl keep",
            "outputs",
            json!([{"to": "239.2.1.1:6000@eth1", "ttl": "keep"},
                {"to": "239.2.1.2:6000@eth1", "ttl": "keep", "dscp": 46}]),
        ),
    ] {
        let mut expected = unchanged.clone();
        let fields = expected.as_object_mut().unwrap();
        fields.insert(key.into(), value.clone());
        fields.retain(|_, value| !value.is_null());
        assert_eq!(a_after(&format!("set a {options}")), expected, "{options}");
    }
}

#[test]
fn an_input_takes_the_place_of_its_sources() {
    let mut list = two_rules();
    list.rules[0].rule.sources = vec!["10.0.0.1".into(), "10.0.0.2".into()];
    let mut draft = Draft::new(list);
    let line = Line::try_parse_from(["set", "a", "--input", "10.0.0.3@239.1.1.1:5000@eth0"]);
    draft.make(&line.unwrap().change).unwrap();
    let Step::Replace { rule, .. } = &draft.steps()[0] else { panic!("{draft:?}") };
    assert_eq!(rule.input, "10.0.0.3@239.1.1.1:5000@eth0");
    assert_eq!(rule.sources, Vec::<String>::new());
}

#[test]
fn a_rate_is_taken_away_by_none() {
    let mut list = two_rules();
    list.rules[0].rule.max_rate = Some("20mbit".into());
    for (options, left) in [("--max-rate none", None), ("--ttl 3", Some("20mbit".to_owned()))] {
        let mut draft = Draft::new(list.clone());
        let words = shell_words::split(&format!("set a {options}")).unwrap();
        draft.make(&Line::try_parse_from(words).unwrap().change).unwrap();
        let Step::Replace { rule, .. } = &draft.steps()[0] else { panic!("{draft:?}") };
        assert_eq!(rule.max_rate, left, "{options}");
    }
}

#[test]
fn inputs_and_outputs_of_every_kind_are_taken() {
    for (line, input, output) in [
        (
            "add [ff3e::8000:1]:5000@eth0 [ff35::1]:6000@eth1",
            "[ff3e::8000:1]:5000@eth0",
            "[ff35::1]:6000@eth1",
        ),
        ("add 239.1.1.9:5000@eth0 10.9.0.7:6000", "239.1.1.9:5000@eth0", "10.9.0.7:6000"),
        ("add 10.0.0.9:5000@eth0 239.2.1.9:6000@wg0", "10.0.0.9:5000@eth0", "239.2.1.9:6000@wg0"),
        (
            "add 239.9.1.0/24:5000-5015@eth0 239.8.1.0/24@eth1",
            "239.9.1.0/24:5000-5015@eth0",
            "239.8.1.0/24@eth1",
        ),
    ] {
        let expected = json!([{"add": {"input": input, "outputs": [output]}}]);
        assert_eq!(steps(&[line]), Ok(expected), "{line}");
    }
}

#[test]
fn several_sources_are_a_list() {
    let steps = steps(&["add 10.0.0.2,10.0.0.1@232.1.1.1:5000@eth0 10.1.0.1@232.2.1.1:6000@eth1"]);
    let rule = json!({"input": "232.1.1.1:5000@eth0", "sources": ["10.0.0.1", "10.0.0.2"],
        "outputs": ["10.1.0.1@232.2.1.1:6000@eth1"]});
    assert_eq!(steps, Ok(json!([{"add": rule}])));
}

#[test]
fn outputs_are_added_and_removed_by_their_destination() {
    let rule = a_after("output add a 239.2.1.7:6000@eth1,ttl=2 239.2.1.8:6000@eth1");
    let outputs = rule["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 4);
    assert_eq!(
        outputs[2..],
        [json!({"to": "239.2.1.7:6000@eth1", "ttl": 2}), json!("239.2.1.8:6000@eth1")]
    );
    for spelling in ["239.2.1.2:6000@eth1", "239.2.1.2/32:6000-6000@eth1,ttl=99"] {
        let rule = a_after(&format!("output remove a {spelling}"));
        assert_eq!(rule["outputs"], json!(["239.2.1.1:6000@eth1"]));
    }
}

#[test]
fn rules_are_found_by_any_spelling_of_their_input() {
    for name in ["239.1.1.2:5000@eth0", "239.1.1.2/32:5000-5000@eth0"] {
        let steps = steps(&[&format!("disable {name}")]).unwrap();
        assert_eq!(steps[0]["replace"]["name"], "239.1.1.2:5000@eth0");
        assert_eq!(steps[0]["replace"]["rule"]["enabled"], false);
    }
}

#[test]
fn what_is_so_already_makes_no_step() {
    for line in [
        "enable a 239.1.1.2:5000@eth0",
        "set a --comment one",
        "set a --local auto --join yes",
        "set 239.1.1.2:5000@eth0 --ttl 32 --dscp keep",
        "set a --name a --input 239.1.1.1:5000@eth0",
    ] {
        assert_eq!(steps(&[line]), Ok(json!([])), "{line}");
    }
}

#[test]
fn later_lines_see_what_earlier_ones_did() {
    let steps = steps(&[
        "set a --name tmp",
        "set 239.1.1.2:5000@eth0 --name a",
        "disable tmp",
        "remove a",
        "add 239.1.1.2:5000@eth0 239.2.1.4:6000@eth1 --name a",
        "output add a 239.2.1.5:6000@eth1",
    ]);
    let steps = steps.unwrap();
    let kinds: Vec<&str> = steps
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step.as_object().unwrap().keys().next().unwrap().as_str())
        .collect();
    assert_eq!(kinds, ["replace", "replace", "replace", "remove", "add", "replace"]);
    assert_eq!(steps[2]["replace"]["name"], "tmp");
    assert_eq!(
        steps[5]["replace"]["rule"]["outputs"],
        json!(["239.2.1.4:6000@eth1", "239.2.1.5:6000@eth1"])
    );
}

#[test]
fn what_cannot_be_is_refused() {
    for (line, message) in [
        ("set x --ttl 3", "there is no rule x"),
        ("enable a x", "there is no rule x"),
        ("remove a a", "there is no rule a"),
        ("add 239.1.1.9:5@eth0 239.2.1.1:6@eth1 --name a", "there is a rule a already"),
        ("add 239.1.1.2:5000@eth0 239.2.1.1:6@eth1", "a rule 239.1.1.2:5000@eth0 already"),
        ("set a --name ''  --input 239.1.1.2:5000@eth0", "a rule 239.1.1.2:5000@eth0 already"),
        ("add 239.1.1.9:5@eth0 239.2.1.1:6@eth1,tll=3", "\"tll=3\" is not an option"),
        ("set a --ttl 0", "ttl = 0 is not a time to live"),
        ("set a --dscp 64", "dscp = 64 is not a code point"),
        ("set a --max-rate 5000", "max_rate = \"5000\" is not a rate"),
        ("add 239.1.1.9:5@eth0 [ff3e::1]:6@eth1", "are of different families"),
        ("add 239.0.0.0/9:5@eth0 239.128.0.0/9@eth1", "are the most of a rule"),
        ("add 239.1.0.0/16:5@eth0 239.2.0.0/24@eth1 --join no", "have different sizes"),
        ("add 10.0.0.1@10.0.0.9:5@eth0 239.2.1.1:6@eth1", "a source list on a unicast input"),
        ("set a --input [ff02::1]:5@eth0", "is a link-local group"),
        ("set a --name 'x y'", "is not a rule name"),
        ("output add a 239.2.1.1:6000@eth1", "is there twice"),
        ("output remove a 239.2.1.3:6000@eth1", "rule a has no output 239.2.1.3:6000@eth1"),
        ("output remove a 239.2.1.1", "rule a has no output 239.2.1.1"),
        ("output remove a nonsense", "output nonsense: "),
        (
            "output remove 239.1.1.2:5000@eth0 239.2.1.3:6000@eth1",
            "rule 239.1.1.2:5000@eth0 would have no outputs",
        ),
    ] {
        let refusal = steps(&[line]).expect_err(line);
        assert!(refusal.message.contains(message), "{line}: {refusal}");
    }
}
