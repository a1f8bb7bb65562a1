//! One change from its beginning to its commit or its refusal.
//!
//! `begin` changes the table, `joined` plans what the plane must do, `applied` commits. Until the
//! commit `running` holds what runs, and the transaction what shall run, so that a refusal only has
//! to take the table back and to leave what was joined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{Guard, Problem, Relay, Request, Running, RunningOutput, Work};
use crate::action::{
    Action, Claim, OutputId, PlaneChange, PlaneRefusal, PlaneRule, RequestId, RuleId,
};
use crate::link::IfIndex;
use crate::refusal::{Code, Refusal};
use crate::resolve::{Missing, Part, resolve};
use crate::rule::{Rule, RuleKey};
use crate::table::{Difference, Entry};

/// Where the relay is in a transaction.
#[derive(Debug)]
pub(super) enum Phase {
    Idle,
    Joining(Box<Transaction>),
    Applying(Box<Transaction>, PlaneChange),
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) reply_to: Option<RequestId>,
    pub(super) strict: bool,
    pub(super) now: Instant,
    pub(super) differences: Vec<Difference>,
    /// Each rule that may change, as it shall run.
    pub(super) next: BTreeMap<RuleKey, Next>,
    pub(super) fresh_rules: Vec<RuleId>,
    pub(super) fresh_outputs: Vec<OutputId>,
    pub(super) joined: Vec<Claim>,
    pub(super) refused: Refused,
}

impl Transaction {
    fn new(
        reply_to: Option<RequestId>,
        strict: bool,
        differences: Vec<Difference>,
        now: Instant,
    ) -> Self {
        Self {
            reply_to,
            strict,
            now,
            differences,
            next: BTreeMap::new(),
            fresh_rules: Vec::new(),
            fresh_outputs: Vec::new(),
            joined: Vec::new(),
            refused: Refused::default(),
        }
    }
}

/// A rule as it shall run: what `resolve` found of it, with its ids.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) running: Running,
    pub(super) plane: Option<PlaneRule>,
    pub(super) claims: Arc<[Claim]>,
    pub(super) missing: Option<Problem>,
    pub(super) failed: Option<Refusal>,
}

/// What the machine has refused so far, in a tolerant transaction.
#[derive(Debug, Default)]
pub(super) struct Refused {
    claims: BTreeMap<Claim, Refusal>,
    inputs: BTreeMap<IfIndex, Refusal>,
    /// Not to be blamed on one interface: whatever is to be installed has failed.
    rest: Option<Refusal>,
}

impl Refused {
    /// Why the rule cannot run.
    fn reason(&self, next: &Next) -> Option<&Refusal> {
        let plane = next.plane.as_ref()?;
        let claims = next.claims.iter().filter(|_| !self.claims.is_empty());
        let mut refused = claims.filter_map(|claim| self.claims.get(claim));
        let changes = next.running.installed.as_ref() != Some(plane);
        refused
            .next()
            .or_else(|| self.inputs.get(&plane.take.interface))
            .or_else(|| self.rest.as_ref().filter(|_| changes))
    }
}

impl Relay {
    pub(super) fn begin(&mut self, work: Work) {
        match work {
            Work::Request(id, request, guard, routes, now) => {
                self.links.routes.extend(routes);
                if let Err(refusal) = self.begin_request(id, request, guard, now) {
                    self.actions.push_back(Action::Reply(id, Err(refusal)));
                }
            }
            Work::Links(mut links, now) => {
                // The questions of a rule that has come since they were asked; its own coming has
                // brought the answers.
                for query in self.route_queries() {
                    if let Some(known) = self.links.routes.get(&query) {
                        links.routes.entry(query).or_insert_with(|| known.clone());
                    }
                }
                if links != self.links {
                    self.links = links;
                    self.begin_again(now);
                }
            }
            // All rules, not only the failed: an aborted change of the links is made up for too.
            Work::Retry(now) => self.begin_again(now),
        }
    }

    fn begin_request(
        &mut self,
        id: RequestId,
        request: Request,
        guard: Guard,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.refuse_stale(guard)?;
        let strict = request.is_strict();
        let edits = request.edits(&self.table)?;
        let differences = self.table.change(edits)?;
        let changed: Vec<(RuleKey, Arc<Entry>)> =
            differences.iter().filter_map(|difference| difference.after.clone()).collect();
        let refused = if strict { self.refuse_missing(&differences, guard.wait) } else { Ok(()) };
        let refused = refused.and_then(|()| self.refuse_too_many());
        if let Err(refusal) = refused {
            self.table.revert(differences);
            return Err(refusal);
        }
        if guard.dry_run || differences.is_empty() {
            let change = self.describe(&differences, strict, guard.dry_run);
            if guard.dry_run {
                self.table.revert(differences);
            }
            self.actions.push_back(Action::Reply(id, Ok(change)));
            return Ok(());
        }
        self.start(Transaction::new(Some(id), strict, differences, now), changed);
        Ok(())
    }

