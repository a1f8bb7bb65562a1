//! IPv6 headers (RFC 8200).
//!
//! ```text
//!  0        4        6      7           8        24            40
//! |V|TC|flow| length | next | hop limit | source | destination | extension headers
//! ```

use std::net::Ipv6Addr;

use super::be16;
use super::ip::{Fragment, HEADER_MAX, Ip, Version};

/// Bytes of a header without extensions.
pub const HEADER_LEN: usize = 40;
/// Offset of the hop limit.
pub const HOP_LIMIT: usize = 7;
/// Offset of the source address.
pub const SOURCE: usize = 8;
/// Offset of the destination address.
pub const DESTINATION: usize = 24;
/// The most extension headers that are looked at.
pub const EXTENSIONS_MAX: usize = 4;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Walks the extension headers up to the payload. A chain of more headers than
/// [`EXTENSIONS_MAX`] is no UDP for a relay, whatever ends it.
pub(super) fn parse(packet: &[u8], came: usize) -> Option<Ip<'_>> {
    if packet.len() < HEADER_LEN {
        return None;
    }
    let length = HEADER_LEN + usize::from(be16(packet, 4));
    if length > came {
        return None;
    }
    let packet = &packet[..length.min(packet.len())];
    let (mut header_len, mut protocol, mut fragment) = (HEADER_LEN, packet[6], None);
    for _ in 0..EXTENSIONS_MAX {
        if !matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            break;
        }
        let extension = packet.get(header_len..)?.first_chunk::<8>()?;
        let [next, length, f0, f1, id @ ..] = *extension;
        let whole = if protocol == FRAGMENT {
            let offset = u16::from_be_bytes([f0, f1]);
            let (first, id) = (offset & 0xfff8 == 0, u32::from_be_bytes(id));
            let part = Fragment { first, id, id_at: header_len + 4 };
            fragment = (offset & 0xfff9 != 0).then_some(part);
            8
        } else {
            (usize::from(length) + 1) * 8
        };
        (header_len, protocol) = (header_len + whole, next);
        if header_len > packet.len() || header_len > HEADER_MAX {
            return None;
        }
        if fragment.is_some_and(|fragment| !fragment.first) {
            break;
        }
    }
    Some(Ip { packet, length, version: Version::V6, header_len, protocol, fragment })
}

/// Sets the differentiated services code point (RFC 2474); ECN and the flow label stay.
pub(crate) fn set_dscp(header: &mut [u8], dscp: u8) {
    header[0] = header[0] & 0xf0 | dscp >> 2;
    header[1] = header[1] & 0x3f | dscp << 6;
}

pub(super) fn address(packet: &[u8], at: usize) -> Ipv6Addr {
    packet[at..].first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |octets| (*octets).into())
}
