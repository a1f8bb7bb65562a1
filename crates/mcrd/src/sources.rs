//! Where the event loop's events come from, and which comes first.

use std::time::Duration;

use anyhow::Context;
use mcr_core::link::Links;
use mcr_dataplane::netlink::Netlink;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::eventloop::Command;

/// How often the counters are read for rates and states.
const TICK: Duration = Duration::from_millis(500);

/// Something to react to.
pub(crate) enum Event {
    Stop(&'static str),
    Reload,
    Links,
    NetlinkEnded,
    Command(Command),
    Tick,
}

/// Where events come from.
pub(crate) struct Sources {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    netlink: Netlink,
    commands: mpsc::Receiver<Command>,
    tick: Interval,
}

impl Sources {
    pub(crate) fn open(commands: mpsc::Receiver<Command>) -> anyhow::Result<Self> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            netlink: Netlink::open().context("cannot talk to the kernel by netlink")?,
            commands,
            tick,
        })
    }

    pub(crate) async fn links(&self) -> anyhow::Result<Links> {
        self.netlink.links().await.context("cannot read the interfaces by netlink")
    }

    /// The next event. Stopping comes first; the machine's state before what clients want of it;
    /// the timer last, since it can always wait.
    pub(crate) async fn next(&mut self) -> Event {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Event::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Event::Stop("SIGINT"),
            _ = self.hangup.recv() => Event::Reload,
            changed = self.netlink.changed() => {
                if changed.is_ok() { Event::Links } else { Event::NetlinkEnded }
            }
            Some(command) = self.commands.recv() => Event::Command(command),
            _ = self.tick.tick() => Event::Tick,
        }
    }
}
