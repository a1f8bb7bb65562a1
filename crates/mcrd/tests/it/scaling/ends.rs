//! How the script ends: on signals, after a failed step, when it is killed; and that nothing is left.

use std::fs;

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Scaling, exit_code, finish, text};
use crate::lab::{can_run, end, sibling, wait_for};

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    // A signal to the whole process group is what a terminal sends.
    for (signal, code, group) in [
        (Signal::INT, 130, false),
        (Signal::INT, 130, true),
        (Signal::TERM, 143, false),
        (Signal::HUP, 143, false),
    ] {
        for (relay, moment) in
            [("ebpf", "sent-1.json"), ("packet", "mcrd.log"), ("socat", "socat.log"), ("bare", "")]
        {
            let test = Scaling::new();
            let mut child = test.start(if relay == "bare" { "socat" } else { relay });
            test.wait_for_file(&format!("{relay}-1/{moment}"));
            if group {
                kill_process_group(Pid::from_child(&child), signal).unwrap();
            } else {
                end(Some(child.id()), signal);
            }
            assert_eq!(exit_code(&mut child), Some(code), "{signal:?}, {relay}, {group}");
            assert_eq!(test.said(), "", "{signal:?}, {relay}, {group}");
            test.nothing_is_left(child.id());
        }
    }
}

#[test]
fn a_failed_step_is_an_error_that_names_its_log() {
    if !can_run() {
        return;
    }
    let mcrctl = sibling("mcrctl").display().to_string();
    for (name, program, message) in [
        (
            "mcrctl",
            format!(
                "case $* in *batch*) echo refused >&2; exit 1;; *) exec {mcrctl} \"$@\";; esac"
            ),
            ["the rules were refused", "batch.log"],
        ),
        (
            // A rule is missing, and nobody says so.
            "mcrctl",
            format!(
                "case $* in *batch*) head -n 1 \"$4\" | exec {mcrctl} \"$1\" \"$2\" batch -;; \
                 *) exec {mcrctl} \"$@\";; esac"
            ),
            ["ebpf relays 1 of 2 streams", "mcrd.log"],
        ),
        (
            "mcrgen",
            format!(
                "case $1 in send) echo broken >&2; exit 3;; *) exec {} \"$@\";; esac",
                sibling("mcrgen").display()
            ),
            ["sender: exit code 3", "senders.log"],
        ),
        ("mcrd", "echo broken >&2; exit 1".into(), ["mcrd did not start", "mcrd.log"]),
        (
            // Whatever code it has.
            "mcrctl",
            format!("case $* in *stats*) exit 5;; *) exec {mcrctl} \"$@\";; esac"),
            ["ebpf with 2 streams: a step failed", "ebpf-1"],
        ),
        ("examples/scaling-report", "exit 101".into(), ["making the report", "report.log"]),
    ] {
        let test = Scaling::new();
        test.replace(name, &program);
        let (pid, output) = finish(
            test.command(&[])
                .env("STREAM_COUNTS", "2")
                .env("REPEATS", "1")
                .env("PER_STREAM_PACKETS", "200"),
        );
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in message {
            assert!(said.contains(part), "{part}: {said}");
        }
        test.nothing_is_left(pid);
    }
}

#[test]
fn a_missing_program_is_refused_before_anything_is_measured() {
    if !can_run() {
        return;
    }
    let test = Scaling::new();
    fs::remove_file(test.folder.path().join("bin/mcrgen")).unwrap();
    let (_, output) = finish(&mut test.command(&["1"]));
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("has no program mcrgen"), "{said}");
    assert!(!test.results().exists());
}

#[test]
fn a_command_of_the_user_does_not_delay_the_end_and_does_not_outlive_it() {
    if !can_run() {
        return;
    }
    // Of its own group, and deaf to SIGTERM once.
    let hangs = "touch \"$RESULTS_DIR/runs\"; sh -c 'trap : TERM; sleep 1000; sleep 1000'";
    let test = Scaling::new();
    let mut child = test.spawn(test.command(&["1"]).env("LAB_COMMAND", hangs));
    wait_for("LAB_COMMAND", || test.results().join("runs").exists());
    end(Some(child.id()), Signal::TERM);
    assert_eq!(exit_code(&mut child), Some(143), "{}", test.said());
    test.nothing_is_left(child.id());

    let test = Scaling::new();
    let mut command = test.command(&["1"]);
    command.env("LAB_COMMAND", "sleep 1000 &").env("RELAYS", "ebpf").env("REPEATS", "1");
    let (pid, output) = finish(command.env("PER_STREAM_PACKETS", "100"));
    assert!(output.status.success(), "{}", text(&output));
    test.nothing_is_left(pid);

    let test = Scaling::new();
    let (pid, output) = finish(test.command(&["1"]).env("LAB_COMMAND", "echo broken; exit 7"));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("LAB_COMMAND: exit code 7"), "{}", text(&output));
    assert!(text(&output).contains("broken"), "{}", text(&output));
    test.nothing_is_left(pid);
}

#[test]
fn a_signal_during_the_build_ends_the_build() {
    if !can_run() {
        return;
    }
    let test = Scaling::new();
    test.put("cargo", "sleep 1000 & touch \"$RESULTS_DIR/builds\"; wait");
    let path = std::env::var("PATH").unwrap();
    let mut command = test.command(&["1"]);
    command.env_remove("BIN").env("PATH", format!("{}/bin:{path}", test.folder.path().display()));
    let mut child = test.spawn(&mut command);
    wait_for("the build", || test.results().join("builds").exists());
    end(Some(child.id()), Signal::TERM);
    assert_eq!(exit_code(&mut child), Some(143), "{}", test.said());
    test.nothing_is_left(child.id());
}

#[test]
fn it_cleans_up_when_it_is_killed() {
    if !can_run() {
        return;
    }
    let test = Scaling::new();
    let mut child = test.start("packet");
    test.wait_for_file("packet-1/sent-1.json");
    end(Some(child.id()), Signal::KILL);
    child.wait().unwrap();
    wait_for("the end of its processes", || test.processes().is_empty());
    test.nothing_is_left(child.id());
}

#[test]
fn a_run_after_one_that_could_not_clean_up_starts_clean() {
    if !can_run() {
        return;
    }
    let killed = Scaling::new();
    let mut child = killed.start("ebpf");
    killed.wait_for_file("ebpf-1/sent-1.json");
    let script = child.id();
    let children = fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap();
    for pid in children.split_whitespace().chain([&*script.to_string()]) {
        end(pid.parse().ok(), Signal::KILL);
    }
    child.wait().unwrap();
    assert!(!killed.processes().is_empty(), "mcrd and the sink go on");

    let test = Scaling::new();
    let mut command = test.command(&["1"]);
    command.env("PER_STREAM_PACKETS", "200").env("RELAYS", "ebpf").env("REPEATS", "1");
    let (pid, output) = finish(&mut command);
    assert!(output.status.success(), "{}", text(&output));
    assert!(test.runs().iter().all(|run| run["lost"] == 0));
    test.nothing_is_left(pid);
    killed.nothing_is_left(script);
}
