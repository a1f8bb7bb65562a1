//! The example `scaling-report`: what it makes of runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

#[test]
fn repeats_are_one_row_with_median_and_worst() {
    let rows = report(&[
        run("bare", 1, 0, 40_000.0, 1.0),
        run("socat", 1, 10, 40_000.0, 21.0),
        run("bare", 2, 0, 40_000.0, 2.0),
        run("socat", 2, 0, 40_000.0, 20.0),
        run("bare", 3, 0, 40_000.0, 3.0),
        run("socat", 3, 100_000, 40_000.0, 30.0),
    ]);
    assert_eq!(rows.len(), 2);
    let socat = &rows["socat"];
    assert_eq!(socat["lost"], "10");
    assert_eq!(socat["lost_worst"], "100000");
    assert_eq!(socat["loss_percent"], "0.0010");
    assert_eq!(socat["loss_percent_worst"], "10.0000");
    // Beyond the 2.0 of the bare path: 19.0 (for 10 packets less), 18.0, and 28.0 for 900,000.
    assert_eq!(socat["added_cpu"], "19.000");
    assert_eq!(socat["bare_spread"], "1.000");
    assert_eq!(socat["marks"], "");
    assert_eq!(rows["bare"]["added_cpu"], "", "the bare path adds nothing to itself");
}

#[test]
fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
    let rows = report(&[run("bare", 1, 4, 40_000.0, 1.0), run("bare", 2, 10, 40_000.0, 1.0)]);
    assert_eq!(rows["bare"]["lost"], "7");
}

#[test]
fn a_loss_of_the_bare_path_is_not_blamed_on_the_relay() {
    let bad = [run("bare", 1, 5, 40_000.0, 1.0), run("ebpf", 1, 5, 40_000.0, 1.0)];
    let (rows, said) = report_of(&bad);
    assert_eq!(rows["ebpf"]["marks"], "path-limited 1");
    assert!(said.contains("ebpf lost nothing that the path carried"), "{said}");
    assert!(said.contains("from 20 streams on the path itself loses"), "{said}");
    // In the next repeat the path was good.
    let good = [run("bare", 2, 0, 40_000.0, 1.0), run("ebpf", 2, 1, 40_000.0, 1.0)];
    let (rows, said) = report_of(&[bad, good].concat());
    assert_eq!(rows["ebpf"]["marks"], "path-limited 1");
    assert!(said.contains("ebpf first loses at 20 streams"), "{said}");
}

#[test]
fn a_sender_that_is_slower_is_said_to_be() {
    let rows = report(&[run("bare", 1, 0, 30_000.0, 1.0), run("ebpf", 1, 0, 29_000.0, 1.0)]);
    assert_eq!(rows["bare"]["marks"], "sender-limited 1");
    assert_eq!(rows["ebpf"]["marks"], "sender-limited 1", "29 of 30 is not slowed");
    let rows = report(&[run("bare", 1, 0, 40_000.0, 1.0), run("socat", 1, 0, 20_000.0, 1.0)]);
    assert_eq!(rows["socat"]["marks"], "slowed 1");
}

#[test]
fn a_relay_that_only_buffers_or_has_ended_is_said_to() {
    let mut late = run("socat", 1, 0, 40_000.0, 1.0);
    late["p99_us"] = json!(150_000.0);
    late["living"] = json!(19);
    let rows = report(&[run("bare", 1, 0, 40_000.0, 1.0), late]);
    assert_eq!(rows["socat"]["marks"], "behind 1; ended 1");
}

#[test]
fn relays_are_compared_with_socat_on_the_same_load() {
    let mut other_load = run("socat", 1, 0, 40_000.0, 1000.0);
    other_load["rate"] = json!(4000);
    let repeat = |number| {
        [("bare", 2.0), ("ebpf", 3.0), ("socat", 22.0)]
            .map(|(relay, cpu)| run(relay, number, 0, 40_000.0, cpu))
    };
    let rows = report(&[&[other_load][..], &repeat(1), &repeat(2)].concat());
    assert_eq!(rows["ebpf"]["times_less_than_socat"], "20.0");
    assert_eq!(rows["bare"]["times_less_than_socat"], "");

    let rows = report(&repeat(1));
    assert_eq!(rows["ebpf"]["added_cpu"], "1.000");
    assert_eq!(rows["ebpf"]["times_less_than_socat"], "", "how far runs differ is not known");
    assert_eq!(rows["bare"]["bare_spread"], "");
}

#[test]
fn kernel_memory_below_the_noise_is_not_shown() {
    let with_slab = |relay, repeat, kib: i64| {
        let mut run = run(relay, repeat, 0, 40_000.0, 1.0);
        run["slab_kib"] = json!(kib);
        run
    };
    let rows = report(&[
        with_slab("bare", 1, -50),
        with_slab("bare", 2, 10),
        with_slab("ebpf", 1, 400),
        with_slab("ebpf", 2, 50),
        with_slab("socat", 1, 200),
        with_slab("socat", 2, 240),
    ]);
    assert_eq!(rows["ebpf"]["slab_kib_per_stream"], "", "one run is within the noise");
    assert_eq!(rows["socat"]["slab_kib_per_stream"], "11.00");
}

