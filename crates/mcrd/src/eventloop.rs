//! The event loop: the only place that waits, and the only owner of the relay, the data plane and
//! the memberships.
//!
//! ```text
//! signals ──┐
//! netlink ──┤ Event        ┌─ poll_action ─▶ Join, Leave ─▶ memberships
//! control ──┼──────▶ Relay ┤                 Apply ───────▶ data plane
//! timer  ───┤   handle_*   └───────────────▶ Reply ───────▶ control
//! plane  ───┘                Tell ────────▶ log, followers
//! ```
//!
//! Queues: `control` hands over at most [`COMMANDS`] commands; further clients wait in their own
//! connection. Netlink notifications are read all at once and only wake the loop.

mod loss;
mod start;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process;
use std::time::{Instant, SystemTime};

use anyhow::bail;
use mcr_core::action::{Action, RequestId};
use mcr_core::api::{Change, MetricsOptions, RuleList, Stats, Status};
use mcr_core::capture::{Plan, Question};
use mcr_core::packet::PacketOptions;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::{Guard, Now, Relay, Request, Takers};
use mcr_core::resolve::route_queries;
use mcr_core::rule::RuleKey;
use mcr_dataplane::membership::JoinSockets;
use mcr_dataplane::{DataPlane, News, Progress};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};

use crate::args::Args;
use crate::config::{self, Config};
use crate::control;
use crate::doctor::Facts;
use crate::events::Events;
use crate::inspection::Inspection;
use crate::instance::Instance;
use crate::metrics::Figures;
use crate::sources::{Event, Signals, Sources};
use loss::Losses;

/// Commands that wait for the loop.
const COMMANDS: usize = 64;

/// What a client wants, with where the answer goes. A client that has gone away takes no answer.
pub(crate) enum Command {
    Change(Request, Guard, oneshot::Sender<Result<Change, Refusal>>),
    Reload(oneshot::Sender<Result<Change, Refusal>>),
    List(Option<RuleKey>, oneshot::Sender<Result<RuleList, Refusal>>),
    Stats(Option<RuleKey>, oneshot::Sender<Result<Stats, Refusal>>),
    Status(oneshot::Sender<Result<Status, Refusal>>),
    /// For the metrics.
    Figures(oneshot::Sender<Result<Figures, Refusal>>),
    Takers(oneshot::Sender<Result<Takers, Refusal>>),
    Facts(Option<RuleKey>, oneshot::Sender<Result<Facts, Refusal>>),
    /// Where the packets of a rule are to be seen.
    Capture(Question, oneshot::Sender<Result<Plan, Refusal>>),
}

/// An instance that listens.
pub(crate) struct Socket {
    pub(crate) instance: Instance,
    pub(crate) listener: UnixListener,
    /// For the metrics by TCP.
    pub(crate) metrics: Option<TcpListener>,
}

/// Everything that the loop owns.
struct Daemon<P> {
    instance: Instance,
    config: Option<PathBuf>,
    /// What the start has read.
    packet: PacketOptions,
    metrics: MetricsOptions,
    relay: Relay,
    plane: P,
    /// Why this one, when it was not named.
    why: Option<String>,
    memberships: JoinSockets,
    inspection: Inspection,
    losses: Losses,
    replies: BTreeMap<RequestId, oneshot::Sender<Result<Change, Refusal>>>,
    next_request: u64,
    events: Events,
    started: SystemTime,
    boot_id: String,
}

