//! Which multicast streams are on the wire: frames that a tap has caught become streams with their
//! figures, and each the name of the rule that takes it.
//!
//! [`Survey`] counts, [`Survey::report`] names. Frames may be cut: their headers and a little of the
//! payload are enough. What it keeps is bounded ([`STREAMS_MAX`], and datagrams in fragments), and
//! what is left out is counted by reason.

mod looks;
mod report;
mod request;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::link::IfIndex;
use crate::rule::is_link_local_group;
use crate::wire::ethernet::{self, TYPE_IPV4, TYPE_IPV6};
use crate::wire::ip::{Ip, PROTOCOL_UDP};
use crate::wire::udp::{HEADER_LEN, Udp};
pub use request::{TIME_DEFAULT, listening_places, listening_time};
use stream::{Datagram, Stream};

/// The most streams that are told apart; packets of further ones are left out.
pub const STREAMS_MAX: usize = 65_536;
/// Bytes of a frame that are enough: all headers that [`Ip`] knows, an RTP header, and two sync
/// bytes of a transport stream behind them.
pub const SNAP: u32 = 384;
/// Datagrams in fragments that are remembered; with more the oldest are forgotten.
const DATAGRAMS_MAX: usize = 4096;
/// The VLAN in the TCI of a tag (IEEE 802.1Q); 0 is a priority alone.
const VID: u16 = 0xfff;

/// A frame that came in.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Its first bytes, from its Ethernet header on, or from its IP header where there is none.
    pub bytes: &'a [u8],
    /// Its bytes on the wire.
    pub length: usize,
    /// The interface has no link header.
    pub bare: bool,
    /// Where it arrived.
    pub interface: IfIndex,
    /// The TCI of a VLAN tag that the kernel has taken off.
    pub tag: Option<u16>,
    /// UDP payload bytes of each datagram but the last in a super-packet; 0 for an ordinary frame.
    pub segment_size: u16,
}

/// What a stream is told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    interface: IfIndex,
    vlan: Option<u16>,
    group: IpAddr,
    port: u16,
    source: IpAddr,
}

/// What all fragments of a datagram have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fragmented {
    interface: IfIndex,
    vlan: Option<u16>,
    group: IpAddr,
    source: IpAddr,
    id: u32,
}

/// Packets in no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct LeftOut {
    link_local: u64,
    fragment: u64,
    malformed: u64,
    too_many: u64,
}

/// Streams as they are seen.
#[derive(Debug)]
pub struct Survey {
    interfaces: BTreeSet<IfIndex>,
    streams: HashMap<Key, Stream, RandomState>,
    /// The port of datagrams whose first fragment has been seen.
    ports: HashMap<Fragmented, u16, RandomState>,
    /// The same, the oldest first.
    order: VecDeque<Fragmented>,
    left_out: LeftOut,
}

impl Survey {
    /// Of what arrives on these interfaces.
    pub fn new(interfaces: BTreeSet<IfIndex>) -> Self {
        Self {
            interfaces,
            streams: HashMap::default(),
            ports: HashMap::default(),
            order: VecDeque::new(),
            left_out: LeftOut::default(),
        }
    }

    /// Counts a frame that came in; what is no UDP to a group, or came elsewhere, is none of it.
    pub fn add(&mut self, sight: &Sight<'_>) {
        if !self.interfaces.contains(&sight.interface) {
            return;
        }
        let Some((packet, length)) = packet_of(sight) else { return };
        let Some(ip) = Ip::parse_start(packet, length) else {
            self.left_out.malformed += 1;
            return;
        };
        let (group, source) = (ip.destination(), ip.source());
        if ip.protocol() != PROTOCOL_UDP || !group.is_multicast() {
            return;
        }
        if is_link_local_group(group) {
            self.left_out.link_local += 1;
            return;
        }
        let interface = sight.interface;
        let vlan = sight.tag.map(|tag| tag & VID).filter(|vid| *vid != 0);
        let id = ip.fragment().map(|fragment| fragment.id);
        let fragmented = id.map(|id| Fragmented { interface, vlan, group, source, id });
        let key = |port| Key { interface, vlan, group, port, source };
        match fragmented {
            Some(fragmented) if ip.fragment().is_some_and(|fragment| !fragment.first) => {
                match self.ports.get(&fragmented) {
                    Some(port) => self.count(key(*port), |stream| stream.add_rest(&ip)),
                    None => self.left_out.fragment += 1,
                }
            }
            Some(_) | None => {
                let whole = |udp: &Udp<'_>| udp.length() <= ip.payload_len() || id.is_some();
                let Some(udp) = Udp::parse(ip.payload()).filter(whole) else {
                    self.left_out.malformed += 1;
                    return;
                };
                if let Some(fragmented) = fragmented {
                    self.remember(fragmented, udp.destination_port());
                }
                let datagram = Datagram {
                    ttl: ip.ttl(),
                    // Of a first fragment, what is in it.
                    here: udp.length().min(ip.payload_len()) - HEADER_LEN,
                    whole: udp.length() - HEADER_LEN,
                    segment_size: sight.segment_size.into(),
                    fragment: id.is_some(),
                    start: &ip.payload()[HEADER_LEN..],
                };
                self.count(key(udp.destination_port()), |stream| stream.add(&datagram));
            }
        }
    }

    fn count(&mut self, key: Key, add: impl FnOnce(&mut Stream)) {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&key) {
            self.left_out.too_many += 1;
            return;
        }
        add(self.streams.entry(key).or_default());
    }

    fn remember(&mut self, fragmented: Fragmented, port: u16) {
        if self.ports.insert(fragmented, port).is_none() {
            self.order.push_back(fragmented);
        }
        if self.order.len() > DATAGRAMS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ports.remove(&oldest);
        }
    }
}

/// What there is of the IP packet in a frame, and how many bytes of it came.
fn packet_of<'s>(sight: &Sight<'s>) -> Option<(&'s [u8], usize)> {
    if sight.bare {
        return Some((sight.bytes, sight.length));
    }
    let (kind, packet) = ethernet::parse(sight.bytes)?;
    let length = sight.length.checked_sub(ethernet::HEADER_LEN)?;
    matches!(kind, TYPE_IPV4 | TYPE_IPV6).then_some((packet, length))
}
