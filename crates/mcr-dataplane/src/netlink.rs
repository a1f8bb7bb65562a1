//! What netlink (rtnetlink(7)) says of the machine: a snapshot of its interfaces, of the routes that
//! rules have asked for and of the neighbours that they need, and a wake-up whenever it may have
//! changed. Whoever is woken takes a new snapshot: nothing is followed step by step, so nothing can
//! be missed.
//!
//! Of what a busy host tells without end, only what is needed is listened to: routes while a rule
//! asks for one, neighbours while one is needed, and of them no others.

mod ask;
mod counts;
mod interfaces;
mod neighbours;
mod routes;
mod tc;
mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::select;
use futures_util::stream::BoxStream;
use mcr_core::link::{IfIndex, LinkKind, Links, NextHop, Route, RouteQuery};
use mcr_core::loss::LinkCounts;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::Routes;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};

use ask::Asker;
use neighbours::Neighbours;
pub(crate) use tc::{is_exists, programs, remove_empty_clsact};
use wake::Wake;

/// A connection to the kernel, and its notifications.
pub struct Netlink {
    handle: Handle,
    notifications: BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    wake: Wake,
    asker: Asker,
    neighbours: Neighbours,
}

impl Netlink {
    /// Connects, within a tokio runtime, in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, notifications) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            notifications: notifications.boxed(),
            wake: Wake::open()?,
            asker: Asker::open()?,
            neighbours: Neighbours::default(),
        })
    }

    /// Waits until something may have changed; takes all notifications that are there.
    ///
    /// An error means that the connection has ended.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut ready = (&mut self.notifications).ready_chunks(1024);
        let links =
            async { ready.next().await.map(|_| ()).ok_or(io::ErrorKind::BrokenPipe.into()) };
        let rest = self.wake.wait(|message| self.neighbours.is_news(message));
        select(pin!(links), pin!(rest)).await.factor_first().0
    }

    /// All interfaces as they are, the answers to `queries`, and those of the neighbours given to
    /// [`Self::resolve`] that are resolved. From here on [`Self::changed`] watches the routes as long
    /// as there are queries.
    pub async fn links(
        &mut self,
        queries: &BTreeSet<RouteQuery>,
    ) -> Result<Links, rtnetlink::Error> {
        self.wake.watch_routes(!queries.is_empty());
        let interfaces = interfaces::read(&self.handle).await?;
        let routes = routes::ask(&mut self.asker, queries, &interfaces);
        let neighbours = self.neighbours.read(&mut self.asker);
        Ok(Links { interfaces, routes, neighbours })
    }

    /// Asks the routing table, of one unicast destination each.
    pub async fn routes(&mut self, queries: &BTreeSet<RouteQuery>) -> Routes {
        if queries.is_empty() {
            return Routes::new();
        }
        self.wake.watch_routes(true);
        match interfaces::read(&self.handle).await {
            Ok(interfaces) => routes::ask(&mut self.asker, queries, &interfaces),
            Err(error) => {
                let why = format!("the interfaces cannot be read: {error}");
                queries.iter().map(|query| (query.clone(), Route::None(why.clone()))).collect()
            }
        }
    }

    /// Makes the kernel keep these neighbours resolved (`NTF_EXT_MANAGED`, Linux 5.16), and no others
    /// for us. Entries that somebody else has made to stay are used as they are.
    pub fn resolve(&mut self, wanted: &BTreeSet<NextHop>) {
        self.wake.watch_neighbours(!wanted.is_empty());
        self.neighbours.resolve(&mut self.asker, wanted);
    }

    /// Gives up the neighbours that an earlier process has left and that are not wanted.
    pub fn settle(&mut self) {
        self.neighbours.settle(&mut self.asker);
    }
}

/// The name of an interface, for what takes no index.
pub(crate) fn name_of(index: IfIndex) -> Result<String, Refusal> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    socket.and_then(|socket| rustix::net::netdevice::index_to_name(socket, index.0)).map_err(
        |error| {
            Refusal::new(
                Code::Machine,
                format!("interface {index} is gone: {error}"),
                "`ip link` shows the interfaces of this network namespace",
            )
        },
    )
}

/// Whether an interface carries IP packets without a header of the link.
pub(crate) fn is_bare(index: IfIndex) -> Result<bool, Refusal> {
    let name = name_of(index)?;
    let kind = crate::sys::link_kind(&name).map_err(|error| {
        let message = format!("interface {name} does not tell its link type: {error}");
        Refusal::new(Code::Machine, message, "is it still there?")
    })?;
    Ok(kind == LinkKind::Bare)
}

/// Packets that each interface has dropped on sending, by its name: those of the device, and those
/// of its root queue.
pub fn transmit_drops() -> BTreeMap<String, u64> {
    let queues = tc::queue_drops().inspect_err(|error| tracing::warn!(%error, "queues not read"));
    let queues: BTreeMap<IfIndex, u64> = queues.unwrap_or_default().into_iter().collect();
    let drops = |(index, counts): (IfIndex, counts::Counts)| {
        let queue = queues.get(&index).copied().unwrap_or_default();
        (counts.name, counts.transmit_dropped + queue)
    };
    counts().into_iter().map(drops).collect()
}

/// Packets that each interface has lost on receiving.
pub fn receive_losses() -> BTreeMap<IfIndex, LinkCounts> {
    counts().into_iter().map(|(index, counts)| (index, counts.lost)).collect()
}

fn counts() -> BTreeMap<IfIndex, counts::Counts> {
    let counts = counts::read();
    counts
        .inspect_err(|error| tracing::debug!(%error, "interfaces not counted"))
        .unwrap_or_default()
}
