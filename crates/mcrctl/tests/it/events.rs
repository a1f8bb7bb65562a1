//! `mcrctl events` against a server of the test.

use crate::fake::{Answer, Fake, refusal};

const TWO: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
    : events of mcrd\n\n\
    id: 8\nevent: stream-started\ndata: {\"id\": 8, \"time\": \"2026-01-01T00:00:00.250Z\", \
    \"level\": \"info\", \"kind\": \"stream-started\", \"rule\": \"a\", \
    \"message\": \"the stream of rule a has started\", \"later\": [1]}\n\n:\n\n\
    id: 9\nevent: worker\ndata: {\"id\": 9, \"time\": \"2026-01-01T00:00:01.500Z\", \
    \"level\": \"warning\", \"kind\": \"worker\", \"worker\": 1, \"message\": \"worker 1 ended\"}\n\n";

const LINES: &str = "2026-01-01T00:00:00.250Z  info     the stream of rule a has started\n\
    2026-01-01T00:00:01.500Z  warning  worker 1 ended\n";

#[test]
fn each_event_is_a_line_and_the_end_of_mcrd_is_said() {
    let fake = Fake::start(|_| Answer::Raw(TWO));
    let ran = fake.run("events");
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), LINES));
    assert!(ran.err.contains("mcrctl: mcrd has ended, or has closed"), "{}", ran.err);
    assert!(ran.err.contains("--since 9 goes on"), "{}", ran.err);
}

#[test]
fn it_ends_after_as_many_as_were_asked_for() {
    let fake = Fake::start(|_| Answer::Raw(TWO));
    let ran = fake.run("events --count 2");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), LINES, ""));
    let ran = fake.run("events --count 1 --json");
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 1));
    assert!(
        ran.out.starts_with("{\"id\": 8, ") && ran.out.contains("\"later\": [1]"),
        "{}",
        ran.out
    );
}

#[test]
fn what_is_wanted_is_asked_for() {
    let fake = Fake::start(|_| Answer::Json(404, refusal("not-found", "there is no rule x")));
    let ran = fake.run("events 239.1.1.1:5000@eth0 --since 7 --kind worker,rule-state");
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("there is no rule x\n  hint: do something else"), "{}", ran.err);
    assert_eq!(fake.run("events").code, Some(1));
    let page = "GET /v1/events?since=7&rule=239.1.1.1%3A5000%40eth0&kind=worker,rule-state";
    assert_eq!(fake.lines(), [page, "GET /v1/events"]);
    for words in ["--kind workers", "--since x", "--since -1", "--count 0"] {
        assert_eq!(fake.run(&format!("events {words}")).code, Some(2), "{words}");
    }
    assert_eq!(fake.lines().len(), 2);
}

#[test]
fn only_the_head_of_the_reply_has_a_limit_of_time() {
    let fake = Fake::start(|_| Answer::Silence);
    assert_eq!(fake.run("--answer-timeout 100ms events").code, Some(4));
    assert_eq!(crate::mcrctl("--socket /nonexistent/mcr.sock events").code, Some(3));
}
