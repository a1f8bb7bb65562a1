//! One worker: its state, what it has not answered, when it is due, and how long it waits after a
//! failure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The most time that a worker has to answer a change or a ping, and that a change takes.
pub const ANSWER: Duration = Duration::from_secs(2);
/// The most time from a worker's start until it is synced; a large table takes its time.
pub const START: Duration = Duration::from_secs(5);
/// A worker that was sent nothing for this time is pinged.
pub const PING: Duration = Duration::from_secs(1);
/// A worker that has run this long has its earlier failures forgotten.
pub(super) const HEALTH: Duration = Duration::from_secs(60);
/// From the second failure to the next start. Each further one doubles it.
const DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// The number of a worker, from 0. It stays when the process is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

/// One process of a worker: 0 is the first, 1 the one after its first restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Names a change, or a ping, in a worker's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub u64);

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Spawned, has not taken the whole table yet.
    Starting,
    /// Forwards.
    Running,
    /// Killed, because it did not answer; has not exited yet.
    Stopping,
    /// There is no process.
    Waiting {
        /// Its next start. None after [`super::Supervisor::handle_stop`].
        until: Option<Instant>,
    },
}

/// What people want to know of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerStatus<'a> {
    /// Where it is in its life.
    pub state: WorkerState,
    /// Since when.
    pub since: Instant,
    /// How often it was started after its first start.
    pub restarts: u64,
    /// Why it last failed, even if it has recovered.
    pub last_error: Option<&'a str>,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) state: WorkerState,
    pub(super) since: Instant,
    pub(super) incarnation: Incarnation,
    /// Changes and pings, with the time when each was sent.
    pub(super) unanswered: BTreeMap<ChangeId, Instant>,
    last_sent: Instant,
    /// Without a minute of health between them.
    failures: u32,
    last_error: Option<String>,
}

impl WorkerState {
    /// One word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Waiting { .. } => "waiting",
        }
    }
}

impl Worker {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: WorkerState::Starting,
            since: now,
            incarnation: Incarnation(0),
            unanswered: BTreeMap::new(),
            last_sent: now,
            failures: 0,
            last_error: None,
        }
    }

    pub(super) fn enter(&mut self, state: WorkerState, now: Instant) {
        (self.state, self.since) = (state, now);
    }

    pub(super) fn sent(&mut self, change: ChangeId, now: Instant) {
        self.unanswered.insert(change, now);
        self.last_sent = now;
    }

    /// When something is to be done about it, if nothing is heard of it.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            WorkerState::Starting => Some(self.since + START),
            WorkerState::Running => match self.unanswered.values().min() {
                Some(&sent) => Some(sent.max(self.since) + ANSWER),
                None => Some(self.last_sent.max(self.since) + PING),
            },
            WorkerState::Stopping => None,
            WorkerState::Waiting { until } => until,
        }
    }

    /// Is killed or has exited.
    pub(super) fn failed(&mut self, why: String, now: Instant) {
        let ran = now.saturating_duration_since(self.since);
        let healthy = self.state == WorkerState::Running && ran >= HEALTH;
        self.failures = if healthy { 1 } else { self.failures.saturating_add(1) };
        self.unanswered.clear();
        self.last_error = Some(why);
    }

    /// From its exit to its next start.
    pub(super) fn delay(&self) -> Duration {
        match self.failures {
            0 | 1 => Duration::ZERO,
            more => DELAY.saturating_mul(1 << (more - 2).min(16)).min(LONGEST_DELAY),
        }
    }

    /// Whether it has a process, as far as is known.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self.state, WorkerState::Waiting { .. })
    }

    pub(super) fn status(&self) -> WorkerStatus<'_> {
        let &Self { state, since, incarnation: Incarnation(restarts), .. } = self;
        WorkerStatus { state, since, restarts, last_error: self.last_error.as_deref() }
    }
}
