//! The control socket, without the cost of a process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::lab::Daemon;

/// Status and body of the reply.
pub(crate) fn ask(daemon: &Daemon, method: &str, page: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {page} HTTP/1.1\r\nhost: mcrd\r\nconnection: close\r\ncontent-length: \
         {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// `PATCH /v1/rules` that must succeed.
pub(crate) fn change(daemon: &Daemon, steps: &Value) {
    let (status, reply) = ask(daemon, "PATCH", "/v1/rules", &steps.to_string());
    assert_eq!(status, 200, "{reply}\n{}", daemon.log());
}

/// A page that must be there.
pub(crate) fn get(daemon: &Daemon, page: &str) -> Value {
    let (status, reply) = ask(daemon, "GET", page, "");
    assert_eq!(status, 200, "{reply}\n{}", daemon.log());
    reply
}
