//! Ethernet II headers.
//!
//! ```text
//!  0           6           12      14
//! | dst MAC   | src MAC   | type  | payload
//! ```

use std::net::Ipv4Addr;

use super::be16;
use crate::link::Mac;

/// Bytes of an Ethernet header without a tag.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of an IEEE 802.1Q tag.
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of an IEEE 802.1ad tag.
pub const TYPE_QINQ: u16 = 0x88a8;

/// The type and payload of a frame, or `None` when it is shorter than a header.
pub fn parse(frame: &[u8]) -> Option<(u16, &[u8])> {
    (frame.len() >= HEADER_LEN).then(|| (be16(frame, 12), &frame[HEADER_LEN..]))
}

/// Writes both addresses; the frame has been parsed.
pub fn set_addresses(frame: &mut [u8], destination: Mac, source: Mac) {
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
}

/// The MAC address of a group: 01:00:5e and its low 23 bits (RFC 1112 §6.4).
pub fn group_mac(group: Ipv4Addr) -> Mac {
    let [_, b, c, d] = group.octets();
    [0x01, 0x00, 0x5e, b & 0x7f, c, d]
}
