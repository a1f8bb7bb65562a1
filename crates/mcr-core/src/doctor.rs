//! What stops streams in practice: from the evidence of the machine, of the wire and of the relay
//! itself to a list of checks, each with its evidence and what to do. Pure: whoever gathers the
//! [`Evidence`] reads files and listens; this judges.
//!
//! A check looks at one thing, and what follows from a fault elsewhere is not said again: a rule
//! whose input interface is down is not also told that nobody sends. What cannot be read is
//! [`Level::Unknown`] with the reason, never the end of the whole.

mod evidence;
pub mod heard;
mod host;
mod interfaces;
mod limits;
mod membership;
mod paths;
pub mod seen;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

pub use evidence::{
    BridgeFacts, Evidence, HostFacts, InterfaceFacts, Known, PlaneFacts, Queues, RuleEvidence,
};

use crate::flow::InterfaceName;
use crate::resolve::resolve;

/// How a check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A stream does not flow, or not whole.
    Problem,
    /// It may not be meant, or may stop a stream later.
    Warning,
    /// The evidence is not to be had.
    Unknown,
    /// As it should be.
    Ok,
}

impl Level {
    /// All, the worst first.
    pub const ALL: [Self; 4] = [Self::Problem, Self::Warning, Self::Unknown, Self::Ok];

    /// The name in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Ok => "ok",
        }
    }
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The eBPF plane runs.
    Plane,
    /// Limits of the kernel for groups, sources and their memory.
    JoinLimits,
    /// The kernel's queue between the device and everything else.
    Backlog,
    /// An interface is there, up, and has a carrier.
    InterfaceState,
    /// `IFF_MULTICAST` is set.
    MulticastFlag,
    /// An interface has an address to send, and to report, from.
    Address,
    /// The MTU along a rule.
    Mtu,
    /// Offloads that do harm to a relay.
    Offloads,
    /// More than one CPU can take part in receiving.
    ReceiveQueues,
    /// The kernel drops by the route to the source.
    RpFilter,
    /// The groups are joined, in a version of the protocol that serves.
    Membership,
    /// Somebody asks for members where a switch may snoop.
    Querier,
    /// This host answers.
    QueriesAnswered,
    /// Somebody has joined where an output leads.
    Downstream,
    /// The rule runs.
    RuleState,
    /// Somebody sends what the rule takes.
    Sender,
    /// The sender is one that the rule takes from.
    Source,
    /// Only one sender, where two would be mixed.
    SecondSender,
    /// No packet comes twice.
    Duplicates,
    /// The TTL lasts.
    Ttl,
    /// The way to a host.
    Route,
    /// Nobody else sends what an output sends.
    SecondRelay,
    /// Packets of the rule that were dropped.
    Drops,
}

impl Topic {
    /// All checks, in the order in which they are shown.
    pub const ALL: [Self; 23] = [
        Self::Plane,
        Self::JoinLimits,
        Self::Backlog,
        Self::InterfaceState,
        Self::MulticastFlag,
        Self::Address,
        Self::Mtu,
        Self::Offloads,
        Self::ReceiveQueues,
        Self::RpFilter,
        Self::Membership,
        Self::Querier,
        Self::QueriesAnswered,
        Self::Downstream,
        Self::RuleState,
        Self::Sender,
        Self::Source,
        Self::SecondSender,
        Self::Duplicates,
        Self::Ttl,
        Self::Route,
        Self::SecondRelay,
        Self::Drops,
    ];

    /// The name in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plane => "plane",
            Self::JoinLimits => "join-limits",
            Self::Backlog => "backlog",
            Self::InterfaceState => "interface-state",
            Self::MulticastFlag => "multicast-flag",
            Self::Address => "address",
            Self::Mtu => "mtu",
            Self::Offloads => "offloads",
            Self::ReceiveQueues => "receive-queues",
            Self::RpFilter => "rp-filter",
            Self::Membership => "membership",
            Self::Querier => "querier",
            Self::QueriesAnswered => "queries-answered",
            Self::Downstream => "downstream",
            Self::RuleState => "rule-state",
            Self::Sender => "sender",
            Self::Source => "source",
            Self::SecondSender => "second-sender",
            Self::Duplicates => "duplicates",
            Self::Ttl => "ttl",
            Self::Route => "route",
            Self::SecondRelay => "second-relay",
            Self::Drops => "drops",
        }
    }
}

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// How it has ended.
    pub level: Level,
    /// What was checked.
    pub topic: Topic,
    /// Of which interface, rule or host.
    pub subject: String,
    /// What was found.
    pub evidence: String,
    /// What to do; nothing where all is well.
    pub remedy: Option<String>,
}

/// Makes all checks. The worst come first, then by topic and subject.
pub fn judge(evidence: &Evidence) -> Vec<Check> {
    let mut checks = Checks::default();
    host::judge(evidence, &mut checks);
    let uses = interfaces::uses(evidence);
    for (name, used) in &uses {
        interfaces::judge(evidence, name, used, &mut checks);
        limits::receiving(evidence, name, used, &mut checks);
        membership::judge(evidence, name, used, &mut checks);
    }
    for rule in &evidence.rules {
        let resolved = resolve(&rule.facts.rule, &evidence.links);
        paths::judge(evidence, (rule, &resolved), &mut checks);
        streams::judge(evidence, (rule, &resolved), &mut checks);
    }
    let mut checks = checks.0;
    checks.sort();
    checks.dedup();
    checks
}

/// Checks as they are made.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn ok(&mut self, topic: Topic, subject: impl Display, evidence: impl Into<String>) {
        self.add(Level::Ok, topic, subject, (evidence.into(), None));
    }

    fn warning(&mut self, topic: Topic, subject: impl Display, finding: (String, String)) {
        self.add(Level::Warning, topic, subject, (finding.0, Some(finding.1)));
    }

    fn problem(&mut self, topic: Topic, subject: impl Display, finding: (String, String)) {
        self.add(Level::Problem, topic, subject, (finding.0, Some(finding.1)));
    }

    fn unknown(&mut self, topic: Topic, subject: impl Display, finding: (String, String)) {
        self.add(Level::Unknown, topic, subject, (finding.0, Some(finding.1)));
    }

    /// What could not be read.
    fn unread(&mut self, topic: Topic, subject: impl Display, why: &str) {
        self.add(Level::Unknown, topic, subject, (why.to_owned(), None));
    }

    fn add(
        &mut self,
        level: Level,
        topic: Topic,
        subject: impl Display,
        (evidence, remedy): (String, Option<String>),
    ) {
        self.0.push(Check { level, topic, subject: subject.to_string(), evidence, remedy });
    }
}

/// Things by interface.
type ByInterface<T> = BTreeMap<InterfaceName, T>;

/// `a, b, c and 4 more`.
fn some_of<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let named: Vec<String> = all.by_ref().take(NAMED_MAX).map(|item| item.to_string()).collect();
    match all.count() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// `1 packet`, `2 packets`.
fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Whole seconds from one second on, as in `3s` or `4m 20s`.
fn span(time: Duration) -> String {
    let rounded = if time >= Duration::from_secs(1) {
        Duration::from_secs(time.as_secs())
    } else {
        Duration::from_millis(time.as_millis() as u64)
    };
    humantime::format_duration(rounded).to_string()
}

/// The most things that a line names one by one.
const NAMED_MAX: usize = 4;
