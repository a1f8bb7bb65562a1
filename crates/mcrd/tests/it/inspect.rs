//! Streams with known faults: the figures of the rule are those faults, and what comes out has the
//! same.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::forwarding::sums;
use crate::lab::{DEADLINE, Daemon, Lab, Plane, can_run, run, wait_for};

const GROUP: &str = "239.1.1.1:5000";

/// A sender and a receiver of datagrams that a test makes itself.
struct Ends {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Ends {
    fn open(lab: &Lab) -> Self {
        let sender = lab.inside("gen", || {
            let socket = UdpSocket::bind("10.0.0.1:4000").unwrap();
            socket.set_multicast_ttl_v4(8).unwrap();
            socket
        });
        let receiver = lab.inside("sink", || {
            let socket = UdpSocket::bind("239.10.1.1:6000").unwrap();
            let group = Ipv4Addr::new(239, 10, 1, 1);
            socket.join_multicast_v4(&group, &Ipv4Addr::new(10, 0, 1, 2)).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        });
        Self { sender, receiver }
    }

    /// Sends these, a few at a time so that no queue overflows; they come out as they went in.
    fn send(&self, datagrams: &[Vec<u8>]) {
        let mut room = [0; 2048];
        for few in datagrams.chunks(32) {
            for datagram in few {
                self.sender.send_to(datagram, GROUP).unwrap();
            }
            for datagram in few {
                let length = self.receiver.recv(&mut room).unwrap();
                assert!(room[..length] == datagram[..], "another datagram came out");
            }
        }
    }
}

fn add(daemon: &Daemon, inspect: &str) {
    let output = "239.10.1.1:6000@veth2";
    let input = format!("{GROUP}@veth1");
    daemon.ok(&["add", &input, output, "--name", "a", "--inspect", inspect]);
    // The reply does not wait for long. The first figures are there when the mirror is.
    wait_for("the mirror", || !daemon.stats("a")["inspect"].is_null());
}

fn rtp(number: u16, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, payload_type];
    bytes.extend(number.to_be_bytes());
    bytes.extend((u32::from(number) * 1800).to_be_bytes());
    bytes.extend(0xcafe_u32.to_be_bytes());
    [&bytes[..], payload].concat()
}

/// A packet of a transport stream.
fn ts(pid: u16, counter: u8) -> Vec<u8> {
    let [high, low] = pid.to_be_bytes();
    [&[0x47, high, low, 0x10 | counter & 0xf][..], &[0xff; 184]].concat()
}

/// The n-th datagram of a stream with a PAT, a picture and padding.
fn ts_datagram(n: u8) -> Vec<u8> {
    let pictures = (0..5).flat_map(|k| ts(0x100, n.wrapping_mul(5).wrapping_add(k)));
    ts(0, n).into_iter().chain(pictures).chain(ts(0x1fff, 0)).collect()
}

/// What the rule shows once so many datagrams were looked into.
fn inspected(daemon: &Daemon, kind: &str, packets: u64) -> Value {
    let mut stats = Value::Null;
    wait_for(&format!("{packets} packets of {kind} looked into\n{}", daemon.log()), || {
        stats = daemon.stats("a")["inspect"].clone();
        stats[kind]["packets"].as_u64().is_some_and(|seen| seen >= packets)
    });
    stats
}

/// Those of `expected` are in `found` with these values.
fn holds(found: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}: {found}");
    }
}

