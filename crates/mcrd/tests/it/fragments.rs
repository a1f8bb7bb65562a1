//! Datagrams larger than the MTU, which come as fragments and go out as fragments.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use etherparse::PacketBuilder;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, wait_for};

const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
const GEN: &str = "--group 239.1.1.1 --port 5001";
/// What a datagram of 4,000 bytes is made of: of IPv4 1,480 bytes each, of IPv6 1,448, with the UDP
/// header in the first.
const PARTS: u64 = 3;

pub(crate) fn large_datagrams_come_out_as_they_came_in(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    for k in 1..=4 {
        let (from, to) =
            (format!("239.1.1.{k}:500{k}@veth1"), format!("239.10.1.{k}:600{k}@veth2"));
        daemon.ok(&["add", &from, &to, "--name", &format!("four{k}")]);
        let (from, to) =
            (format!("[ff15::{k}]:500{k}@veth1"), format!("[ff15::a{k}]:600{k}@veth2"));
        daemon.ok(&["add", &from, &to, "--name", &format!("six{k}")]);
    }
    let load = "--streams 4 --rate 200 --count 200 --size 4000";
    for (from, to, rule) in [("239.1.1.1", "239.10.1.1", "four"), ("ff15::1", "ff15::a1", "six")] {
        let flow = format!("--group {to} --port 6001 --streams 4 --expect 200");
        let receiver = lab.receiver("sink", &format!("--interface veth3 {flow}"));
        lab.send(&format!("--group {from} --port 5001 {load}"));
        receiver.lossless(800);
        for k in 1..=4 {
            let stats = daemon.settled(&format!("{rule}{k}"), 200 * PARTS);
            sums(&stats, 0, 200 * PARTS);
            assert_eq!(stats["matched"]["bytes"], 200 * 4000, "{stats}");
        }
    }
}

/// Two families to hosts: the parts of a datagram find each other at a host too.
pub(crate) fn large_datagrams_go_to_a_host(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.0.1.2:6001@veth2", "--name", "four"]);
    daemon.ok(&["add", "[ff15::1]:5001@veth1", "[fd00:0:0:1::2]:6001@veth2", "--name", "six"]);
    for (from, to, rule) in [("239.1.1.1", "10.0.1.2", "four"), ("ff15::1", "fd00:0:0:1::2", "six")]
    {
        daemon.wait_state(rule, "idle");
        let flow = format!("--group {to} --port 6001 --expect 200");
        let receiver = lab.receiver("sink", &format!("--interface veth3 {flow}"));
        lab.send(&format!("--group {from} --port 5001 --rate 200 --count 200 --size 4000"));
        receiver.lossless(200);
        sums(&daemon.settled(rule, 200 * PARTS), 0, 200 * PARTS);
    }
}

/// Datagrams of two senders with the same identification, their fragments in turn, get to one host
/// from one address: nobody else could tell them apart.
pub(crate) fn streams_of_two_senders_to_one_host_never_mix(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.0.1.2:6001@veth2", "--name", "a"]);
    daemon.ok(&["add", "239.1.1.2:5001@veth1", "10.0.1.2:6002@veth2", "--name", "b"]);
    daemon.wait_state("b", "idle");
    let wire = Wire::open(&lab);
    let sinks = [listen(&lab, "10.0.1.2:6001"), listen(&lab, "10.0.1.2:6002")];
    for id in 0..200_u16 {
        let payloads = [vec![id as u8; 4000], vec![!id as u8; 4000]];
        let a = Datagram::new([10, 0, 0, 1], [239, 1, 1, 1], 5001, &payloads[0]).fragments(id);
        let b = Datagram::new([10, 0, 0, 3], [239, 1, 1, 2], 5001, &payloads[1]).fragments(id);
        for (a, b) in a.iter().zip(&b) {
            wire.send(a);
            wire.send(b);
        }
        for (sink, payload) in sinks.iter().zip(&payloads) {
            assert_eq!(&receive(sink), payload, "datagram {id}");
        }
    }
    for rule in ["a", "b"] {
        sums(&daemon.settled(rule, 200 * PARTS), 0, 200 * PARTS);
    }
}

/// The same within one rule: two senders to one group.
pub(crate) fn two_senders_to_one_group_never_mix(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.0.1.2:6001@veth2", "--name", "a"]);
    daemon.wait_state("a", "idle");
    let (wire, sink) = (Wire::open(&lab), listen(&lab, "10.0.1.2:6001"));
    for id in 0..100_u16 {
        let payloads = [vec![id as u8; 4000], vec![!id as u8; 4000]];
        let hosts = [1, 3].into_iter().zip(&payloads);
        let parts: Vec<_> = hosts
            .map(|(host, payload)| {
                Datagram::new([10, 0, 0, host], [239, 1, 1, 1], 5001, payload).fragments(id)
            })
            .collect();
        // The second sender's come backwards, but for the first fragment.
        for (mine, theirs) in [(0, 0), (1, 2), (2, 1)] {
            wire.send(&parts[0][mine]);
            wire.send(&parts[1][theirs]);
        }
        let mut came = [receive(&sink), receive(&sink)];
        came.sort();
        let mut payloads = payloads;
        payloads.sort();
        assert!(came == payloads, "datagram {id}");
    }
    sums(&daemon.settled("a", 200 * PARTS), 0, 200 * PARTS);
}

