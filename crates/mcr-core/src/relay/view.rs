//! What the relay shows of itself: rules with their states, and counters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::senders::HeardSender;
use super::{Limits, Problem, Relay, Running, output_counters, rule_counters, wall};
use crate::action::Claim;
use crate::api::{
    Dropped, OutputStats, Rate, RuleList, RuleSpec, RuleStats, RuleView, SenderStats,
};
use crate::flow::InterfaceName;
use crate::link::IfIndex;
use crate::refusal::Refusal;
use crate::rule::{Local, Origin, Rule, RuleKey};
use crate::table::{Entry, unknown_rule};
use crate::verdict::{OutputDrop, RuleDrop};

/// A rule is `forwarding` when packets were seen within this time.
const FORWARDING: Duration = Duration::from_secs(2);

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For what has to be compared.
    pub monotonic: Instant,
    /// For what is shown.
    pub wall: SystemTime,
}

/// The state of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Packets in the last two seconds.
    Forwarding,
    /// Ready, and no packets.
    Idle,
    /// Switched off.
    Disabled,
    /// For an interface or an address.
    Waiting,
    /// Refused by the kernel; tried again.
    Failed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Forwarding, Self::Idle, Self::Disabled, Self::Waiting, Self::Failed];

    /// The name in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::Idle => "idle",
            Self::Disabled => "disabled",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

impl Relay {
    /// Of the rules as they are.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The most that fits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// One more than the highest ids in use, of rules and of outputs: what is worth reading.
    pub fn counter_bounds(&self) -> (u32, u32) {
        (self.rule_ids.bound(), self.output_ids.bound())
    }

    /// Number of ids in use, of rules and of outputs.
    pub fn ids_in_use(&self) -> (usize, usize) {
        (self.rule_ids.in_use(), self.output_ids.in_use())
    }

    /// The interfaces that rules receive on, with the groups joined there.
    pub fn inputs(&self) -> impl Iterator<Item = (&InterfaceName, IfIndex, usize)> {
        self.links.interfaces.iter().filter(|(_, link)| self.inputs.contains(&link.index)).map(
            |(name, link)| {
                let groups = self.claims.keys().filter_map(|claim| match claim {
                    Claim::Group(membership) => Some(membership),
                    Claim::Port(_) => None,
                });
                let here = groups.filter(|membership| membership.interface == link.index);
                let groups: BTreeSet<IpAddr> = here.map(|membership| membership.group).collect();
                (name, link.index, groups.len())
            },
        )
    }

    /// Where these interfaces are.
    pub fn input_indexes(&self) -> &BTreeSet<IfIndex> {
        &self.inputs
    }

    /// What no rule took on an interface, by reason.
    pub fn passed(&self, index: IfIndex) -> Dropped {
        let passed = self.counters.passed.iter().find(|(interface, _)| *interface == index);
        let names = crate::verdict::Pass::COUNTED.map(crate::verdict::Pass::name);
        passed.map(|(_, counts)| named(&names, counts)).unwrap_or_default()
    }

    /// The rules that are in no file.
    pub fn runtime_rules(&self) -> impl Iterator<Item = RuleSpec> {
        let runtime = self.table.iter().filter(|(_, entry)| entry.origin == Origin::Runtime);
        runtime.map(|(_, entry)| RuleSpec::from(&entry.rule))
    }

    /// All rules, or the one asked for.
    pub fn list(&self, only: Option<&RuleKey>, now: Now) -> Result<RuleList, Refusal> {
        let view = |(key, entry, running): (&RuleKey, &Entry, &Running)| {
            let (state, reason) = state(entry, running, now);
            RuleView {
                name: key.to_string(),
                named: entry.rule.name.is_some(),
                origin: origin(entry.origin).into(),
                state: state.name().into(),
                reason,
                warnings: self.plane_warnings(&entry.rule).map(str::to_owned).collect(),
                rule: RuleSpec::from(&entry.rule),
            }
        };
        let rules = self.select(only)?.into_iter().map(view).collect();
        Ok(RuleList { generation: self.generation, rules })
    }

