use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mcr_core::api::{Count, InspectStats, InterfaceStatus, ProgramCost, Rate, RtpStats, TsStats};
use serde_json::{Value, json};

use super::catalogue::ALL;
use super::text::Kind;
use super::*;

/// Rules `r0`, `r1`, ... with two outputs each, whose figures all differ.
fn figures(rules: u64) -> Figures {
    let rule = |k: u64| RuleStats {
        inspect: Some(InspectStats {
            rtp: Some(RtpStats::default()),
            ts: Some(TsStats::default()),
            ..InspectStats::default()
        }),
        senders: Vec::new(),
        name: format!("r{k}"),
        state: State::ALL[k as usize % State::ALL.len()].name().into(),
        reason: None,
        since: "2026-01-01T00:00:00Z".into(),
        last_packet: Some("2026-01-01T00:00:01.500Z".into()),
        received: Count { packets: 100 * k + 1, bytes: 100 * k + 2 },
        matched: Count { packets: 100 * k + 3, bytes: 100 * k + 4 },
        dropped: BTreeMap::from([("own".into(), 100 * k + 5)]),
        rate: Rate::default(),
        outputs: [1, 2]
            .map(|n| OutputStats {
                to: format!("239.10.1.{n}:6000@eth{n}"),
                since: "2026-01-01T00:00:00Z".into(),
                offered: Count { packets: 100 * k + 10 * n + 1, bytes: 100 * k + 10 * n + 2 },
                forwarded: Count { packets: 100 * k + 10 * n + 3, bytes: 100 * k + 10 * n + 4 },
                dropped: BTreeMap::from([("mtu".into(), 100 * k + 10 * n + 5)]),
                interface_dropped: 7,
            })
            .into(),
    };
    let worker = json!({"worker": 1, "state": "running", "since": "2026-01-01T00:00:00Z",
        "pid": std::process::id(), "cpu": 0, "restarts": 2,
        "rings": [{"interface": "eth0", "receive": "frame", "slots": 512, "slot_bytes": 2048,
            "bytes": 1 << 20, "waiting": 3, "used_slots": 3, "copy_buffer": 4096, "copy_used": 5,
            "dropped": 6, "unusable": 7}],
        "send_buffers": [{"interface": "eth1", "asked": 4096, "granted": 2048, "used": 8,
            "qdisc_bypass": false}]});
    Figures {
        stats: Stats {
            time: "2026-01-01T00:00:02Z".into(),
            boot_id: "b".into(),
            rules: (0..rules).map(rule).collect(),
        },
        status: Status {
            version: "1.2.3".into(),
            instance: "mcr".into(),
            pid: 1,
            since: "2026-01-01T00:00:00Z".into(),
            boot_id: "b".into(),
            plane: "packet".into(),
            attach: "af_packet".into(),
            why: None,
            generation: 1_795_352_950_408,
            states: State::ALL.iter().map(|state| (state.name().to_owned(), 1)).collect(),
            rules_in_no_file: 1,
            rules_max: 16384,
            outputs_max: 16384,
            membership_sockets: 1,
            interfaces: vec![InterfaceStatus {
                name: "eth0".into(),
                index: 2,
                groups: 1,
                passed: BTreeMap::from([("no-rule".into(), 9)]),
                lost_before: BTreeMap::from([("nic-missed".into(), 3)]),
            }],
            softnet_dropped: Some(4),
            program: Some(ProgramCost { runs: 2, nanoseconds: 1_500_000_000 }),
            workers: vec![serde_json::from_value(worker).unwrap()],
        },
        silences: (0..rules).map(|_| Some(Duration::from_secs(10))).collect(),
        transmit_drops: BTreeMap::from([("eth1".into(), 7), ("eth9".into(), 1)]),
    }
}

fn text(figures: &Figures, format: Format) -> String {
    render(figures, Process::read(), format)
}

/// Name and labels of each sample, with its value.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let pairs = lines.iter().map(|line| line.rsplit_once(' ').unwrap());
    let samples: BTreeMap<&str, f64> =
        pairs.map(|(series, value)| (series, value.parse().unwrap())).collect();
    assert_eq!(samples.len(), lines.len(), "a series is there twice");
    samples
}

/// What samples of the metric are called.
fn sample_name(metric: Metric) -> String {
    format!("{}{}", metric.name, metric.suffix())
}

