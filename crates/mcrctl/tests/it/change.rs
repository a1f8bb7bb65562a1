//! Commands that change rules: what is sent, and what is said.

use serde_json::{Value, json};

use crate::fake::{Answer, Fake, change, refusal, two_rules};

fn stale() -> Answer {
    Answer::Json(412, refusal("stale", "the rules are of generation 9, not 7"))
}

#[test]
fn add_is_one_post() {
    let fake = Fake::with_rules(json!(null), change(&["n"], &[], &[]));
    let ran = fake.run("add 239.1.1.1:5@eth0 239.2.1.1:6@eth1,dscp=46 --name n --ttl 9");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "added n\n", ""));
    let asked = &fake.asked()[..];
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "POST /v1/rules");
    let outputs = json!([{"to": "239.2.1.1:6@eth1", "ttl": 9, "dscp": 46}]);
    assert_eq!(
        asked[0].body,
        json!({"name": "n", "input": "239.1.1.1:5@eth0", "outputs": outputs})
    );
}

#[test]
fn a_change_may_come_before_what_it_needs() {
    let fake = Fake::with_rules(two_rules(), change(&["n"], &["a"], &[]));
    let add = "add 239.1.1.9:5@eth7 239.2.1.9:6@eth1";
    let run = |words: &str| assert_eq!(fake.run(words).code, Some(0), "{words}");
    run(&format!("{add} --wait"));
    run("set a --output 239.2.1.9:6@eth7 --wait");
    run("output add a 10.9.0.7:6 --wait");
    let ran = fake.run_with("batch --wait -", &format!("{add}\nenable a\n"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let changes: Vec<String> =
        fake.lines().into_iter().filter(|line| !line.starts_with("GET")).collect();
    let patch = "PATCH /v1/rules?wait=true";
    assert_eq!(changes, ["POST /v1/rules?wait=true", patch, patch, patch]);
    let ran = fake.run_with("batch -", &format!("{add} --wait\n"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.ends_with("hint: say it of all: `mcrctl batch --wait`\n"), "{}", ran.err);
}

#[test]
fn a_rate_is_set_and_taken_away() {
    let mut rules = two_rules();
    rules["rules"][0]["rule"]["max_rate"] = json!("20mbit");
    let fake = Fake::with_rules(rules, change(&["n"], &["a"], &[]));
    let ran = fake.run("add 239.1.1.9:5@eth0 239.2.1.9:6@eth1 --max-rate 5000pps");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(fake.asked()[0].body["max_rate"], "5000pps");
    assert_eq!(fake.run("set a --max-rate none").code, Some(0));
    assert_eq!(fake.asked()[2].body[0]["replace"]["rule"].get("max_rate"), None);
}

#[test]
fn remove_is_one_patch() {
    let fake = Fake::with_rules(json!(null), change(&[], &[], &["a", "b"]));
    let ran = fake.run("remove a 239.1.1.2:5@eth0");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "removed a, b\n"));
    assert_eq!(fake.lines(), ["PATCH /v1/rules"]);
    assert_eq!(fake.asked()[0].body, json!([{"remove": "a"}, {"remove": "239.1.1.2:5@eth0"}]));
}

#[test]
fn an_edit_is_conditional_on_the_generation_read() {
    let fake = Fake::with_rules(two_rules(), change(&[], &["a"], &[]));
    let ran = fake.run("enable a 239.1.1.2:5000@eth0");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "changed a\n"), "{ran:?}");
    assert_eq!(fake.lines(), ["GET /v1/rules", "PATCH /v1/rules"]);
    let patch = &fake.asked()[1];
    assert_eq!(patch.generation.as_deref(), Some("7"));
    assert_eq!(patch.body.as_array().unwrap().len(), 1);
    assert_eq!(patch.body[0]["replace"]["name"], "a");
    assert_eq!(patch.body[0]["replace"]["rule"].get("enabled"), None, "true is left out");
}

#[test]
fn what_is_so_already_is_not_sent() {
    let fake = Fake::with_rules(two_rules(), change(&[], &[], &[]));
    let ran = fake.run("disable a");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "nothing to change\n"));
    let ran = fake.run("disable a --json");
    let expected = json!({"generation": 7, "changed": false, "added": [], "replaced": [],
        "removed": [], "warnings": []});
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), expected);
    assert_eq!(fake.lines(), ["GET /v1/rules"; 2]);
}

