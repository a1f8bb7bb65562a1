//! Faults of rules and of their packets.

use super::*;
use crate::rule::Ttl;
use crate::verdict::{OutputDrop, RuleDrop};

#[test]
fn a_rule_that_does_not_run_says_why() {
    use Level::{Problem, Warning};
    flips(Problem, Topic::RuleState, &["a: failed: verifier", "report it"], |e| {
        e.rules[0].facts.state = State::Failed;
        e.rules[0].facts.problem = Some(Refusal::new(Code::Plane, "verifier", "report it"));
    });
    flips(Warning, Topic::RuleState, &["a: is disabled", "mcrctl enable a"], |e| {
        e.rules[0].facts.state = State::Disabled;
    });
    flips(Problem, Topic::Route, &["a to 10.0.1.2:6000", "unreachable"], |e| {
        let query = RouteQuery { destination: ip("10.0.1.2"), interface: None };
        e.links.routes.insert(query, Route::None("unreachable".into()));
    });
    flips(Problem, Topic::Route, &["a to 10.0.1.2:6000", "has not answered"], |e| {
        e.links.neighbours.clear();
    });
}

#[test]
fn where_the_stream_is_instead_is_said() {
    use Level::Problem;
    let told = |words: &[&str], datagrams: &[Datagram]| {
        flips(Problem, Topic::Sender, words, |e| idle(e, datagrams));
    };
    told(&["a: no packet to 239.1.1.1", "(watched for 3s); none has come yet"], &[]);
    told(
        &["port 5002", "wants 5000", "mcrctl set a --input 239.1.1.1:5002@eth0"],
        &[Datagram { port: 5002, ..UDP }],
    );
    told(
        &["comes on eth1 from 10.0.0.1", "--input 239.1.1.1:5000@eth1"],
        &[Datagram { interface: ETH1, ..UDP }],
    );
    told(&["VLAN 10", "eth0.10"], &[Datagram { tag: Some(10), ..UDP }]);
    told(&["this host itself sends it by eth0"], &[Datagram { outgoing: true, ..UDP }]);
    flips(Problem, Topic::Sender, &["the last packet came 1m 30s ago"], |e| {
        idle(e, &[Datagram { to: [239, 1, 1, 2], ..UDP }]);
        e.rules[0].facts.quiet = Some(Duration::from_millis(90_500));
    });
}

#[test]
fn what_is_to_be_changed_keeps_the_sources() {
    let told = |words: &[&str], datagram| {
        flips(Level::Problem, Topic::Sender, words, |e| {
            e.rules[0] = rule("a", "10.0.0.1@232.1.1.1:5000@eth0", &["239.10.1.1:6000@eth1"]);
            change_facts(e, "eth0", |f| f.groups.as_mut().unwrap().extend([ip("232.1.1.1")]));
            idle(e, &[Datagram { to: [232, 1, 1, 1], ..datagram }]);
        });
    };
    told(&["--input 10.0.0.1@232.1.1.1:5002@eth0,"], Datagram { port: 5002, ..UDP });
    told(&["--input 10.0.0.1@232.1.1.1:5000@eth1"], Datagram { interface: ETH1, ..UDP });
    told(&["--input 10.0.0.1@232.1.1.1:5000@eth0.10"], Datagram { tag: Some(10), ..UDP });
}

#[test]
fn senders_that_a_rule_names_may_be_mixed() {
    let mut evidence = healthy();
    let input = "10.0.0.1,10.0.0.7@239.1.1.1:5000@eth0";
    evidence.rules[0] = rule("a", input, &["239.10.1.1:6000@eth1"]);
    see(&mut evidence, &Datagram { from: [10, 0, 0, 7], ..UDP });
    assert!(judge(&evidence).iter().all(|check| check.level == Level::Ok));
}

