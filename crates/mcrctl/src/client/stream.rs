//! A reply that lasts until its reader has seen enough. The request stays open meanwhile, and its end
//! asks for the end of the reply.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http1;
use hyper::header::{HOST, TE, TRANSFER_ENCODING};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Client;
use crate::failure::Failure;

/// For the rest of the reply, once its end was asked for.
const LAST: Duration = Duration::from_secs(5);

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    More,
    /// Of what still comes, nothing is wanted.
    Enough,
}

/// What the end of the reply says: nothing when `mcrd` broke it off.
pub(crate) type Trailers = Option<HeaderMap>;

/// A body without content, which ends when the sender is dropped.
struct Open(mpsc::Receiver<Infallible>);

impl Body for Open {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|never| never.map(|never| match never {}))
    }
}

impl Client {
    /// Hands each piece of a reply to `each`, until that has enough or `until` is over; what has come
    /// up to then is still handed over.
    pub(crate) fn stream(
        &self,
        page: &str,
        until: impl Future<Output = ()>,
        each: impl FnMut(&[u8]) -> Result<Flow, Failure>,
    ) -> Result<Trailers, Failure> {
        self.runtime.block_on(self.stream_until(page, until, each))
    }

    async fn stream_until(
        &self,
        page: &str,
        until: impl Future<Output = ()>,
        mut each: impl FnMut(&[u8]) -> Result<Flow, Failure>,
    ) -> Result<Trailers, Failure> {
        let (open, body) = mpsc::channel(1);
        let begin = async {
            let stream = self.connect().await?;
            let exchange = async {
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                let request = Request::get(page)
                    .header(HOST, "mcrd")
                    .header(TE, "trailers")
                    .header(TRANSFER_ENCODING, "chunked")
                    .body(Open(body))
                    .expect("pages are paths of percent-encoded parts");
                let response = sender.send_request(request).await?;
                Ok((sender, response))
            };
            exchange.await.map_err(|error: hyper::Error| self.broken(&error))
        };
        let begun = timeout(self.answer_timeout, begin).await.unwrap_or_else(|_| {
            let message = format!("mcrd did not answer on {}", self.socket.display());
            Err(Failure::timed_out(message, "see its log"))
        });
        let (_sender, response) = begun?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            drop(open);
            let body = body.collect().await.map_err(|error| self.broken(&error))?.to_bytes();
            return self.reply(status, &body).map(|_| None);
        }
        let mut open = Some(open);
        let (mut flow, mut until, mut last) = (Flow::More, std::pin::pin!(until), None);
        loop {
            let late = async {
                match last {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let frame = tokio::select! {
                biased;
                () = &mut until, if open.is_some() => None,
                () = late => return Ok(None),
                frame = body.frame() => Some(frame),
            };
            match frame {
                None => open = None,
                Some(None | Some(Err(_))) => return Ok(None),
                Some(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) if flow == Flow::More => flow = each(&piece)?,
                    Ok(_) => {}
                    Err(frame) => return Ok(frame.into_trailers().ok()),
                },
            }
            if flow == Flow::Enough {
                open = None;
            }
            if open.is_none() {
                last = last.or(Some(tokio::time::Instant::now() + LAST));
            }
        }
    }
}
