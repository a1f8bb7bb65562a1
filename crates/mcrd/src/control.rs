//! The control API: HTTP/1.1 with JSON on the Unix socket. Turns requests into commands for the
//! event loop, and its answers into replies; decides nothing.
//!
//! One task serves one connection. A connection that does not send a request within
//! [`HEADER_TIMEOUT`], or its body within [`BODY_TIMEOUT`], is closed, and any after
//! [`CONNECTION_TIME`] unless it is a [`Stream`]; [`CONNECTIONS`] are served at a time and further
//! ones wait to be accepted.

mod capture;
mod routes;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::eventloop::Command;

const CONNECTIONS: usize = 512;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
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

/// Serves clients for as long as the daemon runs.
pub(crate) async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) {
    let router = routes::router(commands);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: others must close theirs first.
                tracing::error!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let lasts = Stream::default();
        let service = TowerToHyperService::new(router.clone().layer(Extension(lasts.clone())));
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
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
            drop(place);
        });
    }
}
