//! What goes through the relay, and how it comes out.

use serde_json::Value;

use crate::lab::{Lab, Plane, run};

const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
const GEN: &str = "--group 239.1.1.1 --port 5001";

/// The sums that the control API promises, and that output `n` has forwarded `packets`.
pub(crate) fn sums(stats: &Value, n: usize, packets: u64) {
    let number = |value: &Value| value.as_u64().unwrap();
    let dropped =
        |value: &Value| -> u64 { value["dropped"].as_object().unwrap().values().map(number).sum() };
    let (received, matched) = (&stats["received"]["packets"], &stats["matched"]["packets"]);
    assert_eq!(number(received), number(matched) + dropped(stats), "{stats}");
    let output = &stats["outputs"][n];
    let (offered, forwarded) = (&output["offered"]["packets"], &output["forwarded"]["packets"]);
    assert_eq!(number(offered), number(forwarded) + dropped(output), "{stats}");
    assert_eq!(number(forwarded), packets, "{stats}");
}

pub(crate) fn a_stream_goes_through_and_is_counted(plane: Plane) {
    let lab = Lab::chain(plane);
    let mut daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 1000"));
    lab.send(&format!("{GEN} --rate 2000 --count 1000 --size 333"));
    receiver.lossless(1000);
    let stats = daemon.settled("a", 1000);
    sums(&stats, 0, 1000);
    assert_eq!(stats["matched"]["bytes"], 333_000, "{stats}");
    assert_eq!(stats["outputs"][0]["forwarded"]["bytes"], 333_000, "{stats}");
    assert_eq!(daemon.state("a").0, "forwarding");
    daemon.stop();
}

pub(crate) fn fifty_streams_keep_apart(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rules: String = (1..=50)
        .map(|k| {
            format!(
                "[[rule]]\nname = \"s{k}\"\ninput = \"239.1.1.{k}:{}@veth1\"\noutputs = \
                 [\"239.10.1.{k}:{}@veth2\"]\n",
                5000 + k,
                6000 + k
            )
        })
        .collect();
    let file = lab.file("rules.toml", &rules);
    daemon.ok(&["apply", file.to_str().unwrap()]);
    let receiver = lab.receiver("sink", &format!("{SINK} --streams 50 --expect 200"));
    lab.send(&format!("{GEN} --streams 50 --rate 200 --count 200 --size 1024"));
    receiver.lossless(50 * 200);
    for k in 1..=50 {
        sums(&daemon.settled(&format!("s{k}"), 200), 0, 200);
    }
}

pub(crate) fn every_output_has_a_rewrite_of_its_own(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    let daemon = lab.daemon(&[]);
    daemon.ok(&[
        "add",
        "239.1.1.1:5001@veth1",
        "239.10.1.1:6001@veth2",
        "239.10.1.2:6002@veth2,ttl=3",
        "239.10.1.3:6003@veth4,dscp=46",
        "--name",
        "fan",
    ]);
    let receivers = [
        lab.receiver("sink", &format!("{SINK} --expect 500")),
        lab.receiver("sink", "--interface veth3 --group 239.10.1.2 --port 6002 --expect 500"),
        lab.receiver("sink", "--interface veth5 --group 239.10.1.3 --port 6003 --expect 500"),
    ];
    lab.send(&format!("{GEN} --rate 1000 --count 500 --size 100"));
    for receiver in receivers {
        receiver.lossless(500);
    }
    for n in 0..3 {
        sums(&daemon.settled("fan", 500), n, 500);
    }
}

pub(crate) fn in_and_out_by_one_interface(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth1", "--name", "armed"]);
    let sink = "--interface veth0 --group 239.10.1.1 --port 6001 --expect 500";
    let receiver = lab.receiver("gen", sink);
    lab.send(&format!("{GEN} --rate 1000 --count 500 --size 100"));
    receiver.lossless(500);
    sums(&daemon.settled("armed", 500), 0, 500);
}

pub(crate) fn both_directions_between_two_interfaces(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("sink", "route add 224.0.0.0/4 dev veth3");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.1.1.1:5001@veth2", "--name", "there"]);
    daemon.ok(&["add", "239.1.1.1:5001@veth2", "239.1.1.1:5001@veth1", "--name", "back"]);
    let receiver = |role, interface| {
        lab.receiver(role, &format!("--interface {interface} {GEN} --expect 300 --linger 300ms"))
    };
    let sink = receiver("sink", "veth3");
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
    sink.lossless(300);
    let sink = receiver("gen", "veth0");
    lab.send_from("sink", &format!("--interface veth3 {GEN} --rate 1000 --count 300 --size 100"));
    sink.lossless(300);
    sums(&daemon.settled("there", 300), 0, 300);
    sums(&daemon.settled("back", 300), 0, 300);
}

pub(crate) fn one_group_and_port_on_two_inputs(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("gen", "veth6", "10.0.3.1/24"), ("relay", "veth7", "10.0.3.2/24"));
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "first"]);
    daemon.ok(&["add", "239.1.1.1:5001@veth7", "239.10.1.2:6002@veth2", "--name", "second"]);
    let first = lab.receiver("sink", &format!("{SINK} --expect 300"));
    let second =
        lab.receiver("sink", "--interface veth3 --group 239.10.1.2 --port 6002 --expect 200");
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
    lab.send_from("gen", &format!("--interface veth6 {GEN} --rate 1000 --count 200 --size 100"));
    first.lossless(300);
    second.lossless(200);
    sums(&daemon.settled("first", 300), 0, 300);
    sums(&daemon.settled("second", 200), 0, 200);
}

