//! Ranges of groups and ports, mapped one to one.

use serde_json::Value;

use crate::forwarding::sums;
use crate::lab::{Daemon, Lab, Plane};
use crate::traffic::Receiver;

/// Groups that begin with these octets, as the relay has joined them.
fn joined(lab: &Lab, octets: [u8; 2]) -> usize {
    let igmp = lab.read("relay", "/proc/net/igmp");
    // Hexadecimal, in the byte order of the machine.
    let group = |line: &str| {
        let address = u32::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        (line.starts_with('\t') && address.to_ne_bytes()[..2] == octets).then_some(())
    };
    igmp.lines().filter_map(group).count()
}

fn receiver(lab: &Lab, flow: &str) -> Receiver {
    lab.receiver("sink", &format!("--interface veth3 {flow} --rcvbuf 65536"))
}

/// Streams are counted up alike by sender and receiver, so one in the wrong place would be foreign.
pub(crate) fn groups_are_mapped_one_to_one(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.0.0/23:5001@veth1", "239.10.0.0/23:6001@veth2", "--name", "a"]);
    assert_eq!(joined(&lab, [239, 1]), 512);
    assert_eq!(daemon.list().as_array().unwrap().len(), 1);
    // Beyond the third octet.
    let streams = "--streams 300 --same-port";
    let sink = receiver(&lab, &format!("--group 239.10.0.1 --port 6001 {streams} --expect 10"));
    lab.send(&format!("--group 239.1.0.1 --port 5001 {streams} --rate 10 --count 10 --size 100"));
    sink.lossless(3000);
    let stats = daemon.settled("a", 3000);
    sums(&stats, 0, 3000);
    assert_eq!(stats["matched"]["bytes"], 300_000, "{stats}");
    daemon.ok(&["remove", "a"]);
    assert_eq!(joined(&lab, [239, 1]), 0, "all are left");
}

pub(crate) fn ports_are_mapped_one_to_one(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&[
        "add",
        "239.1.1.1:5000-5015@veth1",
        "239.10.1.1:6000-6015@veth2",
        "239.10.1.2@veth2",
        "--name",
        "a",
    ]);
    let streams = "--streams 16 --same-group";
    let shifted = format!("--group 239.10.1.1 --port 6000 {streams} --expect 50");
    let kept = format!("--group 239.10.1.2 --port 5000 {streams} --expect 50");
    let (shifted, kept) = (receiver(&lab, &shifted), receiver(&lab, &kept));
    let load = format!("{streams} --rate 100 --count 50 --size 100");
    lab.send(&format!("--group 239.1.1.1 --port 5000 {load}"));
    // Beside the range.
    lab.send("--group 239.1.1.1 --port 4999 --count 10 --size 100");
    lab.send("--group 239.1.1.1 --port 5016 --count 10 --size 100");
    shifted.lossless(800);
    kept.lossless(800);
    let stats = daemon.settled("a", 800);
    (0..2).for_each(|n| sums(&stats, n, 800));
    assert_eq!(stats["received"]["packets"], 800, "{stats}");
    assert_eq!(daemon.passed("veth1", "no-rule", 20), 20);
}

pub(crate) fn groups_and_ports_are_mapped_together(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rule = ["add", "239.1.1.0/28:5000-5007@veth1", "239.10.1.16/28:7000-7007@veth2"];
    daemon.ok(&[&rule[..], &["--name", "a"]].concat());
    // Both count up.
    let sink = receiver(&lab, "--group 239.10.1.17 --port 7000 --streams 8 --expect 50");
    let load = "--streams 8 --rate 100 --count 50 --size 100";
    lab.send(&format!("--group 239.1.1.1 --port 5000 {load}"));
    sink.lossless(400);
    // Another port of each.
    let sink = receiver(&lab, "--group 239.10.1.17 --port 7001 --streams 7 --expect 50");
    let load = "--streams 7 --rate 100 --count 50 --size 100";
    lab.send(&format!("--group 239.1.1.1 --port 5001 {load}"));
    sink.lossless(350);
    sums(&daemon.settled("a", 750), 0, 750);
}

pub(crate) fn ranges_of_ipv6_are_mapped(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rule = ["add", "[ff15::1:0]/120:5000@veth1", "[ff15::2:0]/120:6000@veth2", "--name", "a"];
    daemon.ok(&rule);
    let groups = crate::ipv6::joined(&lab);
    let ours = groups.iter().filter(|group| group.starts_with("ff1500000000000000000000000100"));
    assert_eq!(ours.count(), 256, "{groups:?}");
    let streams = "--streams 100 --same-port";
    let sink = receiver(&lab, &format!("--group ff15::2:80 --port 6000 {streams} --expect 10"));
    lab.send(&format!("--group ff15::1:80 --port 5000 {streams} --rate 20 --count 10 --size 100"));
    sink.lossless(1000);
    sums(&daemon.settled("a", 1000), 0, 1000);
}

