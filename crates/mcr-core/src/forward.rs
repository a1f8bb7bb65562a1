//! What a data plane does with a frame: the executable specification.
//!
//! [`forward`] decides, [`Match::rewrite`] makes the frame for one output. Neither allocates,
//! fails on bytes from the wire, or keeps state. The eBPF program in `mcr-dataplane` does the same,
//! and the golden frames in `vectors/` hold both to it.
//!
//! ```text
//! frame ─ headers ─ lookup ─ own? ─┬─ output 1 ─ rewrite ─ send
//!    └ Pass          └ NoRule  └ Drop ├─ output 2 ─ rewrite ─ send
//!                                  └─ the frame as it came, to the stack if wanted
//! ```

mod table;
#[cfg(test)]
mod tests;

use crate::action::{FlowKey, PlaneOutput, PlaneRule, Volume};
use crate::link::IfIndex;
use crate::rule::{Dscp, Ttl};
use crate::verdict::{OutputDrop, Pass, RuleDrop};
use crate::wire::ethernet::{self, TYPE_IPV4, TYPE_QINQ, TYPE_VLAN};
use crate::wire::ipv4::{self, Ipv4, PROTOCOL_UDP};
use crate::wire::udp::{self, Udp};
use crate::wire::{checksum, ethernet::HEADER_LEN};
pub use table::ForwardTable;

/// A received frame and what the kernel said of it (`struct __sk_buff`; `tpacket_hdr` and
/// `virtio_net_hdr`).
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The frame from its Ethernet header on.
    pub bytes: &'a [u8],
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
    /// A rule's, but not relayed: counted there, otherwise untouched.
    Drop(&'t PlaneRule, RuleDrop, Volume),
    /// To be offered to each output of the rule.
    Match(Match<'t>),
}

/// A frame that a rule takes.
#[derive(Debug)]
pub struct Match<'t> {
    /// The rule.
    pub rule: &'t PlaneRule,
    /// What it counts.
    pub volume: Volume,
    ip_header_len: usize,
    ttl: u8,
    /// Bytes of the IP packet, or of the largest that a super-packet is cut into.
    packet_len: usize,
    partial_checksum: bool,
}

/// Decides what becomes of a frame.
pub fn forward<'t>(table: &'t ForwardTable, frame: &Frame<'_>) -> Verdict<'t> {
    let packet = match (frame.packet_type, ethernet::parse(frame.bytes)) {
        (PacketType::OtherHost, _) => return Verdict::Pass(Pass::NotOurs),
        (PacketType::Loopback, _) if frame.bytes.first().is_some_and(|byte| byte >> 4 != 4) => {
            return Verdict::Pass(Pass::NotOurs);
        }
        (PacketType::Loopback, _) => frame.bytes,
        (PacketType::Here, None) => return Verdict::Pass(Pass::Malformed),
        (PacketType::Here, Some((kind, _)))
            if frame.tagged || kind == TYPE_VLAN || kind == TYPE_QINQ =>
        {
            return Verdict::Pass(Pass::Tagged);
        }
        (PacketType::Here, Some((TYPE_IPV4, packet))) => packet,
        (PacketType::Here, Some(_)) => return Verdict::Pass(Pass::NotOurs),
    };
    let Some(ip) = Ipv4::parse(packet) else { return Verdict::Pass(Pass::Malformed) };
    if !ip.destination().is_multicast() || ip.protocol() != PROTOCOL_UDP {
        return Verdict::Pass(Pass::NotOurs);
    }
    if ip.is_later_fragment() {
        return Verdict::Pass(Pass::Fragment);
    }
    let whole = |udp: &Udp<'_>| udp.is_whole() || ip.has_more_fragments();
    let Some(udp) = Udp::parse(ip.payload()).filter(whole) else {
        return Verdict::Pass(Pass::Malformed);
    };
    let key = FlowKey {
        interface: frame.interface,
        address: ip.destination(),
        port: udp.destination_port(),
    };
    let Some(rule) = table.rule(&key) else { return Verdict::Pass(Pass::NoRule) };
    let payload_len = udp.payload_len();
    let segment_size = usize::from(frame.segment_size);
    let packets = if segment_size == 0 { 1 } else { payload_len.div_ceil(segment_size) };
    let volume = Volume { packets: packets as u64, bytes: payload_len as u64 };
    if frame.packet_type == PacketType::Loopback {
        Verdict::Drop(rule, RuleDrop::LocalSender, volume)
    } else if table.is_own(ip.source(), frame.interface) {
        Verdict::Drop(rule, RuleDrop::Own, volume)
    } else if ip.has_more_fragments() {
        Verdict::Drop(rule, RuleDrop::Fragment, volume)
    } else {
        let ip_header_len = ip.header_len();
        let largest = if segment_size == 0 { payload_len } else { segment_size.min(payload_len) };
        Verdict::Match(Match {
            rule,
            volume,
            ip_header_len,
            ttl: ip.ttl(),
            packet_len: ip_header_len + udp::HEADER_LEN + largest,
            partial_checksum: frame.partial_checksum,
        })
    }
}

