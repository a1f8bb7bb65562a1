//! Who may send to an input, and who an output says it is.

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, wait_for};

const GROUP: &str = "--group 232.1.1.1 --port 5001";
const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";

/// A line of `/proc/net/mcfilter`: the group and a source of it, in hexadecimal as they are read.
fn filter(group: [u8; 4], source: [u8; 4]) -> String {
    let hex = |address| format!("0x{:08x}", u32::from_be_bytes(address));
    format!("{} {}", hex(group), hex(source))
}

/// Groups and sources of `veth1` of the relay.
fn filters(lab: &Lab) -> Vec<String> {
    let filters = lab.read("relay", "/proc/net/mcfilter");
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[1] == "veth1").then(|| format!("{} {}", words[2], words[3]))
    };
    filters.lines().filter_map(row).collect()
}

pub(crate) fn only_the_named_source_is_relayed(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("gen", "address add 10.0.0.3/24 dev veth0");
    lab.ip("gen", "address add fd00::3/64 dev veth0 nodad");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "10.0.0.1@232.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    daemon.ok(&["add", "fd00::1@[ff3e::8000:1]:5001@veth1", "[ff15::a]:6001@veth2", "--name", "b"]);
    assert_eq!(filters(&lab), [filter([232, 1, 1, 1], [10, 0, 0, 1])]);
    let v6 = lab.read("relay", "/proc/net/mcfilter6");
    let joined = "ff3e0000000000000000000080000001 fd000000000000000000000000000001";
    assert!(v6.contains(joined), "{v6}");
    let four = lab.receiver("sink", &format!("{SINK} --expect 200"));
    let six = lab.receiver("sink", "--interface veth3 --group ff15::a --port 6001 --expect 200");
    for (group, source, other) in
        [("232.1.1.1", "10.0.0.1", "10.0.0.3"), ("ff3e::8000:1", "fd00::1", "fd00::3")]
    {
        let load = format!("--group {group} --port 5001 --rate 1000 --size 100");
        lab.send(&format!("{load} --count 70 --source {other}"));
        lab.send(&format!("{load} --count 200 --source {source}"));
    }
    four.lossless(200);
    six.lossless(200);
    for rule in ["a", "b"] {
        let stats = daemon.settled(rule, 200);
        sums(&stats, 0, 200);
        assert_eq!(stats["received"]["packets"], 200, "{stats}");
    }
    assert_eq!(daemon.passed("veth1", "other-source", 140), 140);
    daemon.ok(&["remove", "a"]);
    assert_eq!(filters(&lab), [""; 0], "it is left");
}

/// Twice as many as fit on a socket (`igmp_max_msf` is 10).
pub(crate) fn two_dozen_sources_work(plane: Plane) {
    let lab = Lab::chain(plane);
    let hosts = 11..=34_u8;
    for host in hosts.clone() {
        lab.ip("gen", &format!("address add 10.0.0.{host}/24 dev veth0"));
    }
    let daemon = lab.daemon(&[]);
    let sources: Vec<String> = hosts.clone().map(|host| format!("\"10.0.0.{host}\"")).collect();
    let rule = format!(
        "[[rule]]\nname = \"many\"\ninput = \"232.1.1.1:5001@veth1\"\nsources = [{}]\noutputs = \
         [\"239.10.1.1:6001@veth2\"]\n",
        sources.join(", ")
    );
    daemon.ok(&["apply", lab.file("rules.toml", &rule).to_str().unwrap()]);
    let joined: Vec<String> =
        hosts.clone().map(|host| filter([232, 1, 1, 1], [10, 0, 0, host])).collect();
    let mut there = filters(&lab);
    there.sort();
    there.dedup();
    assert_eq!(there, joined);
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 240"));
    for (host, n) in hosts.zip(0..) {
        // To the receiver one stream that goes on.
        let part = format!("--run 1 --first-sequence {} --count 10", n * 10);
        lab.send(&format!("{GROUP} --rate 1000 --size 100 --source 10.0.0.{host} {part}"));
    }
    // Nobody of them.
    lab.send(&format!("{GROUP} --rate 1000 --count 30 --size 100 --source 10.0.0.1"));
    receiver.lossless(240);
    let stats = daemon.settled("many", 240);
    sums(&stats, 0, 240);
    assert_eq!(stats["received"]["packets"], 240, "{stats}");
    assert_eq!(daemon.passed("veth1", "other-source", 30), 30);
}

pub(crate) fn two_rules_take_one_group_and_port_from_different_sources(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("gen", "address add 10.0.0.3/24 dev veth0");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "10.0.0.1@232.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    daemon.ok(&["add", "10.0.0.3@232.1.1.1:5001@veth1", "239.10.1.2:6002@veth2", "--name", "b"]);
    let said =
        daemon.refused(&["add", "10.0.0.9,10.0.0.3@232.1.1.1:5001@veth1", "239.9.9.9:9@veth2"]);
    assert!(said.contains("taken by rule b"), "{said}");
    let first = lab.receiver("sink", &format!("{SINK} --expect 200"));
    let second =
        lab.receiver("sink", "--interface veth3 --group 239.10.1.2 --port 6002 --expect 100");
    lab.send(&format!("{GROUP} --rate 1000 --count 100 --size 100 --source 10.0.0.3"));
    lab.send(&format!("{GROUP} --rate 1000 --count 200 --size 100 --source 10.0.0.1"));
    first.lossless(200);
    second.lossless(100);
    sums(&daemon.settled("a", 200), 0, 200);
    sums(&daemon.settled("b", 100), 0, 100);
    // What one gives back the other does not take.
    daemon.ok(&["remove", "b"]);
    assert_eq!(filters(&lab), [filter([232, 1, 1, 1], [10, 0, 0, 1])]);
    lab.send(&format!("{GROUP} --rate 1000 --count 10 --size 100 --source 10.0.0.3"));
    assert_eq!(daemon.passed("veth1", "other-source", 10), 10);
}

