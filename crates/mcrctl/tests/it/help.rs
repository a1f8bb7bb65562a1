use insta::assert_snapshot;

use crate::mcrctl;

#[test]
fn of_each_command() {
    for words in [
        "",
        "add",
        "set",
        "remove",
        "output",
        "output add",
        "output remove",
        "enable",
        "disable",
        "list",
        "show",
        "stats",
        "top",
        "status",
        "events",
        "doctor",
        "wait",
        "discover",
        "capture",
        "apply",
        "batch",
        "reload",
        "check",
        "save",
    ] {
        let ran = mcrctl(&format!("{words} --help"));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{words}");
        let name = if words.is_empty() { "mcrctl".into() } else { words.replace(' ', "-") };
        assert_snapshot!(name, ran.out);
    }
}
