//! Where the event loop's events come from, and which comes first.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use mcr_core::link::{Links, NextHop, RouteQuery};
use mcr_core::relay::Routes;
use mcr_dataplane::Applied;
use mcr_dataplane::netlink::Netlink;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::eventloop::Command;

/// How often the counters are read for rates and states.
const TICK: Duration = Duration::from_millis(500);
/// The least time between two readings of the interfaces, however fast they change.
const SETTLE: Duration = Duration::from_millis(50);
/// When a reading has failed, the next is tried after this time.
const AGAIN: Duration = Duration::from_millis(500);

/// Something to react to.
pub(crate) enum Event {
    Stop(&'static str),
    Reload,
    /// The interfaces may have changed.
    Links,
    NetlinkEnded,
    Command(Command),
    /// A change that the plane was given has ended.
    Applied(Applied),
    /// The plane has something to tell.
    Tell(mcr_core::event::Event),
    Tick,
}

/// Signals are caught from the first moment on, so that one that comes while the daemon starts is
/// obeyed, and cleanly.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Within a tokio runtime.
    pub(crate) fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Where events come from.
pub(crate) struct Sources {
    signals: Signals,
    netlink: Netlink,
    /// When the interfaces are to be read, if they are.
    links_at: Option<Instant>,
    links_read: Instant,
    commands: mpsc::Receiver<Command>,
    tick: Interval,
}

impl Sources {
    pub(crate) fn open(
        signals: Signals,
        commands: mpsc::Receiver<Command>,
    ) -> anyhow::Result<Self> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let netlink = Netlink::open().context("cannot talk to the kernel by netlink")?;
        let links_read = Instant::now();
        Ok(Self { signals, netlink, links_at: None, links_read, commands, tick })
    }

    /// The machine as it is, with the answers to `queries`. When it cannot be read, [`Event::Links`]
    /// comes again.
    pub(crate) async fn links(&mut self, queries: &BTreeSet<RouteQuery>) -> anyhow::Result<Links> {
        self.links_read = Instant::now();
        let links = self.netlink.links(queries).await;
        self.links_at = links.is_err().then(|| Instant::now() + AGAIN);
        links.context("cannot read the interfaces by netlink")
    }

    /// The answers of the routing table.
    pub(crate) async fn routes(&mut self, queries: &BTreeSet<RouteQuery>) -> Routes {
        self.netlink.routes(queries).await
    }

    /// Lets the kernel resolve these neighbours, and no others for us. Those that are known by now,
    /// because somebody else needs them too, are told of by no event: a look follows.
    pub(crate) fn resolve(&mut self, wanted: &BTreeSet<NextHop>) {
        self.netlink.resolve(wanted);
        if !wanted.is_empty() {
            self.links_at.get_or_insert(self.links_read + SETTLE);
        }
    }

    /// Gives up the neighbours that an earlier process has left and nobody needs.
    pub(crate) fn settle(&mut self) {
        self.netlink.settle();
    }

    /// The next event. Stopping comes first; the machine's state before what clients want of it,
    /// but no oftener than every [`SETTLE`]; the timer last, since it can always wait.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let links_at = self.links_at;
            let due = async {
                match links_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.signals.terminate.recv() => return Event::Stop("SIGTERM"),
                _ = self.signals.interrupt.recv() => return Event::Stop("SIGINT"),
                _ = self.signals.hangup.recv() => return Event::Reload,
                () = due => return Event::Links,
                // While a reading is due, notifications wait: it will see what they are about.
                changed = self.netlink.changed(), if links_at.is_none() => match changed {
                    Ok(()) => self.links_at = Some(self.links_read + SETTLE),
                    Err(error) => {
                        tracing::error!(%error, "netlink");
                        return Event::NetlinkEnded;
                    }
                },
                Some(command) = self.commands.recv() => return Event::Command(command),
                _ = self.tick.tick() => return Event::Tick,
            }
        }
    }
}