impl Match<'_> {
    /// Bytes of the Ethernet, IP and UDP headers: all that [`Match::rewrite`] reads and writes.
    pub fn headers_len(&self) -> usize {
        HEADER_LEN + self.ip_header_len + udp::HEADER_LEN
    }

    /// Rewrites `frame`, a copy of the frame that matched or of its headers alone, for one output.
    /// IP options are kept.
    ///
    /// The checksums are updated, not made anew: what was wrong stays wrong, so that the receiver
    /// sees damage done before the relay. A UDP checksum of zero stays zero, an unfinished one
    /// unfinished.
    pub fn rewrite(&self, output: &PlaneOutput, frame: &mut [u8]) -> Result<(), OutputDrop> {
        if let Some(reason) = output.absent {
            return Err(reason);
        }
        let ttl = match output.ttl {
            Ttl::Set(ttl) => ttl.get(),
            Ttl::Keep => self.ttl,
            Ttl::Decrement if self.ttl <= 1 => return Err(OutputDrop::TtlExpired),
            Ttl::Decrement => self.ttl - 1,
        };
        if self.packet_len > output.mtu as usize {
            return Err(OutputDrop::Mtu);
        }
        ethernet::set_addresses(frame, output.destination_mac, output.source_mac);
        let (ip, udp) = frame[HEADER_LEN..].split_at_mut(self.ip_header_len);
        let (mut old, mut new) = ([0; 20], [0; 20]);
        old.copy_from_slice(&ip[..20]);

        if let Dscp::Set(dscp) = output.dscp {
            ip[ipv4::TOS] = dscp << 2 | ip[ipv4::TOS] & 0b11;
        }
        ip[ipv4::TTL] = ttl;
        if let Some(source) = output.source {
            ip[ipv4::SOURCE..][..4].copy_from_slice(&source.octets());
        }
        ip[ipv4::DESTINATION..][..4].copy_from_slice(&output.destination.octets());
        new.copy_from_slice(&ip[..20]);
        let field = u16::from_be_bytes([ip[ipv4::CHECKSUM], ip[ipv4::CHECKSUM + 1]]);
        let field = checksum::update(field, &old, &new);
        ip[ipv4::CHECKSUM..][..2].copy_from_slice(&field.to_be_bytes());

        self.rewrite_udp(output, udp, &old[ipv4::SOURCE..], &new[ipv4::SOURCE..]);
        Ok(())
    }

    /// Ports, and the checksum over them and the pseudo-header's addresses.
    fn rewrite_udp(&self, output: &PlaneOutput, udp: &mut [u8], before: &[u8], after: &[u8]) {
        let mut ports = [0; 4];
        ports.copy_from_slice(&udp[..4]);
        if let Some(port) = output.source_port {
            udp[udp::SOURCE_PORT..][..2].copy_from_slice(&port.to_be_bytes());
        }
        udp[udp::DESTINATION_PORT..][..2].copy_from_slice(&output.destination_port.to_be_bytes());
        let field = u16::from_be_bytes([udp[udp::CHECKSUM], udp[udp::CHECKSUM + 1]]);
        let field = if self.partial_checksum {
            !checksum::update(!field, before, after)
        } else if field == 0 {
            0
        } else {
            let field = checksum::update(field, before, after);
            checksum::mangle_zero(checksum::update(field, &ports, &udp[..4]))
        };
        udp[udp::CHECKSUM..][..2].copy_from_slice(&field.to_be_bytes());
    }
}