#[test]
fn senders_that_are_not_meant_are_named() {
    use Level::{Problem, Warning};
    let sourced = |e: &mut Evidence| {
        e.rules[0] = rule("a", "10.0.0.9@239.1.1.1:5000@eth0", &["239.10.1.1:6000@eth1"]);
    };
    let words =
        ["10.0.0.1 sends to it, and", "from 10.0.0.9 alone", "10.0.0.1@239.1.1.1:5000@eth0"];
    flips(Problem, Topic::Source, &words, |e| {
        sourced(e);
        idle(e, &[UDP]);
    });
    let mut evidence = healthy();
    sourced(&mut evidence);
    see(&mut evidence, &Datagram { from: [10, 0, 0, 9], ..UDP });
    assert!(judge(&evidence).iter().all(|check| check.level == Level::Ok), "another does no harm");
    flips(Warning, Topic::Source, &["RFC 4607", "10.0.0.1@232.1.1.1:5000@eth0"], |e| {
        e.rules[0] = rule("a", "232.1.1.1:5000@eth0", &["239.10.1.1:6000@eth1"]);
        change_facts(e, "eth0", |f| f.groups.as_mut().unwrap().extend([ip("232.1.1.1")]));
        see(e, &Datagram { to: [232, 1, 1, 1], ..UDP });
    });
    flips(Warning, Topic::SecondSender, &["10.0.0.1, 10.0.0.7"], |e| {
        see(e, &Datagram { from: [10, 0, 0, 7], ..UDP });
    });
    flips(Warning, Topic::Duplicates, &["1 of 2 packets"], |e| see(e, &UDP));
}

#[test]
fn a_ttl_that_does_not_last_is_told() {
    let with = |e: &mut Evidence, ttl, arriving| {
        e.rules[0].facts.rule.outputs[0].ttl = ttl;
        see(e, &Datagram { ttl: arriving, size: 999, ..UDP });
    };
    flips(Level::Problem, Topic::Ttl, &["TTL 1", "decrement", "--ttl 32"], |e| {
        with(e, Ttl::Decrement, 1);
    });
    flips(Level::Warning, Topic::Ttl, &["TTL 1", "keep"], |e| with(e, Ttl::Keep, 1));
    for (ttl, arriving) in [(Ttl::Decrement, 2), (Ttl::default(), 1)] {
        let mut evidence = healthy();
        with(&mut evidence, ttl, arriving);
        assert!(
            judge(&evidence).iter().all(|check| check.level == Level::Ok),
            "{ttl:?} {arriving}"
        );
    }
}

#[test]
fn a_second_relay_is_seen() {
    let out = Datagram {
        interface: ETH1,
        outgoing: true,
        from: [10, 0, 1, 1],
        to: [239, 10, 1, 1],
        port: 6000,
        ..UDP
    };
    let mut evidence = healthy();
    see(&mut evidence, &out);
    assert!(judge(&evidence).iter().all(|check| check.level == Level::Ok), "that is our own");
    let words = ["a to 239.10.1.1:6000@eth1", "10.0.1.9", "receivers get both"];
    let flipped = |words: &[&str], datagram| {
        flips(Level::Warning, Topic::SecondRelay, words, |e| see(e, &datagram));
    };
    flipped(&words, Datagram { outgoing: false, from: [10, 0, 1, 9], ..out });
    flipped(&words, Datagram { from: [10, 0, 1, 9], ..out });
    flipped(&["come back"], Datagram { outgoing: false, ..out });
}

#[test]
fn drops_that_grow_are_named_by_the_main_reason() {
    flips(Level::Problem, Topic::Drops, &["a: 30 packets dropped in 3s as ttl-expired"], |e| {
        e.rules[0].facts.counters.dropped[RuleDrop::Rate as usize] = 10;
        e.rules[0].facts.outputs[0].dropped[OutputDrop::TtlExpired as usize] = 30;
    });
    let mut evidence = healthy();
    let facts = &mut evidence.rules[0].facts;
    facts.counters.dropped[RuleDrop::Own as usize] = 10;
    facts.outputs[0].dropped[OutputDrop::Mtu as usize] = 30;
    let outputs = facts.outputs.clone();
    evidence.rules[0].before = Some((RuleCounters::default(), outputs));
    assert!(judge(&evidence).iter().all(|check| check.level == Level::Ok), "those are past");
}

#[test]
fn what_cannot_be_watched_is_unknown_and_the_rest_is_judged() {
    let mut evidence = healthy();
    evidence.seen = Err("no CAP_NET_RAW".into());
    evidence.heard = Err("no CAP_NET_RAW".into());
    change_link(&mut evidence, "eth1", |link| link.up = false);
    let checks = judge(&evidence);
    let unknown = checks.iter().filter(|check| check.level == Level::Unknown);
    let unknown: BTreeSet<Topic> = unknown.map(|check| check.topic).collect();
    for topic in [Topic::Sender, Topic::Ttl, Topic::Querier, Topic::QueriesAnswered] {
        assert!(unknown.contains(&topic), "{topic:?}");
    }
    assert_eq!((checks[0].level, checks[0].topic), (Level::Problem, Topic::InterfaceState));
}