    /// What of a rule has no effect on this plane.
    pub(super) fn plane_warnings(&self, rule: &Rule) -> impl Iterator<Item = &'static str> {
        let seen = self.tap && rule.enabled && rule.local == Local::No;
        seen.then_some(LOCAL_NO_ON_A_TAP).into_iter()
    }

    /// Number of rules in each state.
    pub fn states(&self, now: Now) -> BTreeMap<String, usize> {
        let mut states: BTreeMap<String, usize> =
            State::ALL.iter().map(|state| (state.name().to_owned(), 0)).collect();
        for (key, running) in &self.running {
            if let Some(entry) = self.table.entry(key) {
                *states.entry(state(entry, running, now).0.name().into()).or_default() += 1;
            }
        }
        states
    }

    /// Each rule with why it does not run, or not on all outputs, and whether that may pass in a
    /// moment.
    pub fn problems(&self) -> BTreeMap<(RuleKey, String), bool> {
        let text = |(key, running): (&RuleKey, &Running)| match running.problem.as_ref()? {
            Problem::Waiting(r) => Some(((key.clone(), format!("waiting: {r}")), false)),
            Problem::Sought(r) => Some(((key.clone(), format!("waiting: {r}")), true)),
            Problem::Failed(r) => Some(((key.clone(), format!("failed: {r}")), false)),
        };
        self.running.iter().filter_map(text).collect()
    }

    /// The counters of all rules, or of the one asked for. `interface_dropped` tells what an
    /// interface itself has dropped on sending.
    pub fn stats(
        &self,
        only: Option<&RuleKey>,
        now: Now,
        interface_dropped: &BTreeMap<String, u64>,
    ) -> Result<Vec<RuleStats>, Refusal> {
        let rules = self.select(only)?.into_iter();
        Ok(rules.map(|rule| self.rule_stats(rule, now, interface_dropped)).collect())
    }

    fn rule_stats(
        &self,
        (key, entry, running): (&RuleKey, &Entry, &Running),
        now: Now,
        interface_dropped: &BTreeMap<String, u64>,
    ) -> RuleStats {
        let (state, reason) = state(entry, running, now);
        let counters = rule_counters(&self.counters, running.id);
        let rate = running.activity.rate;
        let outputs = entry.rule.outputs.iter().zip(&running.outputs).map(|(output, running)| {
            let counters = output_counters(&self.counters, running.id);
            let interface = output.to.interface.as_ref().map(InterfaceName::as_str);
            OutputStats {
                to: output.to.to_string(),
                since: time(wall(running.since, now)),
                offered: counters.offered.into(),
                forwarded: counters.forwarded.into(),
                dropped: named(&OutputDrop::ALL.map(OutputDrop::name), &counters.dropped),
                interface_dropped: interface
                    .and_then(|name| interface_dropped.get(name))
                    .copied()
                    .unwrap_or_default(),
            }
        });
        RuleStats {
            name: key.to_string(),
            state: state.name().into(),
            reason,
            since: time(wall(running.since, now)),
            last_packet: running.activity.last_packet.map(|at| time(wall(at, now))),
            received: counters.received.into(),
            matched: counters.matched.into(),
            dropped: named(&RuleDrop::ALL.map(RuleDrop::name), &counters.dropped),
            rate: Rate { packets: rate.packets, bits: rate.bytes * 8 },
            senders: running.heard.iter().map(|sender| sender_stats(sender, now)).collect(),
            outputs: outputs.collect(),
        }
    }

    fn select(&self, only: Option<&RuleKey>) -> Result<Vec<(&RuleKey, &Entry, &Running)>, Refusal> {
        let both = |(key, running)| Some((key, &**self.table.entry(key)?, running));
        match only {
            None => Ok(self.running.iter().filter_map(both).collect()),
            Some(key) => {
                let found = self.running.get_key_value(key).and_then(both);
                Ok(vec![found.ok_or_else(|| unknown_rule(key))?])
            }
        }
    }
}

fn sender_stats(sender: &HeardSender, now: Now) -> SenderStats {
    SenderStats {
        address: sender.address.to_string(),
        packets: sender.packets,
        last_seen: time(wall(sender.at, now)),
    }
}

/// RFC 3339 in UTC, to the second.
pub fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

fn state(entry: &Entry, running: &Running, now: Now) -> (State, Option<String>) {
    let recent = |at: Instant| now.monotonic.saturating_duration_since(at) <= FORWARDING;
    match &running.problem {
        _ if !entry.rule.enabled => (State::Disabled, None),
        Some(Problem::Waiting(refusal) | Problem::Sought(refusal)) => {
            (State::Waiting, Some(refusal.to_string()))
        }
        Some(Problem::Failed(refusal)) => (State::Failed, Some(refusal.to_string())),
        None if running.activity.last_packet.is_some_and(recent) => (State::Forwarding, None),
        None => (State::Idle, None),
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "file",
        Origin::Runtime => "runtime",
    }
}

/// Only what is not 0.
fn named(names: &[&str], counts: &[u64]) -> Dropped {
    let nonzero = names.iter().zip(counts).filter(|(_, count)| **count > 0);
    nonzero.map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

const LOCAL_NO_ON_A_TAP: &str = "local = \"no\" has no effect: the packet plane always leaves the \
                                 input to the host's stack; use the ebpf plane";
