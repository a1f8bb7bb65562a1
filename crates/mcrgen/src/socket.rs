//! Opening the sockets that send and receive, with options by address family.
//!
//! Every error says what was refused and what to do about it.

use std::io::Error;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::args::{Checksum, RecvArgs, SendArgs};

/// An interface of this network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
}

impl Interface {
    pub(crate) fn find(name: &str) -> Result<Self> {
        let index = if_nametoindex(name).ok().with_context(|| {
            format!(
                "no interface '{name}' in this network namespace; 'ip link' lists what is there"
            )
        })?;
        Ok(Self { name: name.to_owned(), index })
    }

    /// The address, with this interface as the scope of an IPv6 one.
    pub(crate) fn scope(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(_) => address,
            SocketAddr::V6(mut address) => {
                address.set_scope_id(self.index);
                SocketAddr::V6(address)
            }
        }
    }
}

/// The one unconnected socket that sends all streams.
pub(crate) fn open_sender(args: &SendArgs, interface: &Interface) -> Result<Socket> {
    let group = args.streams.group;
    let socket = open(group, interface)?;
    let (ttl, class) = (u32::from(args.ttl), u32::from(args.dscp) << 2);
    if group.is_ipv4() {
        socket.set_multicast_ttl_v4(ttl).context("cannot set --ttl")?;
        socket.set_ttl_v4(ttl).context("cannot set --ttl")?;
        socket.set_tos_v4(class).context("cannot set --dscp")?;
        socket.set_multicast_loop_v4(args.local).context("cannot set --loop")?;
    } else {
        socket.set_multicast_if_v6(interface.index).context("cannot set the interface")?;
        socket.set_multicast_hops_v6(ttl).context("cannot set --ttl")?;
        socket.set_unicast_hops_v6(ttl).context("cannot set --ttl")?;
        socket.set_tclass_v6(class).context("cannot set --dscp")?;
        socket.set_multicast_loop_v6(args.local).context("cannot set --loop")?;
    }
    if args.checksum == Checksum::None {
        setsockopt(&socket, NoChecksum, &true).context("cannot set --checksum none")?;
    }
    if args.gso > 1 {
        let size = i32::try_from(args.size).context("--size is too large for --gso")?;
        setsockopt(&socket, sockopt::UdpGsoSegment, &size).context("cannot set --gso")?;
    }
    if let Some(source) = args.source {
        socket.bind(&interface.scope(source).into()).with_context(|| {
            format!("cannot send from --source {source}: it must be this host's, and free")
        })?;
    }
    Ok(socket)
}

/// The socket of one received stream: bound, joined, stamping, not blocking.
pub(crate) fn open_receiver(
    address: SocketAddr,
    interface: &Interface,
    args: &RecvArgs,
) -> Result<Socket> {
    let socket = open(address.ip(), interface)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("cannot set SO_TIMESTAMPNS")?;
    let buffer = args.rcvbuf as usize;
    // SO_RCVBUFFORCE ignores net.core.rmem_max but needs CAP_NET_ADMIN.
    if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
        socket.set_recv_buffer_size(buffer).context("cannot set --rcvbuf")?;
    }
    socket.set_nonblocking(true).context("cannot make a socket non-blocking")?;
    if address.ip().is_multicast() {
        // Other receivers of the same group may run beside this one; each gets every packet.
        socket.set_reuse_address(true).context("cannot set SO_REUSEADDR")?;
    }
    socket.bind(&interface.scope(address).into()).with_context(|| {
        format!("cannot receive on {address}: it must be a multicast group or an address of this host, and the port free")
    })?;
    join(&socket, address.ip(), args.source, interface)
        .map_err(|error| explain_join(error, address.ip(), interface))?;
    Ok(socket)
}

/// What the kernel granted as receive buffer, in the unit that was asked for: it reports double,
/// half of it meant for its own bookkeeping (socket(7)).
pub(crate) fn granted_buffer(socket: &Socket) -> usize {
    socket.recv_buffer_size().unwrap_or(0) / 2
}

