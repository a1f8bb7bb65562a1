//! Who sends to a rule, and what is lost before a rule can claim it.

use std::fs::{self, File};

use serde_json::{Value, json};

use crate::lab::{Lab, Plane, can_run, run, wait_for};

const OUTPUT: &str = "239.10.1.1:6001@veth2";

/// Address and packets of each sender of a rule, the latest first.
fn senders(stats: &Value) -> Vec<(String, u64)> {
    let one = |sender: &Value| {
        let address = sender["address"].as_str().unwrap().to_owned();
        (address, sender["packets"].as_u64().unwrap())
    };
    stats["senders"].as_array().unwrap().iter().map(one).collect()
}

fn send(lab: &Lab, group: &str, source: &str, count: u64) {
    lab.send(&format!(
        "--group {group} --port 5001 --source {source} --count {count} --rate 1000 --size 100"
    ));
}

pub(crate) fn the_last_four_senders_are_counted(plane: Plane) {
    let lab = Lab::chain(plane);
    for host in 3..=6 {
        lab.ip("gen", &format!("address add 10.0.0.{host}/24 dev veth0"));
    }
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", OUTPUT, "--name", "a", "--max-rate", "1pps"]);
    daemon.ok(&["add", "[ff15::1]:5001@veth1", "[ff15::a]:6001@veth2", "--name", "six"]);
    assert_eq!(daemon.stats("a")["senders"], json!([]));
    let mut sent = 0;
    let mut latest: Vec<(String, u64)> = Vec::new();
    for (host, count) in [(1, 30), (3, 20), (4, 40), (5, 25), (6, 35)] {
        let source = format!("10.0.0.{host}");
        send(&lab, "239.1.1.1", &source, count);
        sent += count;
        latest.insert(0, (source, count));
        latest.truncate(4);
        // Also those that the rate drops. The next begins when these are counted.
        let stats = daemon.settled("a", sent);
        assert_eq!(senders(&stats), latest, "{stats}");
    }
    let stats = daemon.json(&["stats", "a", "--json"]);
    for sender in stats["rules"][0]["senders"].as_array().unwrap() {
        let seen = sender["last_seen"].as_str().unwrap();
        let (since, now) = (stats["rules"][0]["since"].as_str(), stats["time"].as_str());
        assert!(since.unwrap() <= seen && seen <= now.unwrap(), "{stats}");
    }
    let said = daemon.ok(&["stats", "a"]);
    assert!(said.contains("  senders 10.0.0.6 (35), 10.0.0.5 (25), 10.0.0.4 (40), "), "{said}");
    send(&lab, "ff15::1", "fd00::1", 30);
    assert_eq!(senders(&daemon.settled("six", 30)), [("fd00::1".into(), 30)]);
    // Another rule with the ids of the first.
    daemon.ok(&["remove", "a"]);
    daemon.ok(&["add", "239.1.1.2:5001@veth1", OUTPUT, "--name", "b"]);
    assert_eq!(daemon.stats("b")["senders"], json!([]));
}

