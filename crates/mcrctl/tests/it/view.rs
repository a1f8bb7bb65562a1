//! Commands that show, and answers that no `mcrd` gives.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::MCRCTL;
use crate::fake::{Answer, Fake, refusal, two_rules};

fn no_stats() -> Value {
    json!({"time": "2026-01-01T00:00:00Z", "boot_id": "1", "rules": []})
}

#[test]
fn json_is_the_reply_as_it_is() {
    let mut reply = two_rules();
    reply["from_the_future"] = json!(1);
    let line = format!("{reply}\n");
    let fake = Fake::with_rules(reply, json!(null));
    for words in ["list --json", "--json list a", "show a --json", "wait a --json"] {
        assert_eq!(fake.run(words).out, line, "{words}");
    }
    let plain = fake.run("list");
    assert!(plain.out.starts_with("NAME  STATE       ORIGIN   INPUT"), "{}", plain.out);
}

#[test]
fn the_status_with_its_workers_when_asked_for() {
    let status = json!({"version": "0.1.0", "instance": "mcr", "pid": 1,
        "since": "2026-01-01T00:00:00Z", "boot_id": "1", "plane": "packet", "attach": "fanout",
        "generation": 1, "states": {}, "rules_in_no_file": 0, "rules_max": 1, "outputs_max": 1,
        "membership_sockets": 0, "interfaces": [],
        "workers": [{"worker": 1, "state": "running", "since": "2026-01-01T00:00:00Z",
            "cpu": 0, "restarts": 0, "rings": [], "send_buffers": []}]});
    let line = format!("{status}\n");
    let fake = Fake::with_rules(status, json!(null));
    let plain = fake.run("status").out;
    assert!(plain.contains("\nworkers      1: 1 running, 0 restarts\n"), "{plain}");
    let long = fake.run("status --workers").out;
    assert!(long.starts_with(&format!("{plain}\nWORKER  STATE")), "{long}");
    assert_eq!(fake.run("status --workers --json").out, line);
}

#[test]
fn names_are_encoded_in_pages() {
    let fake = Fake::start(|asked| match asked.line.contains("stats") {
        true => Answer::Json(200, no_stats()),
        false => Answer::Json(200, two_rules()),
    });
    let name = "10.0.0.1@239.1.1.0/24:5000@eth0";
    let encoded = "10.0.0.1%40239.1.1.0%2F24%3A5000%40eth0";
    for words in ["list", "show", "stats"] {
        assert_eq!(fake.run(&format!("{words} {name}")).code, Some(0), "{words}");
    }
    let page = format!("GET /v1/rules/{encoded}");
    let expected = [page.clone(), page, format!("GET /v1/stats?name={encoded}")];
    assert_eq!(fake.lines(), expected);
}

#[test]
fn wait_ends_when_the_state_is_there() {
    let mut asked_before = 0;
    let fake = Fake::start(move |_| {
        asked_before += 1;
        let mut reply = two_rules();
        reply["rules"][0]["state"] = json!(if asked_before < 3 { "idle" } else { "forwarding" });
        Answer::Json(200, reply)
    });
    let ran = fake.run("wait a");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "a is forwarding\n"), "{ran:?}");
    assert_eq!(fake.lines(), ["GET /v1/rules/a"; 3]);
}

#[test]
fn wait_times_out_with_code_4() {
    let fake = Fake::start(|_| {
        let mut reply = two_rules();
        reply["rules"].as_array_mut().unwrap().remove(0);
        Answer::Json(200, reply)
    });
    let ran = fake.run("wait b --for idle --timeout 250ms");
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""));
    let message = "mcrctl: after 250ms, b is waiting, not idle: there is no interface eth0\n";
    assert!(ran.err.starts_with(message), "{}", ran.err);
}

#[test]
fn wait_for_a_rule_that_is_not_there_is_refused() {
    let fake = Fake::start(|_| Answer::Json(404, refusal("not-found", "there is no rule a")));
    assert_eq!(fake.run("wait a").code, Some(1));
    assert_eq!(fake.lines().len(), 1);
}

#[test]
fn a_daemon_that_does_not_answer_is_code_4() {
    let fake = Fake::start(|_| Answer::Silence);
    let ran = fake.run("--answer-timeout 200ms list");
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""));
    let expected = format!("mcrctl: mcrd did not answer on {} within 200ms\n", fake.socket());
    assert!(ran.err.starts_with(&expected), "{}", ran.err);
    let start = Instant::now();
    assert_eq!(fake.run("wait a --timeout 200ms").code, Some(4));
    assert!(start.elapsed() < Duration::from_secs(20), "the timeout of wait counts");
}

#[test]
fn answers_that_no_mcrd_gives_are_told_apart() {
    for (answer, message) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "answered 200 OK with what no mcrd"),
        ("HTTP/1.1 502 Bad\r\ncontent-length: 2\r\n\r\n{}", "answered 502 Bad Gateway with what"),
        ("SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        ("", "broke the connection on"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{", "broke the connection on"),
    ] {
        let fake = Fake::start(move |_| Answer::Raw(answer));
        let ran = fake.run("list");
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{answer:?}: {ran:?}");
        assert!(ran.err.contains(message), "{answer:?}: {}", ran.err);
        assert!(ran.err.contains("\n  hint: "), "{answer:?}: {}", ran.err);
    }
    let fake = Fake::start(|_| Answer::Json(200, json!({"rules": 3})));
    let ran = fake.run("list");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("not what this mcrctl knows"), "{}", ran.err);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let fake = Fake::with_rules(two_rules(), json!(null));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Command::new(MCRCTL)
        .args(["list", "--socket", &fake.socket()])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn stats_are_watched_until_nobody_reads_them() {
    let fake = Fake::start(|_| Answer::Json(200, no_stats()));
    let watch = |json: &[&str]| {
        let mut child = Command::new(MCRCTL)
            .args(["stats", "--watch", "--interval", "10ms", "--socket", &fake.socket()])
            .args(json)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        let lines: Vec<String> = lines.take(6).map(Result::unwrap).collect();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        lines
    };
    assert_eq!(watch(&[]), ["2026-01-01T00:00:00Z", "no rules", ""].repeat(2));
    assert_eq!(watch(&["--json"]), vec![no_stats().to_string(); 6]);
}
