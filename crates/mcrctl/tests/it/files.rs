//! `check`, `apply` and `save`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::fake::{Answer, Fake, change, refusal, two_rules};
use crate::{mcrctl, with_stdin, write};

const GOOD: &str = "[defaults]\nttl = 16\n\n[[rule]]\nname = \"a\"\ninput = \"239.1.1.1:5000@eth0\"\n\
    outputs = [\"239.2.1.1:6000@eth1\", { to = \"239.2.1.2:6000@eth1\", ttl = 8 }]\n\n\
    [[rule]]\ninput = \"239.1.1.2:5000@eth0\"\noutputs = [\"239.2.1.3:6000@eth1\"]\n";

fn rule(name: &str, input: &str, output: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\ninput = \"{input}\"\noutputs = [\"{output}\"]\n\n")
}

#[test]
fn a_good_file_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder.path().join("good.toml"), GOOD);
    for ran in [mcrctl(&format!("check {file}")), with_stdin("check -", GOOD)] {
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        assert_eq!(ran.out, "2 rules, no mistakes found\n");
    }
    let ran = mcrctl(&format!("check {file} --json"));
    assert_eq!(ran.out, "{\"rules\":2,\"warnings\":[]}\n");
}

#[test]
fn a_file_may_have_rules_of_every_kind() {
    let text = "[[rule]]\nname = \"v6\"\ninput = \"[ff3e::8000:1]:5000@eth0\"\n\
                sources = [\"2001:db8::1\", \"2001:db8::2\"]\nmax_rate = \"20mbit\"\n\
                outputs = [\"[ff15::1]@eth1\", \"[2001:db8:9::7]:6000\"]\n\
                [[rule]]\ninput = \"10.0.0.1:5000-5015@eth0\"\noutputs = [\"10.9.0.7:6000-6015\"]\n\
                [[rule]]\ninput = \"239.1.1.0/24:5000@tun0\"\njoin = \"no\"\n\
                outputs = [\"keep@239.2.1.0/24@wg0\"]\n";
    let ran = with_stdin("check -", text);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out, "3 rules, no mistakes found\n");
}

#[test]
fn what_may_not_be_meant_is_a_warning_of_the_check() {
    let ran = with_stdin("check -", &rule("ssm", "232.1.1.1:5000@eth0", "239.2.1.1:6000@eth1"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "1 rule, no mistakes found\n"));
    assert!(ran.err.starts_with("warning: ssm: 232.1.1.1 is source-specific"), "{}", ran.err);
}

