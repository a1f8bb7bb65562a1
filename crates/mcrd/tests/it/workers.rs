//! The packet plane's worker processes: any number of them, what happens when one fails, and what
//! they may do.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control::{change, get};
use crate::lab::{Daemon, Lab, Plane, end, wait_for};
use crate::load::rule;
use crate::start::{
    RULE, nothing_is_left, nothing_is_relayed, refused, traced, without_bpf, without_raw_sockets,
    without_workers,
};

const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
const GEN: &str = "--group 239.1.1.1 --port 5001";

/// What the daemon says of its workers.
pub(crate) fn workers(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.json(&["status", "--workers", "--json"]);
    status["workers"].as_array().unwrap_or_else(|| panic!("no workers: {status}")).clone()
}

pub(crate) fn pid(worker: &Value) -> Option<u32> {
    worker["pid"].as_u64().map(|pid| pid.try_into().unwrap())
}

/// Of every worker; all must run.
pub(crate) fn pids(daemon: &Daemon) -> Vec<u32> {
    all_run(daemon);
    workers(daemon).iter().filter_map(pid).collect()
}

pub(crate) fn all_run(daemon: &Daemon) {
    let running = |worker: &Value| worker["state"] == "running" && pid(worker).is_some();
    wait_for("all workers run", || workers(daemon).iter().all(running));
}

/// Whether a process has ended, be it that nobody has asked for its exit code yet.
fn has_ended(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

pub(crate) fn add_streams(daemon: &Daemon, streams: usize) {
    change(daemon, &(1..=streams).map(|k| json!({"add": rule(k)})).collect());
}

/// Streams through the rules of [`add_streams`], none of which misses a packet or has one twice.
pub(crate) fn streams_are_whole(lab: &Lab, streams: u64) {
    let flows = format!("--streams {streams}");
    let receiver = lab.receiver("sink", &format!("{SINK} {flows} --expect 200 --linger 300ms"));
    lab.send(&format!("{GEN} {flows} --rate 200 --count 200 --size 300"));
    receiver.lossless(streams * 200);
}

pub(crate) fn any_number_of_workers_keeps_streams_whole(plane: Plane) {
    for number in ["1", "2", "4"] {
        let lab = Lab::chain(plane);
        let mut daemon = lab.daemon_as(&["--dataplane", "packet", "--workers", number]);
        assert_eq!(pids(&daemon).len().to_string(), number);
        add_streams(&daemon, 50);
        streams_are_whole(&lab, 50);
        daemon.stop();
    }
}

/// 150 streams, 100,000 packets a second together.
pub(crate) fn killing_a_worker_loses_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let load = "--streams 150 --rate 666 --count 2000 --size 200";
    kill_under_load(&lab, &daemon, 150, load);
}

/// Kills a worker while `streams` streams go through it: nothing is lost, only the batch in hand
/// comes twice, and another worker runs within a second.
pub(crate) fn kill_under_load(lab: &Lab, daemon: &Daemon, streams: usize, load: &str) {
    add_streams(daemon, streams);
    let all = pids(daemon);
    let receiver = format!("{SINK} --streams {streams} --expect 2000 --idle 3s --linger 300ms");
    let receiver = lab.receiver("sink", &receiver);
    let (sent, away) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| lab.send(&format!("{GEN} {load}")));
        daemon.settled("s1", 666);
        let begin = Instant::now();
        end(Some(all[0]), Signal::KILL);
        let runs = |worker: &Value| {
            worker["state"] == "running" && pid(worker).is_some_and(|pid| pid != all[0])
        };
        wait_for("another worker", || runs(&workers(daemon)[0]));
        let away = begin.elapsed();
        (sender.join().unwrap(), away)
    });
    let report = receiver.report();
    assert_eq!(report["received"], sent["sent"], "{report}\n{sent}");
    for fault in ["lost", "reordered", "corrupt", "foreign"] {
        assert_eq!(report[fault], 0, "{fault}: {report}");
    }
    assert!(report["duplicated"].as_u64().unwrap() <= 64, "{report}");
    assert!(away < Duration::from_secs(1), "the worker was away for {away:?}");
    // The counters have survived the worker, up to the batch in hand.
    let stats = daemon.json(&["stats", "--json"]);
    let forwarded = |rule: &Value| rule["outputs"][0]["forwarded"]["packets"].as_u64().unwrap();
    let forwarded: u64 = stats["rules"].as_array().unwrap().iter().map(forwarded).sum();
    let sent = sent["sent"].as_u64().unwrap();
    assert!(forwarded.abs_diff(sent) <= 64, "{forwarded} counted, {sent} sent");
}

pub(crate) fn a_stopped_worker_is_restarted_and_the_request_ends(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    add_streams(&daemon, 1);
    let stopped = pids(&daemon)[0];
    end(Some(stopped), Signal::STOP);
    let begin = Instant::now();
    let add = ["add", "239.1.1.2:5002@veth1", "239.10.1.2:6002@veth2", "--name", "s2", "--json"];
    let reply = daemon.json(&add);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(12), "the reply took {took:?}");
    let warnings = reply["warnings"].as_array().unwrap();
    let named = |warning: &Value| warning.as_str().unwrap().contains("worker 1");
    assert!(warnings.iter().any(named), "{reply}");
    let mut worker = Value::Null;
    wait_for("the restart", || {
        worker = workers(&daemon)[0].clone();
        worker["state"] == "running" && worker["restarts"].as_u64() >= Some(1)
    });
    assert!(worker["last_error"].as_str().is_some_and(|error| !error.is_empty()), "{worker}");
    assert_ne!(pid(&worker), Some(stopped), "{worker}");
    wait_for("end of the stopped worker", || has_ended(stopped));
    streams_are_whole(&lab, 2);
}

