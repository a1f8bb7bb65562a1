//! IPv4 headers (RFC 791).
//!
//! ```text
//!  0    1    2         4         6         8    9      10        12       16
//! |V|IHL|TOS | length  | id      |flg+off |TTL |proto | checksum| source | destination | options
//! ```

use std::net::Ipv4Addr;

use super::be16;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Offset of the TOS byte (DSCP and ECN, RFC 2474 and RFC 3168).
pub const TOS: usize = 1;
/// Offset of the time to live.
pub const TTL: usize = 8;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SOURCE: usize = 12;
/// Offset of the destination address.
pub const DESTINATION: usize = 16;

/// A checked header: its lengths agree with each other and with the bytes there are.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4<'a> {
    packet: &'a [u8],
    header_len: usize,
}

impl<'a> Ipv4<'a> {
    /// `None` when the header is cut short, has another version, or its lengths contradict.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        if packet.len() < HEADER_LEN || packet[0] >> 4 != 4 {
            return None;
        }
        let header_len = usize::from(packet[0] & 0xf) * 4;
        let total_len = usize::from(be16(packet, 2));
        let whole =
            header_len >= HEADER_LEN && total_len >= header_len && packet.len() >= total_len;
        whole.then(|| Self { packet: &packet[..total_len], header_len })
    }

    /// Bytes of the header with its options, 20 to 60.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// What follows the header, without padding of the link.
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[self.header_len..]
    }

    /// The protocol of the payload.
    pub fn protocol(&self) -> u8 {
        self.packet[9]
    }

    /// Whether this is a fragment other than the first.
    pub fn is_later_fragment(&self) -> bool {
        be16(self.packet, 6) & 0x1fff != 0
    }

    /// Whether more fragments follow.
    pub fn has_more_fragments(&self) -> bool {
        be16(self.packet, 6) & 0x2000 != 0
    }

    /// Time to live.
    pub fn ttl(&self) -> u8 {
        self.packet[TTL]
    }

    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        address(self.packet, SOURCE)
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv4Addr {
        address(self.packet, DESTINATION)
    }
}

fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}
