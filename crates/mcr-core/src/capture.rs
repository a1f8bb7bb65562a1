//! Which frames are one rule's: what a capture of it shows.
//!
//! A [`Plan`] says where to look and for what. [`Matcher`] judges the frames that are seen there, as
//! they come in ([`Side::In`]) or as they leave ([`Side::Out`]). [`Packet`] says in short what a frame
//! is, [`pcap`] is the format that a capture has.

pub mod pcap;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::action::{PlaneOutput, Take};
use crate::flow::{AddressBlock, Destination, PortRange};
use crate::link::IfIndex;
use crate::rule::RuleKey;
use crate::wire::ethernet::{self, TYPE_IPV4, TYPE_IPV6};
use crate::wire::ip::{Ip, PROTOCOL_UDP};
use crate::wire::udp::{self, Udp};

/// Bytes of a frame that hold all headers that are looked at: of Ethernet, IP with what extends it,
/// and UDP.
pub const HEADERS: u32 = 128;
/// So long, in nanoseconds, later fragments may come after the first, as in [`crate::forward`].
const KNOWN_NS: u64 = 2_000_000_000;
/// Datagrams whose fragments are waited for; with more the oldest are forgotten.
const DATAGRAMS: usize = 4096;

/// Where a rule's packets are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// As they arrive.
    In,
    /// As they leave.
    Out,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The name in the API and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What a client wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Of which rule.
    pub rule: RuleKey,
    /// On which side.
    pub side: Side,
    /// Only this output.
    pub output: Option<Destination>,
}

/// Where to look, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What all frames begin with.
    pub link: pcap::LinkType,
    /// The places.
    pub points: Vec<Point>,
    /// What exact rules take out of the range that is looked at.
    pub others: Vec<Take>,
}

/// A place to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// On this interface.
    pub interface: IfIndex,
    /// At what leaves by it, or at what arrives.
    pub outgoing: bool,
    /// For what has such a destination.
    pub addresses: AddressBlock,
    /// Likewise its port.
    pub ports: PortRange,
    /// Added to each of `ports`, modulo 65,536.
    pub port_shift: u16,
    /// And comes from one of these; empty means anyone.
    pub sources: Vec<IpAddr>,
    /// And has this source port.
    pub source_port: Option<u16>,
}

impl Point {
    /// What arrives for a rule.
    pub fn input(take: &Take) -> Self {
        Self {
            interface: take.interface,
            outgoing: false,
            addresses: take.addresses,
            ports: take.ports,
            port_shift: 0,
            sources: take.sources.clone(),
            source_port: None,
        }
    }

    /// What leaves by an output of a rule that takes this.
    pub fn output(take: &Take, output: &PlaneOutput) -> Self {
        Self {
            interface: output.interface,
            outgoing: true,
            addresses: output.destination,
            ports: take.ports,
            port_shift: output.port_shift,
            // Where the source is kept, it is one of those that the rule takes from.
            sources: output.source.map_or_else(|| take.sources.clone(), |source| vec![source]),
            source_port: output.source_port,
        }
    }

    fn takes(&self, flow: &Flow) -> bool {
        self.addresses.contains(flow.destination)
            && self.ports.contains(flow.port.wrapping_sub(self.port_shift))
            && (self.sources.is_empty() || self.sources.contains(&flow.source))
            && self.source_port.is_none_or(|port| port == flow.source_port)
    }
}

/// A frame that was seen.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What was kept of it, from its link header on, or from the IP header where it has none: all or
    /// at least [`HEADERS`].
    pub bytes: &'a [u8],
    /// Its length in bytes.
    pub length: usize,
    /// It has no link header.
    pub bare: bool,
    /// Where it was seen.
    pub interface: IfIndex,
    /// This host sends it.
    pub outgoing: bool,
    /// It is for another host, and seen only because the interface is promiscuous.
    pub other_host: bool,
    /// The VLAN tag (TCI) that the kernel has taken off.
    pub tag: Option<u16>,
    /// When it was seen, in nanoseconds of any clock.
    pub time: u64,
}

struct Flow {
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    port: u16,
}

/// What the fragments of a datagram have in common where they are seen.
type Datagram = (IfIndex, bool, IpAddr, IpAddr, u32);

