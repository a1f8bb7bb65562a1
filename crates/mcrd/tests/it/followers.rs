//! Those who follow the events: what they get, what they miss, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control::{ask, change};
use crate::events::{Follower, each_is_logged_once, lab};
use crate::lab::{Daemon, Plane, end, sibling, wait_for};
use crate::workers::{all_run, pids};

pub(crate) fn a_worker_that_ends_and_runs_again_is_told(plane: Plane) {
    let lab = lab(plane);
    let daemon = lab.daemon(&[]);
    let killed = pids(&daemon)[1];
    let follower = Follower::start(&lab, &daemon, "workers", &["--kind", "worker", "--json"]);
    follower.wait("the first start", 0, |event| event["pid"] == killed && event["restarts"] == 0);
    end(Some(killed), Signal::KILL);
    let ended = follower.wait("the end", 0, |event| event["change"] == "ended");
    assert_eq!((&ended["pid"], &ended["worker"]), (&json!(killed), &json!(2)), "{ended}");
    assert!(ended["reason"].as_str().unwrap().contains("SIGKILL"), "{ended}");
    let again = follower.wait("the restart", 0, |event| event["restarts"] == 1);
    assert_eq!((&again["change"], &again["worker"]), (&json!("runs"), &json!(2)), "{again}");
    all_run(&daemon);
    each_is_logged_once(&follower.events(), &daemon.log());
}

/// `GET /v1/events` and what comes, line by line.
fn get(daemon: &Daemon, query: &str, header: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(crate::lab::DEADLINE)).unwrap();
    write!(stream, "GET /v1/events{query} HTTP/1.1\r\nhost: mcrd\r\n{header}\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(next_line(&mut reader, "HTTP/"), "1.1 200 OK");
    // At once, though nothing may happen for long.
    assert_eq!(next_line(&mut reader, ": "), "events of mcrd");
    reader
}

/// The rest of the next line that begins so.
fn next_line(reader: &mut impl BufRead, begin: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "no line with {begin:?}");
        if let Some(rest) = line.trim_end().strip_prefix(begin) {
            return rest.to_owned();
        }
    }
}

fn next_event(reader: &mut impl BufRead) -> Value {
    let id = next_line(reader, "id: ");
    let kind = next_line(reader, "event: ");
    let event: Value = serde_json::from_str(&next_line(reader, "data: ")).unwrap();
    assert_eq!((event["id"].to_string(), event["kind"].as_str()), (id, Some(&*kind)), "{event}");
    event
}

