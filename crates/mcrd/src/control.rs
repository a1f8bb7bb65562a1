//! The control API: HTTP/1.1 with JSON on the Unix socket. Turns requests into commands for the
//! event loop, and its answers into replies; decides nothing.
//!
//! The page of the metrics is to be had by TCP as well, when asked for.
//!
//! One task serves one connection. A connection that does not send a request within
//! [`HEADER_TIMEOUT`], or its body within [`BODY_TIMEOUT`], is closed, and any after
//! [`CONNECTION_TIME`] unless it is a [`Stream`]; one whose client takes nothing of what is sent for
//! [`WRITE_TIMEOUT`] is closed too. [`CONNECTIONS`] are served at a time, by TCP [`SCRAPES`], and
//! further ones wait to be accepted.

mod capture;
mod discover;
mod events;
mod metrics;
mod routes;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;

use crate::doctor::Listener;
use crate::eventloop::Command;
use crate::events::Followers;

pub(crate) use metrics::listen as listen_for_metrics;
pub(crate) use routes::answer;

const CONNECTIONS: usize = 512;
const SCRAPES: usize = 8;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// For a client to take some of what is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Of each request, as an extension: whether its connection is used for a reply without end.
#[derive(Debug, Clone, Default)]
struct Stream(Arc<AtomicBool>);

impl Stream {
    /// The reply has no end: the connection may last.
    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves clients of the control socket for as long as the daemon runs.
pub(crate) async fn serve(
    listener: UnixListener,
    commands: mpsc::Sender<Command>,
    followers: Followers,
) {
    let http = http1::Builder::new();
    let router =
        routes::router(commands).layer(Extension(followers)).layer(Extension(Listener::begin()));
    serve_all(listener, router, (http, CONNECTIONS)).await;
}

/// Serves the metrics by TCP for as long as the daemon runs.
pub(crate) async fn serve_metrics(listener: TcpListener, commands: mpsc::Sender<Command>) {
    let mut http = http1::Builder::new();
    // A connection for each scrape: one that is kept would be closed in the middle of some.
    http.keep_alive(false);
    serve_all(listener, metrics::router(commands), (http, SCRAPES)).await;
}

/// What clients connect to.
trait Accept {
    type Client: AsyncRead + AsyncWrite + Send + 'static;

    fn next_client(&self) -> impl Future<Output = io::Result<Self::Client>> + Send;
}

impl Accept for UnixListener {
    type Client = UnixStream;

    async fn next_client(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Client = TcpStream;

    async fn next_client(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

async fn serve_all(
    listener: impl Accept,
    router: Router,
    (mut http, places): (http1::Builder, usize),
) {
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let places = Arc::new(Semaphore::new(places));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.next_client().await {
            Ok(stream) => {
                tokio::spawn(converse(stream, router.clone(), (http.clone(), place)));
            }
            Err(error) => {
                // Out of descriptors, mostly: others must close theirs first.
                tracing::error!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one client until it has gone, or its time is over, and gives its place back.
async fn converse(
    stream: impl AsyncRead + AsyncWrite,
    router: Router,
    (http, _place): (http1::Builder, OwnedSemaphorePermit),
) {
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(WRITE_TIMEOUT));
    let lasts = Stream::default();
    let service = TowerToHyperService::new(router.layer(Extension(lasts.clone())));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // A client that hangs up half way, or never reads, is no event for an operator.
    loop {
        match timeout(CONNECTION_TIME, connection.as_mut()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "connection ended"),
            Err(_) if lasts.has_begun() => continue,
            Err(_) => tracing::debug!("connection closed after its time"),
        }
        break;
    }
}
