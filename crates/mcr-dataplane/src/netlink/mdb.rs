//! The groups that bridges know members of (`RTM_GETMDB`), as `bridge mdb show` has them. By hand: the
//! crates for netlink know nothing of them.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use mcr_core::link::IfIndex;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

/// Of linux/rtnetlink.h.
const RTM_NEWMDB: u16 = 84;
const RTM_GETMDB: u16 = 86;
/// Of linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLA_TYPE: u16 = 0x3fff;
/// Of linux/if_bridge.h: `MDBA_MDB`, `MDBA_MDB_ENTRY` and `MDBA_MDB_ENTRY_INFO`.
const NESTED: u16 = 1;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Bytes of `struct nlmsghdr`, and of `struct br_port_msg` with its padding.
const HEADER: usize = 16;
const PORT_MESSAGE: usize = 8;
const TIMEOUT: Duration = Duration::from_millis(500);

/// A group that somebody behind a port has joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeMember {
    /// The bridge.
    pub bridge: IfIndex,
    /// Its port; the bridge itself where this host is the member.
    pub port: IfIndex,
    /// The group.
    pub group: IpAddr,
}

/// Those of all bridges of the network namespace.
pub fn bridge_members() -> io::Result<Vec<BridgeMember>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    SockRef::from(&socket).set_read_timeout(Some(TIMEOUT))?;
    let length = (HEADER + PORT_MESSAGE) as u32;
    let mut request = Vec::with_capacity(length as usize);
    request.extend(length.to_ne_bytes());
    request.extend(RTM_GETMDB.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence and port number.
    request.extend([0; 8]);
    request.extend([libc::AF_BRIDGE as u8, 0, 0, 0, 0, 0, 0, 0]);
    socket.send(&request, 0)?;
    let mut members = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while let Some((kind, message, further)) = message(rest) {
            match kind {
                // A dump answers with the question's own type (`br_mdb_dump` of net/bridge/br_mdb.c).
                RTM_NEWMDB | RTM_GETMDB => entries(message, &mut members),
                NLMSG_DONE => return Ok(members),
                NLMSG_ERROR => {
                    let code = message.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ => {}
            }
            rest = further;
        }
    }
}

/// The first message: its type, its payload, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let payload = bytes.get(HEADER..length)?;
    Some((kind, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn entries(message: &[u8], members: &mut Vec<BridgeMember>) {
    let Some((head, attributes)) = message.split_first_chunk::<PORT_MESSAGE>() else { return };
    let bridge = IfIndex(u32::from_ne_bytes([head[4], head[5], head[6], head[7]]));
    // Each attribute has others in it, down to the entries.
    for table in nested(attributes) {
        for entry in nested(table) {
            for info in nested(entry) {
                members.extend(member(bridge, info));
            }
        }
    }
}

/// `struct br_mdb_entry`: port, state, flags, VLAN, address in 16 bytes, EtherType.
fn member(bridge: IfIndex, info: &[u8]) -> Option<BridgeMember> {
    let port = IfIndex(u32::from_ne_bytes(*info.first_chunk()?));
    let address = info.get(8..)?.first_chunk::<16>()?;
    let protocol = u16::from_be_bytes(*info.get(24..)?.first_chunk()?);
    let group = match protocol {
        ETH_P_IP => IpAddr::from([address[0], address[1], address[2], address[3]]),
        ETH_P_IPV6 => IpAddr::from(*address),
        _ => return None,
    };
    Some(BridgeMember { bridge, port, group })
}

/// The payloads of the attributes of type 1.
fn nested(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let attributes = std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & NLA_TYPE;
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    });
    attributes.filter(|(kind, _)| *kind == NESTED).map(|(_, payload)| payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((payload.len() + 4) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn info(port: u32, address: &[u8], protocol: u16) -> Vec<u8> {
        let mut bytes = port.to_ne_bytes().to_vec();
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(address);
        bytes.resize(24, 0);
        bytes.extend(protocol.to_be_bytes());
        bytes.extend([0, 0]);
        // Its timer, and the sources, which are none of ours.
        [attribute(1, &bytes), attribute(2, &[0; 4])].concat()
    }

    #[test]
    fn the_groups_of_a_bridge_are_read() {
        let group6 = "ff15::5001".parse::<std::net::Ipv6Addr>().unwrap();
        let infos = [
            attribute(1, &info(7, &[239, 1, 1, 1], ETH_P_IP)),
            attribute(1, &info(8, &group6.octets(), ETH_P_IPV6)),
            attribute(1, &info(8, &[1, 0, 0x5e, 1, 1, 1], 0)),
        ];
        let table = attribute(0x8001, &infos.concat());
        let routers = attribute(0x8002, &[0; 8]);
        let message = [&[7, 0, 0, 0][..], &5_u32.to_ne_bytes(), &table, &routers].concat();
        let mut members = Vec::new();
        entries(&message, &mut members);
        let member = |port, group: &str| BridgeMember {
            bridge: IfIndex(5),
            port: IfIndex(port),
            group: group.parse().unwrap(),
        };
        assert_eq!(members, [member(7, "239.1.1.1"), member(8, "ff15::5001")]);
        for length in 0..message.len() {
            entries(&message[..length], &mut members);
        }
    }
}