/// More groups than anybody could join.
pub(crate) fn a_large_range_needs_no_joins(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rule = ["add", "239.0.0.0/9:5000@veth1", "225.128.0.0/9@veth2", "--name", "a"];
    let said = daemon.refused(&rule);
    assert!(said.contains("8388608 joins") && said.contains("join = \"no\""), "{said}");
    daemon.ok(&[&rule[..], &["--join", "no"]].concat());
    assert_eq!(joined(&lab, [239, 0]), 0);
    let streams = "--streams 20 --same-port";
    let sink = receiver(&lab, &format!("--group 225.205.3.250 --port 5000 {streams} --expect 20"));
    lab.send(&format!("--group 239.77.3.250 --port 5000 {streams} --rate 50 --count 20 --size 90"));
    sink.lossless(400);
    sums(&daemon.settled("a", 400), 0, 400);
}

/// Packets that an output has forwarded.
fn forwarded(daemon: &Daemon, rule: &str) -> u64 {
    daemon.stats(rule)["outputs"][0]["forwarded"]["packets"].as_u64().unwrap()
}

/// An exact rule comes and goes while ten groups of the range are in use: the nine others lose
/// nothing, and of the tenth every packet goes one way or the other.
pub(crate) fn an_exact_rule_wins_over_a_range_and_gives_back(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.0/24:5001@veth1", "239.10.1.0/24:6001@veth2", "--name", "range"]);
    let steady = "--group 239.10.1.1 --port 6001 --streams 9 --same-port --idle 2s";
    let steady = receiver(&lab, steady);
    let tenth = "--group 239.10.1.10 --port 6001 --first-stream 10 --idle 2s";
    let tenth = receiver(&lab, tenth);
    let exact = "--group 239.20.1.1 --port 7001 --first-stream 10 --idle 2s";
    let exact = receiver(&lab, exact);
    let load = "--streams 10 --same-port --rate 200 --size 100";
    let sender = lab.sender(&format!("--group 239.1.1.1 --port 5001 {load}"));
    daemon.ok(&["wait", "range", "--for", "forwarding"]);
    let mut taken = 0;
    for _ in 0..10 {
        daemon.ok(&["add", "239.1.1.10:5001@veth1", "239.20.1.1:7001@veth2", "--name", "exact"]);
        crate::lab::wait_for("packets of the exact rule", || forwarded(&daemon, "exact") > 20);
        // What comes between the look and the removal is counted by the receiver alone.
        taken += forwarded(&daemon, "exact");
        daemon.ok(&["remove", "exact"]);
        let before = forwarded(&daemon, "range");
        crate::lab::wait_for("the range again", || forwarded(&daemon, "range") > before + 100);
    }
    let sent: Value = serde_json::from_slice(&sender.stop().stdout).unwrap();
    let sent = sent["sent"].as_u64().unwrap();
    let (steady, tenth, exact) = (steady.report(), tenth.report(), exact.report());
    for report in [&steady, &tenth, &exact] {
        for fault in ["foreign", "corrupt", "duplicated", "reordered"] {
            assert_eq!(report[fault], 0, "{fault}: {report}");
        }
    }
    let received = |report: &Value| report["received"].as_u64().unwrap();
    assert_eq!(steady["lost"], 0, "{steady}");
    assert_eq!(received(&steady) + received(&tenth) + received(&exact), sent);
    assert!(received(&exact) >= taken && taken > 200, "{taken}: {exact}");
    let stats = daemon.stats("range");
    sums(&stats, 0, received(&steady) + received(&tenth));
}

pub(crate) fn ranges_that_overlap_are_refused(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.0/24:5000-5015@veth1", "239.10.1.0/24@veth2", "--name", "range"]);
    for input in [
        "239.1.0.0/23:5015@veth1",
        "239.1.1.128/25:5000-5001@veth1",
        "239.1.1.7:5010-5020@veth1",
        "239.1.1.0/24:1-65535@veth1",
    ] {
        let output = format!("239.11.0.0/{}@veth2", if input.contains("/23") { 23 } else { 24 });
        let output = match input {
            "239.1.1.128/25:5000-5001@veth1" => "239.11.0.0/25@veth2",
            "239.1.1.7:5010-5020@veth1" => "239.11.0.7@veth2",
            _ => &output,
        };
        let said = daemon.refused(&["add", input, output]);
        assert!(said.contains("taken by rule range"), "{input}: {said}");
    }
    // Beside it, inside it, and on another interface.
    daemon.ok(&["add", "239.1.1.0/24:5016-5020@veth1", "239.11.1.0/24@veth2"]);
    daemon.ok(&["add", "239.1.2.0/24:5000-5015@veth1", "239.11.2.0/24@veth2"]);
    daemon.ok(&["add", "239.1.1.7:5000@veth1", "239.11.3.7@veth2"]);
    daemon.ok(&["add", "239.1.1.0/24:5000-5015@veth2", "239.11.4.0/24@veth1"]);
}
