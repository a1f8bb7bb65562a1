//! Counters and status, as replies show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::WorkerStatus;
use crate::action::Volume;

/// Packets and payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Datagrams.
    pub packets: u64,
    /// UDP payload bytes.
    pub bytes: u64,
}

impl From<Volume> for Count {
    fn from(Volume { packets, bytes }: Volume) -> Self {
        Self { packets, bytes }
    }
}

/// How fast, over about the last second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rate {
    /// Datagrams per second.
    pub packets: u64,
    /// UDP payload bits per second.
    pub bits: u64,
}

/// Reason to packets; an absent reason is 0.
pub type Dropped = BTreeMap<String, u64>;

/// Counters of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputStats {
    /// The destination.
    pub to: String,
    /// When the output came to be (RFC 3339, UTC).
    pub since: String,
    /// Meant for it; equals forwarded plus dropped.
    pub offered: Count,
    /// Handed to the interface.
    pub forwarded: Count,
    /// Not handed to it.
    pub dropped: Dropped,
    /// Packets that the output interface itself dropped since it exists, for all its traffic.
    pub interface_dropped: u64,
}

/// Who sends to a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderStats {
    /// The source address.
    pub address: String,
    /// Datagrams of it since it is one of the last four, also those that `max_rate` drops.
    pub packets: u64,
    /// When the last one came, to the second (RFC 3339, UTC).
    pub last_seen: String,
}

/// Counters of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStats {
    /// What the rule is addressed by.
    pub name: String,
    /// As in [`super::RuleView`].
    pub state: String,
    /// As in [`super::RuleView`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the rule came to be (RFC 3339, UTC).
    pub since: String,
    /// When packets were last seen, to the second; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_packet: Option<String>,
    /// Arrived for the rule; equals matched plus dropped.
    pub received: Count,
    /// Offered to the outputs.
    pub matched: Count,
    /// Not offered.
    pub dropped: Dropped,
    /// How fast it arrives.
    pub rate: Rate,
    /// The last four that sent to it, the latest first.
    #[serde(default)]
    pub senders: Vec<SenderStats>,
    /// Each output.
    pub outputs: Vec<OutputStats>,
}

/// `GET /v1/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Now (RFC 3339, UTC).
    pub time: String,
    /// Changes when the counters start anew.
    pub boot_id: String,
    /// Each rule asked for.
    pub rules: Vec<RuleStats>,
}

/// An interface that MCR receives on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Groups that MCR has joined there.
    pub groups: usize,
    /// Packets that no rule took and the stack got, by reason.
    pub passed: Dropped,
    /// Lost before MCR could see them, for all traffic of the interface, by reason
    /// ([`crate::loss::Loss`]); since it is an input, or since `mcrd` started.
    #[serde(default)]
    pub lost_before: Dropped,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of `mcrd`.
    pub version: String,
    /// The instance name.
    pub instance: String,
    /// Process id of `mcrd`.
    pub pid: u32,
    /// When it started (RFC 3339, UTC).
    pub since: String,
    /// As in [`Stats`].
    pub boot_id: String,
    /// `ebpf`, or another plane.
    pub plane: String,
    /// How the plane is attached, as in `tcx` or `clsact`.
    pub attach: String,
    /// Why this plane and not the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// As in [`super::Change`].
    pub generation: u64,
    /// Number of rules by state.
    pub states: BTreeMap<String, usize>,
    /// Rules that are in no file and would not come back after a clean stop.
    pub rules_in_no_file: usize,
    /// The most rules that the plane can hold.
    pub rules_max: u32,
    /// The most outputs that the plane can hold, over all rules.
    pub outputs_max: u32,
    /// Sockets that hold group memberships.
    pub membership_sockets: usize,
    /// Each input interface.
    pub interfaces: Vec<InterfaceStatus>,
    /// Packets of the whole host, all its interfaces and network namespaces, that found the queue of
    /// a CPU full since `mcrd` started (`net.core.netdev_max_backlog`); absent where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softnet_dropped: Option<u64>,
    /// Cost of the eBPF program; only while it is measured (`mcrd --measure`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramCost>,
    /// Each worker of the packet plane.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerStatus>,
}

/// What the kernel measured of the eBPF programs (`BPF_ENABLE_STATS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCost {
    /// Times they ran: once a frame on an input interface.
    pub runs: u64,
    /// Nanoseconds they ran for, sending included.
    pub nanoseconds: u64,
}
