//! Frames through a worker's decisions and its queues, up to what it hands to the kernel: here to a
//! socket that keeps the messages.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use mcr_core::action::{
    LinkHeader, OutputCounters, OutputId, PlaneChange, PlaneOutput, PlaneRule, RuleCounters,
    RuleId, Take, ToStack,
};
use mcr_core::flow::{AddressBlock, PortRange};
use mcr_core::rule::{Dscp, Ttl};
use mcr_core::verdict::RuleDrop;
use mcr_core::wire::{checksum, udp};

use super::*;
use crate::packet::vnet::{self, VnetHeader};

const TUN: IfIndex = IfIndex(2);
const OUT: IfIndex = IfIndex(3);
const SECOND: u64 = 1_000_000_000;

struct World {
    relay: Relay,
    place: Place,
    sent: UnixDatagram,
}

impl World {
    /// Relays from `group` on [`TUN`] to `to` on [`OUT`].
    fn new(group: &str, to: &str, max_rate: Option<&str>) -> Self {
        let (counters, shared) = (CounterMemory::new(4, 4).unwrap(), SharedMemory::new(4).unwrap());
        let mut relay = Relay::new(counters, shared);
        relay.now_ns = 5 * SECOND;
        let (ours, sent) = UnixDatagram::pair().unwrap();
        sent.set_nonblocking(true).unwrap();
        relay.queues.insert(OUT, SendQueue::new(OUT, OwnedFd::from(ours), None));
        let output = PlaneOutput {
            id: OutputId(1),
            absent: None,
            interface: OUT,
            mtu: 1500,
            carrier: true,
            header: LinkHeader::Ethernet { source: [2; 6], next_hop: None },
            source: None,
            source_port: None,
            destination: AddressBlock::single(to.parse().unwrap()),
            port_shift: 1000,
            ttl: Ttl::Keep,
            dscp: Dscp::Keep,
        };
        let rule = PlaneRule {
            id: RuleId(1),
            take: Take {
                interface: TUN,
                addresses: AddressBlock::single(group.parse().unwrap()),
                ports: PortRange::new(5000, 5000).unwrap(),
                sources: Vec::new(),
            },
            to_stack: ToStack::Always,
            max_rate: max_rate.map(|rate| rate.parse().unwrap()),
            outputs: vec![output],
        };
        relay.table.apply(PlaneChange { install: vec![rule], ..PlaneChange::default() });
        Self { relay, place: Place::new().unwrap(), sent }
    }

    /// What is handed to the kernel of a packet that came in by an interface without link header.
    fn relayed(&mut self, packet: &[u8], vnet: VnetHeader) -> Option<(VnetHeader, Vec<u8>)> {
        let received = Received {
            bytes: packet,
            bare: true,
            before: 0,
            length: packet.len(),
            packet_type: libc::PACKET_HOST,
            tag: None,
            vnet,
            copied: false,
            time: 0,
            interface: TUN,
        };
        // SAFETY: the packet outlives the flush.
        unsafe { self.relay.frame(TUN, &self.place, &received) };
        self.relay.flush();
        let mut message = vec![0; 65536];
        let length = self.sent.recv(&mut message).ok()?;
        Some((VnetHeader::read(&message), message[vnet::LEN..length].to_vec()))
    }

    fn rule(&self) -> RuleCounters {
        let mut sum = RuleCounters::default();
        self.relay.counters.add_rule(RuleId(1), &mut sum);
        sum
    }

    fn output(&self) -> OutputCounters {
        let mut sum = OutputCounters::default();
        self.relay.counters.add_output(OutputId(1), &mut sum);
        sum
    }
}

/// A UDP header and its payload, whose checksum is left to be made.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let length = (udp::HEADER_LEN + payload.len()) as u16;
    let ports = [4000_u16, 5000].map(u16::to_be_bytes).concat();
    [&ports[..], &length.to_be_bytes(), &[0x12, 0x34], payload].concat()
}

fn v4(payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 16, 17, 0, 0, 10, 0, 0, 1, 239, 1, 1, 1];
    header[2..4].copy_from_slice(&((28 + payload.len()) as u16).to_be_bytes());
    let field = checksum::checksum(&header);
    header[10..12].copy_from_slice(&field.to_be_bytes());
    [header, datagram(payload)].concat()
}

