//! Joining and leaving by interface index, from anyone or from one source, for both families
//! (RFC 3678 §5.1).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use mcr_core::action::Membership;
use mcr_core::link::IfIndex;
use socket2::{SockAddr, SockRef, Socket};

/// `ICMPV6_FILTER` of linux/icmpv6.h, which libc does not have.
const ICMPV6_FILTER: libc::c_int = 1;
/// The type of a question for members (RFC 2710 §3.1).
const MLD_QUERY: usize = 130;

/// Joins on a socket of the group's family.
pub(crate) fn join(socket: &Socket, membership: Membership) -> io::Result<()> {
    change(socket, membership, [libc::MCAST_JOIN_GROUP, libc::MCAST_JOIN_SOURCE_GROUP])
}

/// Leaves. The last source of a group takes the group with it.
pub(crate) fn leave(socket: &Socket, membership: Membership) -> io::Result<()> {
    change(socket, membership, [libc::MCAST_LEAVE_GROUP, libc::MCAST_LEAVE_SOURCE_GROUP])
}

/// Lets a raw socket of ICMPv6 take the queries of MLD alone (RFC 3542 §3.2).
pub fn only_mld_queries(socket: &impl AsFd) -> io::Result<()> {
    // A bit for each type; those that are set are blocked.
    let mut blocked = [u32::MAX; 8];
    blocked[MLD_QUERY / 32] &= !(1 << (MLD_QUERY % 32));
    set(&SockRef::from(socket), (libc::IPPROTO_ICMPV6, ICMPV6_FILTER), &blocked)
}

fn change(
    socket: &Socket,
    Membership { interface: IfIndex(interface), group, source }: Membership,
    [from_anyone, from_source]: [libc::c_int; 2],
) -> io::Result<()> {
    let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let group = storage(group);
    match source {
        None => {
            let request = libc::group_req { gr_interface: interface, gr_group: group };
            set(socket, (level, from_anyone), &request)
        }
        Some(source) => {
            let request = libc::group_source_req {
                gsr_interface: interface,
                gsr_group: group,
                gsr_source: storage(source),
            };
            set(socket, (level, from_source), &request)
        }
    }
}

fn set<T>(socket: &Socket, (level, option): (i32, i32), value: &T) -> io::Result<()> {
    let (fd, length) = (socket.as_fd().as_raw_fd(), size_of::<T>() as libc::socklen_t);
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `length` bytes at `value`, and that is what is there.
    let result = unsafe { libc::setsockopt(fd, level, option, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn storage(address: IpAddr) -> libc::sockaddr_storage {
    let mut storage = SockAddr::from(SocketAddr::new(address, 0)).as_storage();
    // SAFETY: it is one, under another name; the type is made of integers only.
    *unsafe { storage.view_as::<libc::sockaddr_storage>() }
}
