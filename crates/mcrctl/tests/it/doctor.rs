//! What `mcrctl doctor` makes of the reply, and how it ends.

use serde_json::{Value, json};

use crate::fake::{Answer, Fake};

fn report(checks: &[Value]) -> Value {
    json!({"time": "2026-01-01T00:00:00Z", "duration": "3s", "rules": 2, "checks": checks})
}

fn check(result: &str, remedy: Option<&str>) -> Value {
    let mut check = json!({"result": result, "check": "sender", "subject": "a",
        "evidence": "no packet came", "from_the_future": 1});
    if let Some(remedy) = remedy {
        check["remedy"] = remedy.into();
    }
    check
}

#[test]
fn only_a_problem_is_a_failure_and_what_is_well_is_counted() {
    let (well, odd) = (check("ok", None), check("warning", Some("look")));
    for (checks, code, text) in [
        (vec![], Some(0), "all 0 checks well, 2 rules watched for 3s\n"),
        (vec![well.clone()], Some(0), "all 1 check well, 2 rules watched for 3s\n"),
        (
            vec![odd.clone(), well.clone()],
            Some(0),
            "warning  sender            a: no packet came\n  → look\n1 check well, 2 rules watched for 3s\n",
        ),
        (
            vec![check("problem", Some("start it")), odd, check("unknown", None), well],
            Some(1),
            "problem  sender            a: no packet came\n  → start it\n\
             warning  sender            a: no packet came\n  → look\n\
             unknown  sender            a: no packet came\n1 check well, 2 rules watched for 3s\n",
        ),
    ] {
        let reply = report(&checks);
        let line = format!("{reply}\n");
        let fake = Fake::start(move |_| Answer::Json(200, reply.clone()));
        let plain = fake.run("doctor");
        assert_eq!((plain.code, plain.out.as_str(), plain.err.as_str()), (code, text, ""));
        let raw = fake.run("doctor --json");
        assert_eq!((raw.code, raw.out, raw.err.as_str()), (code, line, ""));
        let all = fake.run("doctor --all").out;
        assert_eq!(all.matches("ok       sender").count(), text.matches("1 check well").count());
    }
}

#[test]
fn it_asks_for_one_rule_and_for_a_time() {
    let fake = Fake::start(|_| Answer::Json(200, report(&[])));
    fake.run("doctor");
    fake.run("doctor 239.1.1.1:5000@eth0 --duration 1500ms");
    let asked: Vec<String> = fake.asked().into_iter().map(|asked| asked.line).collect();
    assert!(asked[0].ends_with("/v1/doctor?duration=3s"), "{asked:?}");
    let page = "/v1/doctor?duration=1s%20500ms&name=239.1.1.1%3A5000%40eth0";
    assert!(asked[1].ends_with(page), "{asked:?}");
}
