//! The supervision of worker processes: when each is started, asked, killed and started again, and
//! when a change of the table is at all of them. It does no IO: `handle_*` changes it,
//! [`Supervisor::poll_order`] yields what to do.
//!
//! ```text
//!             synced               no answer
//!  Starting ──────────▶ Running ──────────────▶ Stopping
//!   ▲  ▲ │ └─────────────no sync───────────────▶ │
//!   │  │ └──exit──┐         └─exit─┐             │ exit
//!   │  │          ▼                ▼             │
//!   │  └────────Waiting ◀────────────────────────┘
//!   └── at once, when it has not failed in the last minute
//! ```
//!
//! What the caller promises: it drains the orders after each `handle_*`, in their order; it hands
//! over what has arrived before it calls [`Supervisor::handle_timeout`]; and it does nothing about
//! an order for a process that has exited meanwhile.
//!
//! A worker takes changes one after another, after the table of its start. A change therefore also
//! goes to a worker that is still starting. Since a start may take longer than a change may, the
//! change ends without such a worker in time, and the worker is not killed for it: its time to
//! answer begins when it is synced.

#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use worker::Worker;
pub use worker::{ANSWER, ChangeId, Incarnation, PING, START, WorkerId, WorkerState, WorkerStatus};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Spawn the process and hand it its sockets and the whole table, with every change that has
    /// begun.
    Start(WorkerId, Incarnation),
    /// Send it the change, which it must answer.
    Send(WorkerId, ChangeId),
    /// Send it a change of nothing, which it must answer.
    Ping(WorkerId, ChangeId),
    /// Kill the process. Its exit is still to be reported.
    Kill(WorkerId),
    /// Every worker has the change, but these.
    Done(ChangeId, Vec<Absent>),
}

/// A worker that did not take a change in time. It takes it with the table of its next start, or
/// at the end of the start that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// Which.
    pub worker: WorkerId,
    /// Why, for people.
    pub reason: String,
}

/// See the module's text.
#[derive(Debug)]
pub struct Supervisor {
    workers: Vec<Worker>,
    /// Those that at least one worker has not answered.
    changes: BTreeMap<ChangeId, Change>,
    last_id: ChangeId,
    orders: VecDeque<Order>,
    stopped: bool,
}

#[derive(Debug)]
struct Change {
    until: Instant,
    awaited: BTreeSet<WorkerId>,
    absent: BTreeMap<WorkerId, String>,
}

impl Supervisor {
    /// Of the workers 0 to `count` - 1, all to be started.
    pub fn new(count: u32, now: Instant) -> Self {
        let orders = (0..count).map(|id| Order::Start(WorkerId(id), Incarnation(0))).collect();
        let workers = (0..count).map(|_| Worker::new(now)).collect();
        let (changes, last_id) = (BTreeMap::new(), ChangeId(0));
        Self { workers, changes, last_id, orders, stopped: false }
    }

    /// A change of the table begins; answered by an [`Order::Done`] with the same id. The table of
    /// an [`Order::Start`] that is polled from now on contains it. Several may be under way.
    pub fn handle_change(&mut self, now: Instant) -> ChangeId {
        let change = self.fresh_id();
        let (mut awaited, mut absent) = (BTreeSet::new(), BTreeMap::new());
        for (worker, id) in self.workers.iter_mut().zip((0..).map(WorkerId)) {
            let unspawned = self.orders.contains(&Order::Start(id, worker.incarnation));
            match worker.state {
                WorkerState::Starting if unspawned => {
                    absent.insert(id, "is about to start".into());
                }
                WorkerState::Starting | WorkerState::Running => {
                    worker.sent(change, now);
                    self.orders.push_back(Order::Send(id, change));
                    awaited.insert(id);
                }
                WorkerState::Stopping | WorkerState::Waiting { .. } => {
                    let reason = worker.status().last_error.map(Into::into);
                    absent.insert(id, reason.unwrap_or_else(|| "was never started".into()));
                }
            }
        }
        self.changes.insert(change, Change { until: now + ANSWER, awaited, absent });
        self.end_changes();
        change
    }

    /// A worker has answered an [`Order::Send`] or an [`Order::Ping`].
    pub fn handle_answered(&mut self, id: WorkerId, incarnation: Incarnation, change: ChangeId) {
        let Some(worker) = self.process(id, incarnation) else { return };
        if worker.unanswered.remove(&change).is_none() {
            return;
        }
        if let Some(change) = self.changes.get_mut(&change) {
            change.awaited.remove(&id);
        }
        self.end_changes();
    }

    /// A worker that was started has taken the whole table and forwards.
    pub fn handle_synced(&mut self, id: WorkerId, incarnation: Incarnation, now: Instant) {
        let Some(worker) = self.process(id, incarnation) else { return };
        if worker.state == WorkerState::Starting {
            worker.enter(WorkerState::Running, now);
        }
    }

