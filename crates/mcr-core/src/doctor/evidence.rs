//! What is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::ByInterface;
use super::heard::Hearing;
use super::seen::Seen;
use crate::action::{OutputCounters, RuleCounters};
use crate::link::{Links, Route};
use crate::relay::RuleFacts;

/// What was read, or why not.
pub type Known<T> = Result<T, String>;

/// All evidence of one examination.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// How long the wire was watched, and the counters.
    pub duration: Duration,
    /// The rules asked about that are enabled.
    pub rules: Vec<RuleEvidence>,
    /// The machine as the relay knows it.
    pub links: Links,
    /// What is the same for all interfaces.
    pub host: HostFacts,
    /// The data plane.
    pub plane: PlaneFacts,
    /// More of the interfaces that rules name.
    pub interfaces: ByInterface<InterfaceFacts>,
    /// What was seen on the wire meanwhile.
    pub seen: Known<Seen>,
    /// What was heard of memberships since the daemon started.
    pub heard: Known<Hearing>,
    /// The routes back to senders and queriers.
    pub routes_back: BTreeMap<IpAddr, Route>,
}

/// A rule, and what it had counted at the begin.
#[derive(Debug, Clone)]
pub struct RuleEvidence {
    /// At the end.
    pub facts: RuleFacts,
    /// At the begin; absent for a rule that is newer.
    pub before: Option<(RuleCounters, Vec<OutputCounters>)>,
}

/// What is the same for all interfaces.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// CPUs that are online.
    pub cpus: usize,
    /// Groups a socket (`net.ipv4.igmp_max_memberships`).
    pub igmp_max_memberships: Known<u64>,
    /// Sources a group and socket (`net.ipv4.igmp_max_msf`).
    pub igmp_max_msf: Known<u64>,
    /// The same for IPv6 (`net.ipv6.mld_max_msf`).
    pub mld_max_msf: Known<u64>,
    /// Memory of a socket for groups and sources in bytes (`net.core.optmem_max`).
    pub optmem_max: Known<u64>,
    /// Sockets that hold MCR's memberships.
    pub membership_sockets: usize,
    /// `net.ipv4.conf.all.rp_filter`.
    pub rp_filter: Known<u8>,
    /// Ports with a UDP socket of somebody else.
    pub listeners: Known<BTreeSet<u16>>,
    /// Frames that the queues of all CPUs dropped meanwhile, in all network namespaces.
    pub backlog_drops: Known<u64>,
}

/// The data plane.
#[derive(Debug, Clone)]
pub struct PlaneFacts {
    /// `ebpf` or `packet`.
    pub name: &'static str,
    /// How it is attached.
    pub attach: &'static str,
    /// Why this one, when it was not named by the operator.
    pub why: Option<String>,
}

/// What the relay does not have to know of an interface.
#[derive(Debug, Clone)]
pub struct InterfaceFacts {
    /// `IFF_*` of if.h.
    pub flags: Known<u32>,
    /// Receive queues.
    pub queues: Known<Queues>,
    /// Large receive offload.
    pub lro: Known<bool>,
    /// `rp_filter` of the interface.
    pub rp_filter: Known<u8>,
    /// Groups that the kernel is a member of, for whomever.
    pub groups: Known<BTreeSet<IpAddr>>,
    /// The version of IGMP that the kernel speaks there.
    pub igmp: Known<u8>,
    /// The bridge that it is or is a port of.
    pub bridge: Known<Option<BridgeFacts>>,
}

/// Receive queues of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// Number of them.
    pub count: usize,
    /// Some hand packets on to other CPUs (`rps_cpus`).
    pub spread: bool,
}

/// A bridge of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeFacts {
    /// Its name.
    pub name: String,
    /// `multicast_snooping`.
    pub snooping: bool,
    /// `multicast_querier`: it asks by itself.
    pub querier: bool,
    /// Groups that somebody behind the interface has joined, by its forwarding database.
    pub members: Known<BTreeSet<IpAddr>>,
}
