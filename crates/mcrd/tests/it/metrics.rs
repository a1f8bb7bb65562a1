//! What Prometheus gets: figures that equal what the receiver counted, texts that its own tools take,
//! and a dashboard and alerts that ask for nothing which is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control::{change, get};
use crate::lab::{Daemon, Lab, Plane, can_run, end, run, sibling, wait_for};
use crate::load::rule;
use crate::start::{nothing_is_left, refused};
use crate::workers::{all_run, pid, pids, workers};

const LISTEN: &str = "[metrics]\nlisten = \"127.0.0.1:9464\"\n";
const TCP: &str = "http://127.0.0.1:9464";
/// That of the system, which has the packages of the system.
const PYTHON: &str = "/usr/bin/python3";
const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";

pub(crate) fn the_figures_are_those_of_the_receiver_and_of_the_statistics(plane: Plane) {
    let lab = Lab::chain(plane);
    let begin = unix_time();
    let daemon = with_rules_and_traffic(&lab);
    let text = scrape(&daemon, "*/*");
    let samples = samples(&text);
    let value = |series: &str| samples.get(series).copied().unwrap_or(f64::NAN);
    for (series, expected) in [
        ("mcr_rule_received_packets_total{rule=\"a\"}", 100.0),
        ("mcr_rule_matched_bytes_total{rule=\"a\"}", 5000.0),
        ("mcr_output_forwarded_packets_total{rule=\"a\",output=\"239.10.1.1:6001@veth2\"}", 100.0),
        ("mcr_output_forwarded_bytes_total{rule=\"a\",output=\"239.10.1.1:6001@veth2\"}", 5000.0),
        (
            "mcr_output_dropped_packets_total{rule=\"a\",output=\"239.10.1.2:6002@veth2\",\
             reason=\"ttl-expired\"}",
            100.0,
        ),
        ("mcr_interface_passed_packets_total{interface=\"veth1\",reason=\"no-rule\"}", 7.0),
        // That of the rule that is switched off is not joined.
        ("mcr_membership_groups{interface=\"veth1\"}", 3.0),
        ("mcr_membership_sockets", 1.0),
        ("mcr_rules{state=\"disabled\"}", 1.0),
        ("mcr_rules{state=\"waiting\"}", 1.0),
        ("mcr_rule_state{rule=\"off\",state=\"disabled\"}", 1.0),
        ("mcr_rule_state{rule=\"waits\",state=\"waiting\"}", 1.0),
        ("mcr_rule_state{rule=\"waits\",state=\"idle\"}", 0.0),
        ("mcr_rule_silence_seconds{rule=\"a\"}", 5.0),
    ] {
        assert_eq!(value(series), expected, "{series}\n{text}");
    }
    assert!(
        text.contains("mcr_interface_transmit_dropped_packets_total{interface=\"veth2\"} "),
        "{text}"
    );
    assert!(!samples.contains_key("mcr_rule_silence_seconds{rule=\"off\"}"), "{text}");
    assert!(
        !samples.contains_key("mcr_rule_last_packet_timestamp_seconds{rule=\"off\"}"),
        "{text}"
    );
    let last = value("mcr_rule_last_packet_timestamp_seconds{rule=\"a\"}");
    // The clock is read to the millisecond.
    assert!((begin - 0.001..=unix_time()).contains(&last), "{last} is not after {begin}");
    let plane_info = format!("mcr_plane_info{{plane=\"{}\",", plane.name());
    assert!(text.contains(&plane_info), "{text}");
    assert_eq!(compared(&samples, &get(&daemon, "/v1/stats")), 4);

    let by_tcp = http(&lab, &["-H", "accept: text/plain", &format!("{TCP}/metrics")]);
    assert_eq!(by_tcp.0, "200 text/plain; version=0.0.4; charset=utf-8");
    let same = |text: &str| self::samples(text).into_keys().map(str::to_owned).collect();
    let (one, other): (BTreeSet<String>, BTreeSet<String>) = (same(&text), same(&by_tcp.1));
    assert_eq!(one, other);
    tools_take(&text, &by_tcp.1);
    what_is_asked_for_is_there(plane, &one);
}

