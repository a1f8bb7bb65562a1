//! The pages of the control API and their handlers.

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mcr_core::api::{BODY_MAX, ErrorReply, RuleSet, RuleSpec, Step};
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::{Guard, Request, RuleStep};
use mcr_core::rule::{Rule, RuleKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{BODY_TIMEOUT, discover, metrics};
use crate::doctor::{self, Listener};
use crate::eventloop::Command;

pub(super) type Commands = mpsc::Sender<Command>;

pub(super) fn router(commands: mpsc::Sender<Command>) -> Router {
    Router::new()
        .route("/v1/rules", get(list).post(add).patch(steps).put(apply))
        .route("/v1/rules/{name}", get(show).put(put).delete(remove))
        .route("/v1/rules/{name}/capture", get(super::capture::capture))
        .route("/v1/stats", get(stats))
        .route("/v1/status", get(status))
        .route("/v1/discover", get(discover::page).layer(Extension(discover::Places::default())))
        .route("/v1/doctor", get(doctor))
        .route("/v1/reload", post(reload))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/events", get(super::events::events))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(commands)
}

/// The name in a page's path.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|error| {
            Refused(Refusal::new(
                Code::Malformed,
                format!("{} names no rule: {}", parts.uri.path(), error.body_text()),
                "write the name percent-encoded as UTF-8",
            ))
        })
    }
}

/// A refusal as a reply.
pub(super) struct Refused(Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorReply::from(&self.0))).into_response()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

pub(super) type Reply = Result<Response, Refused>;

async fn list(State(commands): State<Commands>) -> Reply {
    ask(&commands, |reply| Command::List(None, reply)).await
}

async fn show(State(commands): State<Commands>, Name(name): Name) -> Reply {
    let key = RuleKey::from_user(&name);
    ask(&commands, |reply| Command::List(Some(key), reply)).await
}

async fn add(State(commands): State<Commands>, headers: HeaderMap, uri: Uri, body: Body) -> Reply {
    let guard = guard(&headers, &uri)?;
    let rule = read::<RuleSpec>(body, b'{').await?.check()?;
    let request = Request::Steps(vec![RuleStep::Add(rule)]);
    ask(&commands, |reply| Command::Change(request, guard, reply)).await
}

async fn steps(
    State(commands): State<Commands>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Reply {
    let guard = guard(&headers, &uri)?;
    let steps = read::<Vec<Step>>(body, b'[').await?;
    let step = |step| {
        Ok(match step {
            Step::Add(rule) => RuleStep::Add(rule.check()?),
            Step::Replace { name, rule } => {
                RuleStep::Replace(RuleKey::from_user(&name), rule.check()?)
            }
            Step::Remove(name) => RuleStep::Remove(RuleKey::from_user(&name)),
        })
    };
    let steps = steps.into_iter().map(step).collect::<Result<_, Refusal>>()?;
    ask(&commands, |reply| Command::Change(Request::Steps(steps), guard, reply)).await
}

async fn apply(
    State(commands): State<Commands>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Reply {
    let guard = guard(&headers, &uri)?;
    let allow_empty = flags(&uri)?.allow_empty;
    let RuleSet { rules } = read(body, b'{').await?;
    let rules = rules.iter().map(RuleSpec::check).collect::<Result<Vec<Rule>, _>>()?;
    let request = Request::Apply { rules, allow_empty };
    ask(&commands, |reply| Command::Change(request, guard, reply)).await
}

async fn put(
    State(commands): State<Commands>,
    Name(name): Name,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Reply {
    let guard = guard(&headers, &uri)?;
    let key = RuleKey::from_user(&name);
    let mut spec: RuleSpec = read(body, b'{').await?;
    // Its sources may stand beside the input.
    let by_input = spec.check().is_ok_and(|rule| rule.key() == key);
    if spec.name.is_none() && !by_input {
        spec.name = Some(name);
    }
    let rule = spec.check()?;
    if rule.key() != key {
        return Err(Refused(Refusal::new(
            Code::Invalid,
            format!("the page is of rule {key}, and the body calls it {}", rule.key()),
            "leave the name out of the body; to rename a rule, use PATCH with a replace",
        )));
    }
    ask(&commands, |reply| Command::Change(Request::Put(key, rule), guard, reply)).await
}

async fn remove(
    State(commands): State<Commands>,
    Name(name): Name,
    headers: HeaderMap,
    uri: Uri,
) -> Reply {
    let guard = guard(&headers, &uri)?;
    let request = Request::Steps(vec![RuleStep::Remove(RuleKey::from_user(&name))]);
    ask(&commands, |reply| Command::Change(request, guard, reply)).await
}

async fn reload(State(commands): State<Commands>) -> Reply {
    ask(&commands, Command::Reload).await
}

async fn stats(State(commands): State<Commands>, uri: Uri) -> Reply {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Only {
        name: Option<String>,
    }

    let Only { name } = query(&uri)?;
    let only = name.as_deref().map(RuleKey::from_user);
    ask(&commands, |reply| Command::Stats(only, reply)).await
}

async fn status(State(commands): State<Commands>) -> Reply {
    ask(&commands, Command::Status).await
}

async fn doctor(
    State(commands): State<Commands>,
    Extension(listener): Extension<Listener>,
    uri: Uri,
) -> Reply {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        name: Option<String>,
        duration: Option<String>,
    }

    let Asked { name, duration } = query(&uri)?;
    let duration = doctor::duration(duration.as_deref())?;
    let only = name.as_deref().map(RuleKey::from_user);
    let report = doctor::examine(&commands, &listener, only, duration).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], report).into_response())
}

