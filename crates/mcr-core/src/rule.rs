//! Rules: one input, its outputs, their options, and what a rule may never do.
//!
//! A [`Rule`] can only be built by [`Rule::check`], so whoever holds one holds a rule whose text is
//! right. What depends on other rules is checked by [`crate::table`], what depends on the machine
//! by [`crate::resolve`].

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::flow::{AddressBlock, Destination, Input, OutputSource};
use crate::rate::MaxRate;
use crate::refusal::{Code, Refusal};
use crate::watch::{Inspect, Silence};

/// The most outputs of one rule; the eBPF plane's loop is bounded by it.
pub const OUTPUTS_MAX: usize = 64;
/// The most groups, times sources, that one rule joins: each is a system call and some 300 bytes of
/// the kernel's memory.
pub const JOINS_MAX: u64 = 16_384;
/// The most ports of a unicast input.
pub const PORTS_MAX: u16 = 256;

/// What a rule is addressed by: its name, or the canonical text of its input. The two cannot
/// collide, since a name has no '@'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKey(Arc<str>);

impl RuleKey {
    /// The key as a user wrote it: a name, or an input in any spelling.
    pub fn from_user(text: &str) -> Self {
        match text.parse::<Input>() {
            Ok(input) => Self(input.to_string().into()),
            Err(_) => Self(text.into()),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a rule came from; decides who reconciles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The configuration files; a reload may change or remove it.
    File,
    /// A client of the control API; a reload leaves it alone.
    Runtime,
}

/// Does the stack of the relay host still see the input?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// Only when somebody there may want it.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// The TTL, or IPv6 hop limit, of a relayed datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ttl {
    /// This value, whatever the input had.
    Set(NonZeroU8),
    /// That of the input.
    Keep,
    /// One less than that of the input; a datagram that reaches 0 is dropped.
    Decrement,
}

impl Default for Ttl {
    fn default() -> Self {
        Self::Set(NonZeroU8::MIN.saturating_add(31))
    }
}

/// The differentiated services code point (RFC 2474) of a relayed datagram. ECN is always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Dscp {
    /// That of the input.
    #[default]
    Keep,
    /// This value, 0 to 63.
    Set(u8),
}

/// One place a rule sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where to and from which address.
    pub to: Destination,
    /// Time to live.
    pub ttl: Ttl,
    /// Code point.
    pub dscp: Dscp,
}

/// A checked rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The name given, if any.
    pub name: Option<String>,
    /// A remark for people.
    pub comment: Option<String>,
    /// What the rule listens to.
    pub input: Input,
    /// 1 to [`OUTPUTS_MAX`] places to send to.
    pub outputs: Vec<Output>,
    /// Whether the rule forwards.
    pub enabled: bool,
    /// Whether the host's own stack sees the input.
    pub local: Local,
    /// Whether MCR joins the group.
    pub join: bool,
    /// The most that it takes.
    pub max_rate: Option<MaxRate>,
    /// When a pause of the stream is told of.
    pub silence: Silence,
    /// Whether, and as what, its payload is looked into.
    pub inspect: Option<Inspect>,
}

impl Rule {
    /// The only way in: refuses everything that the text alone shows wrong.
    pub fn check(self) -> Result<Self, Refusal> {
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if self.comment.as_ref().is_some_and(|c| c.len() > 1024 || c.contains(char::is_control)) {
            return Err(invalid(
                "a comment is longer than 1024 bytes or has a control character",
                "keep it to one short line",
            ));
        }
        self.check_input().map_err(|r| r.about(format_args!("input {}", self.input)))?;
        if self.outputs.is_empty() {
            return Err(invalid("the rule has no outputs", "give at least one output"));
        }
        if self.outputs.len() > OUTPUTS_MAX {
            return Err(invalid(
                format!(
                    "the rule has {} outputs, and {OUTPUTS_MAX} is the most",
                    self.outputs.len()
                ),
                "chain a second rule on another group, or leave some out",
            ));
        }
        let mut seen = BTreeSet::new();
        for output in &self.outputs {
            self.check_output(output).map_err(|r| r.about(format_args!("output {}", output.to)))?;
            let to = &output.to;
            if !seen.insert((to.addresses, self.output_ports(to), &to.interface)) {
                return Err(Refusal::new(
                    Code::Conflict,
                    format!("output {to}: is there twice"),
                    "every output of a rule goes to another address, port or interface",
                ));
            }
        }
        Ok(self)
    }

    /// The name, or the canonical text of the input.
    pub fn key(&self) -> RuleKey {
        RuleKey(self.name.clone().unwrap_or_else(|| self.input.to_string()).into())
    }

    fn output_ports(&self, to: &Destination) -> crate::flow::PortRange {
        to.ports.unwrap_or(self.input.ports)
    }

    fn check_input(&self) -> Result<(), Refusal> {
        let Input { sources, addresses, ports, .. } = &self.input;
        check_block(*addresses)?;
        if !addresses.first().is_multicast() && ports.size() > PORTS_MAX {
            return Err(invalid(
                format!("{} ports of a unicast input", ports.size()),
                format!("each takes a socket, so {PORTS_MAX} are the most: name the ports in use"),
            ));
        }
        let groups = 1_u64.checked_shl(addresses.host_bits().into()).unwrap_or(u64::MAX);
        let joins = groups.saturating_mul(sources.len().max(1) as u64);
        if self.join && addresses.first().is_multicast() && joins > JOINS_MAX {
            return Err(invalid(
                format!(
                    "{addresses} would be {joins} joins, and {JOINS_MAX} are the most of a rule"
                ),
                "take a smaller range, or say join = \"no\" where a router or a switch without snooping \
                 sends the groups anyway",
            ));
        }
        for source in sources {
            if source.is_ipv4() != addresses.first().is_ipv4() {
                return Err(mixed(source, &addresses.first()));
            }
            if source.is_multicast() || check_address(*source).is_err() {
                return Err(invalid(
                    format!("source {source} is not the address of a sender"),
                    "name the unicast address that the datagrams come from",
                ));
            }
        }
        if !sources.is_empty() && !addresses.first().is_multicast() {
            return Err(invalid(
                "a source list on a unicast input",
                "sources select who may send to a group: leave them out",
            ));
        }
        Ok(())
    }

