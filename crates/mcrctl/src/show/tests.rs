use insta::assert_snapshot;
use mcr_core::api::{Change, RuleList, Setting, Stats, Status};
use mcr_core::rule::Ttl;
use serde_json::{Value, json};

use super::*;

fn three_rules() -> RuleList {
    let a = json!({"name": "camera-1", "comment": "studio A to the gallery",
        "input": "232.1.1.1:5000@eth0", "sources": ["10.0.0.1", "10.0.0.2"], "local": "no",
        "outputs": [{"to": "239.10.1.1:6000@eth1", "ttl": 16, "dscp": 46}, "10.9.0.7:6000"]});
    let b = json!({"input": "239.1.1.2:5000@eth9", "join": "no",
        "outputs": [{"to": "keep@239.10.1.2@eth1", "ttl": "decrement"}]});
    let c = json!({"name": "old", "input": "239.1.1.3:5000@eth0", "enabled": false,
        "outputs": ["239.10.1.3:6000@eth1"]});
    let rules = json!([
        {"name": "camera-1", "named": true, "origin": "file", "state": "forwarding",
         "warnings": ["local = \"no\" has no effect: use the ebpf plane"], "rule": a},
        {"name": "239.1.1.2:5000@eth9", "named": false, "origin": "runtime", "state": "waiting",
         "reason": "input 239.1.1.2:5000@eth9: there is no interface eth9 (see `ip link`)",
         "rule": b},
        {"name": "old", "named": true, "origin": "runtime", "state": "disabled", "rule": c},
    ]);
    read(json!({"generation": 3, "rules": rules}))
}