    /// The process of a worker is gone.
    pub fn handle_exited(
        &mut self,
        id: WorkerId,
        incarnation: Incarnation,
        why: String,
        now: Instant,
    ) {
        let Some(worker) = self.process(id, incarnation) else { return };
        // A killed worker failed when it did not answer: the signal is no news.
        if worker.state != WorkerState::Stopping {
            self.fail(id, why, now);
        }
        self.start_later(id, now);
        self.end_changes();
    }

    /// The process of an [`Order::Start`] could not be spawned.
    pub fn handle_start_failed(
        &mut self,
        id: WorkerId,
        incarnation: Incarnation,
        why: String,
        now: Instant,
    ) {
        let Some(worker) = self.process(id, incarnation) else { return };
        if worker.state != WorkerState::Running {
            self.handle_exited(id, incarnation, why, now);
        }
    }

    /// Nothing is started again. What runs is still watched.
    pub fn handle_stop(&mut self) {
        self.stopped = true;
        for (worker, id) in self.workers.iter_mut().zip((0..).map(WorkerId)) {
            let start = Order::Start(id, worker.incarnation);
            let unspawned = self.orders.contains(&start);
            if unspawned || !worker.is_there() {
                worker.state = WorkerState::Waiting { until: None };
                self.orders.retain(|order| *order != start);
            }
        }
    }

    /// The time of [`Supervisor::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for id in (0..).map(WorkerId).take(self.workers.len()) {
            let worker = &mut self.workers[id.0 as usize];
            if worker.due().is_none_or(|due| due > now) {
                continue;
            }
            match worker.state {
                WorkerState::Starting => self.kill(id, "start", START, now),
                WorkerState::Running if worker.unanswered.is_empty() => self.ping(id, now),
                WorkerState::Running => self.kill(id, "answer", ANSWER, now),
                WorkerState::Waiting { .. } => self.start(id, now),
                WorkerState::Stopping => {}
            }
        }
        for change in self.changes.values_mut().filter(|change| change.until <= now) {
            let late = std::mem::take(&mut change.awaited);
            change.absent.extend(late.into_iter().map(|id| (id, "was still starting".into())));
        }
        self.end_changes();
    }

    /// When [`Supervisor::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let changes = self.changes.values().map(|change| change.until);
        self.workers.iter().filter_map(Worker::due).chain(changes).min()
    }

    /// The next thing to do.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// How a worker does; None if there is none of this number.
    pub fn status(&self, id: WorkerId) -> Option<WorkerStatus<'_>> {
        self.workers.get(id.0 as usize).map(Worker::status)
    }

    /// The worker, if this is the process that it has.
    fn process(&mut self, id: WorkerId, incarnation: Incarnation) -> Option<&mut Worker> {
        let worker = self.workers.get_mut(id.0 as usize)?;
        (worker.is_there() && worker.incarnation == incarnation).then_some(worker)
    }

    fn ping(&mut self, id: WorkerId, now: Instant) {
        let ping = self.fresh_id();
        self.workers[id.0 as usize].sent(ping, now);
        self.orders.push_back(Order::Ping(id, ping));
    }

    fn kill(&mut self, id: WorkerId, did_not: &str, within: Duration, now: Instant) {
        self.fail(id, format!("did not {did_not} within {} s", within.as_secs()), now);
        self.workers[id.0 as usize].enter(WorkerState::Stopping, now);
        self.orders.push_back(Order::Kill(id));
    }

    /// Counts the failure; no change waits for the worker any longer.
    fn fail(&mut self, id: WorkerId, why: String, now: Instant) {
        for change in self.changes.values_mut() {
            if change.awaited.remove(&id) {
                change.absent.insert(id, why.clone());
            }
        }
        self.workers[id.0 as usize].failed(why, now);
    }

    fn start_later(&mut self, id: WorkerId, now: Instant) {
        let worker = &mut self.workers[id.0 as usize];
        let until = (!self.stopped).then(|| now + worker.delay());
        worker.enter(WorkerState::Waiting { until }, now);
        if until == Some(now) {
            self.start(id, now);
        }
    }

    fn start(&mut self, id: WorkerId, now: Instant) {
        let worker = &mut self.workers[id.0 as usize];
        worker.incarnation.0 += 1;
        worker.enter(WorkerState::Starting, now);
        self.orders.push_back(Order::Start(id, worker.incarnation));
    }

    fn end_changes(&mut self) {
        let ended = self.changes.extract_if(.., |_, change| change.awaited.is_empty());
        self.orders.extend(ended.map(|(id, change)| {
            let absent = change.absent.into_iter();
            Order::Done(id, absent.map(|(worker, reason)| Absent { worker, reason }).collect())
        }));
    }

    fn fresh_id(&mut self) -> ChangeId {
        self.last_id.0 += 1;
        self.last_id
    }
}