    fn check_output(&self, output: &Output) -> Result<(), Refusal> {
        let Destination { source, addresses, ports, interface } = &output.to;
        let (from, to) = (self.input.addresses, *addresses);
        check_block(to)?;
        if to.first().is_ipv4() != from.first().is_ipv4() {
            return Err(mixed(&from.first(), &to.first()));
        }
        if to.first().is_multicast() && interface.is_none() {
            return Err(invalid(
                "a multicast output names no interface",
                format!("add the interface it leaves by, as in {to}@eth1"),
            ));
        }
        if to.host_bits() != from.host_bits() {
            return Err(invalid(
                format!("{from} and {to} have different sizes"),
                "a range maps one to one: give both the same prefix length",
            ));
        }
        if ports.is_some_and(|ports| ports.size() != self.input.ports.size()) {
            return Err(invalid(
                format!(
                    "ports {} and {} have different sizes",
                    self.input.ports,
                    self.output_ports(&output.to)
                ),
                "a port range maps one to one; an output without a port keeps the port",
            ));
        }
        if let OutputSource::Address(a) | OutputSource::AddressAndPort(a, _) = source {
            if a.is_ipv4() != to.first().is_ipv4() {
                return Err(mixed(a, &to.first()));
            }
            if a.is_multicast() || check_address(*a).is_err() {
                return Err(invalid(
                    format!("{a} cannot be sent from"),
                    "a source is a unicast address, ADDRESS:PORT or keep",
                ));
            }
        }
        if matches!(output.dscp, Dscp::Set(64..)) {
            return Err(invalid("dscp is more than 63", "use keep, or a number from 0 to 63"));
        }
        let same_place = to == from && interface.as_ref() == Some(&self.input.interface);
        if same_place && self.output_ports(&output.to) == self.input.ports {
            return Err(Refusal::new(
                Code::Conflict,
                "is the input of the same rule",
                "change the group, the port or the interface",
            ));
        }
        Ok(())
    }
}

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
fn check_name(name: &str) -> Result<(), Refusal> {
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good = name.len() <= 64
        && name.bytes().all(rest)
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if good {
        return Ok(());
    }
    Err(invalid(
        format!("{name:?} is not a rule name"),
        "use 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first",
    ))
}

/// Blocks that are never relayed, in or out, not even in part.
fn check_block(block: AddressBlock) -> Result<(), Refusal> {
    if !block.is_single() {
        let (first, last) = (block.first(), block.last());
        if !first.is_multicast() && !last.is_multicast() {
            return Err(invalid(
                "a range of unicast addresses",
                "only groups make ranges: name one address",
            ));
        }
        if !first.is_multicast() || !last.is_multicast() {
            let end = if first.is_ipv4() { "224.0.0.0 to 239.255.255.255" } else { "ff00::/8" };
            return Err(invalid(
                format!("{block} runs from {first} to {last}, and groups are {end}"),
                "take a range that has groups alone",
            ));
        }
        if holds_link_local_groups(block) {
            return Err(invalid(
                format!("{block} holds link-local groups, which are never relayed"),
                "leave out 224.0.0.0/24, and ranges of more than one scope of IPv6 (ff0s::/16, RFC 4291)",
            ));
        }
    }
    check_address(block.first())
}

/// A prefix of less than 16 bits has groups of all scopes.
fn holds_link_local_groups(block: AddressBlock) -> bool {
    match block.first() {
        IpAddr::V4(_) => block.contains(IpAddr::V4([224, 0, 0, 0].into())),
        IpAddr::V6(_) => block.prefix() < 16 || is_link_local_group(block.first()),
    }
}

/// Addresses that are never relayed, in or out.
fn check_address(address: IpAddr) -> Result<(), Refusal> {
    if is_link_local_group(address) {
        return Err(invalid(
            format!("{address} is a link-local group, which is never relayed"),
            "protocols of one link live there (224.0.0.0/24 of RFC 5771; IPv6 scopes 0 to 2 of RFC 4291)",
        ));
    }
    let usable = match address {
        IpAddr::V4(a) => !(a.is_unspecified() || a.octets()[0] >= 240 || a.octets()[0] == 0),
        IpAddr::V6(a) => !(a.is_unspecified() || a.to_ipv4_mapped().is_some()),
    };
    if usable {
        return Ok(());
    }
    Err(invalid(
        format!("{address} is neither a multicast group nor the address of a host"),
        "use a group of 224.0.1.0 to 239.255.255.255, or of ff03:: and above",
    ))
}

/// 224.0.0.0/24 (RFC 5771 §4), and IPv6 scopes 0 to 2 whatever the flags (RFC 4291 §2.7).
pub fn is_link_local_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[..3] == [224, 0, 0],
        IpAddr::V6(a) => a.is_multicast() && a.octets()[1] & 0xf <= 2,
    }
}

fn mixed(a: &IpAddr, b: &IpAddr) -> Refusal {
    invalid(
        format!("{a} and {b} are of different families"),
        "MCR does not translate between IPv4 and IPv6: use one family in a rule",
    )
}

fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::new(Code::Invalid, message, hint)
}
