//! Flows: the grammar `[SOURCE@]ADDRESS:PORT@INTERFACE` that the config, the command line, the
//! control API, logs and documents share.
//!
//! A flow is either one address and port or a block of them (`239.1.1.0/24:5000-5015`). Parsing
//! checks the form only: which addresses a rule may use is decided by [`crate::rule`].

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::refusal::{Code, Refusal};

/// The name of a network interface: 1 to 15 bytes, as `dev_valid_name` in the kernel's
/// `net/core/dev.c` allows them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Arc<str>);

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the loopback interface.
    pub fn is_loopback(&self) -> bool {
        &*self.0 == "lo"
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One address, or all addresses of a prefix whose host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressBlock {
    first: IpAddr,
    prefix: u8,
}

impl AddressBlock {
    /// A block of one address.
    pub fn single(address: IpAddr) -> Self {
        Self { first: address, prefix: bits(address) }
    }

    /// A prefix. Refused when a host bit is set or the length does not fit the family.
    pub fn new(first: IpAddr, prefix: u8) -> Result<Self, Refusal> {
        if prefix > bits(first) {
            return Err(Refusal::new(
                Code::Invalid,
                format!("prefix length /{prefix} is too long for {first}"),
                format!("use at most /{}", bits(first)),
            ));
        }
        let base = masked(first, prefix);
        if base != first {
            return Err(Refusal::new(
                Code::Invalid,
                format!("{first}/{prefix} has host bits set"),
                format!("write {base}/{prefix} for the whole range, or {first} alone"),
            ));
        }
        Ok(Self { first, prefix })
    }

    /// No block is ordered before it: 0.0.0.0/0.
    pub fn lowest() -> Self {
        Self { first: IpAddr::V4(0.into()), prefix: 0 }
    }

    /// The lowest address.
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(self) -> IpAddr {
        match self.first {
            IpAddr::V4(a) => IpAddr::V4((a.to_bits() | host_mask(self.host_bits()) as u32).into()),
            IpAddr::V6(a) => IpAddr::V6((a.to_bits() | host_mask(self.host_bits())).into()),
        }
    }

    /// Bits that all addresses have in common.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// All addresses, in order.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        (0..=host_mask(self.host_bits())).map(move |host| with_host(self.first, host))
    }

    /// The address of this block that has the place of `address` in a block of the same size.
    pub fn map(self, address: IpAddr) -> IpAddr {
        with_host(self.first, bits_of(address) & host_mask(self.host_bits()))
    }

    /// Whether the block is one address.
    pub fn is_single(self) -> bool {
        self.prefix == bits(self.first)
    }

    /// Number of addresses as a power of two.
    pub fn host_bits(self) -> u8 {
        bits(self.first) - self.prefix
    }

    /// Whether `address` lies in the block.
    pub fn contains(self, address: IpAddr) -> bool {
        bits(address) == bits(self.first) && masked(address, self.prefix) == self.first
    }

    /// Whether the two blocks share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

impl fmt::Display for AddressBlock {
    /// IPv6 in brackets, the prefix only where it is a range.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first {
            IpAddr::V4(address) => write!(f, "{address}")?,
            IpAddr::V6(address) => write!(f, "[{address}]")?,
        }
        if self.is_single() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with its host bits cleared.
pub(crate) fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let host = host_mask(bits(address) - prefix);
    match address {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() & !(host as u32)).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() & !host).into()),
    }
}

/// That many ones.
fn host_mask(bits: u8) -> u128 {
    !u128::MAX.checked_shl(bits.into()).unwrap_or(0)
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// A block's first address with its host bits set.
fn with_host(first: IpAddr, host: u128) -> IpAddr {
    match first {
        IpAddr::V4(a) => IpAddr::V4((a.to_bits() | host as u32).into()),
        IpAddr::V6(a) => IpAddr::V6((a.to_bits() | host).into()),
    }
}

/// One UDP port, or an inclusive range of them; never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`. Refused when empty or when port 0 is among them.
    pub fn new(first: u16, last: u16) -> Result<Self, Refusal> {
        if first == 0 {
            return Err(Refusal::new(
                Code::Invalid,
                "port 0 cannot carry a flow",
                "use a port from 1 to 65535",
            ));
        }
        if first > last {
            return Err(Refusal::new(
                Code::Invalid,
                format!("port range {first}-{last} is empty"),
                "write the lower port first",
            ));
        }
        Ok(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether the range is one port.
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Number of ports, 1 to 65535.
    pub fn size(self) -> u16 {
        self.last - self.first + 1
    }

    /// Whether `port` lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether the two ranges share a port.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// What a rule listens to. Its text form is canonical: equal inputs print alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Input {
    /// Who may send, sorted, without repetition; empty means anyone.
    pub sources: Vec<IpAddr>,
    /// The destination addresses taken.
    pub addresses: AddressBlock,
    /// The destination ports taken.
    pub ports: PortRange,
    /// Where the packets arrive.
    pub interface: InterfaceName,
}

impl Input {
    /// Whether the input is more than one address and port.
    pub fn is_range(&self) -> bool {
        !(self.addresses.is_single() && self.ports.is_single())
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, source) in self.sources.iter().enumerate() {
            write!(f, "{}{}", if position > 0 { "," } else { "" }, Host(*source))?;
        }
        let at = if self.sources.is_empty() { "" } else { "@" };
        write!(f, "{at}{}:{}@{}", self.addresses, self.ports, self.interface)
    }
}

/// The address that relayed datagrams are sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputSource {
    /// The primary address of the output interface; the port is kept.
    Primary,
    /// A fixed address; the port is kept.
    Address(IpAddr),
    /// A fixed address and port.
    AddressAndPort(IpAddr, u16),
    /// Address and port of the received datagram.
    Keep,
}

/// Where a rule sends to, without its options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The address sent from.
    pub source: OutputSource,
    /// The destination addresses.
    pub addresses: AddressBlock,
    /// The destination ports; `None` keeps the port.
    pub ports: Option<PortRange>,
    /// Where the packets leave; `None` lets the route decide (unicast only).
    pub interface: Option<InterfaceName>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            OutputSource::Primary => {}
            OutputSource::Address(address) => write!(f, "{}@", Host(address))?,
            OutputSource::AddressAndPort(address, port) => write!(f, "{}:{port}@", Host(address))?,
            OutputSource::Keep => f.write_str("keep@")?,
        }
        write!(f, "{}", self.addresses)?;
        if let Some(ports) = self.ports {
            write!(f, ":{ports}")?;
        }
        if let Some(interface) = &self.interface {
            write!(f, "@{interface}")?;
        }
        Ok(())
    }
}

/// An address as flows write it: IPv6 in brackets.
struct Host(IpAddr);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}