/// With an extension header of 8 bytes (destination options).
fn v6(payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0, 0, 0, 60, 16];
    header[4..6].copy_from_slice(&((16 + payload.len()) as u16).to_be_bytes());
    for address in ["fd00::1", "ff35::1"] {
        header.extend(address.parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    [&header[..], &[17, 0, 1, 4, 0, 0, 0, 0], &datagram(payload)].concat()
}

#[test]
fn a_packet_without_link_header_gets_one_and_its_offload_moves_along() {
    let mut world = World::new("239.1.1.1", "239.10.1.1", None);
    let packet = v4(b"payload");
    let (vnet, frame) = world.relayed(&packet, VnetHeader::default().partial(20)).unwrap();
    assert_eq!(frame[..14], [1, 0, 0x5e, 10, 1, 1, 2, 2, 2, 2, 2, 2, 8, 0]);
    assert_eq!(frame[30..34], [239, 10, 1, 1]);
    assert_eq!(checksum::checksum(&frame[14..34]), 0);
    assert_eq!(frame[36..38], 6000_u16.to_be_bytes());
    assert_eq!(frame[42..], *b"payload");
    assert!(vnet.is_partial(34) && vnet.segment_size() == 0);

    // A checksum of something else (in a tunnel) stays that of something else.
    let (vnet, _) = world.relayed(&packet, VnetHeader::default().partial(24)).unwrap();
    assert!(vnet.is_partial(38));

    let mut world = World::new("ff35::1", "ff35::2", None);
    let (vnet, frame) = world.relayed(&v6(b"payload"), VnetHeader::default().partial(48)).unwrap();
    assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 0x86, 0xdd]);
    assert_eq!(frame[14 + 50..][..2], 6000_u16.to_be_bytes());
    assert_eq!(frame[14 + 56..], *b"payload");
    assert!(vnet.is_partial(62));
    assert_eq!(world.output().forwarded.bytes, 7);
}

#[test]
fn a_super_packet_has_its_headers_length_and_an_unfinished_checksum() {
    let super_packet = {
        let mut bytes = [0; vnet::LEN];
        bytes[1] = 5;
        bytes[4..6].copy_from_slice(&1000_u16.to_ne_bytes());
        VnetHeader::read(&bytes)
    };
    for (group, to, packet, udp) in [
        ("239.1.1.1", "239.10.1.1", v4(&[7; 2500]), 34),
        ("ff35::1", "ff35::2", v6(&[7; 2500]), 62),
    ] {
        let mut world = World::new(group, to, None);
        let (vnet, frame) = world.relayed(&packet, super_packet).unwrap();
        assert!(vnet.is_partial(udp), "made unfinished");
        assert_eq!(vnet.segment_size(), 1000);
        // The sum of the pseudo-header, which has the addresses, the protocol and the length.
        let addresses = if udp == 34 { 14 + 12..14 + 20 } else { 14 + 8..14 + 40 };
        let rest = [&[0, 17][..], &frame[udp + 4..][..2]].concat();
        let sum = checksum::sum(&frame[addresses]) + checksum::sum(&rest);
        assert_eq!(frame[udp + udp::CHECKSUM..][..2], checksum::fold(sum).to_be_bytes());
        assert_eq!(world.output().forwarded.packets, 3);
    }
}

#[test]
fn later_fragments_go_with_their_first() {
    let mut world = World::new("239.1.1.1", "239.10.1.1", None);
    let fragment = |bits: u16, payload: &[u8]| {
        let mut packet = v4(payload);
        packet[6..8].copy_from_slice(&bits.to_be_bytes());
        packet
    };
    let mut later = fragment(3, b"later");
    later.drain(20..28);
    later[2..4].copy_from_slice(&25_u16.to_be_bytes());
    assert!(world.relayed(&later, VnetHeader::default()).is_none(), "before its first");
    let (_, first) = world.relayed(&fragment(0x2000, &[1; 16]), VnetHeader::default()).unwrap();
    let (_, last) = world.relayed(&later, VnetHeader::default()).unwrap();
    assert_eq!(last[18..20], first[18..20], "one identification");
    assert_eq!((&last[30..34], &last[34..]), (&[239, 10, 1, 1][..], &b"later"[..]));
    world.relay.now_ns += 3 * SECOND;
    assert!(world.relayed(&later, VnetHeader::default()).is_none(), "long after its first");
    let mut passed = Default::default();
    world.place.sum_passed(&mut passed);
    assert_eq!(passed[mcr_core::verdict::Pass::Fragment as usize], 2);
}

#[test]
fn a_rate_is_kept_until_the_id_is_given_to_another_rule() {
    let mut world = World::new("239.1.1.1", "239.10.1.1", Some("10pps"));
    let packet = v4(b"payload");
    let send = |world: &mut World| world.relayed(&packet, VnetHeader::default()).is_some();
    // A tenth of a second ahead.
    let taken = (0..10).filter(|_| send(&mut world)).count();
    assert_eq!(taken, 2);
    assert_eq!(world.rule().dropped[RuleDrop::Rate as usize], 8);
    world.relay.shared.shared().clear_rule(RuleId(1));
    assert!(send(&mut world));
}

/// What a relay that has just started sends is not taken for what another has sent before it.
#[test]
fn identifications_begin_at_random() {
    let packet = v4(b"payload");
    let first = || {
        let mut world = World::new("239.1.1.1", "239.10.1.1", None);
        let (_, frame) = world.relayed(&packet, VnetHeader::default()).unwrap();
        [frame[18], frame[19]]
    };
    let numbers: std::collections::BTreeSet<[u8; 2]> = (0..8).map(|_| first()).collect();
    assert!(numbers.len() > 1, "{numbers:?}");
}
