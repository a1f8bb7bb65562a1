//! The relay: the state machine between what is asked (rules), what is there (interfaces) and what
//! runs (data plane, memberships). It does no IO: `handle_*` changes it, [`Relay::poll_action`]
//! yields what to do.
//!
//! One transaction runs at a time; what arrives meanwhile waits in a queue.
//!
//! ```text
//!          request, links, retry
//!                   │ table.change, resolve
//!  Idle ──────────▶ Joining ──handle_joined──▶ Applying ──handle_applied──▶ Idle
//!    ▲                 │ join refused              │ plane refused           (Leave, Reply)
//!    └──── table.revert, Leave what was joined ────┘
//! ```
//!
//! A *strict* transaction (a client's change) is refused whole when the machine refuses any part of
//! it. A *tolerant* one (start, reload, a change of the machine, a retry) leaves the rules that
//! cannot run `waiting` or `failed`, each with its reason, and runs the others.

mod commit;
mod ids;
mod request;
mod senders;
#[cfg(test)]
mod tests;
mod transaction;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::action::{
    Action, Claim, Counters, OutputCounters, OutputId, PlaneRefusal, PlaneRule, RequestId,
    RuleCounters, RuleId, Volume,
};
use crate::link::{IfIndex, Links, NextHop, Route, RouteQuery};
use crate::refusal::{Code, Refusal};
use crate::resolve::route_queries;
use crate::rule::RuleKey;
use crate::table::RuleTable;
use ids::IdPool;
pub use request::{Guard, Request, RuleStep};
use senders::{Heard, Told};
use transaction::Phase;
pub use view::{Now, State, time};

/// A rule that was refused by the kernel is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);
/// Rates are taken over at least this time.
const RATE_WINDOW: Duration = Duration::from_millis(900);

/// The most that the data plane can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rules, whether they run or not.
    pub rules: u32,
    /// Outputs of all rules.
    pub outputs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rules: 16_384, outputs: 16_384 }
    }
}

impl Limits {
    /// Refuses more than fits.
    pub fn check(self, rules: usize, outputs: usize) -> Result<(), Refusal> {
        if rules <= self.rules as usize && outputs <= self.outputs as usize {
            return Ok(());
        }
        let Self { rules: most, outputs: most_outputs } = self;
        Err(Refusal::new(
            Code::Capacity,
            format!(
                "{rules} rules with {outputs} outputs are more than the data plane holds ({most} \
                 and {most_outputs})"
            ),
            "raise max_rules and max_outputs under [limits] in the config and restart mcrd",
        ))
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Relay {
    limits: Limits,
    /// Whether the plane always leaves the input to the host's stack.
    tap: bool,
    generation: u64,
    table: RuleTable,
    links: Links,
    running: BTreeMap<RuleKey, Running>,
    /// What is joined and bound, and for how many rules.
    claims: BTreeMap<Claim, usize>,
    /// The neighbours that outputs need.
    next_hops: BTreeSet<NextHop>,
    rule_ids: IdPool,
    output_ids: IdPool,
    /// What the plane holds besides rules.
    own: BTreeSet<IpAddr>,
    inputs: BTreeSet<IfIndex>,
    phase: Phase,
    queue: VecDeque<Work>,
    actions: VecDeque<Action>,
    retry_at: Option<Instant>,
    counters: Counters,
}

/// Answers of the routing table.
pub type Routes = BTreeMap<RouteQuery, Route>;

/// What starts a transaction.
#[derive(Debug)]
enum Work {
    Request(RequestId, Request, Guard, Routes, Instant),
    Links(Links, Instant),
    Retry(Instant),
}

/// What the relay knows of a rule beside its text.
#[derive(Debug, Clone)]
struct Running {
    id: RuleId,
    since: Instant,
    /// One for each output of the rule, in its order.
    outputs: Vec<RunningOutput>,
    /// What the data plane holds of it.
    installed: Option<PlaneRule>,
    /// What is joined and bound for it.
    claims: Arc<[Claim]>,
    /// The neighbours that its outputs need.
    next_hops: BTreeSet<NextHop>,
    problem: Option<Problem>,
    activity: Activity,
    heard: Heard,
    told: Told,
}

#[derive(Debug, Clone)]
struct RunningOutput {
    id: OutputId,
    since: Instant,
    /// The address that it was last sent from, also while there is none to send from.
    sent_from: Option<IpAddr>,
}

/// Why a rule does not run, or not on all outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    /// For the machine to change.
    Waiting(Refusal),
    /// For what the kernel is looking for: mostly a moment.
    Sought(Refusal),
    /// For the next try.
    Failed(Refusal),
}

/// When a rule was last seen to move, and how fast.
#[derive(Debug, Clone, Default)]
struct Activity {
    matched: u64,
    last_packet: Option<Instant>,
    window: Option<(Instant, Volume)>,
    rate: Volume,
}

impl Relay {
    /// A relay without rules. `generation` should be larger than any that an earlier process of the
    /// same instance gave out. `tap`: whether the plane always leaves the input to the host's stack.
    pub fn new(limits: Limits, generation: u64, tap: bool) -> Self {
        Self {
            limits,
            tap,
            generation,
            table: RuleTable::default(),
            links: Links::default(),
            running: BTreeMap::new(),
            claims: BTreeMap::new(),
            next_hops: BTreeSet::new(),
            rule_ids: IdPool::default(),
            output_ids: IdPool::default(),
            own: BTreeSet::new(),
            inputs: BTreeSet::new(),
            phase: Phase::Idle,
            queue: VecDeque::new(),
            actions: VecDeque::new(),
            retry_at: None,
            counters: Counters::default(),
        }
    }