#[test]
fn a_disturbed_host_is_not_blamed_on_the_relay() {
    let mut disturbed = run("packet", 1, 7, 40_000.0, 1.0);
    disturbed["others_percent"] = json!(30.04);
    disturbed["apart_s"] = json!(0.2);
    let bare = run("bare", 1, 0, 40_000.0, 1.0);
    let (rows, said) = report_of(&[bare.clone(), disturbed.clone()]);
    assert_eq!(rows["packet"]["marks"], "disturbed 1; apart 1");
    assert_eq!(rows["packet"]["others_percent"], "30.0");
    assert!(said.contains("at 40000/s, in disturbed runs only"), "{said}");
    assert!(said.contains("1 of its 1 runs were disturbed from outside"), "{said}");
    let quiet = run("packet", 2, 7, 40_000.0, 1.0);
    let (_, said) = report_of(&[bare, disturbed, quiet]);
    assert!(!said.contains("in disturbed runs only"), "{said}");
}

#[test]
fn the_labels_of_the_pictures_are_the_stream_counts_and_short_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [1, 2, 5, 10, 20].map(|streams| {
        let mut run = run("ebpf", 1, 1000, 40_000.0, 1.0);
        run["streams"] = json!(streams);
        run
    });
    write(folder.path(), &runs);
    assert!(program(folder.path()).status().unwrap().success());
    for picture in ["loss.svg", "rate.svg"] {
        let svg = fs::read_to_string(folder.path().join(picture)).unwrap();
        let texts = svg.split("<text").skip(1).map(|text| {
            let text = text.split_once('>').unwrap().1;
            text.split_once("</text>").unwrap().0.trim().to_owned()
        });
        let texts = texts.collect::<Vec<_>>();
        let numbers = texts.iter().filter(|text| text.parse::<f64>().is_ok());
        assert!(numbers.clone().all(|number| number.len() < 8), "{picture}: {texts:?}");
        for streams in ["1", "2", "5", "10", "20"] {
            assert!(texts.iter().any(|text| text == streams), "{picture}: {texts:?}");
        }
    }
}

#[test]
fn the_command_that_repeats_it_is_one_for_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[run("bare", 1, 0, 40_000.0, 1.0)]);
    let report = |settings: Value| {
        let setting = json!({"machine": {}, "settings": settings});
        fs::write(folder.path().join("setting.json"), setting.to_string()).unwrap();
        assert!(program(folder.path()).status().unwrap().success());
        fs::read_to_string(folder.path().join("report.md")).unwrap()
    };
    let lab_command = "echo 'it'; true \"$LAB-relay\"";
    let said =
        report(json!({"lab_command": lab_command, "stream_counts": "1 20", "max_streams": ""}));
    assert!(!said.contains("No sysctl is changed") && !said.contains("none changed"), "{said}");
    let (_, command) = said.split_once("```sh\n").unwrap();
    let words = command.split_once(" \\\n").unwrap().0;
    assert!(command.contains("multi_stream_scaling.sh\n```"), "{command}");
    let shell = format!("{words} sh -c 'printf %s \"$LAB_COMMAND/$STREAM_COUNTS\"'");
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{lab_command}/1 20"));

    let said = report(json!({"max_streams": "50", "repeats": "3"}));
    assert!(
        said.contains("REPEATS=3 \\\n    tests/performance/multi_stream_scaling.sh 50\n"),
        "{said}"
    );
    assert!(said.contains("No sysctl is changed"), "{said}");
}

#[test]
fn what_the_sender_spends_on_lost_packets_is_not_the_relays() {
    let rows =
        report(&[run("bare", 1, 0, 40_000.0, 8.0), run("socat", 1, 500_000, 40_000.0, 10.0)]);
    // 10 - 8 for half a million that arrived.
    assert_eq!(rows["socat"]["added_cpu"], "4.000");
}

#[test]
fn there_is_no_factor_within_the_noise() {
    let rows = report(&[
        run("bare", 1, 0, 40_000.0, 1.0),
        run("bare", 2, 0, 40_000.0, 3.0),
        run("ebpf", 1, 0, 40_000.0, 2.5),
        run("ebpf", 2, 0, 40_000.0, 2.5),
        run("socat", 1, 0, 40_000.0, 22.0),
        run("socat", 2, 0, 40_000.0, 22.0),
    ]);
    assert_eq!(rows["ebpf"]["added_cpu"], "0.500");
    assert_eq!(rows["ebpf"]["times_less_than_socat"], "");
    assert_eq!(rows["socat"]["times_less_than_socat"], "1.0");
}

