//! What a data plane does with a frame: the executable specification.
//!
//! [`forward`] decides, [`Match::rewrite`] makes the headers for one output. Neither allocates or
//! fails on bytes from the wire; what is kept between packets is in [`Fragments`] and [`Shared`]. The
//! eBPF program in `mcr-dataplane` does the same, and the golden frames in `vectors/` hold both to
//! it.
//!
//! ```text
//! frame ─ headers ─ lookup ─ own? rate? ─┬─ output 1 ─ rewrite ─ send
//!    └ Pass          └ NoRule  └ Drop    ├─ output 2 ─ rewrite ─ send
//!                                        └─ the frame as it came, to the stack if wanted
//! ```

mod fragments;
mod rewrite;
mod shared;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::action::{PlaneRule, Volume};
use crate::link::IfIndex;
use crate::verdict::{Pass, RuleDrop};
use crate::wire::ethernet::{self, TYPE_IPV4, TYPE_IPV6, TYPE_QINQ, TYPE_VLAN};
use crate::wire::ip::{Fragment, Ip, PROTOCOL_UDP};
use crate::wire::udp::{self, Udp};
pub use fragments::Fragments;
use fragments::{Datagram, Seen};
pub use rewrite::{HEADERS_MAX, Match};
pub use shared::Shared;
use table::Found;
pub use table::{FlowKey, ForwardTable};

/// A received frame and what the kernel said of it (`struct __sk_buff`; `tpacket_hdr` and
/// `virtio_net_hdr`).
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The frame from its Ethernet header on, or from its IP header where there is none.
    pub bytes: &'a [u8],
    /// The interface has no link header.
    pub bare: bool,
    /// Where it arrived.
    pub interface: IfIndex,
    /// Whom it was for.
    pub packet_type: PacketType,
    /// It carried a VLAN tag other than VID 0, which the kernel has taken off.
    pub tagged: bool,
    /// UDP payload bytes of each datagram but the last in a super-packet (GSO, GRO); 0 for an
    /// ordinary frame.
    pub segment_size: u16,
    /// The UDP checksum is still to be made: its field has only the sum of the pseudo-header, not
    /// complemented (`CHECKSUM_PARTIAL`).
    pub partial_checksum: bool,
}

/// `PACKET_*` of `if_packet.h`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// For this host: unicast, multicast or broadcast.
    Here,
    /// For another host, seen because the interface is promiscuous.
    OtherHost,
    /// The loopback copy of what this host has sent; it starts at the IP header.
    Loopback,
}

