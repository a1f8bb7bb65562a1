//! IPv6 goes through like IPv4.

use crate::forwarding::sums;
use crate::lab::{Daemon, Lab, Plane, run};
use crate::traffic::Receiver;

const SINK: &str = "--interface veth3 --group ff15::6001 --port 6001";
const GEN: &str = "--group ff15::5001 --port 5001";

fn one_rule(daemon: &Daemon) {
    daemon.ok(&["add", "[ff15::5001]:5001@veth1", "[ff15::6001]:6001@veth2", "--name", "six"]);
}

/// Groups joined on `veth1` of the relay, in the kernel's writing.
pub(crate) fn joined(lab: &Lab) -> Vec<String> {
    let igmp6 = lab.read("relay", "/proc/net/igmp6");
    let group = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some("veth1")).then(|| words.next().unwrap().to_owned())
    };
    igmp6.lines().filter_map(group).collect()
}

pub(crate) fn a_stream_goes_through_and_its_group_is_joined(plane: Plane) {
    let lab = Lab::chain(plane);
    let mut daemon = lab.daemon(&[]);
    one_rule(&daemon);
    let group = "ff150000000000000000000000005001";
    assert!(joined(&lab).iter().any(|joined| joined == group), "{:?}", joined(&lab));
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 1000"));
    lab.send(&format!("{GEN} --rate 2000 --count 1000 --size 333"));
    receiver.lossless(1000);
    let stats = daemon.settled("six", 1000);
    sums(&stats, 0, 1000);
    assert_eq!(stats["matched"]["bytes"], 333_000, "{stats}");
    daemon.ok(&["remove", "six"]);
    assert!(!joined(&lab).iter().any(|joined| joined == group), "it is left");
    daemon.stop();
}

pub(crate) fn every_output_has_a_rewrite_of_its_own(plane: Plane) {
    let lab = Lab::chain(plane);
    // Whole checksums, so that a capture can judge them.
    run(lab.command("gen", "ethtool").args(["-K", "veth0", "tx", "off"]));
    let daemon = lab.daemon(&[]);
    daemon.ok(&[
        "add",
        "[ff15::5001]:5001@veth1",
        "[ff15::6001]:6001@veth2",
        "[ff15::6002]:6002@veth2,ttl=3",
        "[ff15::6003]:6003@veth2,ttl=keep,dscp=46",
        "--name",
        "fan",
    ]);
    let receiver = |n: u32| -> Receiver {
        let flow = format!("--interface veth3 --group ff15::600{n} --port 600{n} --expect 300");
        lab.receiver("sink", &flow)
    };
    let receivers = [receiver(1), receiver(2), receiver(3)];
    let capture = lab.capture("sink", "veth3", 900, "udp");
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 101 --ttl 9 --dscp 10"));
    for receiver in receivers {
        receiver.lossless(300);
    }
    let stats = daemon.settled("fan", 300);
    (0..3).for_each(|n| sums(&stats, n, 300));
    // A code point stands above two bits of ECN.
    let text = capture.text();
    for (port, class, hops) in [(6001, "0x28", 32), (6002, "0x28", 3), (6003, "0xb8", 9)] {
        let packet = |line: &&str| {
            line.contains(&format!("class {class},"))
                && line.contains(&format!("hlim {hops},"))
                && line.contains("fd00:0:0:1::1.")
                && line.contains(&format!("ff15::{port}.{port}: [udp sum ok]"))
        };
        assert_eq!(text.lines().filter(packet).count(), 300, "{port}\n{text}");
    }
}

pub(crate) fn super_packets_stay_whole_and_count_as_their_datagrams(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon);
    let sent = || lab.link("relay", "veth2")["stats64"]["tx"]["packets"].as_u64().unwrap();
    let before = sent();
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 1000"));
    lab.send(&format!("{GEN} --rate 2000 --count 1000 --size 1000 --gso 10"));
    receiver.lossless(1000);
    let stats = daemon.settled("six", 1000);
    sums(&stats, 0, 1000);
    assert_eq!(stats["matched"]["bytes"], 1_000_000, "{stats}");
    let frames = sent() - before;
    assert!(frames < 500, "{frames} frames: the super-packets were cut on their way out");
}

