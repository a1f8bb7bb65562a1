//! The end of a transaction: what ran before gives way to what shall run, or everything stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::transaction::Transaction;
use super::{Problem, RETRY, Relay, Running, RunningOutput};
use crate::action::{
    Action, Claim, OutputCounters, OutputId, PlaneChange, PlaneRule, RuleCounters, RuleId,
};
use crate::api::Change;
use crate::link::NextHop;
use crate::refusal::Refusal;
use crate::rule::{Origin, RuleKey};
use crate::table::{Difference, Entry};

impl Relay {
    pub(super) fn commit(
        &mut self,
        transaction: Transaction,
        change: PlaneChange,
        warnings: Vec<String>,
    ) {
        self.revision += 1;
        (self.own, self.inputs) = (change.own, change.inputs);
        self.zero_counters(&change.fresh_rules, &change.fresh_outputs);
        let befores = transaction.differences.iter().filter_map(|d| d.before.as_ref());
        let mut old: Vec<Running> =
            befores.filter_map(|(key, _)| self.running.remove(key)).collect();
        for (key, next) in transaction.next {
            old.extend(self.running.remove(&key));
            let mut running = next.running;
            running.claims = next.plane.as_ref().map(|_| next.claims).unwrap_or_default();
            if let Some(plane) = &next.plane {
                let notes = moved_sources(&key, &mut running.outputs, plane);
                self.actions.extend(notes.map(Action::Note));
            }
            running.installed = next.plane;
            self.running.insert(key, running);
        }
        self.release_ids(&old);
        self.settle_claims(&transaction.joined);
        self.settle_next_hops();

        let failed = |running: &Running| matches!(running.problem, Some(Problem::Failed(_)));
        let failed = self.running.values().any(failed);
        self.retry_at = failed.then(|| self.retry_at.unwrap_or(transaction.now + RETRY));
        if !transaction.differences.is_empty() {
            self.generation += 1;
            if transaction.differences.iter().any(is_runtime) {
                self.actions.push_back(Action::SaveRuntime);
            }
        }
        if let Some(id) = transaction.reply_to {
            let mut change = self.describe(&transaction.differences, transaction.strict, false);
            change.warnings.extend(warnings);
            self.actions.push_back(Action::Reply(id, Ok(change)));
        }
    }

    /// What an earlier owner of the ids has counted is not the new one's.
    fn zero_counters(&mut self, rules: &[RuleId], outputs: &[OutputId]) {
        for id in rules {
            if let Some(counters) = self.counters.rules.get_mut(id.0 as usize) {
                *counters = RuleCounters::default();
            }
        }
        for id in outputs {
            if let Some(counters) = self.counters.outputs.get_mut(id.0 as usize) {
                *counters = OutputCounters::default();
            }
        }
    }

    /// Frees the ids of rules and outputs that are gone.
    fn release_ids(&mut self, old: &[Running]) {
        let mut rules: BTreeSet<RuleId> = old.iter().map(|running| running.id).collect();
        let outputs = |running: &Running| running.outputs.iter().map(|o| o.id).collect::<Vec<_>>();
        let mut gone: BTreeSet<OutputId> = old.iter().flat_map(outputs).collect();
        for running in self.running.values().filter(|_| !old.is_empty()) {
            rules.remove(&running.id);
            running.outputs.iter().for_each(|output| {
                gone.remove(&output.id);
            });
        }
        rules.into_iter().for_each(|id| self.rule_ids.release(id.0));
        gone.into_iter().for_each(|id| self.output_ids.release(id.0));
    }

    /// Counts who needs what, and leaves what nobody needs.
    fn settle_claims(&mut self, joined: &[Claim]) {
        let mut needed: BTreeMap<Claim, usize> = BTreeMap::new();
        for claim in self.running.values().flat_map(|running| running.claims.iter()) {
            *needed.entry(*claim).or_default() += 1;
        }
        let held = self.claims.keys().chain(joined);
        let leave: BTreeSet<Claim> =
            held.filter(|held| !needed.contains_key(held)).copied().collect();
        self.claims = needed;
        if !leave.is_empty() {
            self.actions.push_back(Action::Leave(leave.into_iter().collect()));
        }
    }

    fn settle_next_hops(&mut self) {
        let needed = self.running.values().flat_map(|running| &running.next_hops);
        let needed: BTreeSet<NextHop> = needed.copied().collect();
        if needed != self.next_hops {
            self.actions.push_back(Action::Resolve(needed.clone()));
            self.next_hops = needed;
        }
    }

    pub(super) fn abort(&mut self, transaction: Transaction, refusal: Refusal) {
        self.table.revert(transaction.differences);
        transaction.fresh_rules.iter().for_each(|id| self.rule_ids.release(id.0));
        transaction.fresh_outputs.iter().for_each(|id| self.output_ids.release(id.0));
        if !transaction.joined.is_empty() {
            self.actions.push_back(Action::Leave(transaction.joined));
        }
        if let Some(id) = transaction.reply_to {
            self.actions.push_back(Action::Reply(id, Err(refusal)));
        } else {
            self.retry_at = Some(transaction.now + RETRY);
        }
    }

    pub(super) fn describe(
        &self,
        differences: &[Difference],
        by_client: bool,
        dry_run: bool,
    ) -> Change {
        let mut change = Change {
            generation: self.generation,
            changed: !differences.is_empty() && !dry_run,
            warnings: self.table.warnings(differences, &self.links),
            ..Change::default()
        };
        for (key, entry) in differences.iter().filter_map(|d| d.after.as_ref()) {
            let warnings = self.plane_warnings(&entry.rule);
            change.warnings.extend(warnings.map(|warning| format!("{key}: {warning}")));
        }
        if by_client {
            let file = |d: &&Difference| {
                d.before.as_ref().is_some_and(|(_, entry)| entry.origin == Origin::File)
            };
            let keys = differences.iter().filter(file).filter_map(|d| d.before.as_ref());
            change.warnings.extend(keys.map(|(key, _)| {
                format!("{key}: is in a configuration file, and the next reload brings it back")
            }));
        }
        for difference in differences {
            match (&difference.before, &difference.after) {
                (None, Some((key, _))) => change.added.push(key.to_string()),
                (Some(_), Some((key, _))) => change.replaced.push(key.to_string()),
                (Some((key, _)), None) => change.removed.push(key.to_string()),
                (None, None) => {}
            }
        }
        change
    }
}

/// What is sent from another address than before, be it after a time without any.
fn moved_sources(
    key: &RuleKey,
    outputs: &mut [RunningOutput],
    plane: &PlaneRule,
) -> impl Iterator<Item = String> {
    outputs.iter_mut().zip(&plane.outputs).filter_map(move |(output, plane)| {
        let is = plane.source?;
        let was = output.sent_from.replace(is)?;
        let to = plane.destination;
        (was != is)
            .then(|| format!("{key}: what goes to {to} is sent from {is}, and no more from {was}"))
    })
}

fn is_runtime(difference: &Difference) -> bool {
    let runtime = |side: &Option<(RuleKey, Arc<Entry>)>| {
        side.as_ref().is_some_and(|(_, entry)| entry.origin == Origin::Runtime)
    };
    runtime(&difference.before) || runtime(&difference.after)
}