/// What becomes of a frame.
#[derive(Debug)]
pub enum Verdict<'t> {
    /// No rule's: untouched.
    Pass(Pass),
    /// A rule's, but not relayed: counted there, otherwise untouched. The address is that of its
    /// sender, where it is one of the rule's.
    Drop(&'t PlaneRule, RuleDrop, Volume, Option<IpAddr>),
    /// To be offered to each output of the rule.
    Match(Match<'t>),
}

/// Decides what becomes of a frame. `now` is in nanoseconds of any clock that goes forward.
pub fn forward<'t>(
    table: &'t ForwardTable,
    (fragments, shared): (&mut Fragments, Shared<'_>),
    frame: &Frame<'_>,
    now: u64,
) -> Verdict<'t> {
    let (network_offset, packet) = match packet_of(frame) {
        Ok(found) => found,
        Err(pass) => return Verdict::Pass(pass),
    };
    let Some(ip) = Ip::parse(packet) else { return Verdict::Pass(Pass::Malformed) };
    if ip.protocol() != PROTOCOL_UDP {
        return Verdict::Pass(Pass::NotOurs);
    }
    let multicast = ip.destination().is_multicast();
    let datagram = |Fragment { id, .. }| Datagram {
        interface: frame.interface,
        source: ip.source(),
        destination: ip.destination(),
        id,
    };
    let (port, payload_len, udp_len, seen) = match ip.fragment() {
        Some(fragment) if !fragment.first => match fragments.find(&datagram(fragment), now) {
            Some(Seen { port, id }) => (port, ip.payload().len(), 0, Some(id)),
            None if multicast => return Verdict::Pass(Pass::Fragment),
            None => return Verdict::Pass(Pass::NotOurs),
        },
        fragment => {
            let whole = |udp: &Udp<'_>| udp.is_whole() || fragment.is_some();
            let Some(udp) = Udp::parse(ip.payload()).filter(whole) else {
                return Verdict::Pass(if multicast { Pass::Malformed } else { Pass::NotOurs });
            };
            (udp.destination_port(), udp.payload_len(), udp::HEADER_LEN, None)
        }
    };
    let (interface, address) = (frame.interface, ip.destination());
    let key = FlowKey { interface, address, port };
    let rule = match table.find(&key, ip.source()) {
        Found::Rule(rule) => rule,
        Found::OtherSource => return Verdict::Pass(Pass::OtherSource),
        Found::Nothing if multicast => return Verdict::Pass(Pass::NoRule),
        Found::Nothing => return Verdict::Pass(Pass::NotOurs),
    };
    let segment_size = usize::from(frame.segment_size);
    let packets = if segment_size == 0 { 1 } else { payload_len.div_ceil(segment_size) };
    let volume = Volume { packets: packets as u64, bytes: payload_len as u64 };
    if frame.packet_type == PacketType::Loopback {
        return Verdict::Drop(rule, RuleDrop::LocalSender, volume, None);
    }
    if table.is_own(ip.source(), frame.interface) {
        return Verdict::Drop(rule, RuleDrop::Own, volume, None);
    }
    if rule.max_rate.is_some_and(|max| !shared.admit(rule.id, max, now, volume)) {
        return Verdict::Drop(rule, RuleDrop::Rate, volume, Some(ip.source()));
    }
    // After the rate: what it drops leaves no trace.
    let id = ip.fragment().map(|fragment| match seen {
        Some(id) => (fragment, id),
        None => (fragment, fragments.begin(datagram(fragment), port, shared, now)),
    });
    let largest = if segment_size == 0 {
        ip.payload().len()
    } else {
        udp_len + segment_size.min(payload_len)
    };
    Verdict::Match(Match {
        rule,
        volume,
        network_offset,
        ip_header_len: ip.header_len(),
        udp_len,
        version: ip.version(),
        source: ip.source(),
        destination: address,
        ttl: ip.ttl(),
        fragment: id,
        needs_id: ip.needs_id(),
        packet_len: ip.header_len() + largest,
        partial_checksum: frame.partial_checksum,
    })
}

/// Where the IP packet begins in a frame, and from there on.
fn packet_of<'f>(frame: &Frame<'f>) -> Result<(usize, &'f [u8]), Pass> {
    let bytes = frame.bytes;
    match frame.packet_type {
        PacketType::OtherHost => return Err(Pass::NotOurs),
        PacketType::Loopback => {}
        PacketType::Here if frame.tagged => return Err(Pass::Tagged),
        PacketType::Here if frame.bare => {}
        PacketType::Here => {
            return match ethernet::parse(bytes) {
                None => Err(Pass::Malformed),
                Some((TYPE_VLAN | TYPE_QINQ, _)) => Err(Pass::Tagged),
                Some((TYPE_IPV4, packet)) if version_of(packet).is_none_or(|v| v == 4) => {
                    Ok((ethernet::HEADER_LEN, packet))
                }
                Some((TYPE_IPV6, packet)) if version_of(packet).is_none_or(|v| v == 6) => {
                    Ok((ethernet::HEADER_LEN, packet))
                }
                Some((TYPE_IPV4 | TYPE_IPV6, _)) => Err(Pass::Malformed),
                Some(_) => Err(Pass::NotOurs),
            };
        }
    }
    match version_of(bytes) {
        Some(4 | 6) => Ok((0, bytes)),
        Some(_) | None => Err(Pass::NotOurs),
    }
}

fn version_of(packet: &[u8]) -> Option<u8> {
    packet.first().map(|byte| byte >> 4)
}