pub(crate) fn what_cannot_be_matched_is_counted(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.0.1.2:6001@veth2", "--name", "a"]);
    daemon.wait_state("a", "idle");
    let (wire, sink) = (Wire::open(&lab), listen(&lab, "10.0.1.2:6001"));
    let datagram = |port, byte| Datagram::new([10, 0, 0, 1], [239, 1, 1, 1], port, &[byte; 4000]);
    // The first is missing.
    let parts = datagram(5001, 1).fragments(1);
    wire.send(&parts[1]);
    wire.send(&parts[2]);
    // It comes too late for one of the others.
    let parts = datagram(5001, 2).fragments(2);
    wire.send(&parts[1]);
    wire.send(&parts[0]);
    wire.send(&parts[2]);
    // It is no rule's, so the others are not either.
    datagram(5002, 3).fragments(3).iter().for_each(|part| wire.send(part));
    // In an order that can be followed.
    let parts = datagram(5001, 4).fragments(4);
    wire.send(&parts[0]);
    wire.send(&parts[2]);
    wire.send(&parts[1]);
    assert_eq!(receive(&sink), [4; 4000]);
    let stats = daemon.settled("a", 5);
    sums(&stats, 0, 5);
    assert_eq!(stats["received"]["packets"], 5, "{stats}");
    assert_eq!(daemon.passed("veth1", "fragment", 5), 5);
    assert_eq!(daemon.passed("veth1", "no-rule", 1), 1);
}

pub(crate) fn fragments_larger_than_the_mtu_are_counted(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    lab.ip("relay", "link set veth2 mtu 1000");
    let daemon = lab.daemon(&[]);
    let outputs = ["239.10.1.1:6001@veth2", "239.10.1.2:6002@veth4"];
    daemon.ok(&[&["add", "239.1.1.1:5001@veth1"], &outputs[..], &["--name", "a"]].concat());
    let narrow = lab.receiver("sink", &format!("{SINK} --idle 1s"));
    let flow = "--interface veth5 --group 239.10.1.2 --port 6002 --expect 100";
    let wide = lab.receiver("sink", flow);
    // 1,480, 1,480 and 48 bytes.
    lab.send(&format!("{GEN} --rate 500 --count 100 --size 3000"));
    wide.lossless(100);
    let stats = daemon.settled("a", 300);
    sums(&stats, 0, 100);
    sums(&stats, 1, 300);
    assert_eq!(stats["outputs"][0]["dropped"]["mtu"], 200, "{stats}");
    assert_eq!(narrow.stop()["received"], 0);
}

/// What the rate drops, or what is our own, leaves no trace: the parts that follow have no rule.
pub(crate) fn a_datagram_is_dropped_whole(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let wire = Wire::open(&lab);
    for id in 0..20 {
        let own = Datagram::new([10, 0, 1, 1], [239, 1, 1, 1], 5001, &[7; 4000]);
        own.fragments(id).iter().for_each(|part| wire.send(part));
    }
    let stats = daemon.settled("a", 20);
    assert_eq!(stats["dropped"]["own"], 20, "{stats}");
    sums(&stats, 0, 0);
    assert_eq!(daemon.passed("veth1", "fragment", 40), 40);
}

/// A raw socket of the generator's namespace, by which anything can be sent.
struct Wire(OwnedFd);

impl Wire {
    fn open(lab: &Lab) -> Self {
        let raw = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).unwrap();
        Self(lab.inside("gen", raw))
    }

    fn send(&self, packet: &[u8]) {
        let destination = <[u8; 4]>::try_from(&packet[16..20]).unwrap();
        let destination = SocketAddrV4::new(Ipv4Addr::from(destination), 0);
        // A queue may be full for a moment.
        wait_for("a packet to be sent", || {
            sendto(&self.0, packet, SendFlags::empty(), &destination).is_ok()
        });
    }
}

/// An IPv4 packet with a UDP datagram.
struct Datagram(Vec<u8>);

impl Datagram {
    fn new(source: [u8; 4], group: [u8; 4], port: u16, payload: &[u8]) -> Self {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source, group, 8).udp(4000, port).write(&mut packet, payload).unwrap();
        Self(packet)
    }

    /// For an MTU of 1,500. The kernel sets the length and the checksum of each (raw(7)).
    fn fragments(&self, id: u16) -> Vec<Vec<u8>> {
        let (header, payload) = self.0.split_at(20);
        let chunks = payload.chunks(1480);
        let last = chunks.len() - 1;
        let fragment = |(n, chunk): (usize, &[u8])| {
            let more = if n < last { 0x2000 } else { 0 };
            let mut packet = [header, chunk].concat();
            packet[4..6].copy_from_slice(&(id + 1).to_be_bytes());
            packet[6..8].copy_from_slice(&(more | (n * 1480 / 8) as u16).to_be_bytes());
            packet
        };
        chunks.enumerate().map(fragment).collect()
    }
}

fn listen(lab: &Lab, address: &str) -> UdpSocket {
    let socket = lab.inside("sink", || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 5000];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}
