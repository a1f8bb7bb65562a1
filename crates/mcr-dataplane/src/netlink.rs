//! What netlink (rtnetlink(7)) says of the machine: a snapshot of all interfaces, and a wake-up
//! whenever it may have changed. Whoever is woken takes a new snapshot: nothing is followed step
//! by step, so nothing can be missed.

mod tc;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::pin::pin;

use futures_util::future::select;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use mcr_core::flow::InterfaceName;
use mcr_core::link::{IfIndex, Link, LinkKind, Links};
use mcr_core::refusal::{Code, Refusal};
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};

pub(crate) use tc::{is_exists, programs, remove_empty_clsact};

/// A connection to the kernel, and its notifications.
pub struct Netlink {
    handle: Handle,
    notifications: BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Changes of `mc_forwarding`, which rtnetlink cannot read; here they only wake.
    netconf: TokioSocket,
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
        let mut netconf = TokioSocket::new(NETLINK_ROUTE)?;
        netconf.socket_mut().bind_auto()?;
        netconf.socket_mut().add_membership(MulticastGroup::Ipv4Netconf as u32)?;
        Ok(Self { handle, notifications: notifications.boxed(), netconf })
    }

    /// Waits until something may have changed; takes all notifications that are there.
    ///
    /// An error means that the connection has ended.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut ready = (&mut self.notifications).ready_chunks(1024);
        let links =
            async { ready.next().await.map(|_| ()).ok_or(io::ErrorKind::BrokenPipe.into()) };
        let netconf = read_netconf(&mut self.netconf);
        select(pin!(links), pin!(netconf)).await.factor_first().0
    }

    /// All interfaces as they are.
    pub async fn links(&self) -> Result<Links, rtnetlink::Error> {
        let messages: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        let mut addresses: BTreeMap<u32, Vec<(bool, IpAddr)>> = BTreeMap::new();
        let mut stream = self.handle.address().get().execute();
        while let Some(message) = stream.try_next().await? {
            let secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
            let (mut local, mut any) = (None, None);
            for attribute in &message.attributes {
                // IFA_LOCAL is the address; on a point-to-point link IFA_ADDRESS is the peer's.
                if let AddressAttribute::Local(address) = attribute {
                    local = Some(*address);
                } else if let AddressAttribute::Address(address) = attribute {
                    any = Some(*address);
                }
            }
            if let Some(address) = local.or(any) {
                addresses.entry(message.header.index).or_default().push((secondary, address));
            }
        }
        let parents: BTreeSet<u32> = messages.iter().filter_map(parent_of_shared).collect();
        let mut links = BTreeMap::new();
        for message in &messages {
            if let Some((name, mut link)) = link(message) {
                let mut found = addresses.remove(&message.header.index).unwrap_or_default();
                found.sort_by_key(|(secondary, _)| *secondary);
                link.addresses = found.into_iter().map(|(_, address)| address.into()).collect();
                link.shared |= parents.contains(&message.header.index);
                links.insert(name, link);
            }
        }
        Ok(Links { interfaces: links, ..Links::default() })
    }
}

/// Takes one message. One that was lost because the buffer was full (ENOBUFS) is a change too.
#[expect(clippy::needless_pass_by_ref_mut, reason = "the trait's method needs it")]
async fn read_netconf(socket: &mut TokioSocket) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        match socket.recv(&mut buffer).await {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
            result => return result.map(drop),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn link(message: &LinkMessage) -> Option<(InterfaceName, Link)> {
    let mut name = None;
    let mut link = Link {
        index: IfIndex(message.header.index),
        kind: match message.header.link_layer_type {
            LinkLayerType::Ether => LinkKind::Ethernet,
            LinkLayerType::Loopback => LinkKind::Loopback,
            other => LinkKind::Other(other.into()),
        },
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        no_arp: false,
        mac: [0; 6],
        mtu: 0,
        addresses: Vec::new(),
        shared: false,
        mc_forwarding: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse::<InterfaceName>().ok(),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or([0; 6]),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            // Whatever it is a port of takes its packets.
            LinkAttribute::Controller(_) => link.shared = true,
            _ => {}
        }
    }
    let name = name?;
    link.mc_forwarding = mc_forwarding(&name);
    Some((name, link))
}

/// The interface that a macvlan or ipvlan stands on.
#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn parent_of_shared(message: &LinkMessage) -> Option<u32> {
    let (mut parent, mut stands_on) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                stands_on = infos.iter().any(|info| {
                    let kinds = [InfoKind::MacVlan, InfoKind::MacVtap, InfoKind::IpVlan];
                    matches!(info, LinkInfo::Kind(kind) if kinds.contains(kind))
                });
            }
            _ => {}
        }
    }
    parent.filter(|_| stands_on)
}

/// Whether a multicast routing daemon has made the interface one of its own.
fn mc_forwarding(name: &InterfaceName) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/mc_forwarding"))
        .is_ok_and(|text| text.trim() != "0")
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

/// Packets that each interface has dropped on sending: those of the device, from `/proc/net/dev`,
/// and those of its root queue.
pub fn transmit_drops() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let drops = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        // Eight columns of receiving, then bytes, packets, errs, drop of sending.
        let dropped = counts.split_whitespace().nth(11)?.parse().ok()?;
        Some((name.trim().to_owned(), dropped))
    };
    let mut drops: BTreeMap<String, u64> = text.lines().filter_map(drops).collect();
    let queues = tc::queue_drops().inspect_err(|error| tracing::warn!(%error, "queues not read"));
    for (index, dropped) in queues.unwrap_or_default().into_iter().filter(|(_, count)| *count > 0) {
        if let Ok(name) = name_of(index) {
            *drops.entry(name).or_default() += dropped;
        }
    }
    drops
}