pub(crate) fn what_was_told_is_replayed_and_what_is_not_wanted_left_out(plane: Plane) {
    let lab = lab(plane);
    let daemon = lab.daemon(&[]);
    all_run(&daemon);
    for name in ["a", "b"] {
        let input = format!("239.1.1.1:{}@veth1", 5000 + u32::from(name.as_bytes()[0]));
        daemon.ok(&["add", &input, "239.10.1.1:6001@veth2", "--name", name, "--disabled"]);
        daemon.ok(&["enable", name]);
    }
    let of = |arguments: &[&str]| -> Vec<Value> {
        let all = [&["events", "--json", "--since", "0"], arguments].concat();
        daemon.ok(&all).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let rules: Vec<Value> = of(&["--kind", "rule-state,rules-changed", "--count", "8"]);
    let kinds: Vec<&str> = rules.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["rules-changed", "rule-state"].repeat(4));
    let id = |event: &Value| event["id"].as_u64().unwrap();
    // Also what is told from there on, in one stream.
    let mut after =
        get(&daemon, "?rule=b&kind=rule-state", &format!("last-event-id: {}\r\n", id(&rules[1])));
    assert_eq!(
        [next_event(&mut after), next_event(&mut after)],
        [rules[5].clone(), rules[7].clone()]
    );
    daemon.ok(&["disable", "a", "b"]);
    assert_eq!(next_event(&mut after)["to"], "disabled");
    let mut after = get(&daemon, &format!("?since={}", id(&rules[6])), "last-event-id: 1\r\n");
    assert_eq!(next_event(&mut after), rules[7], "the query goes before the header");
    // An id of an earlier process.
    let mut after = get(&daemon, "?since=1&kind=rules-changed", "");
    assert_eq!(next_event(&mut after)["kind"], "missed");
    assert_eq!(next_event(&mut after), rules[0]);
    let of_a = of(&["a", "--count", "5"]);
    assert!(
        of_a.iter()
            .all(|event| event["rule"] == "a" || event["rules"].to_string().contains("\"a\""))
    );

    let line = daemon.ok(&["events", "--since", "0", "--kind", "rule-state", "--count", "1"]);
    assert!(line.ends_with("Z  info     rule a is disabled\n"), "{line}");
    for (query, code, words) in [
        ("since=x", "malformed", ["since \"x\"", "0 for all"]),
        ("since=18446744073709551615", "malformed", ["since \"1844", "0 for all"]),
        ("kind=worker,stream", "invalid", ["\"stream\"", "stream-silent"]),
        ("rule=nosuch", "not-found", ["no rule nosuch", "mcrctl list"]),
        ("rules=a", "malformed", ["rules", "docs/api.md"]),
    ] {
        let (_, reply) = ask(&daemon, "GET", &format!("/v1/events?{query}"), "");
        assert_eq!(reply["error"]["code"], code, "{reply}");
        for word in words {
            let text = format!("{} {}", reply["error"]["message"], reply["error"]["hint"]);
            assert!(text.replace('\\', "").contains(word), "{word:?}: {text}");
        }
    }
    assert!(daemon.refused(&["events", "nosuch"]).contains("there is no rule nosuch"));

    let mut follower = Follower::start(&lab, &daemon, "ended", &["--json"]);
    follower.wait_kind("rules-changed", 0);
    end(Some(follower.child.id()), Signal::TERM);
    assert_eq!(follower.ended(), (Some(0), String::new()));
    let mut piped = Command::new(sibling("mcrctl"))
        .args(["--instance", &daemon.instance, "events"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(piped.stdout.take());
    wait_for("the end of one whom nobody reads", || piped.try_wait().unwrap().is_some());
    assert!(piped.wait().unwrap().success());
}

pub(crate) fn a_slow_follower_is_told_how_much_it_has_missed(plane: Plane) {
    let lab = lab(plane);
    let mut daemon = lab.daemon(&[]);
    all_run(&daemon);
    let mut slow = get(&daemon, "", "");
    let rules = 1100;
    let output = ["239.10.1.1:6001@veth2"];
    let add = |n: u32| {
        let name = format!("{}-{n}", "a-long-name".repeat(5));
        let input = format!("239.1.1.1:{}@veth1", 5000 + n);
        json!({"add": {"name": name, "input": input, "outputs": output, "enabled": false}})
    };
    let adds: Value = (0..rules).map(add).collect();
    let removes: Value = adds
        .as_array()
        .unwrap()
        .iter()
        .map(|step| json!({"remove": step["add"]["name"]}))
        .collect();
    // More than the buffers of a connection hold, and no more: one who takes nothing for 30 s is cut
    // off.
    let rounds = 3;
    for _ in 0..rounds {
        change(&daemon, &adds);
        change(&daemon, &removes);
    }
    let last = daemon.ok(&["add", "239.1.1.1:5001@veth1", output[0], "--name", "last", "--json"]);
    let last: Value = serde_json::from_str(&last).unwrap();
    let (mut at, mut missed, mut told) = (None, 0, 0);
    loop {
        let event = next_event(&mut slow);
        let id = event["id"].as_u64().unwrap();
        let step = event["missed"].as_u64().unwrap_or(1);
        assert!(at.is_none_or(|at| at + step == id), "{at:?} {event}");
        at = Some(id);
        match event["kind"].as_str().unwrap() {
            "missed" => missed += step,
            _ => told += 1,
        }
        if event["generation"] == last["generation"] {
            break;
        }
    }
    assert_eq!(missed + told, u64::from(rounds * (rules + 2) + 1));
    assert!(missed > 0 && told >= 1024, "{missed} {told}");

    // Nobody who follows holds up the end.
    let _never_reads = get(&daemon, "?since=0", "");
    daemon.stop();
    let mut rest = String::new();
    slow.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "broken off: {rest}");
}