/// Judges frames.
#[derive(Debug)]
pub struct Matcher {
    plan: Plan,
    /// Datagrams whose first fragment was the rule's, and when it was seen; the oldest first.
    begun: BTreeMap<Datagram, u64>,
    order: VecDeque<Datagram>,
}

impl Matcher {
    /// For the frames of a plan.
    pub fn new(plan: Plan) -> Self {
        Self { plan, begun: BTreeMap::new(), order: VecDeque::new() }
    }

    /// From here on another plan holds.
    pub fn follow(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// Whether a frame is the rule's.
    pub fn takes(&mut self, frame: &Frame<'_>) -> bool {
        let tagged = frame.tag.is_some_and(|tci| tci & 0xfff != 0);
        if tagged || frame.other_host {
            return false;
        }
        let Some(ip) = ip_of(frame.bytes, frame.length, frame.bare) else { return false };
        if ip.protocol() != PROTOCOL_UDP {
            return false;
        }
        let (source, destination) = (ip.source(), ip.destination());
        let datagram = |id| (frame.interface, frame.outgoing, source, destination, id);
        let fragment = ip.fragment();
        if let Some(later) = fragment.filter(|fragment| !fragment.first) {
            let begun = self.begun.get(&datagram(later.id));
            return begun.is_some_and(|at| frame.time.saturating_sub(*at) <= KNOWN_NS);
        }
        let Some(udp) = Udp::parse(ip.payload()) else { return false };
        let (source_port, port) = (udp.source_port(), udp.destination_port());
        let flow = Flow { source, source_port, destination, port };
        let here =
            |point: &&Point| point.interface == frame.interface && point.outgoing == frame.outgoing;
        let takes = self.plan.points.iter().filter(here).any(|point| point.takes(&flow));
        if !takes || self.plan.others.iter().any(|take| is_of(take, &flow)) {
            return false;
        }
        if let Some(first) = fragment {
            self.begin(datagram(first.id), frame.time);
        }
        true
    }

    fn begin(&mut self, datagram: Datagram, now: u64) {
        if self.begun.insert(datagram, now).is_none() {
            self.order.push_back(datagram);
        }
        if self.order.len() > DATAGRAMS
            && let Some(oldest) = self.order.pop_front()
        {
            self.begun.remove(&oldest);
        }
    }
}

/// Whether another rule takes it.
fn is_of(take: &Take, flow: &Flow) -> bool {
    take.addresses.contains(flow.destination)
        && take.ports.contains(flow.port)
        && take.takes_from(flow.source)
}

/// A packet in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Their ports; later fragments have none.
    pub ports: Option<(u16, u16)>,
    /// It is a part of a datagram.
    pub fragment: bool,
    /// UDP payload bytes; of a fragment those in it, of a super-packet those of all its datagrams.
    pub length: usize,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

impl Packet {
    /// Of a frame with or without link header, of `length` bytes; `None` when it is no IP packet, or
    /// when its headers are cut off.
    pub fn of(bytes: &[u8], length: usize, bare: bool) -> Option<Self> {
        let ip = ip_of(bytes, length, bare)?;
        let fragment = ip.fragment();
        let later = fragment.is_some_and(|fragment| !fragment.first);
        let udp = Udp::parse(ip.payload()).filter(|_| ip.protocol() == PROTOCOL_UDP && !later);
        Some(Self {
            source: ip.source(),
            destination: ip.destination(),
            ports: udp.map(|udp| (udp.source_port(), udp.destination_port())),
            fragment: fragment.is_some(),
            length: ip.payload_len() - udp.map_or(0, |_| udp::HEADER_LEN),
            ttl: ip.ttl(),
        })
    }
}

/// The IP packet in a frame of `length` bytes.
fn ip_of(bytes: &[u8], length: usize, bare: bool) -> Option<Ip<'_>> {
    if bare {
        return Ip::parse_start(bytes, length);
    }
    match ethernet::parse(bytes)? {
        (TYPE_IPV4 | TYPE_IPV6, packet) => {
            Ip::parse_start(packet, length.checked_sub(ethernet::HEADER_LEN)?)
        }
        _ => None,
    }
}