    /// The same rules on a changed machine, or once more.
    fn begin_again(&mut self, now: Instant) {
        let all = self.table.iter();
        let touched = all.map(|(key, entry)| (key.clone(), Arc::clone(entry))).collect();
        self.start(Transaction::new(None, false, Vec::new(), now), touched);
    }

    /// Finds out what the touched rules shall be, and asks for the groups they need.
    fn start(&mut self, mut transaction: Transaction, touched: Vec<(RuleKey, Arc<Entry>)>) {
        let mut befores = BTreeMap::new();
        for difference in &transaction.differences {
            if let Some((key, _)) = &difference.after {
                befores.insert(key.clone(), difference.before.clone());
            }
        }
        for (key, entry) in touched {
            // A rule that no difference names is what it was.
            let before = befores.remove(&key).unwrap_or_else(|| Some((key.clone(), entry.clone())));
            let old =
                before.and_then(|(key, entry)| Some((self.running.get(&key)?.clone(), entry)));
            let next = self.next_of(&entry.rule, old, &mut transaction);
            transaction.next.insert(key, next);
        }
        let wanted = transaction.next.values().flat_map(|next| next.claims.iter());
        let new = wanted.filter(|claim| !self.claims.contains_key(claim)).copied();
        let joins: Vec<Claim> = new.collect::<BTreeSet<Claim>>().into_iter().collect();
        let transaction = Box::new(transaction);
        if joins.is_empty() {
            self.joined(transaction, Vec::new());
        } else {
            self.actions.push_back(Action::Join(joins));
            self.phase = Phase::Joining(transaction);
        }
    }

    /// Gives a rule its ids: those it has, where it is the same rule and the same destination.
    fn next_of(
        &mut self,
        rule: &Rule,
        old: Option<(Running, Arc<Entry>)>,
        transaction: &mut Transaction,
    ) -> Next {
        let now = transaction.now;
        let mut known = BTreeMap::new();
        if let Some((running, entry)) = &old {
            for (output, running) in entry.rule.outputs.iter().zip(&running.outputs) {
                known.insert(output.to.to_string(), running.clone());
            }
        }
        let mut outputs = Vec::with_capacity(rule.outputs.len());
        for output in &rule.outputs {
            outputs.push(known.remove(&output.to.to_string()).unwrap_or_else(|| {
                let id = OutputId(self.output_ids.allocate());
                transaction.fresh_outputs.push(id);
                RunningOutput { id, since: now, sent_from: None }
            }));
        }
        let mut running = match old {
            Some((running, _)) => running,
            None => {
                let id = RuleId(self.rule_ids.allocate());
                transaction.fresh_rules.push(id);
                Running {
                    id,
                    since: now,
                    outputs: Vec::new(),
                    installed: None,
                    claims: Arc::default(),
                    next_hops: BTreeSet::new(),
                    problem: None,
                    activity: super::Activity::default(),
                    heard: super::Heard::default(),
                    told: super::Told::default(),
                }
            }
        };
        running.outputs = outputs;
        running.next_hops.clear();
        let claims = Arc::default();
        let mut next = Next { running, plane: None, claims, missing: None, failed: None };
        if rule.enabled {
            let resolved = resolve(rule, &self.links);
            // What will not pass by itself is told first.
            let missing = resolved.missing.into_iter().min_by_key(|missing| missing.sought);
            next.missing = missing.map(|Missing { refusal, sought, .. }| {
                if sought { Problem::Sought(refusal) } else { Problem::Waiting(refusal) }
            });
            next.running.next_hops = resolved.next_hops;
            next.claims = resolved.claims;
            next.plane = resolved.plane.map(|mut plane| {
                plane.id = next.running.id;
                for (output, running) in plane.outputs.iter_mut().zip(&next.running.outputs) {
                    output.id = running.id;
                }
                plane
            });
            if let Err(circle) = self.table.refuse_circle(&rule.key(), rule, &self.links) {
                (next.plane, next.claims) = (None, Arc::default());
                next.missing = Some(Problem::Waiting(circle));
            }
        }
        next
    }

    pub(super) fn joined(
        &mut self,
        mut transaction: Box<Transaction>,
        results: Vec<(Claim, Result<(), Refusal>)>,
    ) {
        for (claim, result) in results {
            match result {
                Ok(()) => transaction.joined.push(claim),
                Err(refusal) => {
                    transaction.refused.claims.insert(claim, refusal);
                }
            }
        }
        let first = transaction.refused.claims.values().next().cloned();
        match first.filter(|_| transaction.strict) {
            Some(refusal) => self.abort(*transaction, refusal),
            None => self.apply(transaction),
        }
    }

