//! Ethernet II headers.
//!
//! ```text
//!  0           6           12      14
//! | dst MAC   | src MAC   | type  | payload
//! ```

use std::net::IpAddr;

use super::be16;
use crate::link::Mac;

/// Bytes of an Ethernet header without a tag.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// EtherType of an IEEE 802.1Q tag.
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of an IEEE 802.1ad tag.
pub const TYPE_QINQ: u16 = 0x88a8;

/// The type and payload of a frame, or `None` when it is shorter than a header.
pub fn parse(frame: &[u8]) -> Option<(u16, &[u8])> {
    (frame.len() >= HEADER_LEN).then(|| (be16(frame, 12), &frame[HEADER_LEN..]))
}

/// The MAC address of a group: 01:00:5e and its low 23 bits (RFC 1112 §6.4), or 33:33 and its low 32
/// (RFC 2464 §7).
pub fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}