/// Rules of all kinds, 100 packets through one of them, and others that are dropped.
fn with_rules_and_traffic(lab: &Lab) -> Daemon {
    let config = lab.file("mcr.toml", LISTEN);
    let daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    let decrement = json!({"to": "239.10.1.2:6002@veth2", "ttl": "decrement"});
    let steps = json!([
        {"add": {"name": "a", "input": "239.1.1.1:5001@veth1", "silence": "5s",
            "outputs": ["239.10.1.1:6001@veth2", decrement]}},
        {"add": {"name": "limited", "input": "239.1.1.2:5002@veth1", "max_rate": "1pps",
            "outputs": ["239.10.1.3:6003@veth2"]}},
        {"add": {"name": "off", "input": "239.1.1.3:5003@veth1", "enabled": false,
            "silence": "never", "outputs": ["239.10.1.4:6004@veth2"]}},
    ]);
    change(&daemon, &steps);
    daemon.ok(&[
        "add",
        "239.1.1.4:5004@veth1",
        "239.10.1.5:6005@veth9",
        "--name",
        "waits",
        "--wait",
    ]);
    if lab.plane == Plane::Packet {
        all_run(&daemon);
    }
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 100 --linger 100ms"));
    let send = |flow: &str, count: u64| {
        lab.send(&format!("{flow} --rate 1000 --count {count} --size 50 --ttl 1"));
    };
    send("--group 239.1.1.1 --port 5001", 100);
    send("--group 239.1.1.2 --port 5002", 100);
    // A group that the filter of the packet plane lets through.
    send("--group 239.1.1.1 --port 5009", 7);
    receiver.lossless(100);
    daemon.settled("a", 100);
    let limited = daemon.settled("limited", 100);
    assert!(limited["dropped"]["rate"].as_u64() > Some(0), "{limited}");
    assert_eq!(daemon.passed("veth1", "no-rule", 7), 7);
    daemon
}

/// That the statistics have the same counters; the number of rules.
fn compared(samples: &BTreeMap<&str, f64>, stats: &Value) -> usize {
    let same = |series: String, value: &Value| {
        assert_eq!(samples.get(&*series).copied(), value.as_f64(), "{series}");
    };
    let volume = |prefix: &str, labels: &str, count: &Value| {
        for unit in ["packets", "bytes"] {
            same(format!("mcr_{prefix}_{unit}_total{{{labels}}}"), &count[unit]);
        }
    };
    let drops = |prefix: &str, labels: &str, dropped: &Value| {
        for (reason, packets) in dropped.as_object().unwrap() {
            let labels = format!("{labels},reason=\"{reason}\"");
            same(format!("mcr_{prefix}_dropped_packets_total{{{labels}}}"), packets);
        }
    };
    let rules = stats["rules"].as_array().unwrap();
    for rule in rules {
        let labels = format!("rule={}", rule["name"]);
        volume("rule_received", &labels, &rule["received"]);
        volume("rule_matched", &labels, &rule["matched"]);
        drops("rule", &labels, &rule["dropped"]);
        let states = ["forwarding", "idle", "disabled", "waiting", "failed"];
        let state = |state| samples[&*format!("mcr_rule_state{{{labels},state=\"{state}\"}}")];
        assert_eq!(states.map(state).iter().sum::<f64>(), 1.0, "{rule}");
        for output in rule["outputs"].as_array().unwrap() {
            let labels = format!("{labels},output={}", output["to"]);
            volume("output_offered", &labels, &output["offered"]);
            volume("output_forwarded", &labels, &output["forwarded"]);
            drops("output", &labels, &output["dropped"]);
        }
    }
    rules.len()
}

/// The tools of Prometheus find nothing wrong with the texts.
fn tools_take(open: &str, plain: &str) {
    if there("promtool", &["--version"]) {
        fed(Command::new("promtool").args(["check", "metrics"]), plain);
    }
    if there(PYTHON, &["-c", "import prometheus_client.openmetrics.parser"]) {
        let parse = "import sys\n\
                     from prometheus_client.openmetrics.parser import text_string_to_metric_families\n\
                     from prometheus_client.parser import text_string_to_metric_families as plain\n\
                     text = sys.stdin.read()\n\
                     parse = text_string_to_metric_families if '# EOF' in text else plain\n\
                     assert len(list(parse(text))) > 20\n";
        for text in [open, plain] {
            fed(Command::new(PYTHON).args(["-c", parse]), text);
        }
    }
}

/// Whether a program of others is there, which these arguments show; in CI it must be.
fn there(program: &str, arguments: &[&str]) -> bool {
    let there = Command::new(program).args(arguments).output();
    let there = there.is_ok_and(|output| output.status.success());
    let say = format!("{program} {arguments:?} does not run: run `scripts/setup.sh test`");
    assert!(there || std::env::var_os("CI").is_none(), "{say}");
    if !there {
        let _ = writeln!(io::stderr(), "SKIPPED: {say}");
    }
    there
}

/// Runs a command that must take this text and find nothing wrong.
fn fed(command: &mut Command, text: &str) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {said}\n{text}");
}

