//! What the kernel dropped at our own sockets because their receive buffers were full: loss that
//! the network is not to blame for.
//!
//! Read once, at the end, from `/proc/net/udp` and `udp6`. (The SO_RXQ_OVFL message would cost room
//! in every receive call, and says nothing about drops after the last packet.)

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;

use socket2::Socket;

#[cfg(test)]
mod tests;

/// Packets dropped per socket, in their order; 0 where the kernel does not say.
pub(crate) fn count(sockets: &[Socket]) -> Vec<u64> {
    let mut dropped = BTreeMap::new();
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        dropped.extend(fs::read_to_string(table).unwrap_or_default().lines().filter_map(parse));
    }
    let of = |socket| inode(socket).and_then(|inode| dropped.get(&inode).copied());
    sockets.iter().map(|socket| of(socket).unwrap_or(0)).collect()
}

/// The inode and the drops of one line; the heading has neither.
fn parse(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let inode = fields.nth(9)?.parse().ok()?;
    Some((inode, fields.nth(2)?.parse().ok()?))
}

fn inode(socket: &Socket) -> Option<u64> {
    let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
