//! What was seen on the wire: flows with their packets, TTLs, sizes, and what came twice.
//!
//! Bounded: of more flows than [`FLOWS_MAX`] the further ones are only counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::flow::{AddressBlock, PortRange};
use crate::link::IfIndex;
use crate::wire::ip::{Ip, PROTOCOL_UDP};
use crate::wire::udp::Udp;

/// The most flows that are told apart.
pub const FLOWS_MAX: usize = 65_536;
/// So many packets back a repetition is found.
const REMEMBERED: usize = 16;
/// The VLAN identifier in a tag (IEEE 802.1Q).
const VLAN_ID: u16 = 0xfff;

/// A frame as a tap hands it over.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'f> {
    /// Where it was seen.
    pub interface: IfIndex,
    /// This host sends it.
    pub outgoing: bool,
    /// The tag that it carries.
    pub tag: Option<u16>,
    /// From the IP header on; the end may be missing.
    pub packet: &'f [u8],
    /// Payload bytes of each datagram of a super-packet; 0 for one datagram.
    pub segment: u16,
}

/// A flow at one place. Ordered so that a group's are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Whom to.
    pub destination: IpAddr,
    /// Which port.
    pub port: u16,
    /// Where it was seen.
    pub interface: IfIndex,
    /// This host sends it.
    pub outgoing: bool,
    /// The VLAN of its tag; a priority tag is none.
    pub vlan: Option<u16>,
    /// From whom.
    pub source: IpAddr,
}

/// What of a flow was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// Packets; fragments but the first are not among them.
    pub packets: u64,
    /// Those that had come shortly before, by IPv4 identification, checksum and length.
    pub repeated: u64,
    /// The lowest TTL.
    pub ttl: u8,
    /// Bytes of the largest IP packet, as it must fit an MTU.
    pub largest: usize,
    /// The last ones, in a ring.
    recent: Vec<(u32, u16, usize)>,
}

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    flows: BTreeMap<Flow, Sight>,
    /// Packets of flows that are too many, or that the tap lost.
    pub missed: u64,
}

impl Seen {
    /// A frame, if it is UDP.
    pub fn observe(&mut self, frame: &Frame<'_>) {
        let Some(ip) = Ip::parse_start(frame.packet, usize::MAX) else { return };
        let length = ip.header_len() + ip.payload_len();
        let udp = (ip.protocol() == PROTOCOL_UDP).then(|| Udp::parse(ip.payload())).flatten();
        let Some(udp) = udp.filter(|_| ip.fragment().is_none_or(|fragment| fragment.first)) else {
            return;
        };
        let flow = Flow {
            destination: ip.destination(),
            port: udp.destination_port(),
            interface: frame.interface,
            outgoing: frame.outgoing,
            vlan: frame.tag.map(|tag| tag & VLAN_ID).filter(|vlan| *vlan > 0),
            source: ip.source(),
        };
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&flow) {
            self.missed += 1;
            return;
        }
        let largest = match frame.segment {
            0 => length,
            segment => ip.header_len() + crate::wire::udp::HEADER_LEN + usize::from(segment),
        };
        let sight = self.flows.entry(flow).or_default();
        sight.ttl = if sight.packets == 0 { ip.ttl() } else { sight.ttl.min(ip.ttl()) };
        sight.largest = sight.largest.max(largest);
        sight.packets += 1;
        // Without "don't fragment" a sender numbers its packets (RFC 6864).
        if let Some(at) = ip.needs_id() {
            let id = u16::from_be_bytes([frame.packet[at], frame.packet[at + 1]]);
            sight.remember((id.into(), udp.checksum(), length));
        }
    }

    /// What was seen of these destinations.
    pub fn to(
        &self,
        addresses: AddressBlock,
        ports: Option<PortRange>,
    ) -> impl Iterator<Item = (&Flow, &Sight)> {
        let lowest = |destination, port| Flow {
            destination,
            port,
            interface: IfIndex(0),
            outgoing: false,
            vlan: None,
            source: IpAddr::V4(0.into()),
        };
        let all = self.flows.range(lowest(addresses.first(), 0)..);
        let all = all.take_while(move |(flow, _)| addresses.contains(flow.destination));
        all.filter(move |(flow, _)| ports.is_none_or(|ports| ports.contains(flow.port)))
    }
}

