//! What IPv4 and IPv6 packets have in common for a relay of UDP.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::{ipv4, ipv6};

/// Protocol number of UDP, and its next header in IPv6.
pub const PROTOCOL_UDP: u8 = 17;
/// The most bytes of an IPv6 header and the extension headers behind it that are looked at; of an
/// IPv4 header with options less.
pub const HEADER_MAX: usize = 104;

/// A checked packet: its lengths agree with each other and with the bytes there are, or were.
#[derive(Debug, Clone, Copy)]
pub struct Ip<'a> {
    /// What there is of it: its headers at least.
    pub(super) packet: &'a [u8],
    /// Its length by its header.
    pub(super) length: usize,
    pub(super) version: Version,
    /// Of all headers before the payload: options, or extension headers, included.
    pub(super) header_len: usize,
    /// What the payload is.
    pub(super) protocol: u8,
    pub(super) fragment: Option<Fragment>,
}

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Which part of a larger datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// It begins the datagram, and has its UDP header.
    pub first: bool,
    /// What all fragments of the datagram share.
    pub id: u32,
    /// Where the identification stands in the packet: 2 bytes of IPv4, 4 of IPv6.
    pub id_at: usize,
}

impl<'a> Ip<'a> {
    /// `None` when headers are cut short, of another version, or their lengths contradict.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        Self::parse_start(packet, packet.len())
    }

    /// As [`Self::parse`], of a packet of which only the first bytes were kept of `length` that
    /// came.
    pub fn parse_start(packet: &'a [u8], length: usize) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => ipv4::parse(packet, length),
            6 => ipv6::parse(packet, length),
            _ => None,
        }
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Bytes of the headers before the payload, at most [`HEADER_MAX`].
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// What follows the headers, as far as it was kept, without padding of the link.
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[self.header_len..]
    }

    /// Bytes of the payload, whether they were kept or not.
    pub fn payload_len(&self) -> usize {
        self.length - self.header_len
    }

    /// The protocol of the payload.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The fragment it is, unless it is a whole datagram.
    pub fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// Where the identification stands that a whole datagram needs, since somebody on its way may
    /// cut it: IPv4 without "don't fragment" (RFC 6864 §4).
    pub fn needs_id(&self) -> Option<usize> {
        let cut = self.version == Version::V4 && self.packet[6] & 0x40 == 0;
        (cut && self.fragment.is_none()).then_some(ipv4::ID)
    }

    /// Time to live, or hop limit.
    pub fn ttl(&self) -> u8 {
        self.packet[match self.version {
            Version::V4 => ipv4::TTL,
            Version::V6 => ipv6::HOP_LIMIT,
        }]
    }

    /// Source address.
    pub fn source(&self) -> IpAddr {
        match self.version {
            Version::V4 => ipv4::address(self.packet, ipv4::SOURCE).into(),
            Version::V6 => ipv6::address(self.packet, ipv6::SOURCE).into(),
        }
    }

    /// Destination address.
    pub fn destination(&self) -> IpAddr {
        match self.version {
            Version::V4 => ipv4::address(self.packet, ipv4::DESTINATION).into(),
            Version::V6 => ipv6::address(self.packet, ipv6::DESTINATION).into(),
        }
    }
}