#[test]
fn ten_thousand_series_are_all_there_and_right() {
    let figures = figures(500);
    for format in [Format::OpenMetrics, Format::Plain] {
        let text = text(&figures, format);
        let samples = samples(&text);
        assert!(samples.len() > 10_000, "only {} series", samples.len());
        for k in 0..500 {
            let of = |metric: &str, labels: &str| {
                let series = format!("{metric}{{rule=\"r{k}\"{labels}}}");
                samples.get(&*series).copied().unwrap_or_else(|| panic!("{series} is missing"))
            };
            let base = f64::from(100 * k);
            assert_eq!(of("mcr_rule_received_packets_total", ""), base + 1.0);
            assert_eq!(of("mcr_rule_received_bytes_total", ""), base + 2.0);
            assert_eq!(of("mcr_rule_matched_packets_total", ""), base + 3.0);
            assert_eq!(of("mcr_rule_matched_bytes_total", ""), base + 4.0);
            assert_eq!(of("mcr_rule_dropped_packets_total", ",reason=\"own\""), base + 5.0);
            assert_eq!(of("mcr_rule_silence_seconds", ""), 10.0);
            assert_eq!(of("mcr_rule_start_timestamp_seconds", ""), 1_767_225_600.0);
            assert_eq!(of("mcr_rule_last_packet_timestamp_seconds", ""), 1_767_225_601.5);
            for (number, state) in (0..).zip(State::ALL) {
                let here = of("mcr_rule_state", &format!(",state=\"{}\"", state.name()));
                assert_eq!(here, f64::from(u8::from(k % 5 == number)));
            }
            for n in [1, 2] {
                let output = format!(",output=\"239.10.1.{n}:6000@eth{n}\"");
                let base = base + f64::from(10 * n);
                assert_eq!(of("mcr_output_offered_packets_total", &output), base + 1.0);
                assert_eq!(of("mcr_output_offered_bytes_total", &output), base + 2.0);
                assert_eq!(of("mcr_output_forwarded_packets_total", &output), base + 3.0);
                assert_eq!(of("mcr_output_forwarded_bytes_total", &output), base + 4.0);
                let dropped = format!("{output},reason=\"mtu\"");
                assert_eq!(of("mcr_output_dropped_packets_total", &dropped), base + 5.0);
            }
        }
    }
}

#[test]
fn both_formats_have_the_heads_that_they_ask_for() {
    let figures = figures(1);
    let open = text(&figures, Format::OpenMetrics);
    for lines in [
        "# TYPE mcr_rule_received_bytes counter\n# UNIT mcr_rule_received_bytes bytes\n\
         mcr_rule_received_bytes_total{rule=\"r0\"} 2\n",
        "# TYPE mcr_build info\nmcr_build_info{version=\"1.2.3\"} 1\n",
        "mcr_generation 1795352950408\n",
        "mcr_program_seconds_total 1.5\n",
        "mcr_interface_transmit_dropped_packets_total{interface=\"eth1\"} 7\n# ",
    ] {
        assert!(open.contains(lines), "lacks {lines:?}: {open}");
    }
    assert!(open.ends_with("\n# EOF\n"), "{open}");

    let plain = text(&figures, Format::Plain);
    for lines in [
        "# TYPE mcr_rule_received_bytes_total counter\nmcr_rule_received_bytes_total{",
        "# TYPE mcr_build_info gauge\nmcr_build_info{version=\"1.2.3\"} 1\n",
    ] {
        assert!(plain.contains(lines), "lacks {lines:?}: {plain}");
    }
    assert!(!plain.contains("# UNIT") && !plain.contains("# EOF"), "{plain}");
    assert_eq!(
        samples(&open).keys().collect::<Vec<_>>(),
        samples(&plain).keys().collect::<Vec<_>>()
    );
}

#[test]
fn label_values_are_escaped() {
    let mut figures = figures(1);
    figures.stats.rules[0].name = "a\"b\\c\nd".into();
    let text = text(&figures, Format::OpenMetrics);
    assert!(
        text.contains("mcr_rule_received_packets_total{rule=\"a\\\"b\\\\c\\nd\"} 1\n"),
        "{text}"
    );
}