impl Sight {
    fn remember(&mut self, packet: (u32, u16, usize)) {
        if self.recent.contains(&packet) {
            self.repeated += 1;
        }
        if self.recent.len() < REMEMBERED {
            self.recent.push(packet);
        } else {
            self.recent[self.packets as usize % REMEMBERED] = packet;
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn udp(source: [u8; 4], port: u16, ttl: u8, id: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source, [239, 1, 1, 1], ttl)
            .udp(4000, port)
            .write(&mut packet, &[7; 1000])
            .unwrap();
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6] &= !0x40;
        packet
    }

    fn observe(seen: &mut Seen, packet: &[u8], tag: Option<u16>) {
        let frame = Frame { interface: IfIndex(2), outgoing: false, tag, packet, segment: 0 };
        seen.observe(&frame);
    }

    fn group() -> AddressBlock {
        AddressBlock::single([239, 1, 1, 1].into())
    }

    #[test]
    fn flows_are_told_apart_and_their_lowest_ttl_kept() {
        let mut seen = Seen::default();
        for (n, ttl) in [(1, 5), (2, 3), (3, 9)] {
            // As a tap cuts it.
            observe(&mut seen, &udp([10, 0, 0, 1], 5000, ttl, n)[..64], None);
        }
        observe(&mut seen, &udp([10, 0, 0, 1], 5000, 1, 4), Some(10));
        observe(&mut seen, &udp([10, 0, 0, 1], 5000, 1, 4), Some(0x2000));
        observe(&mut seen, &udp([10, 0, 0, 2], 5002, 1, 4), None);
        let all: Vec<_> = seen.to(group(), None).collect();
        assert_eq!(all.len(), 3, "{all:?}");
        let (flow, sight) = all[0];
        assert_eq!((flow.vlan, flow.source), (None, [10, 0, 0, 1].into()));
        assert_eq!((sight.packets, sight.ttl, sight.largest), (4, 1, 1028));
        assert_eq!(all[1].0.vlan, Some(10));
        let port = PortRange::new(5002, 5002).unwrap();
        let found: Vec<_> = seen.to(group(), Some(port)).map(|(flow, _)| flow.source).collect();
        assert_eq!(found, [IpAddr::from([10, 0, 0, 2])]);
        let other = AddressBlock::single([239, 1, 1, 2].into());
        assert_eq!(seen.to(other, None).count(), 0);
    }

    #[test]
    fn a_packet_that_comes_again_is_seen() {
        let mut seen = Seen::default();
        for id in 0..100 {
            let packet = udp([10, 0, 0, 1], 5000, 5, id);
            observe(&mut seen, &packet, None);
            if id % 10 == 0 {
                observe(&mut seen, &packet, None);
            }
        }
        let (_, sight) = seen.to(group(), None).next().unwrap();
        assert_eq!((sight.packets, sight.repeated), (110, 10));
    }

    #[test]
    fn what_cannot_be_numbered_is_not_taken_for_a_repetition() {
        let mut seen = Seen::default();
        let mut packet = udp([10, 0, 0, 1], 5000, 5, 0);
        packet[6] |= 0x40;
        for _ in 0..10 {
            observe(&mut seen, &packet, None);
        }
        let (_, sight) = seen.to(group(), None).next().unwrap();
        assert_eq!((sight.packets, sight.repeated), (10, 0));
    }

    #[test]
    fn of_a_super_packet_a_datagram_has_to_fit() {
        let mut seen = Seen::default();
        let packet = udp([10, 0, 0, 1], 5000, 5, 0);
        let frame = Frame {
            interface: IfIndex(2),
            outgoing: false,
            tag: None,
            packet: &packet,
            segment: 100,
        };
        seen.observe(&frame);
        assert_eq!(seen.to(group(), None).next().unwrap().1.largest, 128);
    }

    #[test]
    fn more_flows_than_fit_are_counted() {
        let mut seen = Seen::default();
        for n in 0..FLOWS_MAX as u32 + 5 {
            let [_, b, c, d] = n.to_be_bytes();
            observe(&mut seen, &udp([10, b, c, d], 5000, 5, 1), None);
        }
        assert_eq!((seen.flows.len(), seen.missed), (FLOWS_MAX, 5));
    }
}
