use serde_json::json;

use super::*;

fn message(failure: Failure) -> String {
    let Failure::Refused(error) = failure else { panic!("{failure:?}") };
    error.message
}

#[test]
fn empty_lines_and_comments_are_skipped_and_counted() {
    let commands = parse("\n# a comment\n  remove a\n\nremove b # why\ndisable 'c'\n").unwrap();
    let lines: Vec<usize> = commands.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 5, 6]);
}

#[test]
fn a_line_may_begin_with_the_name_of_the_program() {
    let text = "mcrctl remove a\nmcrctl add '[ff15::1]:5@eth0' '[ff15::1]:5@eth1'\n";
    assert_eq!(parse(text).unwrap().len(), 2);
    assert!(message(parse("mcrctl mcrctl remove a").unwrap_err()).contains("'mcrctl'"));
    assert!(message(parse("mcrctl").unwrap_err()).starts_with("line 1: "));
}

#[test]
fn mistakes_name_their_line() {
    for (text, expected) in [
        ("remove a\nlist", "line 2: unrecognized subcommand 'list'"),
        ("\nremove", "line 2: the following required arguments were not provided: <NAME>..."),
        ("add 'x", "line 1: missing closing quote"),
        ("set a", "line 1: the following required arguments were not provided"),
        ("--json remove a", "line 1: unexpected argument '--json' found"),
        (
            "remove a\nadd 239.1.1.1:5@eth0 239.2.1.1:6@eth1 --wait",
            "line 2: --wait is not for one line",
        ),
        ("set a --ttl 3 --wait", "line 1: --wait is not for one line"),
        ("help", "line 1: unrecognized subcommand 'help'"),
    ] {
        let message = message(parse(text).expect_err(text));
        assert!(message.starts_with(expected), "{text}: {message}");
    }
}

#[test]
fn a_refusal_of_mcrd_is_traced_to_the_last_line_that_made_the_rule() {
    let text = "add 239.1.1.1:5@eth0 239.2.1.1:6@eth1 --name a\nadd 239.1.1.2:5@eth0 239.2.1.2:6@eth1\n\
                set a --ttl 3\nremove 239.1.1.2:5@eth0\n";
    let list = serde_json::from_value(json!({"generation": 1, "rules": []})).unwrap();
    let planned = plan(&parse(text).unwrap(), list).unwrap();
    assert_eq!(line_of(&planned, "rule a: input 239.1.1.1:5@eth0: no interface"), Some(3));
    assert_eq!(line_of(&planned, "rule 239.1.1.2:5@eth0: taken"), Some(2));
    assert_eq!(line_of(&planned, "rule ab: no"), None);
    assert_eq!(line_of(&planned, "too many rules"), None);
}
