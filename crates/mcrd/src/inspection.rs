//! The inspection of rules that ask for it: a thread of its own reads a mirror of their packets.
//!
//! ```text
//! eventloop ── Order (list of rules) ──▶ thread ◀── taps, one for each input interface
//!     ◀──────────── results ─────────────┘
//! ```
//!
//! Queue: orders, without bound, of which the event loop waits for each before it makes the next.
//! The results are copied four times a second under a lock that no packet path takes.

mod thread;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use mcr_core::api::{InspectStats, RuleStats};
use mcr_core::inspect::WatchList;
use mcr_core::relay::Relay;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The event loop waits no longer for the thread to have opened its taps.
const PATIENCE: Duration = Duration::from_millis(500);

/// The figures by the names of the rules.
type Results = Arc<Mutex<BTreeMap<String, InspectStats>>>;

/// What the thread is to look at from now on, and whom to tell when it does.
struct Order(WatchList, oneshot::Sender<()>);

/// See the module's text. Without a rule that asks there is no thread.
#[derive(Default)]
pub(crate) struct Inspection {
    /// Of the relay, at the last order.
    revision: u64,
    watched: WatchList,
    thread: Option<Thread>,
    results: Results,
}

struct Thread {
    orders: mpsc::Sender<Order>,
    wake: OwnedFd,
}

impl Inspection {
    /// Looks at what the relay runs now; returns when the mirrors are there.
    pub(crate) async fn follow(&mut self, relay: &Relay) {
        if relay.revision() == self.revision {
            return;
        }
        self.revision = relay.revision();
        let list = relay.watch_list();
        if list == self.watched {
            return;
        }
        match self.order(list.clone()).await {
            Ok(()) => self.watched = list,
            Err(error) => {
                tracing::error!(%error, "rules are not inspected; tried again at the next change");
                (self.thread, self.watched) = (None, WatchList::default());
                self.results.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        }
    }

    async fn order(&mut self, list: WatchList) -> io::Result<()> {
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none @ None => none.insert(Thread::start(&self.results)?),
        };
        let (done, is_done) = oneshot::channel();
        let ended = |_| io::Error::other("the thread that inspects has ended");
        thread.orders.send(Order(list, done)).map_err(ended)?;
        rustix::io::write(&thread.wake, &1_u64.to_ne_bytes())?;
        match timeout(PATIENCE, is_done).await {
            Ok(done) => done.map_err(io::Error::other),
            Err(_) => {
                tracing::warn!("the mirrors of inspected rules take long to open");
                Ok(())
            }
        }
    }

    /// Adds the figures, at most half a second old.
    pub(crate) fn show(&self, rules: &mut [RuleStats]) {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        for rule in rules {
            rule.inspect = results.get(&rule.name).cloned();
        }
    }
}

impl Thread {
    fn start(results: &Results) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (orders, receiver) = mpsc::channel();
        let watcher = thread::Watcher::new(receiver, wake.try_clone()?, Arc::clone(results));
        std::thread::Builder::new().name("inspection".into()).spawn(|| watcher.run())?;
        Ok(Self { orders, wake })
    }
}
