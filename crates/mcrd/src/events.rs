//! Events: each gets its number, is logged once, and is kept for those who follow.
//!
//! The event loop tells them, the connections of followers read them. A follower has its place in
//! what is kept, and nobody waits for it: one that is too slow for the last [`KEPT`] is told how
//! many it has missed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use mcr_core::api::EventView;
use mcr_core::event::{Event, Kept, Level, Next, Wanted};
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::Now;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The last events that are kept.
const KEPT: usize = 1024;
/// The most that follow at a time: others need connections too.
const FOLLOWERS: usize = 128;

/// What the event loop has: where events begin.
pub(crate) struct Events {
    kept: Arc<Mutex<Kept>>,
    /// The id of the last event. None after the end.
    last: Option<watch::Sender<u64>>,
    followers: Followers,
}

/// What the control socket has: where followers begin.
#[derive(Clone)]
pub(crate) struct Followers {
    kept: Arc<Mutex<Kept>>,
    last: watch::Receiver<u64>,
    places: Arc<Semaphore>,
}

/// One who reads events, in their order.
pub(crate) struct Follower {
    kept: Arc<Mutex<Kept>>,
    last: watch::Receiver<u64>,
    /// The id of the last event that was read, or passed over.
    at: u64,
    wanted: Wanted,
    _place: OwnedSemaphorePermit,
}

impl Events {
    /// Their ids begin with `first`.
    pub(crate) fn new(first: u64) -> Self {
        let kept = Kept::new(KEPT, first);
        let (sender, last) = watch::channel(kept.last());
        let kept = Arc::new(Mutex::new(kept));
        let places = Arc::new(Semaphore::new(FOLLOWERS));
        let followers = Followers { kept: Arc::clone(&kept), last, places };
        Self { kept, last: Some(sender), followers }
    }

    pub(crate) fn followers(&self) -> Followers {
        self.followers.clone()
    }

    /// Logs an event, and lets the followers have it.
    pub(crate) fn tell(&self, event: &Event) {
        let now = Now { monotonic: Instant::now(), wall: SystemTime::now() };
        let view = lock(&self.kept).push(event, now);
        log(event, &view);
        if let Some(last) = &self.last {
            last.send_replace(view.id);
        }
    }

    /// The followers get what has been told, and then the end.
    pub(crate) fn close(&mut self) {
        self.last = None;
    }
}

impl Followers {
    /// A follower that gets what comes after the event of that id, as far as it is kept, or only
    /// what is told from here on.
    pub(crate) fn follow(&self, since: Option<u64>, wanted: Wanted) -> Result<Follower, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Refusal::new(
                Code::Capacity,
                format!("{FOLLOWERS} clients follow the events already"),
                "end one of them; one connection can follow all rules",
            )
        })?;
        let at = since.unwrap_or_else(|| lock(&self.kept).last());
        let (kept, last) = (Arc::clone(&self.kept), self.last.clone());
        Ok(Follower { kept, last, at, wanted, _place: place })
    }

    /// Whether an event that is kept is about the rule.
    pub(crate) fn know(&self, rule: &str) -> bool {
        lock(&self.kept).iter().any(|event| event.rule.as_deref() == Some(rule))
    }
}

impl Follower {
    /// The next event, or none after the end.
    pub(crate) async fn next(&mut self) -> Option<Arc<EventView>> {
        loop {
            // Before the look, so that what comes after it is seen too.
            self.last.borrow_and_update();
            let next = lock(&self.kept).after(self.at);
            match next {
                Next::Event(event) => {
                    self.at = event.id;
                    if self.wanted.takes(&event) {
                        return Some(event);
                    }
                }
                Next::Missed { count, last } => {
                    self.at = last;
                    let now = Now { monotonic: Instant::now(), wall: SystemTime::now() };
                    return Some(Arc::new(Event::Missed { count }.view(last, now)));
                }
                Next::Nothing => self.last.changed().await.ok()?,
            }
        }
    }
}

/// No code panics while it holds the lock, and a list of events is whole after every step.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line. That a slow stream pauses and comes is no line for every day.
fn log(event: &Event, view: &EventView) {
    let EventView { kind, message, rule, interface, worker, more, .. } = view;
    let (rule, interface) = (rule.as_deref(), interface.as_deref());
    let number = |field: &str| more.get(field).and_then(Value::as_u64);
    let [generation, pid] = ["generation", "pid"].map(number);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(kind, rule, interface, worker, pid, generation, "{message}")
        };
    }
    match event.level() {
        Level::Info if event.is_flip() => line!(trace),
        Level::Info => line!(info),
        Level::Warning => line!(warn),
        Level::Error => line!(error),
    }
}