/// Runs the daemon until it is told to stop.
pub(crate) async fn run(
    args: &Args,
    signals: Signals,
    Socket { instance, listener, metrics }: Socket,
    (plane, why): (impl DataPlane, Option<String>),
    config: Config,
) -> anyhow::Result<()> {
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let mut sources = Sources::open(signals, receiver)?;
    let started = SystemTime::now();
    let since_epoch = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let description = plane.describe();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        instance = instance.name,
        plane = description.plane,
        attach = description.attach,
        why,
        socket = %instance.socket().display(),
        "mcrd starts"
    );
    let mut daemon = Daemon {
        relay: Relay::new(config.limits, since_epoch.as_millis() as u64, description.tap),
        boot_id: format!("{:x}-{:x}", since_epoch.as_nanos(), process::id()),
        instance,
        config: args.config.clone(),
        packet: config.packet,
        metrics: config.metrics,
        plane,
        why,
        memberships: JoinSockets::default(),
        inspection: Inspection::default(),
        losses: Losses::new(),
        replies: BTreeMap::new(),
        next_request: 0,
        events: Events::new(since_epoch.as_micros() as u64),
        started,
    };
    daemon.relay.handle_links(sources.links(&BTreeSet::new()).await?, Instant::now());
    // Refused: what a crash has left goes on forwarding, and its rules are kept.
    daemon.start(config.rules, &mut sources).await?;
    if let Some(listener) = metrics {
        tokio::spawn(control::serve_metrics(listener, commands.clone()));
    }
    tokio::spawn(control::serve(listener, commands, daemon.events.followers()));
    tracing::info!("ready");
    // Only a signal is a clean stop. After an error forwarding goes on, for the next start to take
    // over with the rules.
    daemon.serve(&mut sources).await?;
    daemon.stop().await;
    sources.resolve(&BTreeSet::new());
    Ok(())
}

impl<P: DataPlane> Daemon<P> {
    /// Until a signal; an error is the loss of something that the daemon cannot be without.
    async fn serve(&mut self, sources: &mut Sources) -> anyhow::Result<()> {
        loop {
            // The plane's own events first: workers end and answer a few times a second at most.
            let event = tokio::select! {
                biased;
                news = self.plane.next() => match news {
                    News::Applied(applied) => Event::Applied(applied),
                    News::Event(event) => Event::Tell(event),
                },
                event = sources.next() => event,
            };
            match event {
                Event::Applied(result) => self.relay.handle_applied(result),
                Event::Tell(event) => self.events.tell(&event),
                Event::Stop(signal) => {
                    tracing::info!(signal, "mcrd stops");
                    return Ok(());
                }
                Event::NetlinkEnded => bail!("the netlink connection has ended"),
                Event::Reload => match self.reload() {
                    Ok(request) => self.change(request, Guard::default(), None, sources).await,
                    Err(refusal) => tracing::error!(%refusal, "reload refused"),
                },
                Event::Links => match sources.links(&self.relay.route_queries()).await {
                    Ok(links) => {
                        self.memberships.join_again();
                        self.relay.handle_links(links, Instant::now());
                    }
                    Err(error) => tracing::error!(%error, "interfaces not read"),
                },
                Event::Command(command) => self.command(command, sources).await,
                Event::Tick => {
                    self.read_counters();
                    self.memberships.bind_again();
                    self.relay.handle_timeout(Instant::now());
                }
            }
            self.act(sources).await;
        }
    }

    async fn command(&mut self, command: Command, sources: &mut Sources) {
        match command {
            Command::Change(request, guard, reply) => {
                self.change(request, guard, Some(reply), sources).await;
            }
            Command::Reload(reply) => match self.reload() {
                Ok(request) => self.change(request, Guard::default(), Some(reply), sources).await,
                Err(refusal) => answer(reply, Err(refusal)),
            },
            Command::List(only, reply) => {
                self.read_counters();
                answer(reply, self.relay.list(only.as_ref(), now()));
            }
            Command::Stats(only, reply) => {
                self.read_counters();
                answer(reply, self.stats(only.as_ref()));
            }
            Command::Status(reply) => {
                self.read_counters();
                answer(reply, Ok(self.status()));
            }
            Command::Figures(reply) => {
                self.read_counters();
                answer(reply, self.figures());
            }
            Command::Takers(reply) => {
                self.read_counters();
                answer(reply, Ok(self.relay.takers(now())));
            }
            Command::Facts(only, reply) => {
                self.read_counters();
                answer(reply, self.facts(only.as_ref()));
            }
            Command::Capture(question, reply) => answer(reply, self.capture(&question)),
        }
    }