#[test]
fn a_rule_without_packets_or_limit_has_no_such_series() {
    let mut figures = figures(1);
    figures.stats.rules[0].last_packet = None;
    figures.silences = vec![None];
    let text = text(&figures, Format::Plain);
    for absent in ["mcr_rule_last_packet_timestamp_seconds", "mcr_rule_silence_seconds"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn names_and_helps_keep_the_conventions() {
    let mut names = BTreeSet::new();
    for metric in ALL {
        let Metric { name, kind, help } = metric;
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("mcr_") || name.starts_with("process_"), "{name}");
        let reserved = ["_total", "_info", "_count", "_sum", "_bucket", "_created"];
        assert!(!reserved.iter().any(|suffix| name.ends_with(suffix)), "{name}");
        let counts = ["_packets", "_bytes", "_seconds", "_restarts", "_runs", "_errors"];
        let counter = *kind == Kind::Counter;
        assert!(!counter || counts.iter().any(|unit| name.ends_with(unit)), "{name}");
        assert!(help.ends_with('.') && help.starts_with(char::is_uppercase), "{name}: {help}");
        assert!(!help.contains(['\\', '\n', '"']), "{name}: {help} would have to be escaped");
    }
}

#[test]
fn every_metric_is_written() {
    let text = text(&figures(1), Format::Plain);
    for metric in ALL {
        let head = format!("# TYPE {} ", sample_name(*metric));
        assert!(text.contains(&head), "{head} is missing");
    }
}

#[test]
fn the_page_of_the_manual_has_every_metric_and_no_other() {
    let page = read("docs/monitoring.md");
    let of_row = |line: &str| -> Option<String> {
        let name = line.strip_prefix("| `")?.split('`').next()?;
        let ours = name.starts_with("mcr_") || name.starts_with("process_");
        ours.then(|| name.to_owned())
    };
    let told: BTreeSet<String> = page.lines().filter_map(of_row).collect();
    let all: BTreeSet<String> = ALL.iter().map(|metric| sample_name(*metric)).collect();
    assert_eq!(told, all);
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/mcr.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    let mut covered = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y, width, height) = (place("x"), place("y"), place("w"), place("h"));
        assert!(x + width <= 24, "{}", panel["title"]);
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            assert!(covered.insert(cell), "{} covers another panel", panel["title"]);
        }
        if panel["type"] != "row" {
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{}", panel["title"]);
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance", "rule"]);
}

#[test]
fn openmetrics_goes_to_all_but_those_who_like_plain_text_better() {
    let prometheus = "application/openmetrics-text;version=1.0.0,\
                      application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                        application/openmetrics-text;version=0.0.1;q=0.4,\
                        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                        text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    for accept in ["", "*/*", prometheus, prometheus_3, "application/json", "TEXT/CSV, */*;q=0.2"] {
        assert_eq!(Format::accepted(accept), Format::OpenMetrics, "{accept}");
    }
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8";
    let telegraf = "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.2";
    for accept in ["text/plain", "text/plain; version=0.0.4", "Text/*", browser, telegraf] {
        assert_eq!(Format::accepted(accept), Format::Plain, "{accept}");
    }
}

#[test]
fn the_interface_of_an_output_is_behind_the_last_at() {
    for (to, interface) in [
        ("239.10.1.1:6000@eth1", Some("eth1")),
        ("10.0.0.1@239.10.1.1:6000@eth0.10", Some("eth0.10")),
        ("keep@[ff15::1]:6000@wg0", Some("wg0")),
        ("10.9.0.7:6000", None),
        ("10.0.0.1@10.9.0.7:6000", None),
        ("10.0.0.1@10.9.0.7", None),
        ("[fd00::1]:6000@[fd00::7]", None),
    ] {
        assert_eq!(interface_of(to), interface, "{to}");
    }
}

#[test]
fn the_process_knows_itself() {
    let process = Process::read();
    assert!(process.cpu_seconds.is_some_and(|seconds| seconds < 3600.0), "{process:?}");
    assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000.0), "{process:?}");
    assert!(process.virtual_bytes >= process.resident_bytes, "{process:?}");
    assert!(process.open_files.is_some_and(|count| count >= 1.0), "{process:?}");
    assert!(process.start_seconds.is_some_and(|start| start > 1.7e9), "{process:?}");
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
