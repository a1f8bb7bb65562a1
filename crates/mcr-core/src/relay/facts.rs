//! The rules and how they fare, for those who judge it (`crate::doctor`).

use std::time::{Duration, Instant};

use super::view::{Now, state};
use super::{Problem, Relay, Running, State, output_counters, rule_counters};
use crate::action::{OutputCounters, RuleCounters, Volume};
use crate::link::Links;
use crate::refusal::Refusal;
use crate::rule::{Rule, RuleKey};
use crate::table::Entry;

/// A rule and how it fares.
#[derive(Debug, Clone)]
pub struct RuleFacts {
    /// What it is addressed by.
    pub key: RuleKey,
    /// The rule.
    pub rule: Rule,
    /// Its state.
    pub state: State,
    /// What it waits for, or why it failed.
    pub problem: Option<Refusal>,
    /// What was counted for it since it exists.
    pub counters: RuleCounters,
    /// What was counted for each output, in their order.
    pub outputs: Vec<OutputCounters>,
    /// How fast it arrives, by the second.
    pub rate: Volume,
    /// How long ago the last packet came; `None` before the first.
    pub quiet: Option<Duration>,
    /// How long it exists.
    pub age: Duration,
}

impl Relay {
    /// All rules, or the one asked for.
    pub fn facts(&self, only: Option<&RuleKey>, now: Now) -> Result<Vec<RuleFacts>, Refusal> {
        let since = |at: Instant| now.monotonic.saturating_duration_since(at);
        let facts = |(key, entry, running): (&RuleKey, &Entry, &Running)| RuleFacts {
            key: key.clone(),
            rule: entry.rule.clone(),
            state: state(entry, running, now).0,
            problem: running.problem.as_ref().map(|problem| match problem {
                Problem::Waiting(refusal) | Problem::Sought(refusal) | Problem::Failed(refusal) => {
                    refusal.clone()
                }
            }),
            counters: rule_counters(&self.counters, running.id),
            outputs: running
                .outputs
                .iter()
                .map(|o| output_counters(&self.counters, o.id))
                .collect(),
            rate: running.activity.rate,
            quiet: running.activity.last_packet.map(since),
            age: since(running.since),
        };
        Ok(self.select(only)?.into_iter().map(facts).collect())
    }

    /// The machine as it is known.
    pub fn links(&self) -> &Links {
        &self.links
    }
}
