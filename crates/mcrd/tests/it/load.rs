//! Large datagrams, large frames, and many changes at once.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::control::change;
use crate::forwarding::sums;
use crate::lab::{Lab, Plane};
use crate::traffic::Background;

const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
const GEN: &str = "--group 239.1.1.1 --port 5001";

/// A rule for stream `k`, from and to the groups and ports that [`GEN`] and [`SINK`] count up.
pub(crate) fn rule(k: usize) -> Value {
    json!({
        "name": format!("s{k}"),
        "input": format!("239.1.1.{k}:{}@veth1", 5000 + k),
        "outputs": [format!("239.10.1.{k}:{}@veth2", 6000 + k)],
    })
}

pub(crate) fn jumbo_frames_go_through(plane: Plane) {
    let lab = Lab::chain(plane);
    for (role, interface) in
        [("gen", "veth0"), ("relay", "veth1"), ("relay", "veth2"), ("sink", "veth3")]
    {
        lab.ip(role, &format!("link set {interface} mtu 9000"));
    }
    let daemon = lab.daemon(&[]);
    change(&daemon, &json!([{"add": rule(1)}]));
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 500"));
    lab.send(&format!("{GEN} --rate 1000 --count 500 --size 8900"));
    receiver.lossless(500);
    let stats = daemon.settled("s1", 500);
    sums(&stats, 0, 500);
    assert_eq!(stats["outputs"][0]["forwarded"]["bytes"], 500 * 8900, "{stats}");
}

/// "No checksum" is no checksum to correct (RFC 768), by the word of the wire.
pub(crate) fn a_zero_checksum_stays_zero(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    change(&daemon, &json!([{"add": rule(1)}]));
    // Ends by itself when it has all.
    let mut tcpdump = lab.command("sink", "timeout");
    tcpdump.args(["30", "tcpdump", "-i", "veth3", "-n", "-vv", "--immediate-mode", "-c", "50"]);
    tcpdump.args(["udp", "port", "6001"]);
    let mut tcpdump = Background::capture(tcpdump.stdout(Stdio::piped()));
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 50"));
    lab.send(&format!("{GEN} --rate 1000 --count 50 --size 101 --checksum none"));
    receiver.lossless(50);
    let output = tcpdump.0.take().unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("[no cksum]").count(), 50, "{text}");
}

/// Ten rules come and ten go with each turn; those that carry streams notice nothing.
pub(crate) fn a_thousand_rules_come_and_go_under_load_without_loss(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    change(&daemon, &(1..=10).map(|k| json!({"add": rule(k)})).collect());
    let receiver = lab.receiver("sink", &format!("{SINK} --streams 10 --idle 2s"));
    let sender = lab.sender(&format!("{GEN} --streams 10 --rate 200 --size 200"));
    daemon.ok(&["wait", "s1", "--for", "forwarding"]);
    let other = |turn: usize, n: usize| {
        json!({"add": {
            "name": format!("other-{turn}-{n}"),
            "input": format!("239.2.{}.{}:7000@veth1", turn % 250, n + 1),
            "outputs": ["239.30.1.1:7000@veth2", "239.30.1.2:7000@veth2"],
        }})
    };
    let gone = |turn: usize, n: usize| json!({"remove": format!("other-{turn}-{n}")});
    let begin = Instant::now();
    let mut turns = 0;
    while turns < 100 || begin.elapsed() < Duration::from_secs(8) {
        change(&daemon, &(0..10).map(|n| other(turns, n)).collect());
        // Up to a hundred stay for a while.
        if let Some(old) = turns.checked_sub(10) {
            change(&daemon, &(0..10).map(|n| gone(old, n)).collect());
        }
        turns += 1;
    }
    for old in turns - 10..turns {
        change(&daemon, &(0..10).map(|n| gone(old, n)).collect());
    }
    let sent: Value = serde_json::from_slice(&sender.stop().stdout).unwrap();
    let sent = sent["sent"].as_u64().unwrap();
    receiver.lossless(sent);
    let forwarded = |k: usize| {
        let stats = daemon.stats(&format!("s{k}"));
        stats["outputs"][0]["forwarded"]["packets"].as_u64().unwrap()
    };
    assert_eq!((1..=10).map(forwarded).sum::<u64>(), sent);
    assert_eq!(daemon.list().as_array().unwrap().len(), 10);
}

/// Datagrams of a frame, and bytes of each: 2 to 40, up to nearly 64 KiB together.
pub(crate) fn super_packets_of_many_sizes_go_through(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    change(&daemon, &json!([{"add": rule(1)}]));
    let (mut packets, mut bytes) = (0, 0);
    for (datagrams, size) in
        [(2, 1400), (3, 333), (7, 1472), (16, 1024), (25, 100), (33, 1000), (40, 40), (40, 1472)]
    {
        // The last frame is not full.
        let receiver = lab.receiver("sink", &format!("{SINK} --expect 501"));
        lab.send(&format!("{GEN} --rate 2000 --count 501 --size {size} --gso {datagrams}"));
        receiver.lossless(501);
        packets += 501;
        bytes += 501 * size;
        let stats = daemon.settled("s1", packets);
        sums(&stats, 0, packets);
        assert_eq!(stats["outputs"][0]["forwarded"]["bytes"], bytes, "{datagrams} of {size}");
    }
}
