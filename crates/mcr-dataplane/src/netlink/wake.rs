//! Notifications that only wake: `mc_forwarding`, which rtnetlink cannot read, and those that are
//! listened to only while somebody needs them.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rtnetlink::MulticastGroup;

/// What changes the answer to a route query, beside interfaces and addresses.
const ROUTES: [MulticastGroup; 5] = [
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];
const NEIGHBOURS: [MulticastGroup; 1] = [MulticastGroup::Neigh];
/// `RTM_NEWNEIGH` and `RTM_DELNEIGH` of linux/rtnetlink.h.
const NEIGHBOUR_TYPES: [u16; 2] = [28, 29];
/// A message is a few hundred bytes.
const ROOM: usize = 8192;

/// A socket that hears them.
pub(super) struct Wake {
    socket: TokioSocket,
    routes: bool,
    neighbours: bool,
}

impl Wake {
    /// Within a tokio runtime, in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in [MulticastGroup::Ipv4Netconf, MulticastGroup::Ipv6Netconf] {
            socket.socket_mut().add_membership(group as u32)?;
        }
        Ok(Self { socket, routes: false, neighbours: false })
    }

    /// Whether to listen to changes of the routing tables.
    pub(super) fn watch_routes(&mut self, watch: bool) {
        if watch != self.routes && self.listen(&ROUTES, watch) {
            self.routes = watch;
        }
    }

    /// Whether to listen to changes of neighbours.
    pub(super) fn watch_neighbours(&mut self, watch: bool) {
        if watch != self.neighbours && self.listen(&NEIGHBOURS, watch) {
            self.neighbours = watch;
        }
    }

    fn listen(&mut self, groups: &[MulticastGroup], watch: bool) -> bool {
        let socket = self.socket.socket_mut();
        let mut listen = |group: &MulticastGroup| match watch {
            true => socket.add_membership(*group as u32),
            false => socket.drop_membership(*group as u32),
        };
        let result = groups.iter().try_for_each(&mut listen);
        if let Err(error) = &result {
            tracing::error!(%error, ?groups, watch, "netlink group not changed");
        }
        result.is_ok()
    }

    /// Waits for a message that matters, and takes all that are there with it. Of neighbours those
    /// matter of which `is_news` says so.
    #[expect(clippy::needless_pass_by_ref_mut, reason = "the socket's trait needs it")]
    pub(super) async fn wait(
        &mut self,
        is_news: impl Fn(&RouteNetlinkMessage) -> bool,
    ) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(ROOM);
        loop {
            buffer.clear();
            let mut matters = match self.socket.recv(&mut buffer).await {
                Ok(()) => matters(&buffer, &is_news),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
                Err(error) if is_overrun(&error) => true,
                Err(error) => return Err(error),
            };
            matters |= self.drain(&mut buffer, &is_news)?;
            if matters {
                return Ok(());
            }
        }
    }

    /// Takes what is there; whether any of it matters.
    fn drain(
        &self,
        buffer: &mut Vec<u8>,
        is_news: &impl Fn(&RouteNetlinkMessage) -> bool,
    ) -> io::Result<bool> {
        let mut any = false;
        loop {
            buffer.clear();
            match self.socket.socket_ref().recv(buffer, libc::MSG_DONTWAIT) {
                Ok(_) => any = any || matters(buffer, is_news),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_overrun(&error) => any = true,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message that was lost because the buffer was full is a change too.
fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Whether one of the messages may change what is known; one that cannot be read may.
fn matters(bytes: &[u8], is_news: &impl Fn(&RouteNetlinkMessage) -> bool) -> bool {
    // `struct nlmsghdr`: the length, 4 bytes, and the type, 2 bytes.
    let Some(kind) = bytes.get(4..6) else { return true };
    if !NEIGHBOUR_TYPES.map(u16::to_ne_bytes).iter().any(|neighbour| neighbour == kind) {
        return true;
    }
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
    message.is_ok_and(|message| {
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            is_news(&message)
        } else {
            true
        }
    })
}
