//! `tests/performance/multi_stream_scaling.sh`: its settings, its addresses, its clean-up, and a
//! small run of every relay.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::lab::{can_run, run, sibling, wait_for};

mod ends;

#[test]
fn settings_that_cannot_be_are_refused() {
    for (variable, value) in [
        ("PER_STREAM_PACKETS", "0"),
        ("PER_STREAM_PACKETS", "ten"),
        ("PER_STREAM_RATE", "-1"),
        ("PER_STREAM_RATE", "2000.5"),
        ("PACKET_SIZE", "39"),
        ("PACKET_SIZE", "1473"),
        ("RELAYS", "ebpf kernel"),
        ("RELAYS", "ebpf ebpf"),
        ("RELAYS", ""),
        ("NUM_WORKERS", "0"),
        ("NUM_WORKERS", "65"),
        ("NUM_WORKERS", "x"),
        ("REPEATS", "0"),
        ("SINK", "netcat"),
        ("SENDERS", "2"),
        ("GSO", "65"),
        ("INSTRUMENT_NICE", "-21"),
        ("INSTRUMENT_NICE", "20"),
        ("SOCAT_RCVBUF", "4M"),
        ("SOCAT_RCVBUF", ""),
        ("STREAM_COUNTS", "1 509"),
        ("STREAM_COUNTS", "20 20"),
        ("STREAM_COUNTS", " "),
        ("STREAM_COUNTS", "1\n20\n1"),
        ("RELAYS", "ebpf\nkernel"),
        // Beside the argument.
        ("STREAM_COUNTS", "1 2"),
        ("MAX_STREAMS", "2"),
        ("TOTAL_RATE", "149"),
        ("GSO", "64"),
        ("TOTAL_RATE", "x"),
        ("TOTAL_RATE", "99999999999999999999"),
    ] {
        let output = script(&["2"]).env(variable, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {said}");
        let named = if value == "1 509" { "509" } else { variable };
        let named = if value.contains("kernel") { "kernel" } else { named };
        assert!(said.contains(named), "{variable}={value}: {said}");
        assert_eq!(said.lines().count(), 1, "{variable}={value}: {said}");
    }
    for arguments in [&["0"][..], &["509"], &["-5"], &["two"], &[""], &["1", "2"]] {
        let output = script(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_help_names_every_setting() {
    let output = run(script(&["--help"]).stdin(Stdio::null()));
    let help = String::from_utf8(output.stdout).unwrap();
    let source = fs::read_to_string(path("tests/performance/settings.sh")).unwrap();
    let settings = source.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once('=')?;
        value.starts_with(&format!("${{{name}-")).then_some(name)
    });
    let settings = settings.collect::<Vec<_>>();
    assert!(settings.len() >= 13, "{settings:?}");
    for setting in settings {
        assert!(help.contains(&format!("\n  {setting} ")), "{setting} is not in --help");
    }
}

#[test]
fn settings_become_loads() {
    for (settings, loads) in [
        ("read_settings 5", "1 2000,2 2000,5 2000"),
        ("read_settings 6", "1 2000,2 2000,5 2000"),
        ("STREAM_COUNTS=$'20\\n1'; read_settings", "20 2000,1 2000"),
        ("STREAM_COUNTS='508 1' TOTAL_RATE=150; read_settings", "508 2000,1 2000,150 1"),
        ("STREAM_COUNTS='1 149'; read_settings", "1 2000,149 2000"),
        ("STREAM_COUNTS=150 TOTAL_RATE=0; read_settings", "150 2000"),
        ("STREAM_COUNTS=150 TOTAL_RATE=300000; read_settings", "150 2000"),
        (
            "RELAYS=$'socat\\nebpf' STREAM_COUNTS=1; read_settings; [ \"$RELAYS\" = 'socat ebpf' ]",
            "1 2000",
        ),
    ] {
        let output = shell(&format!("root=.; {settings}; IFS=,; echo \"${{rows[*]}}\""));
        assert_eq!(text(&output), format!("{loads}\n"), "{settings}");
    }
}

#[test]
fn streams_have_their_addresses() {
    for (stream, line) in [
        (1, "1 239.1.1.1 5001 239.10.1.1 6001"),
        (2, "2 239.1.1.2 5002 239.10.1.2 6002"),
        (254, "254 239.1.1.254 5254 239.10.1.254 6254"),
        (255, "255 239.1.2.1 5255 239.10.2.1 6255"),
        (508, "508 239.1.2.254 5508 239.10.2.254 6508"),
    ] {
        let flows = shell(&format!("flows {stream} | tail -n 1"));
        assert_eq!(String::from_utf8_lossy(&flows.stdout).trim(), line);
    }
    let all = shell("flows 508 | awk '{ print $2; print $4 }' | sort -u | wc -l");
    assert_eq!(String::from_utf8_lossy(&all.stdout).trim(), "1016");
    for stream in ["0", "509", "-1", "x", "''"] {
        let refused = shell(&format!("flows {stream}"));
        assert!(!refused.status.success(), "{stream} streams");
    }
}

#[test]
fn every_relay_carries_two_streams_and_the_report_equals_the_csv() {
    if !can_run() {
        return;
    }
    let test = Scaling::new();
    let mut command = test.command(&["2"]);
    command.env("PER_STREAM_PACKETS", "200").env("REPEATS", "2");
    let (pid, output) = finish(&mut command);
    assert!(output.status.success(), "{}", text(&output));

    let runs = test.runs();
    assert_eq!(runs.len(), 2 * 2 * 4, "2 counts, 2 repeats, the bare path and 3 relays");
    let turns = runs.iter().take(4).map(|run| run["relay"].as_str().unwrap());
    assert_eq!(turns.collect::<Vec<_>>(), ["bare", "ebpf", "packet", "socat"]);
    for run in &runs {
        let number = |field: &str| run[field].as_u64().unwrap_or_else(|| panic!("{field}: {run}"));
        assert_eq!(number("sent"), number("streams") * 200, "{run}");
        assert_eq!(number("received"), number("sent"), "{run}");
        for field in ["lost", "duplicated", "reordered", "corrupt", "foreign"] {
            assert_eq!(number(field), 0, "{field}: {run}");
        }
        assert_eq!(number("rules"), number("streams"), "{run}");
        assert_eq!(number("living"), number("processes"), "{run}");
        let folder = test.results().join(run["log"].as_str().unwrap());
        assert!(folder.join("sent-1.json").exists(), "{}", folder.display());
    }
    let of = |relay: &str, field: &str| {
        let run = runs.iter().rfind(|run| run["relay"] == relay).unwrap();
        run[field].as_f64().unwrap()
    };
    assert_eq!(of("ebpf", "processes"), 1.0);
    assert_eq!(of("packet", "processes"), 5.0, "mcrd and NUM_WORKERS");
    assert_eq!(of("socat", "processes"), 2.0);
    assert!(of("socat", "relay_cpu_s") > 0.0 && of("packet", "relay_cpu_s") > 0.0);

    report_equals_csv(&test.results());
    let csv = fs::read_to_string(test.results().join("results.csv")).unwrap();
    // A machine with other work marks runs.
    let line = csv.lines().find(|line| line.starts_with("2,4000,socat,2,")).unwrap();
    assert!(line.contains(",2,400,"), "2 rules, 400 packets: {line}");
    for picture in ["loss.svg", "rate.svg", "cpu.svg"] {
        let svg = fs::read_to_string(test.results().join(picture)).unwrap();
        assert!(svg.contains("<svg") && svg.contains("socat"), "{picture}: {svg}");
    }
    test.nothing_is_left(pid);
}

#[test]
fn socat_can_be_the_sink_and_each_stream_have_its_sender() {
    if !can_run() {
        return;
    }
    let test = Scaling::new();
    let mut command = test.command(&[]);
    command.env("STREAM_COUNTS", "3").env("TOTAL_RATE", "0").env("RELAYS", "packet socat");
    command.env("SINK", "socat").env("SENDERS", "N").env("REPEATS", "1");
    // Fewer than fit the receive buffer that a socket has by default.
    command.env("PER_STREAM_PACKETS", "100").env("SOCAT_RCVBUF", "default");
    let (pid, output) = finish(&mut command);
    assert!(output.status.success(), "{}", text(&output));
    let runs = test.runs();
    assert_eq!(runs.len(), 3);
    for run in &runs {
        assert_eq!(run["sent"], 300, "{run}");
        assert_eq!(run["received"], 300, "{run}");
        let apart = run["apart_s"].as_f64().unwrap();
        assert!(apart < 0.5, "all start at the same moment: {run}");
        assert_eq!(run["duplicated"], Value::Null, "socat cannot know");
    }
    report_equals_csv(&test.results());
    test.nothing_is_left(pid);
}

#[test]
fn folders_may_be_relative_and_have_spaces() {
    if !can_run() {
        return;
    }
    let test = Scaling::new();
    let mut command = test.command(&["1"]);
    command.current_dir(test.folder.path()).env("BIN", "bin").env("RESULTS_DIR", "my results");
    command.env("RELAYS", "ebpf").env("REPEATS", "1").env("PER_STREAM_PACKETS", "100");
    let (pid, output) = finish(&mut command);
    assert!(output.status.success(), "{}", text(&output));
    assert!(test.folder.path().join("my results/report.md").exists());
    let again = command.output().unwrap();
    assert_eq!(again.status.code(), Some(2), "never over older results: {}", text(&again));
    test.nothing_is_left(pid);
}

/// The script, with ready-built programs and a folder for its results.
struct Scaling {
    folder: tempfile::TempDir,
}

impl Scaling {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir_all(bin.join("examples")).unwrap();
        for name in ["mcrd", "mcrctl", "mcrgen", "examples/scaling-report"] {
            symlink(sibling(name), bin.join(name)).unwrap();
        }
        Self { folder }
    }

    /// Puts a shell script in the place of a program.
    fn replace(&self, name: &str, program: &str) {
        fs::remove_file(self.folder.path().join("bin").join(name)).unwrap();
        self.put(name, program);
    }

    /// Puts a shell script beside the programs.
    fn put(&self, name: &str, program: &str) {
        let path = self.folder.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{program}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = script(arguments);
        command.env("BIN", self.folder.path().join("bin")).env("RESULTS_DIR", self.results());
        command
    }

    /// Two streams for a second through the bare path and this relay.
    fn start(&self, relay: &str) -> Child {
        let mut command = self.command(&[]);
        command.env("STREAM_COUNTS", "2").env("PER_STREAM_PACKETS", "2000").env("RELAYS", relay);
        self.spawn(&mut command)
    }

    /// Starts it as the leader of a process group; what it says is [`Self::said`].
    fn spawn(&self, command: &mut Command) -> Child {
        let said = fs::File::create(self.folder.path().join("said")).unwrap();
        command.stdout(Stdio::null()).stderr(said).process_group(0).spawn().unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    fn wait_for_file(&self, moment: &str) {
        let path = self.results().join("logs/2-streams-2000-per-s").join(moment);
        wait_for(&path.display().to_string(), || path.exists());
    }

    fn runs(&self) -> Vec<Value> {
        let lines = fs::read_to_string(self.results().join("runs.jsonl")).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// No namespace, socket or pin of the labs that the script has made, and no process that it has
    /// started: each has our folder in its environment.
    #[track_caller]
    fn nothing_is_left(&self, script: u32) {
        let prefix = format!("mcr-lab-{script}-");
        for folder in ["/run/netns", "/run/mcr", "/sys/fs/bpf/mcr"] {
            let left = entries(folder).into_iter().filter(|entry| entry.starts_with(&prefix));
            assert_eq!(left.collect::<Vec<_>>(), [""; 0], "left in {folder}");
        }
        assert_eq!(self.processes(), [""; 0], "processes left");
    }

    /// The processes that the script has started.
    fn processes(&self) -> Vec<String> {
        let results = self.results().display().to_string();
        let is_ours = |pid: &String| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            pid.parse::<u32>().is_ok() && String::from_utf8_lossy(&environment).contains(&results)
        };
        entries("/proc").into_iter().filter(is_ours).collect()
    }
}

fn entries(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Every table of the report has the same texts as the CSV.
fn report_equals_csv(results: &Path) {
    let csv = fs::read_to_string(results.join("results.csv")).unwrap();
    let csv = csv.lines().map(|line| line.split(',').collect::<Vec<_>>()).collect::<Vec<_>>();
    let report = fs::read_to_string(results.join("report.md")).unwrap();
    let json: Value =
        serde_json::from_str(&fs::read_to_string(results.join("results.json")).unwrap()).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), csv.len() - 1);

    let row_of = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        cells.collect::<Vec<_>>()
    };
    let tables = report.lines().filter(|line| line.starts_with('|')).map(row_of);
    let (mut compared, mut heading) = (0, Vec::new());
    for cells in tables.filter(|cells| cells[0] != "---") {
        if cells[0] == "streams" {
            heading = cells;
            continue;
        }
        // A load and its relay are the key; the order of the columns is the report's own.
        let line = csv
            .iter()
            .find(|line| [line[0], line[1], line[2]] == [&*cells[0], &*cells[1], &*cells[2]]);
        let line = line.unwrap_or_else(|| panic!("{cells:?} is not in the CSV"));
        let row = json["rows"].as_array().unwrap().iter().find(|row| {
            [&row["streams"], &row["asked_rate"], &row["relay"]].map(as_text)
                == [&*cells[0], &*cells[1], &*cells[2]]
        });
        for (heading, cell) in heading.iter().zip(&cells).skip(3) {
            let Some(key) = KEYS.iter().find(|(name, _)| name == heading).map(|(_, key)| *key)
            else {
                continue;
            };
            let at = csv[0].iter().position(|name| *name == key).unwrap();
            let said = if line[at].is_empty() { "–" } else { line[at] };
            assert_eq!(cell, said, "{heading} of {cells:?}");
            if let (Ok(a), Some(b)) = (line[at].parse::<f64>(), row.unwrap()[key].as_f64()) {
                assert!((a - b).abs() < 1e-9, "{key}: {a} in the CSV, {b} in the JSON");
            }
            compared += 1;
        }
    }
    assert!(compared >= (csv.len() - 1) * KEYS.len(), "{compared} numbers compared");
}

