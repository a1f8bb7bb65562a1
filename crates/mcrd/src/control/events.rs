//! `GET /v1/events`: events as they come, as server-sent events (the HTML standard, §9.2).

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, StreamExt, once, unfold};
use mcr_core::event::{Kind, Wanted};
use mcr_core::refusal::{Code, Refusal};
use mcr_core::rule::RuleKey;
use serde::Deserialize;

use super::routes::{Commands, Refused, answer, query};
use crate::eventloop::Command;
use crate::events::{Follower, Followers};

/// When nothing happens, a comment is sent this often: whoever has gone is noticed.
const ALIVE: Duration = Duration::from_secs(15);
/// Which event a client has got last, when its connection broke and it comes again.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    since: Option<String>,
    rule: Option<String>,
    kind: Option<String>,
}

pub(super) async fn events(
    State(commands): State<Commands>,
    Extension(followers): Extension<Followers>,
    Extension(connection): Extension<super::Stream>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Refused> {
    let asked: Asked = query(&uri)?;
    let since = since(&asked, &headers)?;
    let rule = asked.rule.as_deref().map(RuleKey::from_user);
    if let Some(rule) = rule.as_ref().filter(|rule| !followers.know(rule.as_str())) {
        answer(&commands, |reply| Command::List(Some(rule.clone()), reply)).await?;
    }
    let follower = followers.follow(since, Wanted { rule, kinds: kinds(&asked)? })?;
    connection.begin();
    // The head of the reply is sent with the first part of its body.
    let hello = once(async { Event::default().comment("events of mcrd") });
    let parts = hello.chain(parts(follower)).map(Ok::<_, Infallible>);
    Ok(Sse::new(parts).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

/// One for each event, until the daemon ends.
fn parts(follower: Follower) -> impl Stream<Item = Event> {
    unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        let part = Event::default().id(event.id.to_string()).event(&event.kind);
        // Texts and numbers can always be written.
        let part = part.json_data(&*event).unwrap_or_default();
        Some((part, follower))
    })
}

/// What the query says goes before what the connection before had.
fn since(asked: &Asked, headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let header = headers.get(LAST_EVENT_ID);
    let (name, text) = match (&asked.since, header) {
        (Some(text), _) => ("since", text.as_bytes()),
        (None, Some(value)) => ("Last-Event-ID", value.as_bytes()),
        (None, None) => return Ok(None),
    };
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    // One that is larger than any has no one after it.
    number.filter(|number| *number < u64::MAX).map(Some).ok_or_else(|| {
        Refusal::new(
            Code::Malformed,
            format!("{name} {:?} is no id of an event", String::from_utf8_lossy(text)),
            "use the id of the last event that you have, or 0 for all that are kept",
        )
    })
}

fn kinds(asked: &Asked) -> Result<Vec<Kind>, Refusal> {
    asked.kind.iter().flat_map(|kinds| kinds.split(',')).map(str::parse).collect()
}