    /// A client asks for a change; answered by an [`Action::Reply`] with the same id. `routes` has the
    /// answers to what [`route_queries`] asks for the rules of the request.
    pub fn handle_request(
        &mut self,
        id: RequestId,
        request: Request,
        (guard, routes): (Guard, Routes),
        now: Instant,
    ) {
        self.queue.push_back(Work::Request(id, request, guard, routes, now));
        self.next();
    }

    /// What the rules there are have to ask the routing table.
    pub fn route_queries(&self) -> BTreeSet<RouteQuery> {
        self.table.iter().flat_map(|(_, entry)| route_queries(&entry.rule)).collect()
    }

    /// The machine's interfaces are these now.
    pub fn handle_links(&mut self, links: Links, now: Instant) {
        self.queue.push_back(Work::Links(links, now));
        self.next();
    }

    /// The results of [`Action::Join`].
    pub fn handle_joined(&mut self, results: Vec<(Claim, Result<(), Refusal>)>) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Joining(transaction) => self.joined(transaction, results),
            other @ (Phase::Idle | Phase::Applying(..)) => self.phase = other,
        }
        self.next();
    }

    /// The result of [`Action::Apply`]: warnings, or the refusal.
    pub fn handle_applied(&mut self, result: Result<Vec<String>, PlaneRefusal>) {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Applying(transaction, change) => self.applied(transaction, change, result),
            other @ (Phase::Idle | Phase::Joining(_)) => self.phase = other,
        }
        self.next();
    }

    /// The data plane's counters are these now.
    pub fn handle_counters(&mut self, counters: Counters, now: Instant) {
        self.counters = counters;
        for (key, running) in &mut self.running {
            let counted = rule_counters(&self.counters, running.id);
            running.activity.observe(counted.received, counted.matched.packets, now);
            running.heard.observe(&counted.senders, now);
            let Some(entry) = self.table.entry(key) else { continue };
            let found = running.second_sender((key, &entry.rule), now);
            self.actions.extend(found.map(Action::SecondSender));
        }
    }

    /// The time of [`Relay::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.queue.push_back(Work::Retry(now));
            self.next();
        }
    }

    /// When [`Relay::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn next(&mut self) {
        while matches!(self.phase, Phase::Idle) {
            let Some(work) = self.queue.pop_front() else { return };
            self.begin(work);
        }
    }
}

impl Activity {
    fn observe(&mut self, received: Volume, matched: u64, now: Instant) {
        if matched > self.matched {
            self.last_packet = Some(now);
        }
        self.matched = matched;
        let (start, before) = *self.window.get_or_insert((now, received));
        let elapsed = now.saturating_duration_since(start);
        if elapsed >= RATE_WINDOW {
            let per_second = |count: u64| (count as f64 / elapsed.as_secs_f64()).round() as u64;
            self.rate = Volume {
                packets: per_second(received.packets.saturating_sub(before.packets)),
                bytes: per_second(received.bytes.saturating_sub(before.bytes)),
            };
            self.window = Some((now, received));
        }
    }
}

fn rule_counters(counters: &Counters, id: RuleId) -> RuleCounters {
    counters.rules.get(id.0 as usize).copied().unwrap_or_default()
}

fn output_counters(counters: &Counters, id: OutputId) -> OutputCounters {
    counters.outputs.get(id.0 as usize).copied().unwrap_or_default()
}

/// Wall clock of an instant, given both clocks at another moment.
fn wall(at: Instant, now: Now) -> SystemTime {
    now.wall - now.monotonic.saturating_duration_since(at)
}
