//! Commands that show, and change nothing.

use std::time::{Duration, Instant};

use mcr_core::api::{RuleList, Stats, Status};
use serde::de::DeserializeOwned;

use crate::client::{Question, Reply, encoded, rule_page};
use crate::failure::Failure;
use crate::{Session, show, terminal};

pub(crate) fn list(session: &Session, name: Option<&str>) -> Result<(), Failure> {
    let page = name.map_or_else(|| "/v1/rules".to_owned(), rule_page);
    present(session, &session.client.ask(&Question::get(page))?, show::list)
}

pub(crate) fn show(session: &Session, name: &str) -> Result<(), Failure> {
    present(session, &session.client.ask(&Question::get(rule_page(name)))?, show::rules)
}

pub(crate) fn status(session: &Session, workers: bool) -> Result<(), Failure> {
    let reply = session.client.ask(&Question::get("/v1/status"))?;
    present(session, &reply, |status: &Status| {
        let text = show::status(status);
        if workers { format!("{text}\n{}", show::workers(&status.workers)) } else { text }
    })
}

/// Once, or every `interval` until interrupted.
pub(crate) fn stats(
    session: &Session,
    name: Option<&str>,
    interval: Option<Duration>,
) -> Result<(), Failure> {
    let query = name.map(|name| format!("?name={}", encoded(name))).unwrap_or_default();
    let question = Question::get(format!("/v1/stats{query}"));
    let Some(interval) = interval else {
        return present(session, &session.client.ask(&question)?, show::stats);
    };
    let clear = if terminal::is_drawable() { terminal::CLEAR } else { "" };
    loop {
        let reply = session.client.ask(&question)?;
        present(session, &reply, |stats: &Stats| {
            format!("{clear}{}\n{}\n", stats.time, show::stats(stats))
        })?;
        session.client.sleep(interval);
    }
}

/// Asks again and again until the rule is in that state.
pub(crate) fn wait(
    session: &Session,
    name: &str,
    state: &str,
    limit: Duration,
) -> Result<(), Failure> {
    let question = Question::get(rule_page(name));
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let reply = session.client.ask_within(left.max(ASK_AGAIN), &question)?;
        let list: RuleList = reply.read()?;
        if list.rules.iter().any(|rule| rule.state == state) {
            return present(session, &reply, |_: &RuleList| format!("{name} is {state}\n"));
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(not_reached(&list, name, state, limit));
        }
        session.client.sleep(left.min(ASK_AGAIN));
    }
}

fn not_reached(list: &RuleList, name: &str, state: &str, limit: Duration) -> Failure {
    let limit = humantime::format_duration(limit);
    let (is, reason) = match list.rules.first() {
        Some(rule) => (rule.state.as_str(), rule.reason.as_deref()),
        None => ("not there", None),
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Failure::timed_out(
        format!("after {limit}, {name} is {is}, not {state}{reason}"),
        format!("`mcrctl stats {name}` shows what has arrived"),
    )
}

pub(crate) fn present<T: DeserializeOwned>(
    session: &Session,
    reply: &Reply,
    plain: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    if session.json {
        return terminal::print(&format!("{}\n", reply.text));
    }
    terminal::print(&plain(&reply.read()?))
}

const ASK_AGAIN: Duration = Duration::from_millis(100);