fn rules_with_many_sources() -> RuleList {
    let sources = |network: &str| (1..=12).map(|n| format!("{network}{n}")).collect::<Vec<_>>();
    let view = |named: bool, input: &str, sources: Vec<String>, output: &str| {
        let mut rule = json!({"input": input, "sources": sources, "outputs": [output]});
        if named {
            rule["name"] = json!("desk");
            rule["max_rate"] = json!("5kpps");
        }
        json!({"name": "desk", "named": named, "origin": "runtime", "state": "idle", "rule": rule})
    };
    let (v4, v6) = ("232.1.1.1:5000@eth0", "[ff3e::1]:5000@eth0");
    read(json!({"generation": 3, "rules": [
        view(true, v4, sources("10.0.0."), "10.9.0.7:6000"),
        view(true, v6, sources("2001:db8::"), "[2001:db8:9::7]:6000"),
        view(false, v4, sources("10.0.0."), "239.2.1.1:6000@eth1"),
    ]}))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn count(packets: u64) -> Value {
    json!({"packets": packets, "bytes": packets * 1024})
}

fn two_counted() -> Stats {
    let output = |to: &str, offered: u64, forwarded: u64, dropped: Value| {
        json!({"to": to, "since": "2026-01-01T00:00:00Z", "offered": count(offered),
            "forwarded": count(forwarded), "dropped": dropped, "interface_dropped": 12})
    };
    let outputs = [
        output("239.10.1.1:6000@eth1", 1_999_000, 1_998_990, json!({"mtu": 8, "queue-full": 2})),
        output("10.9.0.7:6000", 9, 9, json!({})),
    ];
    read(json!({"time": "2026-01-01T00:00:09Z", "boot_id": "1-2", "rules": [
        {"name": "camera-1", "state": "forwarding", "since": "2026-01-01T00:00:00Z",
         "last_packet": "2026-01-01T00:00:08Z", "received": count(2_000_000),
         "matched": count(1_999_000), "dropped": {"own": 900, "from-the-future": 100},
         "rate": {"packets": 2000, "bits": 16_384_000}, "outputs": outputs,
         "senders": [{"address": "10.0.0.1", "packets": 1_999_000, "last_seen": "2026-01-01T00:00:08Z"},
            {"address": "10.0.0.3", "packets": 100, "last_seen": "2026-01-01T00:00:03Z"}]},
        {"name": "239.1.1.2:5000@eth9", "state": "failed", "reason": "no more memberships",
         "since": "2026-01-01T00:00:00Z", "received": count(0), "matched": count(0), "dropped": {},
         "rate": {"packets": 0, "bits": 0},
         "outputs": [output("239.10.1.2:6000@eth1", 0, 0, json!({}))]},
    ]}))
}

fn running() -> Value {
    json!({"version": "0.1.0", "instance": "mcr", "pid": 4242, "since": "2026-01-01T00:00:00Z",
        "boot_id": "18a-1092", "plane": "ebpf", "attach": "tcx", "generation": 17,
        "states": {"disabled": 1, "failed": 0, "forwarding": 2, "idle": 1, "waiting": 0},
        "rules_in_no_file": 2, "rules_max": 4096, "outputs_max": 16384, "membership_sockets": 1,
        "interfaces": [
            {"name": "eth0", "index": 2, "groups": 3, "passed": {"no-rule": 7, "tagged": 1}},
            {"name": "eth0.10", "index": 12, "groups": 1, "passed": {}}],
        "program": {"runs": 1000, "nanoseconds": 215_400}})
}

#[test]
fn many_sources_and_a_rate() {
    let list = rules_with_many_sources();
    assert_snapshot!(format!("{}\n{}", super::list(&list), rules(&list)));
}

#[test]
fn rules_in_a_list() {
    assert_snapshot!(list(&three_rules()));
    assert_eq!(list(&RuleList { generation: 1, rules: Vec::new() }), "no rules\n");
}

#[test]
fn rules_in_full() {
    assert_snapshot!(rules(&three_rules()));
    assert_eq!(Ttl::Set(DEFAULT_TTL.parse().unwrap()), Ttl::default());
}

#[test]
fn counters_with_drops() {
    assert_snapshot!(stats(&two_counted()));
}

#[test]
fn counters_without_drops() {
    let mut counted = two_counted();
    counted.rules.remove(0);
    counted.rules[0].outputs[0].interface_dropped = 0;
    assert_snapshot!(stats(&counted));
    counted.rules.clear();
    assert_eq!(stats(&counted), "no rules\n");
}

#[test]
fn the_counters_of_one_rule_with_its_senders() {
    let mut counted = two_counted();
    counted.rules.truncate(1);
    assert_snapshot!(stats(&counted));
}

#[test]
fn the_status_with_losses() {
    let mut value = running();
    value["interfaces"][0]["lost_before"] = json!({"nic-missed": 5, "ring": 3, "of-later": 1});
    value["softnet_dropped"] = json!(12);
    assert_snapshot!(status(&read::<Status>(value)));
}

#[test]
fn the_status() {
    assert_snapshot!(status(&read::<Status>(running())));
}

#[test]
fn the_status_of_a_daemon_without_rules() {
    let mut value = running();
    for (key, empty) in [
        ("states", json!({"idle": 0})),
        ("rules_in_no_file", json!(0)),
        ("interfaces", json!([])),
        ("program", json!(null)),
    ] {
        value[key] = empty;
    }
    assert_snapshot!(status(&read::<Status>(value)));
}

/// Two workers, of which one waits after an end.
fn running_on_workers() -> Value {
    let ring = |interface: &str, dropped: u64| {
        json!({"interface": interface, "receive": "frame", "slots": 32768, "slot_bytes": 2048,
            "bytes": 64 << 20, "copy_buffer": 425_984, "dropped": dropped})
    };
    let send = |interface: &str, granted: u64, bypass: bool| {
        json!({"interface": interface, "asked": 16 << 20, "granted": granted,
            "qdisc_bypass": bypass})
    };
    let block = json!({"interface": "eth1", "receive": "block", "slots": 128,
        "slot_bytes": 1 << 20, "bytes": 128 << 20, "copy_buffer": 425_984, "dropped": 0});
    let sends = [send("eth2", 16 << 20, false), send("eth3", 425_984, true)];
    let workers = json!([
        {"worker": 1, "state": "running", "since": "2026-01-01T00:00:00Z", "pid": 4243, "cpu": 0,
         "restarts": 0, "rings": [ring("eth0", 3), block], "send_buffers": sends},
        {"worker": 2, "state": "waiting", "since": "2026-01-01T00:00:07Z", "cpu": 1,
         "restarts": 2, "last_error": "killed by signal 9", "rings": [ring("eth0", 4)],
         "send_buffers": sends},
    ]);
    let mut value = running();
    for (key, other) in [
        ("plane", json!("packet")),
        ("attach", json!("fanout")),
        ("why", json!("the ebpf plane cannot run: no BPF file system at /sys/fs/bpf")),
        ("program", json!(null)),
        ("workers", workers),
    ] {
        value[key] = other;
    }
    value
}

#[test]
fn the_status_with_workers() {
    assert_snapshot!(status(&read::<Status>(running_on_workers())));
}

#[test]
fn each_worker() {
    let Status { mut workers, .. } = read(running_on_workers());
    assert_snapshot!(super::workers(&workers));
    workers.truncate(1);
    workers[0].rings.clear();
    workers[0].send_buffers.clear();
    assert_eq!(super::workers(&workers).lines().count(), 2);
    assert_eq!(super::workers(&[]), "no workers\n");
}

#[test]
fn changes() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let change = Change {
        added: names(&["a", "b"]),
        replaced: names(&["c"]),
        removed: names(&["d"]),
        ..Change::default()
    };
    assert_eq!(done(&change), "added a, b\nchanged c\nremoved d\n");
    assert_eq!(difference(&change, false), "+ a\n+ b\n~ c\n- d\n2 added, 1 changed, 1 removed\n");
    assert!(difference(&change, true).ends_with("\nwould be 2 added, 1 changed, 1 removed\n"));
    for text in [done(&Change::default()), difference(&Change::default(), true)] {
        assert_eq!(text, "nothing to change\n");
    }
}

#[test]
fn an_output_setting_is_shown_as_it_is_written() {
    let shown = |setting: Setting| setting.to_string();
    assert_eq!(shown(Setting::Number(9)), "9");
    assert_eq!(shown(Setting::Word("keep".into())), "keep");
}
