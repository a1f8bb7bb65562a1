//! What needs no daemon: usage, and saying that there is none.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{MCRCTL, Ran, mcrctl};

#[test]
fn usage_is_code_2() {
    for words in [
        "",
        "nonsense",
        "add 239.1.1.1:5@eth0",
        "set a",
        "remove",
        "output a",
        "output add a",
        "wait a --for happiness",
        "wait a --timeout 10",
        "stats --interval 1s",
        "stats --watch --interval 0s",
        "add i o --local maybe",
        "--socket /x --instance y list",
        "--instance ../x list",
        "save --json",
        "discover --duration 0s",
        "discover --duration 6m",
        "discover --rules",
        "discover --to eth1",
        "discover --rules --to eth1@if2",
        "discover eth1 --rules --to eth1",
        "discover --rules --to eth1 --json",
        "top --json",
        "top --interval 0s",
        "top",
    ] {
        let ran = mcrctl(words);
        assert_eq!(ran.code, Some(2), "{words}: {ran:?}");
        assert_eq!(ran.out, "", "{words}");
        assert!(!ran.err.is_empty(), "{words}");
    }
}

#[test]
fn top_without_a_terminal_says_what_to_use() {
    let ran = mcrctl("top");
    let expected =
        "error: top cannot draw: standard output is no terminal; use `mcrctl stats --watch`";
    assert!(ran.err.starts_with(expected), "{ran:?}");
    let ran = mcrctl("top --json");
    assert!(ran.err.contains("use `mcrctl stats --watch --json`"), "{ran:?}");
}

#[test]
fn no_socket_is_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock").display().to_string();
    for words in [
        "list",
        "show a",
        "stats",
        "status",
        "reload",
        "wait a",
        "save",
        "enable a",
        "remove a",
        "add 239.1.1.1:5@eth0 239.2.1.1:6@eth1",
    ] {
        let ran = mcrctl(&format!("{words} --socket {socket}"));
        assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""), "{words}: {ran:?}");
        let expected = format!("mcrctl: no daemon: there is no socket {socket}\n  hint: is mcrd ");
        assert!(ran.err.starts_with(&expected), "{words}: {}", ran.err);
        assert!(ran.err.contains("--instance"), "{}", ran.err);
    }
}

#[test]
fn an_instance_is_a_socket_in_run() {
    for words in ["--instance no-such-mcrd list", "list --instance no-such-mcrd"] {
        let ran = mcrctl(words);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.err.contains("/run/mcr/no-such-mcrd.sock"), "{}", ran.err);
    }
}

#[test]
fn a_dead_socket_is_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    drop(UnixListener::bind(&socket).unwrap());
    let ran = mcrctl(&format!("--socket {} list", socket.display()));
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.starts_with("mcrctl: no daemon: nobody listens on /"), "{}", ran.err);
}

#[test]
fn a_socket_without_permission_is_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    let socket = closed.join("sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let program = folder.path().join("mcrctl");
    fs::copy(MCRCTL, &program).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(program);
    command.arg("--socket").arg(&socket).arg("list").current_dir("/");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        // Permissions do not hold root back.
        command.uid(65534).gid(65534);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let output = loop {
        // Another test may just be starting a child, which holds the copy open until it runs.
        match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                assert!(Instant::now() < deadline, "{error}");
            }
            output => break output.unwrap(),
        }
    };
    let ran = Ran::from(output);
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.starts_with("mcrctl: no permission to use /"), "{}", ran.err);
    assert!(ran.err.contains("as root, or as a member of the group"), "{}", ran.err);
}

#[test]
fn errors_are_json_where_that_was_asked_for() {
    let ran = mcrctl("--json --instance no-such-mcrd list");
    assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""));
    let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["error"]["code"], "no-daemon");
    assert!(error["error"]["hint"].as_str().unwrap().contains("--instance"));
}