/// The dashboard and the alerts name only metrics that a daemon has.
fn what_is_asked_for_is_there(plane: Plane, series: &BTreeSet<String>) {
    let names: BTreeSet<&str> =
        series.iter().map(|series| series.split('{').next().unwrap()).collect();
    for file in ["grafana/mcr.json", "prometheus/mcr.rules.yml"] {
        let text = fs::read_to_string(packaging().join(file)).unwrap();
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let asked: BTreeSet<&str> =
            words.filter(|word| word.starts_with("mcr_") || word.starts_with("process_")).collect();
        assert!(asked.len() > 10, "{file}: {asked:?}");
        let of_workers = |name: &str| {
            ["mcr_worker_", "mcr_ring_", "mcr_send_"].iter().any(|prefix| name.starts_with(prefix))
        };
        for name in asked {
            let expected = plane == Plane::Packet || !of_workers(name);
            assert_eq!(names.contains(name), expected, "{file}: {name}: {names:?}");
        }
    }
}

#[test]
fn by_tcp_there_are_the_metrics_and_nothing_else() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain(Plane::Packet);
    let plane = lab.plane.arguments();
    let config = lab.file("mcr.toml", &LISTEN.replace("127.0.0.1", "[::]"));
    let config = config.to_str().unwrap();
    let mut daemon = lab.daemon(&["--config", config]);
    let log = daemon.log();
    let warned = |line: &&str| line.contains("WARN") && line.contains("from other hosts");
    assert_eq!(log.lines().filter(warned).count(), 1, "{log}");

    let metrics = format!("{TCP}/metrics");
    let openmetrics = "200 application/openmetrics-text; version=1.0.0; charset=utf-8";
    for url in [&metrics, "http://[::1]:9464/metrics"] {
        let (head, text) = http(&lab, &[url]);
        assert_eq!(head, openmetrics, "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
    let (head, page) = http(&lab, &[TCP]);
    assert!(head.starts_with("200 text/html") && page.contains("href=\"/metrics\""), "{page}");
    for path in ["/v1/rules", "/v1/status", "/v1/stats", "/metrics/x", "//"] {
        let (head, page) = http(&lab, &[&format!("{TCP}{path}")]);
        assert!(head.starts_with("404 ") && page.contains("/metrics"), "{path}: {head}\n{page}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let (head, _) = http(&lab, &["-X", method, &metrics]);
        assert!(head.starts_with("405 "), "{method}: {head}");
        let (head, _) = http(&lab, &["-X", method, "-d", "[]", &format!("{TCP}/v1/rules")]);
        assert!(head.starts_with("404 "), "{method}: {head}");
    }
    let mut second = lab.command("relay", env!("CARGO_BIN_EXE_mcrd"));
    let name = format!("{}-2", lab.name);
    second.args(["--instance", &name, "--config", config]).args(plane);
    let output = second.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for fragment in ["cannot listen on [::]:9464", "ss -ltnp", "[metrics] listen"] {
        assert!(said.contains(fragment), "lacks {fragment}: {said}");
    }
    nothing_is_left(&name);
    daemon.stop();

    let foreign = lab.file("foreign.toml", &LISTEN.replace("127.0.0.1", "10.99.0.1"));
    let mut command = lab.mcrd(&["--config", foreign.to_str().unwrap()]);
    let missing = ["cannot listen on 10.99.0.1:9464", "ip address", "[metrics] listen"];
    refused(&lab, command.args(plane), &missing);

    let wrong = lab.file("wrong.toml", "[metrics]\nlisten = \"eth0:9464\"\n");
    let said = ["wrong.toml:2:10: ", "listen = \"eth0:9464\"", "as in 127.0.0.1:9464"];
    refused(&lab, lab.mcrd(&["--check", "--config"]).arg(&wrong), &said);
    let mut check = Command::new(sibling("mcrctl"));
    refused(&lab, check.arg("check").arg(&wrong), &said);
}

/// Frames wait in rings whose workers are held up, and then no more. The supervisor gives a worker two
/// seconds, which on a busy machine may be too little.
#[test]
fn how_full_rings_are_is_seen_while_workers_are_held_up() {
    if !can_run() {
        return;
    }
    for receive in ["frame", "block"] {
        let seen = (0..5).any(|_| is_seen_how_full_rings_are(receive));
        assert!(seen, "no worker can be held up for as long as it takes to look");
    }
}

/// Or not, because a worker was ended meanwhile: what it had not told is not counted.
fn is_seen_how_full_rings_are(receive: &str) -> bool {
    const SENT: u64 = 30;
    let lab = Lab::chain(Plane::Packet);
    let text = format!("[packet]\nring_mib = 4\n[interface.veth1]\nreceive = \"{receive}\"\n");
    let config = lab.file("mcr.toml", &text);
    let daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    change(&daemon, &json!([{"add": rule(1)}]));
    all_run(&daemon);
    let sum = |metric: &str| -> f64 {
        let text = scrape(&daemon, "*/*");
        let all = samples(&text).into_iter();
        all.filter(|(series, _)| series.starts_with(metric)).map(|(_, value)| value).sum()
    };
    let first = pids(&daemon);
    // Also one that has ended and does not run again yet.
    let is_ended = || workers(&daemon).iter().filter_map(pid).ne(first.iter().copied());
    let received = || daemon.stats("s1")["received"]["packets"].as_u64().unwrap();
    let (mut sent, mut ended) = (0, false);
    wait_for("rings that fill", || {
        first.iter().for_each(|pid| end(Some(*pid), Signal::STOP));
        lab.send(&format!("--group 239.1.1.1 --port 5001 --rate 0 --count {SENT} --size 200"));
        sent += SENT;
        let (used, waiting) = (sum("mcr_ring_used_slots{"), sum("mcr_ring_waiting_packets{"));
        first.iter().for_each(|pid| end(Some(*pid), Signal::CONT));
        wait_for("what was sent", || {
            ended = is_ended();
            ended || received() >= sent
        });
        // A block has one slot for many.
        let full = waiting == SENT as f64 && (receive == "block" || used == waiting);
        ended || full
    });
    if ended {
        return false;
    }
    if receive == "frame" {
        assert_eq!(sum("mcr_ring_slots{"), 2.0 * 2048.0);
    }
    wait_for("empty rings", || {
        ended = is_ended();
        let used = ["mcr_ring_waiting_packets{", "mcr_ring_used_slots{"].map(sum);
        ended || used == [0.0, 0.0]
    });
    let (size, received) = (sum("mcr_ring_size_bytes{"), received());
    if ended || is_ended() {
        return false;
    }
    assert_eq!((size, received), (f64::from(8 << 20), sent));
    true
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    if there("promtool", &["--version"]) {
        let folder = packaging().join("prometheus");
        for arguments in
            [["check", "rules", "mcr.rules.yml"], ["test", "rules", "mcr.rules.test.yml"]]
        {
            run(Command::new("promtool").current_dir(&folder).args(arguments));
        }
    }
}

/// As rules, which promtool reads as Prometheus does.
#[test]
fn the_queries_of_the_dashboard_can_be_read() {
    if !there("promtool", &["--version"]) {
        return;
    }
    let text = fs::read_to_string(packaging().join("grafana/mcr.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let queries: Vec<String> = targets
        .chain(annotations)
        .map(|query| query["expr"].as_str().unwrap().replace("$__rate_interval", "1m"))
        .collect();
    let rules: Vec<Value> = (0..)
        .zip(&queries)
        .map(|(n, query)| json!({"record": format!("query:{n}"), "expr": query}))
        .collect();
    assert!(rules.len() > 20, "{queries:?}");
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML too.
    let file = folder.path().join("queries.yml");
    fs::write(&file, json!({"groups": [{"name": "mcr", "rules": rules}]}).to_string()).unwrap();
    run(Command::new("promtool").args(["check", "rules"]).arg(&file));
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

/// `/metrics` of the control socket.
fn scrape(daemon: &Daemon, accept: &str) -> String {
    let mut curl = Command::new("curl");
    let socket = daemon.socket();
    curl.args(["-sf", "-H", &format!("accept: {accept}"), "--unix-socket"]);
    let output = run(curl.arg(&socket).arg("http://mcrd/metrics"));
    String::from_utf8(output.stdout).unwrap()
}

/// `curl` on the relay's host: status and media type, and the page.
fn http(lab: &Lab, arguments: &[&str]) -> (String, String) {
    let mut curl = lab.command("relay", "curl");
    curl.args(["-s", "-w", "\n%{http_code} %{content_type}"]).args(arguments);
    let text = String::from_utf8(run(&mut curl).stdout).unwrap();
    let (page, head) = text.rsplit_once('\n').unwrap();
    (head.to_owned(), page.to_owned())
}

/// Name and labels of each sample, with its value.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let pairs = lines.iter().map(|line| line.rsplit_once(' ').unwrap());
    let samples: BTreeMap<&str, f64> =
        pairs.map(|(series, value)| (series, value.parse().unwrap())).collect();
    assert_eq!(samples.len(), lines.len(), "a series is there twice: {text}");
    samples
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}
