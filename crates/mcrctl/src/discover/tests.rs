use serde_json::{Value, json};

use super::*;

fn stream(group: &str, source: &str, more: Value) -> Value {
    let mut stream = json!({
        "interface": "eth0", "group": group, "port": 5000, "source": source,
        "received": {"packets": 6000, "bytes": 7_896_000},
        "rate": {"packets": 2000, "bits": 21_056_000},
        "ttl": {"min": 8, "max": 8}, "size": {"min": 1316, "max": 1316}, "ts": false,
        "pass": "no-rule",
    });
    let (Value::Object(all), Value::Object(more)) = (&mut stream, more) else { panic!() };
    all.extend(more);
    if all.contains_key("rule") {
        all.remove("pass");
    }
    stream
}

fn found(streams: Vec<Value>) -> Discovery {
    let found = json!({"interfaces": ["eth0", "eth1"], "seconds": 3.0, "streams": streams,
        "left_out": {"link-local": 12, "too-many": 1}, "missed": 7});
    serde_json::from_value(found).unwrap()
}

/// One of each kind.
fn all() -> Discovery {
    let rtp = json!({"payload_type": 33, "ssrc": 0x00ab_cdef});
    found(vec![
        stream("232.1.1.1", "10.0.0.1", json!({})),
        stream("232.1.1.1", "10.0.0.2", json!({"ttl": {"min": 3, "max": 8}})),
        stream("239.1.1.1", "10.0.0.1", json!({"rule": "camera-1", "state": "forwarding"})),
        stream("239.1.1.2", "10.0.0.1", json!({"rule": "off", "state": "disabled", "ts": true})),
        stream("239.1.1.3", "10.0.0.1", json!({"rtp": rtp, "ts": true})),
        stream("239.1.1.3", "10.0.0.3", json!({"rtp": rtp, "port": 5000})),
        stream("239.1.1.4", "10.0.0.1", json!({"rule": "one", "state": "idle"})),
        stream("239.1.1.4", "10.0.0.9", json!({"pass": "other-source"})),
        stream("239.1.1.5", "10.1.0.1", json!({"pass": "own"})),
        stream("239.1.1.6", "10.0.0.1", json!({"vlan": 10, "pass": "tagged"})),
        stream("239.1.1.7", "10.0.0.1", json!({"port": 0, "fragments": 3})),
        stream("ff15::1", "fd00::1", json!({"port": 6000})),
        stream("239.1.1.1", "10.0.0.1", json!({"interface": "eth1"})),
    ])
}

#[test]
fn streams_are_a_table_with_what_it_does_not_show() {
    insta::assert_snapshot!(show::discovery(&all()));
    let mut plain = found(vec![stream("239.1.1.1", "10.0.0.1", json!({}))]);
    (plain.missed, plain.left_out) = (0, Default::default());
    let text = show::discovery(&plain);
    assert!(!text.contains("VLAN"), "{text}");
    assert!(text.ends_with("\n\n1 stream on eth0, eth1 in 3 s, 0 with a rule\n"), "{text}");
    plain.streams.clear();
    assert_eq!(show::discovery(&plain), "0 streams on eth0, eth1 in 3 s, 0 with a rule\n");
}

#[test]
fn rules_are_commands_for_what_no_rule_takes() {
    let text = rules::rules(&all(), &"eth1".parse().unwrap());
    insta::assert_snapshot!(text);
    let taken = found(vec![stream("239.1.1.1", "10.0.0.1", json!({"rule": "a", "state": "idle"}))]);
    let text = rules::rules(&taken, &"eth1".parse().unwrap());
    assert_eq!(text, "# no stream without a rule\n");
}
