//! The event loop: the only place that waits, and the only owner of the relay, the data plane and
//! the memberships.
//!
//! ```text
//! signals ──┐
//! netlink ──┤ Event        ┌─ poll_action ─▶ Join, Leave ─▶ memberships
//! control ──┼──────▶ Relay ┤                 Apply ───────▶ data plane
//! timer  ───┤   handle_*   └───────────────▶ Reply ───────▶ control
//! plane  ───┘
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
use mcr_core::action::{Action, RequestId, SecondSender};
use mcr_core::api::{Change, RuleList, Stats, Status};
use mcr_core::packet::PacketOptions;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::{Guard, Now, Relay, Request};
use mcr_core::resolve::route_queries;
use mcr_core::rule::RuleKey;
use mcr_dataplane::membership::JoinSockets;
use mcr_dataplane::{DataPlane, Progress};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::args::Args;
use crate::config::{self, Config};
use crate::control;
use crate::instance::Instance;
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
}

/// An instance that listens.
pub(crate) struct Socket {
    pub(crate) instance: Instance,
    pub(crate) listener: UnixListener,
}

/// A rule, and why it does not run.
type Problem = (RuleKey, String);

/// Everything that the loop owns.
struct Daemon<P> {
    instance: Instance,
    config: Option<PathBuf>,
    /// What the start has read.
    packet: PacketOptions,
    relay: Relay,
    plane: P,
    /// Why this one, when it was not named.
    why: Option<String>,
    memberships: JoinSockets,
    losses: Losses,
    replies: BTreeMap<RequestId, oneshot::Sender<Result<Change, Refusal>>>,
    next_request: u64,
    problems: BTreeSet<Problem>,
    /// Those at the last tick that could have passed since.
    passing: BTreeSet<Problem>,
    started: SystemTime,
    boot_id: String,
}

/// Runs the daemon until it is told to stop.
pub(crate) async fn run(
    args: &Args,
    signals: Signals,
    Socket { instance, listener }: Socket,
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
        plane,
        why,
        memberships: JoinSockets::default(),
        losses: Losses::new(),
        replies: BTreeMap::new(),
        next_request: 0,
        problems: BTreeSet::new(),
        passing: BTreeSet::new(),
        started,
    };
    daemon.relay.handle_links(sources.links(&BTreeSet::new()).await?, Instant::now());
    // Refused: what a crash has left goes on forwarding, and its rules are kept.
    daemon.start(config.rules, &mut sources).await?;
    tokio::spawn(control::serve(listener, commands));
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
                applied = self.plane.next() => Event::Applied(applied),
                event = sources.next() => event,
            };
            match event {
                Event::Applied(result) => self.relay.handle_applied(result),
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
                    self.log_problems();
                    self.passing = self.relay.problems().into_keys().collect();
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
        let Config { rules, limits, packet, .. } = config::load(path)?;
        if limits != self.relay.limits() {
            tracing::warn!("[limits] has changed; it takes effect at the next start");
        }
        if packet != self.packet {
            tracing::warn!(
                "[packet] or [interface] has changed; it takes effect at the next start"
            );
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
                Action::Note(text) => tracing::info!("{text}"),
                Action::SecondSender(SecondSender { rule, text, .. }) => {
                    tracing::warn!(%rule, "{text}");
                }
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
                Action::Reply(id, result) => self.reply(id, result),
            }
        }
        self.log_problems();
    }

    fn reply(&mut self, id: RequestId, result: Result<Change, Refusal>) {
        match &result {
            Ok(change) if change.changed => {
                let Change { generation, added, replaced, removed, .. } = change;
                let counts = [added, replaced, removed].map(Vec::len);
                tracing::info!(
                    generation,
                    added = counts[0],
                    replaced = counts[1],
                    removed = counts[2],
                    "rules changed"
                );
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

    /// What may pass in a moment is told when it is still so at the next look.
    fn log_problems(&mut self) {
        let all = self.relay.problems();
        let lasts =
            |problem: &Problem| self.passing.contains(problem) || self.problems.contains(problem);
        let told = |(problem, passing): (&Problem, &bool)| !passing || lasts(problem);
        let problems: BTreeSet<Problem> =
            all.iter().filter(|pair| told(*pair)).map(|(problem, _)| problem.clone()).collect();
        for (rule, problem) in problems.difference(&self.problems) {
            tracing::warn!(%rule, "{problem}");
        }
        let still: BTreeSet<&RuleKey> = all.keys().map(|(rule, _)| rule).collect();
        for (rule, _) in self.problems.iter().filter(|(rule, _)| !still.contains(rule)) {
            tracing::info!(%rule, "runs, or is gone");
        }
        self.problems = problems;
    }

    fn read_counters(&mut self) {
        match self.plane.counters(self.relay.counter_bounds()) {
            Ok(counters) => self.relay.handle_counters(counters, Instant::now()),
            Err(refusal) => tracing::error!(%refusal, "counters not read"),
        }
        self.losses.watch(self.relay.input_indexes());
    }

    async fn stop(mut self) {
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