    fn reload(&self) -> Result<Request, Refusal> {
        let Some(path) = &self.config else {
            return Err(Refusal::new(
                Code::Invalid,
                "there is nothing to reload: mcrd runs without a configuration file",
                "start it with --config FILE, or use `mcrctl apply FILE`",
            ));
        };
        let Config { rules, limits, packet, metrics, .. } = config::load(path)?;
        if limits != self.relay.limits() {
            tracing::warn!("[limits] has changed; it takes effect at the next start");
        }
        if packet != self.packet {
            tracing::warn!(
                "[packet] or [interface] has changed; it takes effect at the next start"
            );
        }
        if metrics != self.metrics {
            tracing::warn!("[metrics] has changed; it takes effect at the next start");
        }
        Ok(Request::Reload(rules))
    }

    async fn change(
        &mut self,
        request: Request,
        guard: Guard,
        reply: Option<oneshot::Sender<Result<Change, Refusal>>>,
        sources: &mut Sources,
    ) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.replies.extend(reply.map(|reply| (id, reply)));
        let queries = request.rules().flat_map(route_queries).collect();
        let routes = sources.routes(&queries).await;
        self.relay.handle_request(id, request, (guard, routes), Instant::now());
    }

    /// Carries out everything that the relay asks for.
    async fn act(&mut self, sources: &mut Sources) {
        while let Some(action) = self.relay.poll_action() {
            match action {
                Action::Join(claims) => {
                    let results = self.memberships.join_all(claims).await;
                    self.relay.handle_joined(results);
                }
                Action::Leave(claims) => {
                    claims.into_iter().for_each(|claim| self.memberships.leave(claim));
                }
                Action::Resolve(next_hops) => sources.resolve(&next_hops),
                Action::Tell(event) => self.events.tell(&event),
                Action::Apply(change) => {
                    if let Progress::Done(result) = self.plane.apply(&change) {
                        self.relay.handle_applied(result);
                    }
                }
                Action::SaveRuntime => {
                    if let Err(error) =
                        self.instance.save_rules(self.relay.runtime_rules().collect())
                    {
                        tracing::error!(%error, "rules not kept; a crash now would lose the last change");
                    }
                }
                Action::Reply(id, result) => {
                    // What comes after the reply is inspected.
                    self.inspection.follow(&self.relay).await;
                    self.reply(id, result);
                }
            }
        }
        self.inspection.follow(&self.relay).await;
    }

    fn reply(&mut self, id: RequestId, result: Result<Change, Refusal>) {
        match &result {
            Ok(change) if change.changed => {
                for warning in &change.warnings {
                    tracing::warn!("{warning}");
                }
            }
            Ok(_) => {}
            Err(refusal) => tracing::warn!(%refusal, "change refused"),
        }
        if let Some(reply) = self.replies.remove(&id) {
            answer(reply, result);
        }
    }

    fn read_counters(&mut self) {
        match self.plane.counters(self.relay.counter_bounds()) {
            Ok(counters) => self.relay.handle_counters(counters, Instant::now()),
            Err(refusal) => tracing::error!(%refusal, "counters not read"),
        }
        self.losses.watch(self.relay.input_indexes());
    }

    async fn stop(mut self) {
        // Whoever follows sees the end, and no broken connection.
        self.events.close();
        tokio::task::yield_now().await;
        self.plane.stop().await;
        self.instance.forget_rules();
    }
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::now() }
}

/// A client that has gone away takes no answer, and that is fine.
fn answer<T>(reply: oneshot::Sender<T>, result: T) {
    let _ = reply.send(result);
}
