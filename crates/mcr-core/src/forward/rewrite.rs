//! From a frame that a rule takes to the headers for one of its outputs.

use std::net::IpAddr;

use super::Shared;
use crate::action::{LinkHeader, PlaneOutput, PlaneRule, Volume};
use crate::rule::{Dscp, Ttl};
use crate::verdict::OutputDrop;
use crate::wire::ethernet::{self, group_mac};
use crate::wire::ip::{self, Fragment, Version};
use crate::wire::{checksum, ipv4, ipv6, udp};

/// The most bytes of headers that [`Match::rewrite`] reads or writes.
pub const HEADERS_MAX: usize = ethernet::HEADER_LEN + ip::HEADER_MAX + udp::HEADER_LEN;

/// A frame that a rule takes.
#[derive(Debug)]
pub struct Match<'t> {
    /// The rule.
    pub rule: &'t PlaneRule,
    /// What it counts.
    pub volume: Volume,
    /// Who sent it.
    pub source: IpAddr,
    pub(super) network_offset: usize,
    pub(super) ip_header_len: usize,
    /// 0 for a later fragment.
    pub(super) udp_len: usize,
    pub(super) version: Version,
    pub(super) destination: IpAddr,
    pub(super) ttl: u8,
    /// With the number that the datagram gets.
    pub(super) fragment: Option<(Fragment, u32)>,
    pub(super) needs_id: Option<usize>,
    /// Bytes of the IP packet, or of the largest that a super-packet is cut into.
    pub(super) packet_len: usize,
    pub(super) partial_checksum: bool,
}

impl Match<'_> {
    /// Bytes of the headers as they came in: what is behind them is the same for every output.
    pub fn headers_len(&self) -> usize {
        self.network_offset + self.ip_header_len + self.udp_len
    }

    /// Where a UDP header begins in the headers for `output`; the end of a later fragment's.
    pub fn udp_offset(&self, output: &PlaneOutput) -> usize {
        link_len(output) + self.ip_header_len
    }

    /// Writes the headers for one output to the beginning of `to`, which has room for
    /// [`HEADERS_MAX`]; their length. `frame` is the frame that matched. IP options and extension
    /// headers are kept.
    ///
    /// The checksums are updated, not made anew: what was wrong stays wrong, so that the receiver
    /// sees damage done before the relay. A UDP checksum of zero stays zero, an unfinished one
    /// unfinished.
    pub fn rewrite(
        &self,
        output: &PlaneOutput,
        shared: Shared<'_>,
        frame: &[u8],
        to: &mut [u8],
    ) -> Result<usize, OutputDrop> {
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
        let destination = output.destination.map(self.destination);
        if let LinkHeader::Ethernet { source, next_hop } = output.header {
            let mac = next_hop.unwrap_or_else(|| group_mac(destination));
            let kind = match self.version {
                Version::V4 => ethernet::TYPE_IPV4,
                Version::V6 => ethernet::TYPE_IPV6,
            };
            to[..6].copy_from_slice(&mac);
            to[6..12].copy_from_slice(&source);
            to[12..14].copy_from_slice(&kind.to_be_bytes());
        }
        let came = &frame[self.network_offset..self.headers_len()];
        let length = link_len(output) + came.len();
        let packet = &mut to[link_len(output)..length];
        packet.copy_from_slice(came);
        let (ip, udp) = packet.split_at_mut(self.ip_header_len);
        let source = output.source.unwrap_or(self.source);
        match self.version {
            Version::V4 => {
                let id = self.new_id(shared, source, destination);
                rewrite_v4(output, ttl, id, (source, destination), ip);
            }
            Version::V6 => {
                if let Some((fragment, id)) = self.fragment {
                    ip[fragment.id_at..][..4].copy_from_slice(&id.to_be_bytes());
                }
                rewrite_v6(output, ttl, (source, destination), ip);
            }
        }
        if self.udp_len > 0 {
            let (from, to) = match self.version {
                Version::V4 => (ipv4::SOURCE, ipv4::SOURCE + 8),
                Version::V6 => (ipv6::SOURCE, ipv6::SOURCE + 32),
            };
            self.rewrite_udp(output, udp, &came[from..to], &ip[from..to]);
        }
        Ok(length)
    }

    /// The identification of an IPv4 packet, where it needs a new one.
    fn new_id(&self, shared: Shared<'_>, source: IpAddr, destination: IpAddr) -> Option<u16> {
        match self.fragment {
            Some((_, number)) => Some(Shared::upper(number)),
            None if self.needs_id.is_some() => {
                Some(shared.whole(source, destination, self.volume.packets))
            }
            None => None,
        }
    }

    /// Ports, and the checksum over them and the pseudo-header's addresses.
    fn rewrite_udp(&self, output: &PlaneOutput, udp: &mut [u8], before: &[u8], after: &[u8]) {
        let mut ports = [0; 4];
        ports.copy_from_slice(&udp[..4]);
        if let Some(port) = output.source_port {
            udp[udp::SOURCE_PORT..][..2].copy_from_slice(&port.to_be_bytes());
        }
        let port = u16::from_be_bytes([ports[2], ports[3]]).wrapping_add(output.port_shift);
        udp[udp::DESTINATION_PORT..][..2].copy_from_slice(&port.to_be_bytes());
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

/// Bytes of the link's header on an output.
fn link_len(output: &PlaneOutput) -> usize {
    match output.header {
        LinkHeader::Bare => 0,
        LinkHeader::Ethernet { .. } => ethernet::HEADER_LEN,
    }
}

fn rewrite_v4(
    output: &PlaneOutput,
    ttl: u8,
    id: Option<u16>,
    (source, destination): (IpAddr, IpAddr),
    ip: &mut [u8],
) {
    let (mut old, mut new) = ([0; ipv4::HEADER_LEN], [0; ipv4::HEADER_LEN]);
    old.copy_from_slice(&ip[..ipv4::HEADER_LEN]);
    if let Dscp::Set(dscp) = output.dscp {
        ip[ipv4::TOS] = dscp << 2 | ip[ipv4::TOS] & 0b11;
    }
    if let Some(id) = id {
        ip[ipv4::ID..][..2].copy_from_slice(&id.to_be_bytes());
    }
    ip[ipv4::TTL] = ttl;
    for (at, address) in [(ipv4::SOURCE, source), (ipv4::DESTINATION, destination)] {
        if let IpAddr::V4(address) = address {
            ip[at..][..4].copy_from_slice(&address.octets());
        }
    }
    new.copy_from_slice(&ip[..ipv4::HEADER_LEN]);
    let field = u16::from_be_bytes([ip[ipv4::CHECKSUM], ip[ipv4::CHECKSUM + 1]]);
    let field = checksum::update(field, &old, &new);
    ip[ipv4::CHECKSUM..][..2].copy_from_slice(&field.to_be_bytes());
}

fn rewrite_v6(
    output: &PlaneOutput,
    ttl: u8,
    (source, destination): (IpAddr, IpAddr),
    ip: &mut [u8],
) {
    if let Dscp::Set(dscp) = output.dscp {
        ipv6::set_dscp(ip, dscp);
    }
    ip[ipv6::HOP_LIMIT] = ttl;
    for (at, address) in [(ipv6::SOURCE, source), (ipv6::DESTINATION, destination)] {
        if let IpAddr::V6(address) = address {
            ip[at..][..16].copy_from_slice(&address.octets());
        }
    }
}
