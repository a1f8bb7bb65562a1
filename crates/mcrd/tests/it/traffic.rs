//! Programs that a test runs beside the daemon: receivers, senders, captures.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{end, wait_for};

/// A running `mcrgen recv`.
pub(crate) struct Receiver {
    child: Child,
    path: PathBuf,
    _lines: Box<dyn Iterator<Item = io::Result<String>>>,
}

impl Receiver {
    /// Starts it, its report to a file, and waits until it is ready to receive.
    pub(crate) fn start(mut command: Command, path: PathBuf) -> Self {
        command.stdout(File::create(&path).unwrap()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.starts_with("ready") => break,
                Some(Ok(line)) => said.push(line),
                Some(Err(_)) | None => panic!("{command:?}: {said:?}"),
            }
        }
        Self { child, path, _lines: Box::new(lines) }
    }

    /// Its report, once it has ended by itself.
    pub(crate) fn report(mut self) -> Value {
        wait_for("end of the receiver", || self.child.try_wait().unwrap().is_some());
        serde_json::from_str(&fs::read_to_string(&self.path).unwrap()).unwrap()
    }

    /// Ends it first.
    pub(crate) fn stop(self) -> Value {
        end(Some(self.child.id()), Signal::INT);
        self.report()
    }

    /// The report, which must have everything: `expected` packets, none lost, doubled or strange.
    pub(crate) fn lossless(self, expected: u64) {
        let report = self.report();
        assert_eq!(report["received"], expected, "{report}");
        for fault in ["lost", "duplicated", "reordered", "corrupt", "foreign"] {
            assert_eq!(report[fault], 0, "{fault}: {report}");
        }
    }
}

/// A process that is ended when dropped.
pub(crate) struct Background(pub(crate) Option<Child>);

impl Background {
    /// Starts tcpdump and waits until it captures. That its socket is there is not enough.
    pub(crate) fn capture(tcpdump: &mut Command) -> Self {
        let mut child = tcpdump.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "{tcpdump:?} does not capture");
        }
        // Whoever has nobody to read what it says dies of it.
        child.stderr = Some(said.into_inner());
        Self(Some(child))
    }

    /// Waits until it has ended by itself, which it must have done well.
    pub(crate) fn finish(mut self) {
        let child = self.0.as_mut().unwrap();
        wait_for("end of a program", || child.try_wait().unwrap().is_some());
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {error}", output.status);
    }

    /// Ends it by SIGINT; its standard output.
    pub(crate) fn stop(mut self) -> Output {
        let child = self.0.take().unwrap();
        end(Some(child.id()), Signal::INT);
        child.wait_with_output().unwrap()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            end(Some(child.id()), Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// A running `tcpdump` that ends by itself when it has what it wants.
pub(crate) struct Capture(pub(crate) Background, pub(crate) PathBuf);

impl Capture {
    /// Its text, once it has all.
    pub(crate) fn text(mut self) -> String {
        let _ = self.0.0.take().unwrap().wait_with_output().unwrap();
        fs::read_to_string(self.1).unwrap()
    }
}
