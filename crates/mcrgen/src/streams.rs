//! Where each stream goes: address and port of stream k, counted up from the first.
//!
//! IPv4 addresses skip the host parts 0 and 255, so a third octet holds 254 groups; IPv6 addresses
//! count by one. A multicast start stays multicast and a unicast start stays unicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};

use crate::args::StreamArgs;

#[cfg(test)]
mod tests;

/// The addresses of all streams, in order.
///
/// # Errors
///
/// Names the first stream whose address or port would run past the end.
pub(crate) fn addresses(args: &StreamArgs) -> Result<Vec<SocketAddr>> {
    if args.first_stream.checked_add(args.streams - 1).is_none() {
        bail!("--first-stream {} is too high for {} streams", args.first_stream, args.streams);
    }
    let mut streams = Vec::with_capacity(args.streams as usize);
    let mut group = args.group;
    for index in 0..args.streams {
        if index > 0 && !args.same_group {
            group = step(group, index + 1)?;
        }
        let offset = if args.same_port { 0 } else { index };
        let port = u16::try_from(u32::from(args.port) + offset).ok().with_context(|| {
            let stream = index + 1;
            format!("stream {stream} would need a port past 65535: start lower or take fewer")
        })?;
        streams.push(SocketAddr::new(group, port));
    }
    Ok(streams)
}

/// The address after `group`, for the stream `number`.
fn step(group: IpAddr, number: u32) -> Result<IpAddr> {
    match group {
        IpAddr::V4(group) => step_v4(group).map(IpAddr::V4).with_context(|| {
            let last = if group.is_multicast() { LAST_GROUP } else { LAST_UNICAST };
            format!("stream {number} would need an address past {last}: start lower or take fewer")
        }),
        IpAddr::V6(group) => step_v6(group).map(IpAddr::V6).with_context(|| {
            format!("stream {number} would leave the range that {group} ends: start lower")
        }),
    }
}

fn step_v4(group: Ipv4Addr) -> Option<Ipv4Addr> {
    let last = if group.is_multicast() { LAST_GROUP } else { LAST_UNICAST };
    let bits = match group.octets() {
        [.., 254] => group.to_bits() + 3,
        [.., 255] => group.to_bits().checked_add(2)?,
        [..] => group.to_bits() + 1,
    };
    Some(Ipv4Addr::from_bits(bits)).filter(|next| *next <= last)
}

/// RFC 3306 and 3307 leave the low 32 bits of an IPv6 group to the group ID.
fn step_v6(group: Ipv6Addr) -> Option<Ipv6Addr> {
    let bits = group.to_bits();
    let id = (bits as u32).checked_add(1)?;
    Some(Ipv6Addr::from_bits(bits >> 32 << 32 | u128::from(id)))
}

const LAST_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 254);
const LAST_UNICAST: Ipv4Addr = Ipv4Addr::new(223, 255, 255, 254);