/// Told once, and only where the outputs make one stream of two.
pub(crate) fn a_second_sender_on_a_rule_for_anyone_is_a_warning(plane: Plane) {
    const ALSO: &str = "10.0.0.3";
    let lab = Lab::chain(plane);
    lab.ip("gen", &format!("address add {ALSO}/24 dev veth0"));
    let daemon = lab.daemon(&[]);
    let rules = [
        ("named", "10.0.0.1,10.0.0.3@232.1.1.1", "239.10.1.1:6001@veth2"),
        ("kept", "239.1.1.2", "keep@239.10.1.2:6002@veth2"),
        ("range", "239.1.2.0/24", "239.10.2.0/24@veth2"),
        ("a", "239.1.1.1", "239.10.1.3:6003@veth2"),
    ];
    for (name, input, output) in rules {
        daemon.ok(&["add", &format!("{input}:5001@veth1"), output, "--name", name]);
    }
    let warnings = || -> Vec<String> {
        let log = daemon.log();
        let warnings = log.lines().filter(|line| line.contains("WARN"));
        warnings.filter(|line| line.contains(ALSO)).map(str::to_owned).collect()
    };
    // All send until the warning is there, and on for some time.
    let groups = ["232.1.1.1", "239.1.1.2", "239.1.2.1", "239.1.1.1"];
    let begin = |group: &str| {
        ["10.0.0.1", ALSO].map(|source| {
            let flow = format!("--group {group} --port 5001 --source {source}");
            lab.sender(&format!("{flow} --rate 100 --size 100"))
        })
    };
    let sending = groups.map(begin);
    wait_for("the warning", || !warnings().is_empty());
    for (name, ..) in rules {
        let before = daemon.stats(name);
        let grown = |(address, packets): &(String, u64)| {
            let before = senders(&before).into_iter().find(|before| before.0 == *address);
            *packets >= before.map_or(0, |(_, packets)| packets) + 100
        };
        wait_for(&format!("two senders of {name}"), || {
            let senders = senders(&daemon.stats(name));
            senders.len() == 2 && senders.iter().all(grown)
        });
    }
    for ((name, ..), both) in rules.into_iter().zip(sending) {
        let sent = both.map(|sender| {
            let report: Value = serde_json::from_slice(&sender.stop().stdout).unwrap();
            report["sent"].as_u64().unwrap()
        });
        let stats = daemon.settled(name, sent.iter().sum());
        let mut counted = senders(&stats);
        counted.sort();
        let [one, also] = sent;
        assert_eq!(counted, [("10.0.0.1".into(), one), (ALSO.into(), also)], "{stats}");
    }
    let warnings = warnings();
    let [warning] = &warnings[..] else { panic!("{warnings:#?}") };
    for part in ["rule=\"a\"", "10.0.0.1", "10.0.0.3", "(as in 10.0.0.", "@239.1.1.1:5001@veth1)"] {
        assert!(warning.contains(part), "lacks {part}: {warning}");
    }
}

/// What the kernel drops on an interface: here frames of a protocol that nobody takes.
#[test]
fn what_the_kernel_loses_before_is_shown_with_a_remedy() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Tcx);
    let mut frame = vec![0; 60];
    // IEEE Std 802 local experimental.
    frame[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 10, 0x88, 0xb5]);
    let path = lab.folder.path().join("frame");
    fs::write(&path, frame).unwrap();
    let send = |count: u64| {
        for _ in 0..count {
            let mut socat = lab.command("gen", "socat");
            socat.args(["-u", "STDIN", "INTERFACE:veth0"]).stdin(File::open(&path).unwrap());
            run(&mut socat);
        }
    };
    let counted = |count: u64| {
        wait_for("the kernel's count", || {
            lab.link("relay", "veth1")["stats64"]["rx"]["dropped"] == count
        });
    };
    send(3);
    counted(3);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", OUTPUT, "--name", "a"]);
    let input = || daemon.json(&["status", "--json"])["interfaces"][0].clone();
    let lost = || input()["lost_before"].clone();
    assert_eq!(lost(), json!({}), "what was before is not shown");
    assert!(!daemon.ok(&["status"]).contains("lost before"));
    send(5);
    counted(8);
    assert_eq!(lost(), json!({"nic-dropped": 5}));
    let said = daemon.ok(&["status"]);
    assert!(said.contains("\nlost before  veth1  nic-dropped=5\n"), "{said}");
    assert!(said.contains("\nnic-dropped: the kernel dropped what"), "{said}");
    assert!(daemon.json(&["status", "--json"])["softnet_dropped"].is_u64());
    // Made anew, it begins anew.
    lab.ip("relay", "link del veth1");
    lab.veth(("gen", "veth0", "10.0.0.1/24"), ("relay", "veth1", "10.0.0.2/24"));
    let made = lab.link("relay", "veth1")["ifindex"].clone();
    wait_for("a first look", || input()["index"] == made);
    send(2);
    counted(2);
    assert_eq!(lost(), json!({"nic-dropped": 2}));
}