#[test]
fn an_edit_of_rules_that_have_changed_is_made_again() {
    let mut patches = 0;
    let fake = Fake::start(move |asked| {
        if asked.line.starts_with("GET") {
            let mut rules = two_rules();
            rules["generation"] = json!(7 + patches);
            return Answer::Json(200, rules);
        }
        patches += 1;
        if patches < 3 { stale() } else { Answer::Json(200, change(&[], &["a"], &[])) }
    });
    let ran = fake.run("set a --comment x");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "changed a\n", ""));
    let tried: Vec<Option<String>> = fake
        .asked()
        .into_iter()
        .filter(|a| a.line.starts_with("PATCH"))
        .map(|a| a.generation)
        .collect();
    assert_eq!(tried, [Some("7".into()), Some("8".into()), Some("9".into())]);
}

#[test]
fn an_edit_gives_up_when_the_rules_never_stay() {
    let fake = Fake::start(|asked| match asked.line.starts_with("GET") {
        true => Answer::Json(200, two_rules()),
        false => stale(),
    });
    let ran = fake.run("set a --comment x");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("mcrctl: the rules are of generation 9, not 7\n"), "{}", ran.err);
    assert_eq!(fake.lines().len(), 10);
}

#[test]
fn a_batch_is_one_patch() {
    let fake = Fake::with_rules(two_rules(), change(&["n"], &["a"], &["239.1.1.2:5000@eth0"]));
    let ran = fake.run_with(
        "batch -",
        "# move the second rule\nremove 239.1.1.2:5000@eth0\n\n\
         add 239.1.1.2:5000@eth0 239.2.1.9:6000@eth1 --name n --comment 'two words'\n\
         output remove a 239.2.1.2:6000@eth1\n",
    );
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out, "added n\nchanged a\nremoved 239.1.1.2:5000@eth0\n");
    assert_eq!(fake.lines(), ["GET /v1/rules", "PATCH /v1/rules"]);
    let patch = &fake.asked()[1];
    assert_eq!(patch.generation.as_deref(), Some("7"));
    let added = json!({"name": "n", "comment": "two words", "input": "239.1.1.2:5000@eth0",
        "outputs": ["239.2.1.9:6000@eth1"]});
    let kept = json!({"name": "a", "input": "239.1.1.1:5000@eth0", "enabled": false, "local": "no",
        "outputs": [{"to": "239.2.1.1:6000@eth1", "ttl": 8}]});
    let steps = json!([{"remove": "239.1.1.2:5000@eth0"}, {"add": added},
        {"replace": {"name": "a", "rule": kept}}]);
    assert_eq!(patch.body, steps);
}

#[test]
fn a_batch_with_a_mistake_changes_nothing() {
    let fake = Fake::start(|asked| match asked.line.starts_with("GET") {
        true => Answer::Json(200, two_rules()),
        false => {
            Answer::Json(422, refusal("machine", "rule n: input 239.1.1.9:5@eth7: no interface"))
        }
    });
    let good = "add 239.1.1.9:5@eth7 239.2.1.9:6@eth1 --name n\n";
    let ran = fake.run_with("batch -", &format!("{good}list\n"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("mcrctl: line 2: unrecognized subcommand 'list'"), "{}", ran.err);
    assert_eq!(fake.lines(), Vec::<String>::new(), "a line that cannot be read asks nothing");

    let ran = fake.run_with("batch -", &format!("{good}\nenable x\n"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("mcrctl: line 3: there is no rule x\n  hint: "), "{}", ran.err);
    assert_eq!(fake.lines(), ["GET /v1/rules"]);

    let ran = fake.run_with("batch -", &format!("\n{good}enable a\n"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("mcrctl: line 2: rule n: input 239.1.1.9"), "{}", ran.err);
}

#[test]
fn refusals_are_shown_with_their_hint() {
    let body = refusal("conflict", "rule n: the name is taken");
    let fake = Fake::start(move |_| Answer::Json(409, body.clone()));
    let add = "add 239.1.1.1:5@eth0 239.2.1.1:6@eth1 --name n";
    let ran = fake.run(add);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert_eq!(ran.err, "mcrctl: rule n: the name is taken\n  hint: do something else\n");
    let ran = fake.run(&format!("--json {add}"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error, refusal("conflict", "rule n: the name is taken"));
}

#[test]
fn warnings_go_to_stderr_and_json_comes_as_it_is() {
    let mut warned = change(&["n"], &[], &[]);
    warned["warnings"] = json!(["n: one", "n: two"]);
    let line = warned.to_string();
    let fake = Fake::with_rules(json!(null), warned);
    let ran = fake.run("reload");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "+ n\n1 added, 0 changed, 0 removed\n"));
    assert_eq!(ran.err, "warning: n: one\nwarning: n: two\n");
    let ran = fake.run("reload --json");
    assert_eq!((ran.out, ran.err), (format!("{line}\n"), String::new()));
    assert_eq!(fake.lines(), ["POST /v1/reload"; 2]);
}
