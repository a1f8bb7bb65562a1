//! What the relay asks of the world, and the derived state that a data plane holds.
//!
//! Everything a plane knows is in a [`PlaneRule`]: resolved to interface indexes, addresses and
//! MACs, so that no plane looks anything up while packets move. What a plane holds can be serialized,
//! for a plane whose workers are other processes of the same program; it is no format that lasts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::flow::{AddressBlock, PortRange};
use crate::link::{IfIndex, Mac, NextHop};
use crate::rate::MaxRate;
use crate::refusal::Refusal;
use crate::rule::{Dscp, RuleKey, Ttl};
use crate::senders::Senders;
use crate::verdict::{OutputDrop, Pass, RuleDrop};

/// Names the counters of a rule while the rule exists; small, and used again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleId(pub u32);

/// Names the counters of an output while the output exists; small, and used again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutputId(pub u32);

/// The packets that a rule takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// Where they arrive.
    pub interface: IfIndex,
    /// Their destination addresses.
    pub addresses: AddressBlock,
    /// Their destination ports.
    pub ports: PortRange,
    /// Who may have sent them, sorted; empty means anyone.
    pub sources: Vec<IpAddr>,
}

impl Take {
    /// Whether it is more than one address and port. What is exact wins.
    pub fn is_range(&self) -> bool {
        !(self.addresses.is_single() && self.ports.is_single())
    }

    /// Whether it takes what `source` sends.
    pub fn takes_from(&self, source: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.binary_search(&source).is_ok()
    }
}

/// What happens to the input after it was relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStack {
    /// The host's stack sees it.
    Always,
    /// The host's stack sees it when a UDP socket is bound to its port.
    IfSocket,
    /// Nobody sees it.
    Never,
}

/// A rule as a data plane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaneRule {
    /// Its counters.
    pub id: RuleId,
    /// What it takes.
    pub take: Take,
    /// What happens to the input.
    pub to_stack: ToStack,
    /// The most that it takes.
    pub max_rate: Option<MaxRate>,
    /// Where it goes, 1 to 64.
    pub outputs: Vec<PlaneOutput>,
}

/// An output as a data plane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaneOutput {
    /// Its counters.
    pub id: OutputId,
    /// Why nothing can be sent now: every packet is counted as dropped for this reason. The other
    /// fields then mean nothing.
    pub absent: Option<OutputDrop>,
    /// The interface it leaves by.
    pub interface: IfIndex,
    /// The largest IP packet of the interface in bytes; for planes that cannot ask the kernel for
    /// each packet.
    pub mtu: u32,
    /// Whether the interface has a carrier (`IFF_LOWER_UP`); without, the kernel swallows what is
    /// sent. For planes that the kernel does not tell.
    pub carrier: bool,
    /// The header of the link.
    pub header: LinkHeader,
    /// Source address; `None` keeps it.
    pub source: Option<IpAddr>,
    /// Source port; `None` keeps it.
    pub source_port: Option<u16>,
    /// Destination addresses: as many as the rule takes, and mapped one to one.
    pub destination: AddressBlock,
    /// What is added to the destination port, modulo 65,536.
    pub port_shift: u16,
    /// Time to live.
    pub ttl: Ttl,
    /// Code point.
    pub dscp: Dscp,
}

/// What stands before the IP header on an output interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkHeader {
    /// Nothing.
    Bare,
    /// An Ethernet header.
    Ethernet {
        /// The MAC address of the interface.
        source: Mac,
        /// That of the next hop; `None` for groups, whose addresses give it
        /// ([`crate::wire::ethernet::group_mac`]).
        next_hop: Option<Mac>,
    },
}

