//! The transport: one HTTP/1.1 request over the Unix socket of `mcrd`, on a connection of its own,
//! with a limit on the time until the whole reply is there. Decides nothing about rules.

mod follow;
mod stream;

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use mcr_core::api::ErrorReply;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::failure::Failure;
pub(crate) use stream::{Flow, Trailers};

/// Asks one `mcrd`.
pub(crate) struct Client {
    socket: PathBuf,
    answer_timeout: Duration,
    runtime: Runtime,
}

impl Client {
    /// Connects to nobody yet.
    pub(crate) fn new(socket: PathBuf, answer_timeout: Duration) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::refused("internal", format!("cannot wait for events: {error}"), "")
        })?;
        Ok(Self { socket, answer_timeout, runtime })
    }

    /// The reply of `mcrd`, or what it refuses.
    pub(crate) fn ask(&self, question: &Question) -> Result<Reply, Failure> {
        self.ask_within(self.answer_timeout, question)
    }

    /// As [`Self::ask`], waiting for at most `limit` if that is less than usual.
    pub(crate) fn ask_within(
        &self,
        limit: Duration,
        question: &Question,
    ) -> Result<Reply, Failure> {
        self.wait_for(limit.min(self.answer_timeout), question)
    }

    fn wait_for(&self, limit: Duration, question: &Question) -> Result<Reply, Failure> {
        self.runtime.block_on(self.answer_in(limit, question))
    }

    /// As [`Self::ask_within`], for what does something else at the same time.
    pub(crate) async fn answer(
        &self,
        limit: Duration,
        question: &Question,
    ) -> Result<Reply, Failure> {
        self.answer_in(limit.min(self.answer_timeout), question).await
    }

    async fn answer_in(&self, limit: Duration, question: &Question) -> Result<Reply, Failure> {
        let answered = timeout(limit, self.talk(question)).await;
        answered.unwrap_or_else(|_| Err(self.late(limit)))
    }

    fn late(&self, limit: Duration) -> Failure {
        let limit = humantime::format_duration(limit);
        Failure::timed_out(
            format!("mcrd did not answer on {} within {limit}", self.socket.display()),
            "see its log; a change that was asked for may still be made",
        )
    }

    /// As [`Self::ask`], of what takes `time` by itself.
    pub(crate) fn ask_slow(&self, time: Duration, question: &Question) -> Result<Reply, Failure> {
        self.wait_for(self.answer_timeout + time, question)
    }

    /// Does what asks and waits for other things too.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn sleep(&self, time: Duration) {
        self.runtime.block_on(async { sleep(time).await });
    }

    async fn talk(&self, question: &Question) -> Result<Reply, Failure> {
        let stream = self.connect().await?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Ends when `sender` is dropped; what breaks it breaks the request too.
            tokio::spawn(connection);
            let response = sender.send_request(question.request()).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        let (status, body) = exchange.await.map_err(|error: hyper::Error| self.broken(&error))?;
        self.reply(status, &body)
    }

    /// A socket whose queue of clients is full says "would block", and never when it is not full
    /// any more.
    async fn connect(&self) -> Result<UnixStream, Failure> {
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(CONNECT_AGAIN).await,
                result => return result.map_err(|error| self.unreachable(&error)),
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of std, with dozens of kinds")]
    fn unreachable(&self, error: &io::Error) -> Failure {
        let socket = self.socket.display();
        let (message, hint) = match error.kind() {
            ErrorKind::NotFound => (format!("no daemon: there is no socket {socket}"), NOT_RUNNING),
            ErrorKind::ConnectionRefused => {
                (format!("no daemon: nobody listens on {socket}"), NOT_RUNNING)
            }
            ErrorKind::PermissionDenied => (
                format!("no permission to use {socket}"),
                "run mcrctl as root, or as a member of the group that the socket belongs to",
            ),
            _ => (format!("cannot connect to {socket}: {error}"), NOT_RUNNING),
        };
        Failure::no_daemon(message, hint)
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        let socket = self.socket.display();
        if error.is_parse() {
            let message = format!("what listens on {socket} does not speak HTTP: {error}");
            return Failure::refused("malformed", message, NOT_MCRD);
        }
        Failure::refused(
            "broken-off",
            format!("mcrd broke the connection on {socket} off before it answered: {error}"),
            "see its log; after a change look with `mcrctl list`: it may have been made",
        )
    }

    fn reply(&self, status: StatusCode, body: &Bytes) -> Result<Reply, Failure> {
        let text = String::from_utf8_lossy(body).trim_end().to_owned();
        if !status.is_success() {
            if let Ok(ErrorReply { error }) = serde_json::from_str(&text) {
                return Err(Failure::Refused(error));
            }
        } else if serde_json::from_str::<IgnoredAny>(&text).is_ok() {
            return Ok(Reply { text });
        }
        let start: String = text.chars().take(80).collect();
        let socket = self.socket.display();
        let message = format!("{socket} answered {status} with what no mcrd says: {start:?}");
        Err(Failure::refused("malformed", message, NOT_MCRD))
    }
}

/// What to ask: a page of the control API, and what to send there.
pub(crate) struct Question {
    method: Method,
    page: String,
    body: Option<String>,
    generation: Option<u64>,
}

impl Question {
    pub(crate) fn get(page: impl Into<String>) -> Self {
        Self { method: Method::GET, page: page.into(), body: None, generation: None }
    }

    pub(crate) fn post(page: impl Into<String>) -> Self {
        Self { method: Method::POST, ..Self::get(page) }
    }

    pub(crate) fn put(page: impl Into<String>) -> Self {
        Self { method: Method::PUT, ..Self::get(page) }
    }

    pub(crate) fn patch(page: impl Into<String>) -> Self {
        Self { method: Method::PATCH, ..Self::get(page) }
    }

    pub(crate) fn with<T: Serialize>(mut self, body: &T) -> Self {
        let text = serde_json::to_string(body);
        self.body = Some(text.expect("rules are strings, numbers and lists, which JSON can write"));
        self
    }

    /// Refuse the change when the rules are of another generation.
    pub(crate) fn if_generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    fn request(&self) -> hyper::Request<Full<Bytes>> {
        let mut request =
            hyper::Request::builder().method(&self.method).uri(&self.page).header(HOST, "mcrd");
        if let Some(generation) = self.generation {
            request = request.header(IF_MATCH, generation);
        }
        if self.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = self.body.clone().unwrap_or_default();
        request.body(Full::from(body)).expect("pages are paths of percent-encoded parts")
    }
}

/// A reply that is JSON.
#[derive(Debug)]
pub(crate) struct Reply {
    /// As it came, on one line.
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text).map_err(|error| {
            Failure::refused(
                "malformed",
                format!("the reply of mcrd is not what this mcrctl knows: {error}"),
                "use the mcrctl that came with that mcrd; --json shows the reply",
            )
        })
    }
}

/// The page of one rule.
pub(crate) fn rule_page(name: &str) -> String {
    format!("/v1/rules/{}", encoded(name))
}

/// A name as a part of a path or the value of a query.
pub(crate) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, PART).to_string()
}

/// Unreserved characters (RFC 3986 §2.3) stay as they are.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const CONNECT_AGAIN: Duration = Duration::from_millis(20);
const NOT_RUNNING: &str =
    "is mcrd running? If it has another name, say --instance NAME; another socket, --socket PATH";
const NOT_MCRD: &str = "is that the control socket of an mcrd?";
