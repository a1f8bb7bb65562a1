//! Events, from their real causes to the lines of `mcrctl events` and of the log.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::lab::{Daemon, Lab, Plane, sibling, wait_for};

/// Without the addresses that IPv6 makes by itself, some time after an interface is up.
pub(crate) fn lab(plane: Plane) -> Lab {
    let lab = Lab::chain_ipv4(plane);
    lab.sysctl("relay", "net/ipv6/conf/all/disable_ipv6", "1");
    lab
}

const ADD: [&str; 6] =
    ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a", "--silence"];
const SEND: &str = "--group 239.1.1.1 --port 5001 --rate 200 --count 20 --size 100";

/// A running `mcrctl events`, from the oldest event on.
pub(crate) struct Follower {
    pub(crate) child: Child,
    path: PathBuf,
}

impl Follower {
    pub(crate) fn start(lab: &Lab, daemon: &Daemon, name: &str, arguments: &[&str]) -> Self {
        let path = lab.folder.path().join(name);
        let mut command = Command::new(sibling("mcrctl"));
        command.args(["--instance", &daemon.instance, "events", "--since", "0"]).args(arguments);
        command.stdout(File::create(&path).unwrap()).stderr(Stdio::piped()).stdin(Stdio::null());
        Self { child: command.spawn().unwrap(), path }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// All whole lines so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The first event after that many for which it holds.
    pub(crate) fn wait(&self, what: &str, after: usize, holds: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        wait_for(&format!("{what}, after {after}"), || {
            let events = self.events();
            found = events.iter().skip(after).find(|event| holds(event)).cloned().into();
            !found.is_null()
        });
        found
    }

    pub(crate) fn wait_kind(&self, kind: &str, after: usize) -> Value {
        self.wait(kind, after, |event| event["kind"] == kind)
    }

    fn wait_state(&self, from: &str, to: &str, after: usize) -> Value {
        self.wait(&format!("from {from} to {to}"), after, |event| {
            event["kind"] == "rule-state" && event["from"] == from && event["to"] == to
        })
    }

    fn wait_change(&self, interface: &str, change: &str, after: usize) -> Value {
        self.wait(&format!("{interface} {change}"), after, |event| {
            event["interface"] == interface && event["change"] == change
        })
    }

    /// Its exit code, and what it said on standard error.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_for("end of mcrctl", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.unwrap().code(), said)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn streams_rules_and_interfaces_are_told_as_they_change(plane: Plane) {
    let lab = lab(plane);
    let mut daemon = lab.daemon(&[]);
    let mut follower = Follower::start(&lab, &daemon, "all", &["--json"]);
    daemon.ok(&[&ADD[..], &["1s"]].concat());
    let added = follower.wait("the rule", 0, |event| event["rules"] == json!(["a"]));
    assert_eq!((&added["kind"], &added["added"]), (&json!("rules-changed"), &json!(1)), "{added}");

    lab.send(SEND);
    let started = follower.wait_kind("stream-started", 0);
    assert_eq!((&started["rule"], started.get("silent_for")), (&json!("a"), None), "{started}");
    follower.wait_state("idle", "forwarding", 0);
    let silent = follower.wait_kind("stream-silent", 0);
    assert!(silent["silent_for"].as_f64() >= Some(1.0), "{silent}");
    assert!(silent["last_packet"].as_str() < silent["time"].as_str(), "{silent}");
    assert_eq!(silent["level"], "warning");
    let before = follower.events().len();
    lab.send(SEND);
    let back = follower.wait_kind("stream-started", before);
    assert!(back["silent_for"].as_f64() >= Some(1.0), "{back}");

    let before = follower.events().len();
    lab.ip("sink", "link set veth3 down");
    follower.wait_change("veth2", "no-carrier", before);
    lab.ip("relay", "link set veth2 down");
    let down = follower.wait_change("veth2", "down", before);
    assert_eq!((&down["level"], down.get("rule")), (&json!("warning"), None), "{down}");
    let is_waiting = |event: &Value| event["to"] == "waiting";
    let waiting = follower.wait("waiting", before, is_waiting);
    assert!(waiting["reason"].as_str().unwrap().contains("veth2 is down"), "{waiting}");
    let before = follower.events().len();
    lab.ip("sink", "link set veth3 up");
    lab.ip("relay", "link set veth2 up");
    follower.wait_change("veth2", "up", before);
    follower.wait("the rule again", before, |event| event["from"] == "waiting");
    lab.ip("relay", "address add 10.0.1.9/24 dev veth2");
    let addresses = follower.wait_change("veth2", "addresses", before);
    assert!(addresses["addresses"].as_array().is_some_and(|all| !all.is_empty()), "{addresses}");
    lab.ip("relay", "link delete veth2");
    follower.wait_change("veth2", "gone", before);
    daemon.ok(&["disable", "a"]);
    follower.wait("disabled", before, |event| event["to"] == "disabled");
    daemon.ok(&["remove", "a"]);
    follower.wait("the removal", before, |event| event["removed"] == 1);

    daemon.stop();
    let (code, said) = follower.ended();
    let ended = said.contains("mcrd has ended") && said.contains("--since");
    assert!(code == Some(1) && ended, "{said}");
    let events = follower.events();
    for pair in events.windows(2) {
        assert_eq!(pair[0]["id"].as_u64().map(|id| id + 1), pair[1]["id"].as_u64(), "{pair:?}");
    }
    each_is_logged_once(&events, &daemon.log());
}

/// But for the flips between idle and forwarding, which are for debugging.
pub(crate) fn each_is_logged_once(events: &[Value], log: &str) {
    let is_no_flip = |event: &&Value| {
        let quiet = |field: &str| event[field] == "idle" || event[field] == "forwarding";
        !(quiet("from") && quiet("to"))
    };
    let logged: Vec<&Value> = events.iter().filter(is_no_flip).collect();
    for event in &logged {
        let level = match event["level"].as_str().unwrap() {
            "info" => " INFO ",
            "warning" => " WARN ",
            other => panic!("{other}: {event}"),
        };
        let message = event["message"].as_str().unwrap();
        let line = format!("{level}{message} kind=");
        let same = logged.iter().filter(|other| other["message"] == message).count();
        assert_eq!(log.matches(&line).count(), same, "{event}\n{log}");
    }
    assert_eq!(log.matches(" kind=").count(), logged.len(), "{log}");
}
