//! Gathers the evidence of an examination: from the relay, from files and netlink, and from the wire.
//! Everything that may take a moment runs in a thread of its own or in the client's task; the event
//! loop only hands over what it knows. `mcr_core::doctor` judges.

mod listen;
mod machine;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use mcr_core::action::{OutputCounters, RuleCounters};
use mcr_core::api::{CheckReport, DoctorReport};
use mcr_core::doctor::heard::{Hearing, Protocol};
use mcr_core::doctor::seen::Seen;
use mcr_core::doctor::{Evidence, Known, PlaneFacts, RuleEvidence, judge};
use mcr_core::link::{Links, Route, RouteQuery};
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::{RuleFacts, State, time};
use mcr_core::rule::{Local, RuleKey};
use mcr_dataplane::netlink::Netlink;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::control::answer;
use crate::eventloop::Command;
pub(crate) use listen::Listener;

/// Each thing that may be waited for beside the watching takes this long at most.
const REST: Duration = Duration::from_millis(500);
const DURATION: Duration = Duration::from_secs(3);
/// A connection lasts for 60 seconds.
const DURATION_MAX: Duration = Duration::from_secs(20);
/// The most senders whose routes are asked for.
const SOURCES_MAX: usize = 64;
/// So many may watch the wire at a time.
const PLACES_MAX: usize = 4;

static PLACES: Semaphore = Semaphore::const_new(PLACES_MAX);

/// What the event loop knows.
pub(crate) struct Facts {
    pub(crate) rules: Vec<RuleFacts>,
    pub(crate) links: Links,
    pub(crate) plane: PlaneFacts,
    pub(crate) membership_sockets: usize,
}

/// How long the wire is to be watched.
pub(crate) fn duration(text: Option<&str>) -> Result<Duration, Refusal> {
    let Some(text) = text else { return Ok(DURATION) };
    let refuse = |why: &str| {
        Refusal::new(
            Code::Invalid,
            format!("duration={text}: {why}"),
            "give a time from 0s to 20s, as in duration=3s",
        )
    };
    let duration = humantime::parse_duration(text).map_err(|error| refuse(&error.to_string()))?;
    if duration > DURATION_MAX {
        return Err(refuse("more than 20s"));
    }
    Ok(duration)
}

/// Examines all rules, or one: the JSON of a [`DoctorReport`].
pub(crate) async fn examine(
    commands: &mpsc::Sender<Command>,
    listener: &Listener,
    only: Option<RuleKey>,
    duration: Duration,
) -> Result<String, Refusal> {
    let facts = async || {
        let only = only.clone();
        answer(commands, |reply| Command::Facts(only, reply)).await
    };
    let place = PLACES.try_acquire().map_err(|_| {
        let message = format!("{PLACES_MAX} doctors are watching already");
        Refusal::new(
            Code::Capacity,
            message,
            "try again when one of them has ended, after 20s at most",
        )
    })?;
    let begin = facts().await?;
    let drops = machine::backlog_drops();
    let seen = watch(&begin.rules, duration, place).await;
    let end = facts().await?;
    let mut rules = paired(begin.rules, end.rules);
    if only.is_none() {
        rules.retain(|rule| rule.facts.rule.enabled);
    }
    let heard = listener.hearing();
    let names = machine::names(&rules, &end.links);
    let (links, sockets) = (end.links.clone(), end.membership_sockets);
    let (host, interfaces) =
        thread(move || machine::read(&links, &names, (sockets, drops))).await.map_err(failed)?;
    let sources = sources(&rules, &seen, heard.as_ref());
    let evidence = Evidence {
        duration,
        routes_back: routes_back(sources).await,
        rules,
        links: end.links,
        host,
        plane: end.plane,
        interfaces,
        seen,
        heard,
    };
    thread(move || reply(&evidence)).await.and_then(|reply| reply).map_err(failed)
}

/// Of many rules it is long.
fn reply(evidence: &Evidence) -> Known<String> {
    let report = DoctorReport {
        time: time(SystemTime::now()),
        duration: humantime::format_duration(evidence.duration).to_string(),
        rules: evidence.rules.len(),
        checks: judge(evidence).into_iter().map(CheckReport::from).collect(),
    };
    serde_json::to_string(&report).map_err(|error| format!("the report cannot be written: {error}"))
}

fn failed(why: String) -> Refusal {
    Refusal::new(Code::Internal, why, "ask again; if it stays so, see the log of mcrd")
}

/// The wire, for that long. The place is taken until the thread ends, also when the client has gone.
async fn watch(
    rules: &[RuleFacts],
    duration: Duration,
    place: SemaphorePermit<'static>,
) -> Known<Seen> {
    let plan = wire::Plan::make(rules);
    let watched = thread(move || {
        let _place = place;
        wire::watch(&plan, duration)
    });
    match timeout(duration + REST, watched).await {
        Ok(seen) => seen.and_then(|seen| seen),
        Err(_) => Err("the wire could not be watched: the host is too busy".into()),
    }
}

/// Work that may wait.
async fn thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Known<T> {
    spawn_blocking(work).await.map_err(|error| format!("a thread of mcrd has ended early: {error}"))
}

/// The rules that are there at the end, with what they had counted at the begin.
fn paired(begin: Vec<RuleFacts>, end: Vec<RuleFacts>) -> Vec<RuleEvidence> {
    let mut before: BTreeMap<RuleKey, (RuleCounters, Vec<OutputCounters>)> =
        begin.into_iter().map(|facts| (facts.key, (facts.counters, facts.outputs))).collect();
    let pair = |facts: RuleFacts| RuleEvidence { before: before.remove(&facts.key), facts };
    end.into_iter().map(pair).collect()
}

/// Of whom the kernel may not take packets: senders to local programs, and queriers.
fn sources(
    rules: &[RuleEvidence],
    seen: &Known<Seen>,
    heard: Result<&Hearing, &String>,
) -> BTreeSet<IpAddr> {
    let wanted = rules
        .iter()
        .map(|rule| &rule.facts)
        .filter(|facts| facts.rule.local != Local::No && facts.state != State::Disabled);
    let inputs = wanted.map(|facts| &facts.rule.input);
    let senders = inputs
        .flat_map(|input| seen.iter().flat_map(|seen| seen.to(input.addresses, Some(input.ports))));
    let senders = senders.filter(|(flow, _)| !flow.outgoing).map(|(flow, _)| flow.source);
    let queriers = heard.into_iter().flat_map(|heard| heard.queriers(Protocol::Igmp));
    queriers.chain(senders).filter(IpAddr::is_ipv4).take(SOURCES_MAX).collect()
}

/// The routes to them; none where they cannot be asked for in time.
async fn routes_back(sources: BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Route> {
    let usable = |source: &IpAddr| !source.is_unspecified() && !source.is_multicast();
    let query = |destination| RouteQuery { destination, interface: None };
    let queries: BTreeSet<RouteQuery> = sources.into_iter().filter(usable).map(query).collect();
    let Ok(mut netlink) = Netlink::open() else { return BTreeMap::new() };
    let routes = timeout(REST, netlink.routes(&queries)).await.unwrap_or_default();
    routes.into_iter().map(|(query, route)| (query.destination, route)).collect()
}