/// Columns of the report's tables, and what the CSV calls them.
const KEYS: &[(&str, &str)] = &[
    ("sent/s", "achieved_rate"),
    ("sent", "sent"),
    ("received", "received"),
    ("arrived/s", "delivered_rate"),
    ("lost", "lost"),
    ("loss %", "loss_percent"),
    ("duplicated", "duplicated_worst"),
    ("reordered", "reordered_worst"),
    ("p50 µs", "p50_us"),
    ("p99 µs", "p99_us"),
    ("relay's processes", "relay_cpu"),
    ("whole machine", "system_cpu"),
    ("beyond bare path", "added_cpu"),
    ("worst %", "loss_percent_worst"),
    ("± bare path", "bare_spread"),
    ("times less than socat", "times_less_than_socat"),
    ("resident MiB", "rss_mib"),
    ("kernel KiB a stream", "slab_kib_per_stream"),
    ("processes", "processes"),
    ("configure s", "configure_s"),
];

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn script(arguments: &[&str]) -> Command {
    // A shell cannot trap what was ignored when it began, as under nohup(1).
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM,HUP");
    command.arg(path("tests/performance/multi_stream_scaling.sh"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Commands after the functions of the script.
fn shell(commands: &str) -> Output {
    let [settings, relays] =
        ["settings.sh", "relays.sh"].map(|name| path("tests/performance").join(name));
    let (settings, relays) = (settings.display(), relays.display());
    let commands = format!("set -eu; . {settings}; . {relays}; {commands}");
    Command::new("bash").args(["-c", &commands]).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// Runs it to its end: its process id, and what it said.
fn finish(command: &mut Command) -> (u32, Output) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (child.id(), child.wait_with_output().unwrap())
}

fn exit_code(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_for("the end of the script", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}