pub(crate) fn rtp_is_counted_as_it_came(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let daemon = lab.daemon(&[]);
    add(&daemon, "auto");
    let ends = Ends::open(&lab);
    // Over the wrap, with a gap of 3 and one of 1, one late by two, two doubled, and a restart.
    let mut numbers: Vec<u16> = (65_400..=65_535).chain(0..200).collect();
    numbers.retain(|n| !matches!(n, 65_450..=65_452 | 17));
    numbers.swap(300, 302);
    numbers.insert(310, numbers[309]);
    numbers.insert(320, numbers[310]);
    numbers.extend(20_000..20_120);
    let datagrams: Vec<Vec<u8>> = numbers.iter().map(|n| rtp(*n, 96, &[7; 40])).collect();
    ends.send(&datagrams);
    let packets = datagrams.len() as u64;
    let stats = inspected(&daemon, "rtp", packets);
    holds(&stats, &json!({"as": "rtp", "ts": null, "other": 0, "unseen": 0, "problem": null}));
    let counts = json!({"packets": packets, "expected": packets + 2, "lost": 4, "missing": 0,
        "reordered": 2, "duplicated": 2, "unseen": 0, "restarts": 1, "longest_gap": 3});
    holds(&stats["rtp"], &counts);
    let source = &stats["rtp"]["ssrcs"][0];
    holds(source, &counts);
    holds(
        source,
        &json!({"ssrc": "0x0000cafe", "from": "10.0.0.1:4000", "to": GROUP,
        "payload_type": 96, "clock_rate": 90_000}),
    );
    sums(&daemon.settled("a", packets), 0, packets);
    let shown = daemon.ok(&["stats", "a"]);
    assert!(shown.contains("lost before MCR: 4 of "), "{shown}");
    let mut curl = Command::new("curl");
    let socket = daemon.socket();
    curl.args(["-sf", "--unix-socket", socket.to_str().unwrap(), "http://mcrd/metrics"]);
    let text = String::from_utf8(run(&mut curl).stdout).unwrap();
    for line in [
        "mcr_rule_rtp_lost_packets_total{rule=\"a\"} 4",
        "mcr_rule_rtp_longest_gap_packets{rule=\"a\"} 3",
        "mcr_rule_inspect_unseen_packets_total{rule=\"a\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

/// In UDP and in RTP, with errors of each kind.
pub(crate) fn transport_streams_are_counted_as_they_came(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let daemon = lab.daemon(&[]);
    add(&daemon, "ts");
    let ends = Ends::open(&lab);
    let mut plain: Vec<Vec<u8>> = (0..100).map(ts_datagram).collect();
    // A sync byte that also breaks the order, a packet that says that it is damaged, and two that are
    // gone: a datagram, and the third packet of one.
    plain[20][188] = 0;
    plain[30][189] |= 0x80;
    plain[40].drain(2 * 188..3 * 188);
    plain.remove(50);
    ends.send(&plain);
    let stats = inspected(&daemon, "ts", 691);
    holds(&stats, &json!({"as": "ts", "rtp": null, "other": 0, "unseen": 0}));
    holds(
        &stats["ts"],
        &json!({"packets": 691, "continuity_errors": 4, "sync_errors": 1,
        "transport_errors": 1, "scrambled": 0, "pids": 2, "pat": true}),
    );
    sums(&daemon.settled("a", 99), 0, 99);

    daemon.ok(&["set", "a", "--inspect", "auto"]);
    wait_for("it begins anew", || daemon.stats("a")["inspect"]["as"] == "unknown");
    let inside: Vec<Vec<u8>> = (0..100_u16)
        .filter(|n| !matches!(n, 33 | 66 | 67))
        .map(|n| rtp(n, 33, &ts_datagram(n as u8)))
        .collect();
    ends.send(&inside);
    let stats = inspected(&daemon, "rtp", 97);
    holds(&stats, &json!({"as": "rtp+ts", "other": 0, "unseen": 0}));
    holds(&stats["rtp"], &json!({"packets": 97, "lost": 3, "longest_gap": 2, "duplicated": 0}));
    holds(&stats["ts"], &json!({"packets": 679, "continuity_errors": 4, "sync_errors": 0}));

    // The figures stay with the input, and what is missed meanwhile is not lost.
    let sockets = lab.packet_sockets("relay");
    daemon.ok(&["disable", "a"]);
    wait_for("no mirror", || lab.packet_sockets("relay") < sockets);
    for datagram in 100..110 {
        ends.sender.send_to(&rtp(datagram, 33, &ts_datagram(datagram as u8)), GROUP).unwrap();
    }
    daemon.ok(&["enable", "a"]);
    daemon.ok(&["output", "add", "a", "239.10.1.2:6000@veth2"]);
    // One of them is the mirror again.
    wait_for("the mirror", || lab.packet_sockets("relay") >= sockets);
    let rest: Vec<Vec<u8>> = (110..120).map(|n| rtp(n, 33, &ts_datagram(n as u8))).collect();
    ends.send(&rest);
    let stats = inspected(&daemon, "rtp", 107);
    holds(&stats["rtp"], &json!({"packets": 107, "lost": 3, "unseen": 10, "restarts": 0}));
    holds(&stats["ts"], &json!({"packets": 749, "continuity_errors": 4}));
    daemon.ok(&["set", "a", "--inspect", "none"]);
    // A mirror is there only when it is asked for.
    wait_for("no figures", || daemon.stats("a")["inspect"].is_null());
    wait_for("no mirror", || lab.packet_sockets("relay") == sockets - 1);
    daemon.ok(&["set", "a", "--inspect", "ts"]);
    wait_for("the mirror", || lab.packet_sockets("relay") == sockets);
}

/// The datagrams of a super-packet are looked at one by one: none of these is RTP.
#[test]
fn a_super_packet_is_looked_into_as_its_datagrams() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Tcx);
    let daemon = lab.daemon(&[]);
    add(&daemon, "rtp");
    lab.send("--group 239.1.1.1 --port 5000 --rate 2000 --count 100 --size 1000 --gso 10");
    sums(&daemon.settled("a", 100), 0, 100);
    wait_for("100 datagrams looked into", || daemon.stats("a")["inspect"]["other"] == 100);
    assert_eq!(daemon.stats("a")["inspect"]["as"], "unknown");
}

/// While the daemon is stopped its ring overflows, and the program goes on relaying.
#[test]
fn what_the_mirror_misses_is_not_lost() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Tcx);
    let daemon = lab.daemon(&[]);
    add(&daemon, "rtp");
    let ends = Ends::open(&lab);
    let stream = |numbers: std::ops::Range<u32>| -> Vec<Vec<u8>> {
        numbers.map(|n| rtp(n as u16, 33, &[7; 1300])).collect()
    };
    ends.send(&stream(0..100));
    inspected(&daemon, "rtp", 100);
    daemon.signal(Signal::STOP);
    ends.send(&stream(100..20_000));
    daemon.signal(Signal::CONT);
    wait_for("something missed", || {
        daemon.stats("a")["inspect"]["unseen"].as_u64().is_some_and(|unseen| unseen > 0)
    });
    let before = daemon.stats("a")["inspect"]["rtp"]["packets"].as_u64().unwrap();
    // A loss that is one, after that.
    ends.send(&stream(20_000..20_010));
    ends.send(&stream(20_011..20_020));
    let stats = inspected(&daemon, "rtp", before + 19);
    holds(&stats["rtp"], &json!({"lost": 1, "longest_gap": 1, "reordered": 0, "duplicated": 0}));
    assert_eq!(daemon.stats("a")["received"]["packets"], 20_019);
}
