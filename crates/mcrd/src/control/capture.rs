//! `GET /v1/rules/NAME/capture`: a reply that lasts until the client has seen enough.
//!
//! A client that hangs up ends it. One that wants to hear what was missed sends a body, without end,
//! and ends that instead: then the rest comes, and the trailers.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use mcr_core::capture::pcap::SNAP_MAX;
use mcr_core::capture::{Plan, Question, Side};
use mcr_core::refusal::{Code, Refusal};
use mcr_core::rule::RuleKey;
use tokio::sync::{Semaphore, mpsc};

use super::Stream;
use super::routes::{Commands, Name, Refused, answer, query};
use crate::capture::{self, Capture, ENDED, MISSED, Order};
use crate::eventloop::Command;

/// At a time; each has a thread and its rings.
const CAPTURES: usize = 16;
static PLACES: Semaphore = Semaphore::const_new(CAPTURES);
/// How often it is asked whether the rule is still the same.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The least that may be kept of a frame.
const SNAP_MIN: u32 = 64;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    side: Option<String>,
    output: Option<String>,
    snap: Option<u32>,
}

pub(super) async fn capture(
    State(commands): State<Commands>,
    Extension(stream): Extension<Stream>,
    Name(name): Name,
    uri: Uri,
    body: Body,
) -> Result<Response, Refused> {
    let asked: Asked = query(&uri)?;
    let snap = asked.snap.unwrap_or(SNAP_MAX);
    if !(SNAP_MIN..=SNAP_MAX).contains(&snap) {
        let hint = format!("use {SNAP_MIN} to {SNAP_MAX} bytes");
        return Err(
            Refusal::new(Code::Invalid, format!("snap {snap} is out of range"), hint).into()
        );
    }
    let question = question(&name, &asked)?;
    let place = PLACES.try_acquire().map_err(|_| {
        let message = format!("{CAPTURES} captures run already, and each costs the relay time");
        Refusal::new(Code::Capacity, message, "end one of them")
    })?;
    let ask = |question| move |reply| Command::Capture(question, reply);
    let plan = answer(&commands, ask(question.clone())).await?;
    let Capture { frames, orders, ended } = capture::begin(plan.clone(), snap, place).await?;
    tracing::debug!(rule = %question.rule, side = question.side.name(), "capture begins");
    stream.begin();
    let watch = async move {
        let order = tokio::select! {
            () = finished(body) => Order::End(None),
            order = changed(&commands, question, plan, &orders) => order,
        };
        // It may have ended already.
        let _ = orders.send(order);
    };
    tokio::spawn(async move {
        tokio::select! {
            () = watch => {}
            _ = ended => {}
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.tcpdump.pcap".to_owned()),
        (header::TRAILER, format!("{MISSED}, {ENDED}")),
    ];
    Ok((headers, Body::new(frames)).into_response())
}

fn question(name: &str, asked: &Asked) -> Result<Question, Refusal> {
    let named = asked.side.as_deref();
    let side = Side::ALL.into_iter().find(|side| named == Some(side.name())).ok_or_else(|| {
        let message = match named {
            Some(side) => format!("a capture has no side {side:?}"),
            None => "a capture needs a side".to_owned(),
        };
        Refusal::new(Code::Invalid, message, "say side=in or side=out")
    })?;
    let output = asked.output.as_deref().map(str::parse).transpose()?;
    if side == Side::In && output.is_some() {
        let message = "a capture of what comes in has no output";
        return Err(Refusal::new(Code::Invalid, message, "say side=out, or leave the output out"));
    }
    Ok(Question { rule: RuleKey::from_user(name), side, output })
}

/// Waits until the client has ended its request, or for ever when it was whole with its header. One
/// that breaks off is noticed by the connection.
async fn finished(mut body: Body) {
    if body.is_end_stream() {
        return std::future::pending().await;
    }
    while let Some(Ok(_)) = body.frame().await {}
}

/// Waits until the rule is not what is captured any more. As long as it waits for something, so does
/// the capture.
async fn changed(
    commands: &mpsc::Sender<Command>,
    question: Question,
    mut plan: Plan,
    orders: &std::sync::mpsc::Sender<Order>,
) -> Order {
    let rule = question.rule.clone();
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        let asked = question.clone();
        match answer(commands, |reply| Command::Capture(asked, reply)).await {
            Ok(now) if now == plan => {}
            Ok(now) if now.points == plan.points && now.link == plan.link => {
                plan = now.clone();
                // It may have ended already.
                let _ = orders.send(Order::Follow(now));
            }
            Ok(_) => return Order::End(Some(format!("rule {rule} was changed"))),
            Err(Refusal { code: Code::NotFound, message, .. }) => {
                return Order::End(Some(message));
            }
            Err(_) => {}
        }
    }
}