/// Raises the soft limit of open files to the hard one, which must hold `needed`.
pub(crate) fn allow_files(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
    if needed > hard {
        bail!("{needed} open files are needed and {hard} allowed: raise it with 'ulimit -Hn'");
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise RLIMIT_NOFILE")?;
    }
    Ok(())
}

/// A UDP socket that uses this interface alone; so no route is needed.
fn open(address: IpAddr, interface: &Interface) -> Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
        .context("cannot open a UDP socket")?;
    if address.is_ipv6() {
        socket.set_only_v6(true).context("cannot set IPV6_V6ONLY")?;
    }
    socket
        .bind_device(Some(interface.name.as_bytes()))
        .with_context(|| format!("cannot bind a socket to interface '{}'", interface.name))?;
    Ok(socket)
}

/// Joins by interface index, so that an interface without an address will do.
fn join(
    socket: &Socket,
    group: IpAddr,
    source: Option<IpAddr>,
    interface: &Interface,
) -> Result<(), Error> {
    match (group, source) {
        (_, Some(source)) => {
            let request = SourceJoin {
                interface: interface.index,
                group: Storage::of(group),
                source: Storage::of(source),
            };
            if group.is_ipv4() {
                socket.set_multicast_all_v4(false)?;
                setsockopt(socket, JoinSourceV4, &request)?;
            } else {
                socket.set_multicast_all_v6(false)?;
                setsockopt(socket, JoinSourceV6, &request)?;
            }
            Ok(())
        }
        (IpAddr::V4(group), None) if group.is_multicast() => {
            socket.set_multicast_all_v4(false)?;
            let interface = InterfaceIndexOrAddress::Index(interface.index);
            socket.join_multicast_v4_n(&group, &interface)
        }
        (IpAddr::V6(group), None) if group.is_multicast() => {
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&group, interface.index)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), None) => Ok(()),
    }
}

/// `struct group_source_req` of linux/in.h.
#[repr(C)]
#[expect(unreachable_pub, reason = "the options that sockopt_impl makes are pub, and name it")]
pub struct SourceJoin {
    interface: u32,
    group: Storage,
    source: Storage,
}

/// `struct sockaddr_storage`, aligned as the kernel has it.
#[repr(C, align(8))]
struct Storage([u8; 128]);

impl Storage {
    fn of(address: IpAddr) -> Self {
        let mut bytes = [0; 128];
        // Behind the family stand a port, and in IPv6 a flow label.
        let family = match address {
            IpAddr::V4(address) => {
                bytes[4..8].copy_from_slice(&address.octets());
                libc::AF_INET
            }
            IpAddr::V6(address) => {
                bytes[8..24].copy_from_slice(&address.octets());
                libc::AF_INET6
            }
        };
        bytes[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        Self(bytes)
    }
}

const _: () = assert!(size_of::<SourceJoin>() == size_of::<libc::group_source_req>());

fn explain_join(error: Error, group: IpAddr, interface: &Interface) -> anyhow::Error {
    let name = &interface.name;
    let errno = error.raw_os_error().map(Errno::from_raw);
    let advice = if matches!(errno, Some(Errno::ENOBUFS | Errno::ENOMEM)) {
        "; that is a limit, not a buffer: raise sysctl net.ipv4.igmp_max_memberships (IPv4) \
         or net.core.optmem_max"
            .to_owned()
    } else if errno == Some(Errno::ENODEV) {
        format!("; 'ip link show {name}' must show it up, with the flag MULTICAST")
    } else {
        String::new()
    };
    anyhow::Error::new(error).context(format!("cannot join {group} on {name}{advice}"))
}

sockopt_impl!(
    /// A group from one source, by interface index (ip(7)).
    JoinSourceV4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::MCAST_JOIN_SOURCE_GROUP,
    SourceJoin
);

sockopt_impl!(
    /// The same for IPv6.
    JoinSourceV6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::MCAST_JOIN_SOURCE_GROUP,
    SourceJoin
);

sockopt_impl!(
    /// Send UDP checksum 0 (SO_NO_CHECK, socket(7)).
    NoChecksum,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_NO_CHECK,
    bool
);