pub(crate) fn outputs_are_sent_from_what_they_name(plane: Plane) {
    let lab = Lab::chain(plane);
    // The sink has to believe in senders that are not on its network.
    lab.ip("sink", "route add 10.0.0.0/8 dev veth3");
    let daemon = lab.daemon(&[]);
    daemon.ok(&[
        "add",
        "239.1.1.1:5001@veth1",
        "239.10.1.1:6001@veth2",
        "10.0.1.50@239.10.1.2:6002@veth2",
        "10.0.1.51:7000@239.10.1.3:6003@veth2",
        "keep@239.10.1.4:6004@veth2",
        "--name",
        "a",
    ]);
    let receivers: Vec<_> = (1..=4)
        .map(|n| {
            let flow = format!("--group 239.10.1.{n} --port 600{n} --expect 100");
            lab.receiver("sink", &format!("--interface veth3 {flow}"))
        })
        .collect();
    let capture = lab.capture("sink", "veth3", 400, "udp");
    let load = "--group 239.1.1.1 --port 5001 --rate 1000 --count 100 --size 100";
    lab.send(&format!("{load} --source 10.0.0.1:4444"));
    receivers.into_iter().for_each(|receiver| receiver.lossless(100));
    let text = capture.text();
    for (from, n) in
        [("10.0.1.1.4444", 1), ("10.0.1.50.4444", 2), ("10.0.1.51.7000", 3), ("10.0.0.1.4444", 4)]
    {
        let flow = format!("{from} > 239.10.1.{n}.600{n}:");
        assert_eq!(text.matches(&flow).count(), 100, "{flow}\n{text}");
    }
    let stats = daemon.settled("a", 100);
    (0..4).for_each(|n| sums(&stats, n, 100));
}

/// Receivers of a source-specific group have joined one sender.
pub(crate) fn a_receiver_of_one_source_gets_an_output_with_that_source(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let add = |to: &str| {
        let said = daemon.ok(&["add", "239.1.1.1:5001@veth1", to, "--name", "a", "--json"]);
        let warned = said.contains("have joined one source");
        daemon.ok(&["remove", "a"]);
        warned
    };
    assert!(add("232.10.1.1:6001@veth2"), "an address that may change");
    assert!(!add("10.0.1.1@232.10.1.1:6001@veth2"));
    daemon.ok(&[
        "add",
        "239.1.1.1:5001@veth1",
        "10.0.1.1@232.10.1.1:6001@veth2",
        "10.0.1.7@232.10.1.2:6001@veth2",
        "--name",
        "a",
    ]);
    let receiver = |group: &str| {
        let flow = format!("--group {group} --port 6001 --source 10.0.1.1");
        lab.receiver("sink", &format!("--interface veth3 {flow} --expect 100"))
    };
    let (right, wrong) = (receiver("232.10.1.1"), receiver("232.10.1.2"));
    lab.send("--group 239.1.1.1 --port 5001 --rate 1000 --count 100 --size 100");
    right.lossless(100);
    assert_eq!(wrong.stop()["received"], 0);
    let stats = daemon.settled("a", 100);
    (0..2).for_each(|n| sums(&stats, n, 100));
}

pub(crate) fn a_new_primary_address_is_followed_and_logged(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("sink", "route add 10.0.4.0/24 dev veth3");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let sent_from = |address: &str| {
        let capture = lab.capture("sink", "veth3", 20, "udp");
        let receiver = lab.receiver("sink", &format!("{SINK} --expect 20"));
        lab.send("--group 239.1.1.1 --port 5001 --rate 1000 --count 20 --size 100");
        receiver.lossless(20);
        let text = capture.text();
        assert_eq!(text.matches(&format!(" {address}.")).count(), 20, "{text}");
    };
    // One more is not the primary one.
    lab.ip("relay", "address add 10.0.4.1/24 dev veth2");
    lab.ip("relay", "address add 10.0.1.8/24 dev veth2");
    sent_from("10.0.1.1");
    lab.ip("relay", "address delete 10.0.1.1/24 dev veth2");
    wait_for("the new address", || {
        daemon.log().contains("is sent from 10.0.4.1, and no more from 10.0.1.1")
    });
    sent_from("10.0.4.1");
    sums(&daemon.settled("a", 40), 0, 40);
}

/// A router, or a switch without snooping, sends the group anyway.
pub(crate) fn without_a_join_what_comes_is_relayed(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rule = ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"];
    daemon.ok(&[&rule[..], &["--join", "no"]].concat());
    let group = format!("{:08X}", u32::from_ne_bytes([239, 1, 1, 1]));
    let joined = || lab.read("relay", "/proc/net/igmp").contains(&group);
    assert!(!joined());
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 100"));
    lab.send("--group 239.1.1.1 --port 5001 --rate 1000 --count 100 --size 100");
    receiver.lossless(100);
    sums(&daemon.settled("a", 100), 0, 100);
    daemon.ok(&["set", "a", "--join", "yes"]);
    assert!(joined());
    daemon.ok(&["set", "a", "--join", "no"]);
    assert!(!joined());
}
