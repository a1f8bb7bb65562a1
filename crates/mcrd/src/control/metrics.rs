//! The page of the metrics, on the control socket and, when asked for, by TCP: there it is all that
//! there is, since nobody is asked who he is.

use std::net::{SocketAddr, TcpListener as StdListener};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use mcr_core::refusal::{Code, Refusal};
use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::routes::{Commands, Reply, answer};
use crate::eventloop::Command;
use crate::metrics::{Format, Process, render};

/// Listens for Prometheus, within a tokio runtime.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, Refusal> {
    let bound = StdListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .and_then(TcpListener::from_std);
    let listener = bound.map_err(|error| {
        let hint = match Errno::from_io_error(&error) {
            Some(Errno::ADDRINUSE) => {
                "another program has the port (`ss -ltnp` shows which): end it, or choose another port"
            }
            Some(Errno::ADDRNOTAVAIL) => {
                "this host does not have the address (`ip address`): choose one that it has, or \
                 0.0.0.0 or [::] for all"
            }
            Some(Errno::ACCESS) => {
                "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one"
            }
            Some(_) | None => "choose another address or port",
        };
        let message = format!("cannot listen on {address} for the metrics: {error}");
        let hint = format!("{hint} ([metrics] listen in the configuration)");
        Refusal::new(Code::Conflict, message, hint)
    })?;
    if address.ip().is_loopback() {
        tracing::info!(%address, "metrics can be had by TCP");
    } else {
        tracing::warn!(
            %address,
            "metrics can be had by TCP from other hosts, by whoever can reach the address: let a \
             firewall admit Prometheus alone, or listen on 127.0.0.1 behind a proxy that asks for a \
             password"
        );
    }
    Ok(listener)
}

/// What there is by TCP.
pub(super) fn router(commands: mpsc::Sender<Command>) -> Router {
    let missing = || async { (StatusCode::NOT_FOUND, "not found: the page is /metrics\n") };
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(metrics))
        .fallback(missing)
        .with_state(commands)
}

const INDEX: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><title>MCR</title></head>\n<body>\
                     <p>MCR, a multicast relay: <a href=\"/metrics\">metrics</a> for Prometheus.\
                     </p></body></html>\n";

pub(super) async fn metrics(State(commands): State<Commands>, headers: HeaderMap) -> Reply {
    let figures = answer(&commands, Command::Figures).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    // Not on the thread of the event loop: with many rules it takes a while.
    let text = spawn_blocking(move || render(&figures, Process::read(), format)).await;
    let text = text.map_err(|error| {
        Refusal::new(Code::Internal, format!("the metrics were not written: {error}"), "")
    })?;
    let headers = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    Ok::<Response, _>((headers, text).into_response())
}