pub(crate) fn the_control_socket_answers_while_workers_crash_in_a_loop(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    add_streams(&daemon, 10);
    all_run(&daemon);
    let crashing = AtomicBool::new(true);
    let (mut times, killed) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut killed = 0;
            while crashing.load(Ordering::Relaxed) {
                for pid in workers(&daemon).iter().filter_map(pid) {
                    end(Some(pid), Signal::KILL);
                    killed += 1;
                }
            }
            killed
        });
        let (begin, mut times) = (Instant::now(), Vec::new());
        while begin.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            let status = get(&daemon, "/v1/status");
            times.push(asked.elapsed());
            assert_eq!(status["plane"], plane.name(), "{status}");
        }
        crashing.store(false, Ordering::Relaxed);
        (times, killer.join().unwrap())
    });
    assert!(killed > 2, "only {killed} ended");
    times.sort_unstable();
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(median < Duration::from_millis(50), "median {median:?}, longest {longest:?}");
    assert!(longest < Duration::from_millis(500), "median {median:?}, longest {longest:?}");
    all_run(&daemon);
    streams_are_whole(&lab, 10);
}

/// Unlike programs in the kernel, workers do not outlive their daemon.
pub(crate) fn killing_the_supervisor_leaves_nothing(plane: Plane) {
    let (lab, _traces) = traced(plane);
    let config = lab.file("mcr.toml", RULE);
    let arguments = ["--config", config.to_str().unwrap()];
    let mut daemon = lab.daemon(&arguments);
    streams_are_whole(&lab, 1);
    let workers = pids(&daemon);
    assert!(lab.packet_sockets("relay") > 0);
    daemon.signal(Signal::KILL);
    assert!(!daemon.wait().success());
    wait_for("end of all workers", || workers.iter().copied().all(has_ended));
    wait_for("end of all rings", || lab.packet_sockets("relay") == 0);
    nothing_is_relayed(&lab);
    let mut daemon = lab.daemon(&arguments);
    streams_are_whole(&lab, 1);
    daemon.stop();
    nothing_is_left(&lab.name);
    assert_eq!(lab.packet_sockets("relay"), 0);
}

pub(crate) fn workers_hold_no_privileges(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    add_streams(&daemon, 1);
    for pid in pids(&daemon) {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let values = |name: &str| -> Vec<&str> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').split_whitespace().collect()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(values(set), ["0000000000000000"], "{set}: {text}");
        }
        assert_eq!(values("NoNewPrivs"), ["1"], "{text}");
        assert_eq!(values("Seccomp"), ["2"], "{text}");
        // Real, effective, saved and of files.
        assert!(values("Uid").iter().all(|uid| *uid != "0"), "{text}");
        assert!(values("Gid").iter().all(|gid| *gid != "0"), "{text}");
    }
    streams_are_whole(&lab, 1);
}

pub(crate) fn a_number_of_workers_that_cannot_be_is_refused(plane: Plane) {
    let (lab, _traces) = traced(plane);
    let most = 4 * std::thread::available_parallelism().unwrap().get();
    for number in ["0".to_owned(), (most + 1).to_string()] {
        let mut command = lab.mcrd(&["--dataplane", "packet", "--workers", &number]);
        refused(&lab, &mut command, &["--workers", &format!("1 to {most}")]);
        assert_eq!(lab.packet_sockets("relay"), 0);
    }
}

pub(crate) fn without_the_capability_for_raw_sockets_it_names_it(plane: Plane) {
    let (lab, _traces) = traced(plane);
    let mut command = without_raw_sockets(&lab);
    refused(&lab, command.args(plane.arguments()), &["CAP_NET_RAW"]);
}

pub(crate) fn auto_takes_the_packet_plane_where_bpf_cannot_be_used(plane: Plane) {
    let (lab, _traces) = traced(plane);
    let mut daemon = without_bpf(|| lab.daemon_as(&[]));
    let status = daemon.json(&["status", "--json"]);
    assert_eq!(status["plane"], plane.name(), "{status}");
    let log = daemon.log();
    let why: Vec<&str> = log.lines().filter(|line| line.contains("does not run eBPF")).collect();
    assert!(why.len() == 1 && why[0].contains("INFO"), "{log}");
    add_streams(&daemon, 1);
    streams_are_whole(&lab, 1);
    daemon.stop();
}

pub(crate) fn a_start_that_gets_no_worker_to_run_is_refused(plane: Plane) {
    let (lab, _traces) = traced(plane);
    let config = lab.file("mcr.toml", RULE);
    let arguments = ["--dataplane", "packet", "--config", config.to_str().unwrap()];
    without_workers(|| {
        let fragments = ["no worker can run", "cannot renounce privileges", "is there memory"];
        refused(&lab, &mut lab.mcrd(&arguments), &fragments);
    });
    assert_eq!(lab.packet_sockets("relay"), 0);
}