#[test]
fn mistakes_are_named_with_line_and_column() {
    let first = rule("a", "239.1.1.1:5000@eth0", "239.2.1.1:6000@eth1");
    let cases = [
        ("[[rule]]\nnmae = \"a\"\n".to_owned(), "2:1", "unknown field `nmae`"),
        ("[packet]\nring_mib = 5000\n".to_owned(), "2:12", "it goes from 1 to 4096"),
        ("[defaults]\n  ttl = [1]\n".to_owned(), "2:9", "a number, or a word"),
        (first.clone() + &rule("b", "239.1.1.2@eth0", "239.2.1.2:6@eth1"), "6:1", "has no port"),
        (
            first.clone() + &rule("a", "239.1.1.2:5@eth0", "239.2.1.2:6@eth1"),
            "6:1",
            "name is taken",
        ),
        (
            (2..9).fold(first.clone(), |text, n| {
                text + &rule(
                    &format!("r{n}"),
                    &format!("239.1.1.{n}:5000@eth0"),
                    &format!("239.2.1.{n}:6000@eth1"),
                )
            }) + &rule("late", "239.1.1.1:5000@eth0", "239.2.1.99:6000@eth1")
                + &rule("last", "239.1.9.1:5000@eth0", "239.2.9.1:6000@eth1"),
            "41:1",
            "the input 239.1.1.1:5000@eth0 is taken by rule",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (text, place, message) in cases {
        let file = write(&folder.path().join("bad.toml"), &text);
        let ran = mcrctl(&format!("check {file}"));
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
        let start = format!("mcrctl: {file}:{place}: ");
        assert!(ran.err.starts_with(&start), "{start}{message}: {}", ran.err);
        assert!(ran.err.contains(message), "{message}: {}", ran.err);
    }
    let ran = mcrctl("check /no/such/file");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("mcrctl: cannot read /no/such/file: No such file"), "{}", ran.err);
}

#[test]
fn apply_sends_the_whole_file_and_prints_the_difference() {
    let fake = Fake::with_rules(json!(null), change(&["a"], &["b", "c"], &["d"]));
    let file = write(&fake.folder.path().join("rules.toml"), GOOD);
    let ran = fake.run(&format!("apply {file}"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(ran.out, "+ a\n~ b\n~ c\n- d\n1 added, 2 changed, 1 removed\n");
    let dry = fake.run_with("apply - --dry-run --allow-empty --wait", GOOD);
    assert!(dry.out.ends_with("would be 1 added, 2 changed, 1 removed\n"), "{dry:?}");
    let asked = fake.asked();
    assert_eq!(asked[0].line, "PUT /v1/rules?dry_run=false&allow_empty=false&wait=false");
    assert_eq!(asked[1].line, "PUT /v1/rules?dry_run=true&allow_empty=true&wait=true");
    let rules = json!({"rules": [
        {"name": "a", "input": "239.1.1.1:5000@eth0", "outputs": [
            {"to": "239.2.1.1:6000@eth1", "ttl": 16}, {"to": "239.2.1.2:6000@eth1", "ttl": 8}]},
        {"input": "239.1.1.2:5000@eth0", "outputs": [{"to": "239.2.1.3:6000@eth1", "ttl": 16}]}]});
    assert_eq!([&asked[0].body, &asked[1].body], [&rules; 2]);
}

#[test]
fn a_file_with_a_mistake_is_not_sent() {
    let fake = Fake::with_rules(json!(null), change(&[], &[], &[]));
    let ran = fake.run_with("apply -", "[[rule]]\ninput = 3\n");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("mcrctl: stdin:2:9: "), "{}", ran.err);
    assert_eq!(fake.lines(), Vec::<String>::new());
}

#[test]
fn settings_of_mcrd_in_an_applied_file_are_a_warning() {
    let fake = Fake::with_rules(json!(null), change(&[], &[], &[]));
    for (text, warning) in [
        ("[limits]\nmax_rules = 9\n", "warning: [limits] is for the start"),
        ("[metrics]\n", "warning: [metrics] is for the start"),
        ("[packet]\nring_mib = 9\n", "warning: [packet] and [interface] are for the start"),
        ("[interface.\"eth0.10\"]\n", "warning: [packet] and [interface] are for the start"),
    ] {
        let ran = fake.run_with("apply - --allow-empty", text);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "nothing to change\n"));
        assert!(ran.err.starts_with(warning), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        let ran = with_stdin("check -", text);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{text}");
    }
}

#[test]
fn what_is_saved_passes_the_check_and_applies_as_the_same_rules() {
    let mut list = two_rules();
    let rule = &mut list["rules"][1]["rule"];
    rule["input"] = json!("232.1.1.2:5000@eth0");
    rule["sources"] = json!(["10.0.0.1", "10.0.0.2"]);
    rule["max_rate"] = json!("20mbit");
    let fake = Fake::with_rules(list.clone(), change(&[], &[], &[]));
    let file = fake.folder.path().join("saved.toml");
    let ran = fake.run(&format!("save --to {}", file.display()));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out, format!("saved 2 rules to {}\n", file.display()));
    assert_eq!(mcrctl(&format!("check {}", file.display())).out, "2 rules, no mistakes found\n");
    assert_eq!(fake.run("save").out, fs::read_to_string(&file).unwrap());

    assert_eq!(fake.run(&format!("apply {}", file.display())).code, Some(0));
    let applied = fake.asked().last().unwrap().body["rules"].clone();
    let saved: Vec<&Value> =
        list["rules"].as_array().unwrap().iter().map(|view| &view["rule"]).collect();
    assert_eq!(applied.as_array().unwrap().iter().collect::<Vec<_>>(), saved);
}

#[test]
fn save_replaces_a_file_whole_and_keeps_its_permissions() {
    let fake = Fake::with_rules(two_rules(), json!(null));
    let folder = fake.folder.path().join("etc");
    fs::create_dir(&folder).unwrap();
    let (file, link) = (folder.join("mcr.toml"), folder.join("link.toml"));
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("mcr.toml", &link).unwrap();
    let held = fs::File::open(&file).unwrap();
    let ran = fake.run(&format!("save --to {} --json", link.display()));
    assert_eq!(ran.out, format!("{{\"file\":\"{}\",\"rules\":2}}\n", link.display()));

    assert_eq!(std::io::read_to_string(held).unwrap(), "old");
    assert!(fs::read_to_string(&file).unwrap().contains("239.1.1.1:5000@eth0"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "a temporary file is left");
}

#[test]
fn a_save_that_fails_leaves_the_file() {
    let fake = Fake::start(|_| Answer::Json(500, refusal("internal", "no")));
    let file = write(&fake.folder.path().join("mcr.toml"), "old");
    assert_eq!(fake.run(&format!("save --to {file}")).code, Some(1));
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    let fake = Fake::with_rules(two_rules(), json!(null));
    let ran = fake.run("save --to /no/such/folder/file");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("mcrctl: cannot write /no/such/folder/file: "), "{}", ran.err);
}
