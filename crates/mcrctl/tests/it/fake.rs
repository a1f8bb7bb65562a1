//! A server on a Unix socket that answers as a test says, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Ran, mcrctl, with_stdin};

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) generation: Option<String>,
    pub(crate) body: Value,
}

pub(crate) enum Answer {
    Json(u16, Value),
    /// These bytes.
    Raw(&'static str),
    /// The connection stays open, and nothing comes.
    Silence,
}

pub(crate) struct Fake {
    pub(crate) folder: TempDir,
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn start(mut answer: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().map(Result::unwrap) {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let request = read(&stream);
                let answer = answer(&request);
                log.lock().unwrap().push(request);
                match answer {
                    Answer::Json(status, body) => send(&stream, status, &body.to_string()),
                    Answer::Raw(text) => (&stream).write_all(text.as_bytes()).unwrap(),
                    Answer::Silence => silent.push(stream),
                }
            }
        });
        Self { folder, socket, asked, stop, thread: Some(thread) }
    }

    /// Serves one list of rules, and the same change for every other request.
    pub(crate) fn with_rules(rules: Value, change: Value) -> Self {
        Self::start(move |asked| {
            let body = if asked.line.starts_with("GET") { rules.clone() } else { change.clone() };
            Answer::Json(200, body)
        })
    }

    pub(crate) fn run(&self, words: &str) -> Ran {
        mcrctl(&format!("--socket {} {words}", self.socket.display()))
    }

    pub(crate) fn run_with(&self, words: &str, stdin: &str) -> Ran {
        with_stdin(&format!("--socket {} {words}", self.socket.display()), stdin)
    }

    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string()
    }

    /// All requests so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Their request lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread; when it has panicked there is nobody to wake.
        let _ = UnixStream::connect(&self.socket);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            assert!(std::thread::panicking(), "the server of the test has panicked");
        }
    }
}

fn read(stream: &UnixStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut asked = Asked { line: String::new(), generation: None, body: Value::Null };
    reader.read_line(&mut asked.line).unwrap();
    asked.line = asked.line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(("if-match", value)) => asked.generation = Some(value.into()),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    if !body.is_empty() {
        asked.body = serde_json::from_slice(&body).unwrap();
    }
    asked
}

fn send(mut stream: &UnixStream, status: u16, body: &str) {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} Any\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
}

/// A list with the rules `a`, and one without a name, in generation 7.
pub(crate) fn two_rules() -> Value {
    json!({"generation": 7, "rules": [
        {"name": "a", "named": true, "origin": "file", "state": "forwarding", "rule":
            {"name": "a", "input": "239.1.1.1:5000@eth0", "enabled": false, "local": "no", "outputs": [
                {"to": "239.2.1.1:6000@eth1", "ttl": 8}, {"to": "239.2.1.2:6000@eth1", "dscp": 46}]}},
        {"name": "239.1.1.2:5000@eth0", "named": false, "origin": "runtime", "state": "waiting",
            "reason": "there is no interface eth0", "rule":
            {"input": "239.1.1.2:5000@eth0", "outputs": ["239.2.1.3:6000@eth1"]}}]})
}

/// A change that added, replaced and removed these.
pub(crate) fn change(added: &[&str], replaced: &[&str], removed: &[&str]) -> Value {
    json!({"generation": 8, "changed": true, "added": added, "replaced": replaced,
        "removed": removed, "warnings": []})
}

pub(crate) fn refusal(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message, "hint": "do something else"}})
}