async fn not_found(uri: Uri) -> Refused {
    Refused(Refusal::new(
        Code::NotFound,
        format!("there is no page {}", uri.path()),
        "the pages are /v1/rules, /v1/rules/NAME, /v1/rules/NAME/capture, /v1/stats, /v1/status, \
         /v1/events, /v1/discover, /v1/doctor, /v1/reload and /metrics",
    ))
}

async fn wrong_method(method: axum::http::Method, uri: Uri) -> Refused {
    Refused(Refusal::new(
        Code::Method,
        format!("{method} does not fit {}", uri.path()),
        "see docs/api.md for the methods of each page",
    ))
}

/// The event loop's answer to a command, as JSON.
async fn ask<T: Serialize>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
) -> Reply {
    Ok(Json(answer(commands, command).await?).into_response())
}

/// Hands a command to the event loop and waits for its answer.
pub(crate) async fn answer<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Command,
) -> Result<T, Refusal> {
    let stopping = || Refusal::new(Code::Internal, "mcrd is stopping", "start it again");
    let (sender, receiver) = oneshot::channel();
    commands.send(command(sender)).await.map_err(|_| stopping())?;
    receiver.await.map_err(|_| stopping())?
}

/// Reads a JSON body of at most [`BODY_MAX`] bytes within [`BODY_TIMEOUT`]. It begins with `first`:
/// serde would take a list for an object too.
async fn read<T: DeserializeOwned>(body: Body, first: u8) -> Result<T, Refusal> {
    let whole = timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX).collect()).await;
    let whole = whole.map_err(|_| {
        Refusal::new(Code::TooSlow, "the body did not arrive in 30 seconds", "send it at once")
    })?;
    let bytes = whole.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            let message = format!("the body is larger than {} MiB", BODY_MAX >> 20);
            Refusal::new(Code::TooLarge, message, "make the change in several requests")
        } else {
            Refusal::new(Code::Malformed, format!("the body broke off: {error}"), "send it whole")
        }
    })?;
    let wrong = |why: &dyn std::fmt::Display| {
        Refusal::new(
            Code::Malformed,
            format!("the body is not what this page takes: {why}"),
            "see docs/api.md for the shape of each request",
        )
    };
    let bytes = bytes.to_bytes();
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(byte) if *byte != first => {
            Err(wrong(&if first == b'{' { "it is no object" } else { "it is no list" }))
        }
        Some(_) | None => serde_json::from_slice(&bytes).map_err(|e| wrong(&e)),
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Flags {
    dry_run: bool,
    allow_empty: bool,
    wait: bool,
}

fn flags(uri: &Uri) -> Result<Flags, Refusal> {
    query(uri)
}

pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    Query::try_from_uri(uri).map(|Query(value)| value).map_err(|error| {
        Refusal::new(
            Code::Malformed,
            format!("the query of {uri} is wrong: {}", error.body_text()),
            "see docs/api.md for what each page takes",
        )
    })
}

/// `If-Match: GENERATION`, `?dry_run=true` and `?wait=true`.
fn guard(headers: &HeaderMap, uri: &Uri) -> Result<Guard, Refusal> {
    let generation = headers.get(header::IF_MATCH).map(|value| {
        let number = value.to_str().ok().and_then(|text| text.trim_matches('"').parse().ok());
        number.ok_or_else(|| {
            Refusal::new(
                Code::Malformed,
                format!("If-Match: {value:?} is no generation"),
                "use the number that a reply calls generation",
            )
        })
    });
    let Flags { dry_run, wait, allow_empty: _ } = flags(uri)?;
    Ok(Guard { generation: generation.transpose()?, dry_run, wait })
}
