//! Replies without end, as server-sent events (the HTML standard, §9.2).

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Client, Question};
use crate::failure::Failure;

impl Client {
    /// Gives the data of each event to `each`, until that says `false`. Only the head of the reply
    /// has a limit of time.
    pub(crate) fn follow(
        &self,
        question: &Question,
        mut each: impl FnMut(&str) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let head = timeout(self.answer_timeout, self.begin(question)).await;
            let mut body =
                head.unwrap_or_else(|_| Err(self.late(self.answer_timeout)))?.into_body();
            let mut events = Events::default();
            loop {
                let frame = match body.frame().await {
                    Some(Ok(frame)) => frame,
                    Some(Err(_)) | None => return Err(self.ended()),
                };
                for data in frame.data_ref().map(|bytes| events.add(bytes)).unwrap_or_default() {
                    if !each(&data)? {
                        return Ok(());
                    }
                }
            }
        })
    }

    async fn begin(&self, question: &Question) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(question.request()).await
        };
        let response = exchange.await.map_err(|error| self.broken(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| self.broken(&error))?;
        Err(match self.reply(status, &body.to_bytes()) {
            Err(failure) => failure,
            Ok(_) => self.ended(),
        })
    }

    fn ended(&self) -> Failure {
        let socket = self.socket.display();
        let message = format!("mcrd has ended, or has closed the connection on {socket}");
        Failure::refused("broken-off", message, "see its log, and start it again if it has ended")
    }
}

/// The data of events, whose text comes in pieces of any size.
#[derive(Default)]
struct Events {
    /// What has come of the last line.
    line: Vec<u8>,
    /// What has come of the event.
    data: Option<String>,
}

impl Events {
    /// The events that end in this piece.
    fn add(&mut self, bytes: &Bytes) -> Vec<String> {
        let mut ended = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                break;
            }
            let line = String::from_utf8_lossy(&self.line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                ended.extend(self.data.take());
            } else if let Some(text) = line.strip_prefix("data:") {
                let text = text.strip_prefix(' ').unwrap_or(text);
                match &mut self.data {
                    Some(data) => *data = format!("{data}\n{text}"),
                    None => self.data = Some(text.into()),
                }
            }
            self.line.clear();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_their_text_is_cut() {
        let text = ": hello\n\nid: 7\nevent: worker\ndata: {\"a\":\ndata: 1}\n\n:\n\ndata:ü\r\n\r\n\
                    data: unfinished\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let pieces = text.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            let all: Vec<String> = pieces.flat_map(|piece| events.add(&piece)).collect();
            assert_eq!(all, ["{\"a\":\n1}", "ü"], "{size}");
        }
    }
}
