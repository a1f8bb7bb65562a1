//! What a relay knows of the machine: its interfaces, and where unicast goes. A snapshot made by
//! the netlink side.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::flow::InterfaceName;

/// The kernel's index of an interface in its network namespace; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IfIndex(pub u32);

impl IfIndex {
    /// The loopback interface: the first of every network namespace (`LOOPBACK_IFINDEX` of
    /// net/flow.h).
    pub const LOOPBACK: Self = Self(1);
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An IEEE 802 MAC address.
pub type Mac = [u8; 6];

/// What kind of frames an interface carries (`ARPHRD_*` of `if_arp.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// Ethernet headers.
    Ethernet,
    /// The loopback interface: Ethernet headers of zeros.
    Loopback,
    /// IP packets without a header of the link: tun, WireGuard, GRE, IPIP, PPP.
    Bare,
    /// Anything else, by its `ARPHRD_*` number.
    Other(u16),
}

impl LinkKind {
    /// The kind of an `ARPHRD_*` number. Bare are those that `dev_is_mac_header_xmit` of
    /// linux/if_arp.h names.
    pub fn from_arphrd(number: u16) -> Self {
        match number {
            1 => Self::Ethernet,
            772 => Self::Loopback,
            512 | 519 | 768 | 769 | 776 | 778 | 823 | 0xfffe | 0xffff => Self::Bare,
            other => Self::Other(other),
        }
    }
}

/// How fit an address is to be sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Made to stay: neither secondary (IPv4) nor temporary (RFC 8981) nor deprecated (IPv6).
    Stable,
    /// One of those; taken only where there is no stable one.
    Lesser,
    /// Not to be sent from: duplicate address detection is not over, or has failed.
    Unusable,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddress {
    /// The address.
    pub address: IpAddr,
    /// How fit it is to be sent from.
    pub standing: Standing,
}

impl From<IpAddr> for LinkAddress {
    fn from(address: IpAddr) -> Self {
        Self { address, standing: Standing::Stable }
    }
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: IfIndex,
    /// Frames it carries.
    pub kind: LinkKind,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// It has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// It has no neighbours to resolve (`IFF_NOARP`).
    pub no_arp: bool,
    /// Its MAC address; zeros where it has none.
    pub mac: Mac,
    /// The largest IP packet in bytes.
    pub mtu: u32,
    /// Its addresses in the kernel's order.
    pub addresses: Vec<LinkAddress>,
    /// Somebody other than a socket takes what it receives: it is a bridge port, or a macvlan or
    /// ipvlan stands on it.
    pub shared: bool,
    /// A multicast routing daemon uses it (`mc_forwarding` of ip-sysctl).
    pub mc_forwarding: bool,
}

impl Link {
    /// The primary address of the family of `like`, which an output without `SOURCE@` sends from:
    /// the first stable one; one of the link alone (fe80::/10) only where there is no other.
    pub fn primary(&self, like: IpAddr) -> Option<IpAddr> {
        let fit = self
            .addresses
            .iter()
            .filter(|a| a.address.is_ipv4() == like.is_ipv4() && a.standing != Standing::Unusable);
        fit.min_by_key(|a| (is_link_local(a.address), a.standing)).map(|a| a.address)
    }
}

/// Whether an address means something on one link alone (RFC 4291 §2.5.6, RFC 3927).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A question to the kernel's routing table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteQuery {
    /// Whom to reach.
    pub destination: IpAddr,
    /// By which interface; `None` lets the table decide.
    pub interface: Option<InterfaceName>,
}

/// What the table answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// By an interface, to the destination itself or to a gateway.
    Via {
        /// It leaves by this interface.
        interface: InterfaceName,
        /// Whose MAC address the frame gets.
        next_hop: IpAddr,
        /// The address of this host that the kernel would send from.
        source: Option<IpAddr>,
    },
    /// It is this host's own.
    Local,
    /// There is none; the kernel's words.
    None(String),
}

/// A neighbour whose MAC address is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// On the link of this interface.
    pub interface: IfIndex,
    /// Its address.
    pub address: IpAddr,
}

/// The machine at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    /// All interfaces of the namespace.
    pub interfaces: BTreeMap<InterfaceName, Link>,
    /// Answers of the routing table, to what rules have asked.
    pub routes: BTreeMap<RouteQuery, Route>,
    /// The neighbours that are resolved, of those that rules need.
    pub neighbours: BTreeMap<NextHop, Mac>,
}

impl Links {
    /// The interface of that name.
    pub fn by_name(&self, name: &InterfaceName) -> Option<&Link> {
        self.interfaces.get(name)
    }

    /// Whether the host itself holds `address`.
    pub fn is_local(&self, address: IpAddr) -> bool {
        let holds = |link: &Link| link.addresses.iter().any(|a| a.address == address);
        self.interfaces.values().any(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(addresses: &[(&str, Standing)], like: &str) -> Option<String> {
        let address = |(text, standing): &(&str, Standing)| LinkAddress {
            address: text.parse().unwrap(),
            standing: *standing,
        };
        let link = Link {
            index: IfIndex(2),
            kind: LinkKind::Ethernet,
            up: true,
            carrier: true,
            no_arp: false,
            mac: [0; 6],
            mtu: 1500,
            addresses: addresses.iter().map(address).collect(),
            shared: false,
            mc_forwarding: false,
        };
        link.primary(like.parse().unwrap()).map(|address| address.to_string())
    }

    #[test]
    fn the_primary_address_is_stable_and_of_the_family() {
        use Standing::{Lesser, Stable, Unusable};
        let all = [
            ("10.0.0.2", Lesser),
            ("10.0.0.1", Stable),
            ("fe80::1", Stable),
            ("2001:db8::77", Lesser),
            ("2001:db8::5", Unusable),
            ("2001:db8::1", Stable),
            ("2001:db8::2", Stable),
        ];
        assert_eq!(primary(&all, "239.1.1.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(primary(&all, "ff05::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(primary(&all[..5], "ff05::1").as_deref(), Some("2001:db8::77"));
        assert_eq!(primary(&all[..3], "ff05::1").as_deref(), Some("fe80::1"));
        assert_eq!(primary(&all[..2], "ff05::1"), None);
        assert_eq!(primary(&[("2001:db8::5", Unusable)], "ff05::1"), None);
    }
}