/// A checksum is mandatory (RFC 8200 §8.1), so one that is wrong would be dropped.
pub(crate) fn checksums_survive_with_offload_and_without_it(plane: Plane) {
    for offload in ["on", "off"] {
        let lab = Lab::chain(plane);
        for (role, interface) in [("gen", "veth0"), ("relay", "veth2"), ("sink", "veth3")] {
            run(lab.command(role, "ethtool").args(["-K", interface, "rx", offload, "tx", offload]));
        }
        let daemon = lab.daemon(&[]);
        one_rule(&daemon);
        let receiver = lab.receiver("sink", &format!("{SINK} --expect 300"));
        lab.send(&format!("{GEN} --rate 1000 --count 300 --size 101"));
        receiver.lossless(300);
        let snmp = lab.read("sink", "/proc/net/snmp6");
        let errors = snmp.lines().find(|line| line.starts_with("Udp6InCsumErrors")).unwrap();
        assert!(errors.ends_with("\t0") || errors.ends_with(" 0"), "{offload}: {errors}");
        sums(&daemon.settled("six", 300), 0, 300);
    }
}

pub(crate) fn what_has_an_address_that_an_output_sends_from_is_own(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon);
    lab.ip("gen", "address add fd00:0:0:1::1/128 dev lo nodad");
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 50"));
    lab.send(&format!("{GEN} --rate 1000 --count 100 --size 100 --source fd00:0:0:1::1"));
    lab.send(&format!("{GEN} --rate 1000 --count 50 --size 100 --source fd00::1"));
    receiver.lossless(50);
    let stats = daemon.settled("six", 150);
    assert_eq!(stats["dropped"]["own"], 100, "{stats}");
    sums(&stats, 0, 50);
}

pub(crate) fn a_listener_on_the_relay_host_is_still_served(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon);
    let sink = lab.receiver("sink", &format!("{SINK} --expect 300"));
    let here = lab.receiver("relay", &format!("--interface veth1 {GEN} --expect 300"));
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
    sink.lossless(300);
    here.lossless(300);
    sums(&daemon.settled("six", 300), 0, 300);
}

pub(crate) fn what_is_larger_than_the_mtu_of_one_output_is_counted_there(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    lab.ip("relay", "address add fd00:0:0:2::1/64 dev veth4 nodad");
    // The least that IPv6 allows.
    lab.ip("relay", "link set veth2 mtu 1280");
    let daemon = lab.daemon(&[]);
    let outputs = ["[ff15::6001]:6001@veth2", "[ff15::6002]:6002@veth4"];
    daemon.ok(&[&["add", "[ff15::5001]:5001@veth1"], &outputs[..], &["--name", "big"]].concat());
    let small = lab.receiver("sink", &format!("{SINK} --expect 50"));
    let both =
        lab.receiver("sink", "--interface veth5 --group ff15::6002 --port 6002 --expect 250");
    // 1,232 bytes are 1,280 with the headers.
    let send = |size: u32, first: u32, count: u32| {
        let run = format!("--run 1 --first-sequence {first} --count {count}");
        lab.send(&format!("{GEN} --rate 1000 --size {size} {run}"))
    };
    send(1232, 0, 50);
    send(1233, 50, 200);
    small.lossless(50);
    both.lossless(250);
    let stats = daemon.settled("big", 250);
    sums(&stats, 0, 50);
    sums(&stats, 1, 250);
    assert_eq!(stats["outputs"][0]["dropped"]["mtu"], 200, "{stats}");
}

/// The address that is sent from is neither of the link alone, nor deprecated.
pub(crate) fn it_is_sent_from_the_stable_address(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("relay", "address add fd00:0:0:1::99/64 dev veth2 nodad preferred_lft 0");
    let daemon = lab.daemon(&[]);
    one_rule(&daemon);
    let send = |from: &str| {
        let capture = lab.capture("sink", "veth3", 10, "udp");
        let receiver = lab.receiver("sink", &format!("{SINK} --expect 10"));
        lab.send(&format!("{GEN} --rate 1000 --count 10 --size 100"));
        receiver.lossless(10);
        let text = capture.text();
        assert_eq!(text.matches(&format!(" {from}.")).count(), 10, "{text}");
    };
    send("fd00:0:0:1::1");
    lab.ip("relay", "address delete fd00:0:0:1::1/64 dev veth2");
    crate::lab::wait_for("the other address", || {
        daemon.log().contains("is sent from fd00:0:0:1::99, and no more from fd00:0:0:1::1")
    });
    send("fd00:0:0:1::99");
    sums(&daemon.settled("six", 20), 0, 20);
}