/// One change of the data plane, made whole or not at all. Rules that it does not name are not
/// touched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlaneChange {
    /// Rules to install, or to put in place of the rule with the same id.
    pub install: Vec<PlaneRule>,
    /// Rules to take out. An id in `install` is not here.
    pub remove: Vec<RuleId>,
    /// Ids used for the first time since they were last free: their counters start at 0.
    pub fresh_rules: Vec<RuleId>,
    /// Likewise for outputs.
    pub fresh_outputs: Vec<OutputId>,
    /// After the change: all addresses of this host that an output sends from.
    pub own: BTreeSet<IpAddr>,
    /// After the change: all interfaces with a rule's input.
    pub inputs: BTreeSet<IfIndex>,
}

impl PlaneChange {
    /// Whether no rule and no counter changes. (The sets may still differ.)
    pub fn is_empty(&self) -> bool {
        self.install.is_empty()
            && self.remove.is_empty()
            && self.fresh_rules.is_empty()
            && self.fresh_outputs.is_empty()
    }
}

/// Why a data plane refused a change, and how far the blame reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaneRefusal {
    /// The input interface that could not be used, when it was one.
    pub interface: Option<IfIndex>,
    /// The reason.
    pub refusal: Refusal,
}

/// A group joined on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Membership {
    /// Where.
    pub interface: IfIndex,
    /// What.
    pub group: IpAddr,
    /// From whom; `None` for anyone (RFC 3376, RFC 3810).
    pub source: Option<IpAddr>,
}

/// What makes the host receive what a rule takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// A group that is joined.
    Group(Membership),
    /// A UDP socket that takes the unicast of a rule and drops it, so that the kernel does not tell
    /// the sender that nobody is there (ICMP port unreachable).
    Port(SocketAddr),
}

/// Names a request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A side effect that the relay asks for. The event loop carries it out and hands the result back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Join these groups, and bind these ports; answered by `handle_joined`.
    Join(Vec<Claim>),
    /// Change the data plane; answered by `handle_applied`.
    Apply(PlaneChange),
    /// Leave these; not answered, since a leave cannot fail in a way that matters.
    Leave(Vec<Claim>),
    /// Keep these neighbours resolved, and no others.
    Resolve(BTreeSet<NextHop>),
    /// Tell the operator, in the log.
    Note(String),
    /// Warn the operator of several senders whose packets become one stream.
    SecondSender(SecondSender),
    /// Answer a request.
    Reply(RequestId, Result<crate::api::Change, Refusal>),
    /// The rules that are in no file have changed; write them where the next start finds them.
    SaveRuntime,
}

/// Several senders at once on a rule that takes anyone: behind its outputs nobody can tell their
/// packets apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondSender {
    /// The rule.
    pub rule: RuleKey,
    /// Two or more, the latest first.
    pub senders: Vec<IpAddr>,
    /// What is wrong and what to do, for people.
    pub text: String,
}

/// Packets, counted as datagrams, and their UDP payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Volume {
    /// Datagrams; a super-packet of n segments counts n.
    pub packets: u64,
    /// UDP payload bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What was counted for a rule since it exists. `received` is `matched` plus all `dropped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleCounters {
    /// Arrived for the rule.
    pub received: Volume,
    /// Offered to the outputs.
    pub matched: Volume,
    /// Packets by [`RuleDrop`].
    pub dropped: [u64; RuleDrop::ALL.len()],
    /// Who sent what was received, but for what is `own` or of a local sender.
    pub senders: Senders,
}

/// What was counted for an output since it exists. `offered` is `forwarded` plus all `dropped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputCounters {
    /// Meant for the output.
    pub offered: Volume,
    /// Handed to the interface.
    pub forwarded: Volume,
    /// Packets by [`OutputDrop`].
    pub dropped: [u64; OutputDrop::ALL.len()],
}

/// All counters of a data plane at one moment, indexed by [`RuleId`] and [`OutputId`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    /// By rule id.
    pub rules: Vec<RuleCounters>,
    /// By output id.
    pub outputs: Vec<OutputCounters>,
    /// Packets that no rule took, by input interface and [`Pass`].
    pub passed: Vec<(IfIndex, [u64; Pass::COUNTED.len()])>,
}
