//! What a relay knows of the machine's network interfaces: a snapshot made by the netlink side.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::flow::InterfaceName;

/// The kernel's index of an interface in its network namespace; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IfIndex(pub u32);

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
    /// Anything else, by its `ARPHRD_*` number.
    Other(u16),
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
    /// Its MAC address; zeros where it has none.
    pub mac: Mac,
    /// The largest IP packet in bytes.
    pub mtu: u32,
    /// Its addresses in the kernel's order, primary ones before secondary ones.
    pub addresses: Vec<IpAddr>,
    /// Somebody other than a socket takes what it receives: it is a bridge port, or a macvlan or
    /// ipvlan stands on it.
    pub shared: bool,
    /// A multicast routing daemon uses it (`mc_forwarding` of ip-sysctl).
    pub mc_forwarding: bool,
}

impl Link {
    /// The address that an output without `SOURCE@` sends from: the first IPv4 address that is
    /// not secondary.
    pub fn primary_ipv4(&self) -> Option<std::net::Ipv4Addr> {
        self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }
}

/// All interfaces of the namespace, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links(pub BTreeMap<InterfaceName, Link>);

impl Links {
    /// The interface of that name.
    pub fn by_name(&self, name: &InterfaceName) -> Option<&Link> {
        self.0.get(name)
    }

    /// Whether the host itself holds `address`.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.0.values().any(|link| link.addresses.contains(&address))
    }
}