pub(crate) fn the_same_group_goes_out_elsewhere(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.1.1.1:5001@veth2", "--name", "same"]);
    let receiver = lab.receiver("sink", &format!("--interface veth3 {GEN} --expect 300"));
    lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
    receiver.lossless(300);
    sums(&daemon.settled("same", 300), 0, 300);
}

pub(crate) fn super_packets_stay_whole_and_count_as_their_datagrams(plane: Plane) {
    let lab = Lab::chain(plane);
    let measure: &[&str] = if plane == Plane::Packet { &[] } else { &["--measure"] };
    let daemon = lab.daemon(measure);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "gso"]);
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 1000"));
    lab.send(&format!("{GEN} --rate 2000 --count 1000 --size 1000 --gso 10"));
    receiver.lossless(1000);
    let stats = daemon.settled("gso", 1000);
    sums(&stats, 0, 1000);
    assert_eq!(stats["matched"]["bytes"], 1_000_000, "{stats}");
    if plane != Plane::Packet {
        let runs = daemon.json(&["status", "--json"])["program"]["runs"].as_u64().unwrap();
        assert!(runs < 500, "{runs} runs: the super-packets were cut before the program");
    }
    let sent = lab.link("relay", "veth2")["stats64"]["tx"]["packets"].as_u64().unwrap();
    assert!(sent < 500, "{sent} frames: the super-packets were cut on their way out");
}

pub(crate) fn super_packets_are_cut_by_an_interface_that_cannot_take_them(plane: Plane) {
    let lab = Lab::chain(plane);
    // Without this offload the kernel cuts the packet when it leaves veth2.
    run(lab.command("relay", "ethtool").args(["-K", "veth2", "tx-udp-segmentation", "off"]));
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "gso"]);
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 1000"));
    lab.send(&format!("{GEN} --rate 2000 --count 1000 --size 1000 --gso 10"));
    receiver.lossless(1000);
    sums(&daemon.settled("gso", 1000), 0, 1000);
}

pub(crate) fn checksums_survive_with_offload_without_it_and_without_checksum(plane: Plane) {
    for (offload, checksum) in [("on", ""), ("off", ""), ("on", " --checksum none")] {
        let lab = Lab::chain(plane);
        for (role, interface) in [("gen", "veth0"), ("relay", "veth2"), ("sink", "veth3")] {
            run(lab.command(role, "ethtool").args(["-K", interface, "rx", offload, "tx", offload]));
        }
        let daemon = lab.daemon(&[]);
        daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
        let receiver = lab.receiver("sink", &format!("{SINK} --expect 300"));
        lab.send(&format!("{GEN} --rate 1000 --count 300 --size 101{checksum}"));
        receiver.lossless(300);
        assert_eq!(lab.counter("sink", "UdpInCsumErrors"), 0, "{offload} {checksum}");
    }
}

pub(crate) fn what_is_larger_than_the_mtu_of_one_output_is_counted_there_and_goes_out_elsewhere(
    plane: Plane,
) {
    let lab = Lab::chain(plane);
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    lab.ip("relay", "link set veth2 mtu 1000");
    let daemon = lab.daemon(&[]);
    let said = daemon.ctl(&[
        "add",
        "239.1.1.1:5001@veth1",
        "239.10.1.1:6001@veth2",
        "239.10.1.3:6003@veth4",
        "--name",
        "big",
        "--json",
    ]);
    assert!(said.unwrap().contains("the MTU of veth2 is 1000"));
    let receiver = "--interface veth5 --group 239.10.1.3 --port 6003 --expect 200";
    let receiver = lab.receiver("sink", receiver);
    lab.send(&format!("{GEN} --rate 1000 --count 200 --size 1024"));
    receiver.lossless(200);
    let stats = daemon.settled("big", 200);
    sums(&stats, 0, 0);
    sums(&stats, 1, 200);
    assert_eq!(stats["outputs"][0]["dropped"]["mtu"], 200, "{stats}");
}

pub(crate) fn an_interface_that_goes_down_takes_only_its_own_output_with_it(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "239.10.1.3:6003@veth4"]);
    let rule = "239.1.1.1:5001@veth1";
    lab.ip("relay", "link set veth2 down");
    crate::lab::wait_for("waiting", || daemon.state(rule).0 == "waiting");
    assert!(daemon.state(rule).1.contains("veth2 is down"), "{:?}", daemon.state(rule));
    let receiver = "--interface veth5 --group 239.10.1.3 --port 6003 --expect 200";
    let receiver = lab.receiver("sink", receiver);
    lab.send(&format!("{GEN} --rate 1000 --count 200 --size 100"));
    receiver.lossless(200);
    let stats = daemon.settled(rule, 200);
    sums(&stats, 0, 0);
    sums(&stats, 1, 200);
    assert_eq!(stats["outputs"][0]["dropped"]["interface-down"], 200, "{stats}");
    // Meanwhile the rule can be changed; only what is new must be there.
    daemon.ok(&["disable", rule]);
    daemon.ok(&["enable", rule]);
    daemon.ok(&["set", rule, "--ttl", "5"]);
    daemon.ok(&["output", "add", rule, "239.10.1.4:6004@veth4"]);
    daemon.ok(&["output", "remove", rule, "239.10.1.4:6004@veth4"]);
    let said = daemon.refused(&["output", "add", rule, "239.10.1.5:6005@veth2"]);
    assert!(said.contains("239.10.1.5:6005@veth2: interface veth2 is down"), "{said}");
    lab.ip("relay", "link set veth2 up");
    crate::lab::wait_for("both again", || daemon.state(rule).0 != "waiting");
    crate::lab::wait_for("veth2", || lab.is_running("relay", "veth2"));
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 200"));
    lab.send(&format!("{GEN} --rate 1000 --count 200 --size 100"));
    receiver.lossless(200);
}
