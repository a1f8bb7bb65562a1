//! `mcrctl` as a user runs it: without a daemon, and against one that a test plays.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod change;
mod doctor;
mod events;
mod fake;
mod files;
mod help;
mod offline;
mod view;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MCRCTL: &str = env!("CARGO_BIN_EXE_mcrctl");

/// What a run came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs `mcrctl`, its words split at white space.
fn mcrctl(words: &str) -> Ran {
    with_stdin(words, "")
}

fn with_stdin(words: &str, stdin: &str) -> Ran {
    let mut child = Command::new(MCRCTL)
        .args(words.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.display().to_string()
}
