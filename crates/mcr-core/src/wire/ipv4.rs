//! IPv4 headers (RFC 791).
//!
//! ```text
//!  0    1    2         4         6         8    9      10        12       16
//! |V|IHL|TOS | length  | id      |flg+off |TTL |proto | checksum| source | destination | options
//! ```

use std::net::Ipv4Addr;

use super::be16;
use super::ip::{Fragment, Ip, Version};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Offset of the TOS byte (DSCP and ECN, RFC 2474 and RFC 3168).
pub const TOS: usize = 1;
/// Offset of the identification.
pub const ID: usize = 4;
/// Offset of the time to live.
pub const TTL: usize = 8;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SOURCE: usize = 12;
/// Offset of the destination address.
pub const DESTINATION: usize = 16;

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

pub(super) fn parse(packet: &[u8], came: usize) -> Option<Ip<'_>> {
    if packet.len() < HEADER_LEN {
        return None;
    }
    let header_len = usize::from(packet[0] & 0xf) * 4;
    let length = usize::from(be16(packet, 2));
    if header_len < HEADER_LEN || length < header_len || length > came {
        return None;
    }
    let packet = &packet[..length.min(packet.len())];
    if packet.len() < header_len {
        return None;
    }
    let bits = be16(packet, 6);
    let part = Fragment { first: bits & OFFSET == 0, id: be16(packet, ID).into(), id_at: ID };
    let fragment = (bits & (MORE_FRAGMENTS | OFFSET) != 0).then_some(part);
    Some(Ip { packet, length, version: Version::V4, header_len, protocol: packet[9], fragment })
}

pub(super) fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}