#[test]
fn the_row_at_its_own_rate_is_in_the_summary_but_not_in_the_pictures() {
    let mut bare = run("bare", 1, 0, 60_000.0, 1.0);
    let mut fast = run("ebpf", 1, 250_000, 59_000.0, 3.0);
    for run in [&mut bare, &mut fast] {
        run["rate"] = json!(3333);
    }
    let slow = [run("bare", 1, 0, 40_000.0, 2.0), run("ebpf", 1, 0, 40_000.0, 3.0)];
    let (_, said) = report_of(&[slow.to_vec(), vec![bare, fast]].concat());
    let line = said.lines().last().unwrap();
    assert!(line.contains("lost nothing that the path carried, 20 to 20 streams"), "{line}");
    assert!(line.contains("66660/s on 20 streams: 25.0000 % lost"), "{line}");
}

#[test]
fn nothing_received_is_no_division_by_zero() {
    let runs = [run("bare", 1, 0, 40_000.0, 1.0), run("socat", 1, 1_000_000, 40_000.0, 1.0)];
    let rows = report(&runs);
    assert_eq!(rows["socat"]["loss_percent"], "100.0000");
    assert_eq!(rows["socat"]["added_cpu"], "");
}

#[test]
fn drops_are_listed_by_place_and_a_loss_without_one_is_said() {
    let mut lossy = run("socat", 1, 7, 40_000.0, 1.0);
    lossy["drops"] = json!({"relay UDP sockets": 7});
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[run("bare", 1, 0, 40_000.0, 1.0), lossy, run("ebpf", 1, 3, 40_000.0, 1.0)],
    );
    assert!(program(folder.path()).status().unwrap().success());
    let report = fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert!(report.contains("socat: 7 lost in all runs; relay UDP sockets 7"), "{report}");
    assert!(report.contains("ebpf: 3 lost in all runs; no counter"), "{report}");
}

#[test]
fn a_folder_without_runs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("setting.json"));
    write(folder.path(), &[]);
    fs::write(folder.path().join("runs.jsonl"), "{\"relay\": 1}\n").unwrap();
    let output = program(folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("runs.jsonl:1"));
}

/// One run of a million packets: relay, repeat, packets lost, rate reached, CPU of the machine.
fn run(relay: &str, repeat: u32, lost: u64, achieved: f64, cpu: f64) -> Value {
    json!({
        "relay": relay, "repeat": repeat, "streams": 20, "rate": 2000, "packets": 50_000,
        "sent": 1_000_000, "send_errors": 0, "seconds": 25.0, "apart_s": 0.0, "asked_rate": 40_000,
        "achieved_rate": achieved, "received": 1_000_000 - lost, "lost": lost, "duplicated": 0,
        "reordered": 0, "corrupt": 0, "foreign": 0, "worst_stream": null, "p50_us": 10.0,
        "p99_us": 20.0, "sink_drops": 0, "sink_rcvbuf": 4_194_304, "sender_cpu_s": 1.0,
        "relay_cpu_s": 1.0, "system_cpu_s": cpu, "others_percent": 1.0, "rss_kib": 1024, "pss_kib": 512, "processes": 20,
        "living": 20, "sockets": 40, "slab_kib": 100, "rules": 20, "start_s": 0.0,
        "configure_s": 0.5, "buffers": {}, "drops": {}, "log": "logs/x",
    })
}

/// Relay to its row of the CSV at 2,000 packets a second and stream.
type Rows = BTreeMap<String, BTreeMap<String, String>>;

fn report(runs: &[Value]) -> Rows {
    report_of(runs).0
}

/// The rows, and what was said on the terminal.
fn report_of(runs: &[Value]) -> (Rows, String) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), runs);
    let output = program(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let csv = fs::read_to_string(folder.path().join("results.csv")).unwrap();
    let mut lines = csv.lines().map(|line| line.split(',').map(str::to_owned));
    let heading = lines.next().unwrap().collect::<Vec<_>>();
    let rows = lines
        .map(|line| heading.iter().cloned().zip(line).collect::<BTreeMap<_, _>>())
        .filter(|row| row["asked_rate"] == "40000")
        .map(|row| (row["relay"].clone(), row));
    (rows.collect(), String::from_utf8(output.stdout).unwrap())
}

fn write(folder: &Path, runs: &[Value]) {
    let setting = json!({"machine": {}, "settings": {"per_stream_rate": "2000"}});
    fs::write(folder.join("setting.json"), setting.to_string()).unwrap();
    let lines = runs.iter().map(|run| format!("{run}\n")).collect::<String>();
    fs::write(folder.join("runs.jsonl"), lines).unwrap();
}

/// Built by `cargo test` into the same folder.
fn program(folder: &Path) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_mcrgen")).with_file_name("examples/scaling-report");
    assert!(path.exists(), "run `cargo build --package mcrgen --examples` first");
    let mut command = Command::new(path);
    command.arg(folder);
    command
}