    /// Plans the change of the plane and asks for it.
    fn apply(&mut self, mut transaction: Box<Transaction>) {
        let mut change = PlaneChange {
            fresh_rules: transaction.fresh_rules.clone(),
            fresh_outputs: transaction.fresh_outputs.clone(),
            ..PlaneChange::default()
        };
        let Transaction { next, refused, differences, .. } = &mut *transaction;
        for next in next.values_mut() {
            if let Some(refusal) = refused.reason(next).cloned() {
                next.failed = Some(refusal);
                next.plane = None;
            }
            let failed = next.failed.clone().map(Problem::Failed);
            next.running.problem = failed.or_else(|| next.missing.clone());
            match (&next.plane, &next.running.installed) {
                (Some(plane), installed) if installed.as_ref() != Some(plane) => {
                    change.install.push(plane.clone());
                }
                (None, Some(installed)) => change.remove.push(installed.id),
                (Some(_) | None, _) => {}
            }
        }
        for (key, _) in differences.iter().filter_map(gone) {
            let installed = self.running.get(key).and_then(|running| running.installed.as_ref());
            change.remove.extend(installed.map(|plane| plane.id));
        }
        self.add_sets(&transaction, &mut change);
        if change.is_empty() && change.own == self.own && change.inputs == self.inputs {
            self.commit(*transaction, change, Vec::new());
        } else {
            self.actions.push_back(Action::Apply(change.clone()));
            self.phase = Phase::Applying(transaction, change);
        }
    }

    /// The own addresses and the input interfaces after the change.
    fn add_sets(&self, transaction: &Transaction, change: &mut PlaneChange) {
        let mut replaced: BTreeSet<RuleId> = change.remove.iter().copied().collect();
        replaced.extend(transaction.next.values().map(|next| next.running.id));
        let kept = self.running.values().filter(|running| !replaced.contains(&running.id));
        let kept = kept.filter_map(|running| running.installed.as_ref());
        for plane in kept.chain(transaction.next.values().filter_map(|next| next.plane.as_ref())) {
            change.inputs.insert(plane.take.interface);
            change.own.extend(plane.outputs.iter().filter_map(|output| output.source));
        }
        change.own.retain(|address| self.links.is_local(*address));
    }

    pub(super) fn applied(
        &mut self,
        mut transaction: Box<Transaction>,
        change: PlaneChange,
        result: Result<Vec<String>, PlaneRefusal>,
    ) {
        let PlaneRefusal { interface, refusal } = match result {
            Ok(warnings) => return self.commit(*transaction, change, warnings),
            Err(refused) => refused,
        };
        let again = match interface {
            Some(index) => transaction.refused.inputs.insert(index, refusal.clone()).is_some(),
            None => transaction.refused.rest.replace(refusal.clone()).is_some(),
        };
        if transaction.strict || again {
            self.abort(*transaction, refusal);
        } else {
            self.apply(transaction);
        }
    }

    fn refuse_stale(&self, guard: Guard) -> Result<(), Refusal> {
        match guard.generation {
            Some(generation) if generation != self.generation => Err(Refusal::new(
                Code::Stale,
                format!("the rules are of generation {}, not {generation}", self.generation),
                "somebody has changed them: read them again and repeat the change",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses what cannot be served here, as far as it is new: what a rule had before may wait, so
    /// that a rule can be mended while a part of it is down; and with `wait` all may.
    fn refuse_missing(&self, differences: &[Difference], wait: bool) -> Result<(), Refusal> {
        for difference in differences {
            let Some((key, entry)) = &difference.after else { continue };
            let rule = &entry.rule;
            if !rule.enabled {
                continue;
            }
            self.table.refuse_circle(key, rule, &self.links)?;
            let before = difference.before.as_ref().map(|(_, before)| &before.rule);
            let had = |part: Part| {
                before.is_some_and(|before| match part {
                    Part::Input => before.input == rule.input,
                    Part::Output(n) => before.outputs.iter().any(|o| o.to == rule.outputs[n].to),
                })
            };
            let mut missing = resolve(rule, &self.links).missing.into_iter();
            let missing = missing.find(|m| !wait && !m.sought && !had(m.part));
            if let Some(Missing { refusal, .. }) = missing {
                return Err(refusal.about(format_args!("rule {key}")));
            }
        }
        Ok(())
    }

    fn refuse_too_many(&self) -> Result<(), Refusal> {
        let outputs: usize = self.table.iter().map(|(_, entry)| entry.rule.outputs.len()).sum();
        self.limits.check(self.table.len(), outputs)
    }
}

fn gone(difference: &Difference) -> Option<&(RuleKey, Arc<Entry>)> {
    difference.before.as_ref().filter(|_| difference.after.is_none())
}
