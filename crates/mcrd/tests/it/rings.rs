//! The packet plane's rings: their kinds and sizes, what has no room in them, and the interfaces
//! that they are on.

use std::fs;
use std::io::{self, Write};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control::change;
use crate::daemon::ctl;
use crate::forwarding::sums;
use crate::lab::{Daemon, Lab, Plane, end, run, wait_for};
use crate::load::rule;
use crate::start::{nothing_is_left, traced};
use crate::workers::{add_streams, all_run, kill_under_load, pids, streams_are_whole, workers};

const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
const GEN: &str = "--group 239.1.1.1 --port 5001";
const BLOCK: &str = "[interface.veth1]\nreceive = \"block\"\n";

/// A daemon with the plane of the lab and this configuration.
fn configured(lab: &Lab, text: &str) -> Daemon {
    let config = lab.file("mcr.toml", text);
    lab.daemon(&["--config", config.to_str().unwrap()])
}

/// One value of each worker's only ring, or only send buffer.
fn of_each(daemon: &Daemon, list: &str, key: &str) -> Vec<Value> {
    let one = |worker: &Value| {
        assert_eq!(worker[list].as_array().map(Vec::len), Some(1), "{worker}");
        worker[list][0][key].clone()
    };
    workers(daemon).iter().map(one).collect()
}

/// What the kernel had no room for, all rings together.
fn dropped(daemon: &Daemon) -> u64 {
    of_each(daemon, "rings", "dropped").iter().map(|count| count.as_u64().unwrap()).sum()
}

/// 500 datagrams of the first stream, in super-packets of `gso`, all of which come out.
fn super_packets_are_whole(lab: &Lab, gso: u32) {
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 500 --linger 300ms"));
    lab.send(&format!("{GEN} --rate 2000 --count 500 --size 1000 --gso {gso}"));
    receiver.lossless(500);
}

/// The kernel takes its time to make rings; the daemon has others to serve meanwhile.
pub(crate) fn rings_that_are_made_hold_up_nobody(plane: Plane) {
    let lab = Lab::chain(plane);
    let mut steps = Vec::new();
    for n in 1..=12 {
        lab.ip("relay", &format!("link add in{n} type veth peer name in{n}p"));
        lab.ip("relay", &format!("link set in{n} up"));
        lab.ip("relay", &format!("link set in{n}p up"));
        let input = format!("239.2.1.{n}:5001@in{n}");
        steps.push(
            json!({"add": {"input": input, "outputs": [format!("239.20.1.{n}:6001@veth2")]}}),
        );
    }
    let daemon = lab.daemon(&[]);
    let begun = daemon.json(&["status", "--json"])["generation"].clone();
    let mut served = 0;
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| change(&daemon, &Value::Array(steps)));
        while !changing.is_finished() {
            let status = daemon.json(&["status", "--json"]);
            let rings = status["workers"][0]["rings"].as_array().map_or(0, Vec::len);
            // Before the change: it was under way, or had not begun.
            served += usize::from(status["generation"] == begun && rings == 0);
        }
    });
    assert!(served > 2, "only {served} answers while 24 rings were made");
    add_streams(&daemon, 2);
    streams_are_whole(&lab, 2);
}

pub(crate) fn a_block_ring_relays_everything(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = configured(&lab, BLOCK);
    add_streams(&daemon, 50);
    assert_eq!(of_each(&daemon, "rings", "receive"), ["block", "block"]);
    streams_are_whole(&lab, 50);
    for k in 2..=50 {
        sums(&daemon.settled(&format!("s{k}"), 200), 0, 200);
    }
    for (turn, gso) in (1..).zip([2, 10, 25, 64]) {
        super_packets_are_whole(&lab, gso);
        let packets = 200 + turn * 500;
        sums(&daemon.settled("s1", packets), 0, packets);
    }
    assert_eq!(dropped(&daemon), 0);
}

pub(crate) fn killing_a_worker_with_a_block_ring_loses_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = configured(&lab, BLOCK);
    let load = "--streams 50 --rate 1000 --count 2000 --size 200";
    kill_under_load(&lab, &daemon, 50, load);
    assert_eq!(dropped(&daemon), 0);
}

/// The kernel hands over blocks by time, full or not: there must be enough of them for a worker
/// that is away for a while.
pub(crate) fn a_block_ring_holds_a_slow_stream_for_a_while(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = configured(&lab, BLOCK);
    add_streams(&daemon, 10);
    let stopped = pids(&daemon);
    let flows = "--streams 10";
    let receiver = lab.receiver("sink", &format!("{SINK} {flows} --expect 40 --linger 300ms"));
    stopped.iter().for_each(|pid| end(Some(*pid), Signal::STOP));
    // 0.4 s, 1,000 packets a second.
    lab.send(&format!("{GEN} {flows} --rate 100 --count 40 --size 200"));
    stopped.iter().for_each(|pid| end(Some(*pid), Signal::CONT));
    receiver.lossless(10 * 40);
    assert_eq!(dropped(&daemon), 0);
}

/// Super-packets larger than a slot come by the socket's buffer.
pub(crate) fn killing_a_worker_while_super_packets_come_loses_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let load = "--streams 20 --rate 1000 --count 2000 --size 1000 --gso 10";
    kill_under_load(&lab, &daemon, 20, load);
    let slots = of_each(&daemon, "rings", "slot_bytes");
    assert!(slots.iter().all(|bytes| bytes.as_u64() < Some(10_000)), "{slots:?}");
}

/// Super-packets cannot go past the queue, and go through it.
pub(crate) fn past_the_queue(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = configured(&lab, "[interface.veth2]\nqdisc_bypass = true\n");
    add_streams(&daemon, 20);
    assert_eq!(of_each(&daemon, "send_buffers", "qdisc_bypass"), [true, true]);
    streams_are_whole(&lab, 20);
    super_packets_are_whole(&lab, 10);
    sums(&daemon.settled("s1", 700), 0, 700);
}

/// More than the memory that is available, by as many workers as there may be.
pub(crate) fn a_ring_that_cannot_be_had_is_refused_with_the_remedy(plane: Plane) {
    let (lab, _traces) = traced(plane);
    let config = lab.file("mcr.toml", "[interface.veth1]\nring_mib = 4096\n");
    let most = 4 * std::thread::available_parallelism().unwrap().get();
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: usize = total.trim().trim_end_matches(" kB").parse().unwrap();
    // Half of what is available may be taken.
    if most * 4096 <= total / 1024 / 2 {
        let _ = writeln!(io::stderr(), "SKIPPED: too much memory to run out of it");
        return;
    }
    let number = most.to_string();
    let arguments = ["--dataplane", "packet", "--workers", &number, "--config"];
    let mut daemon = lab.daemon_as(&[&arguments[..], &[config.to_str().unwrap()]].concat());
    let (code, said) = ctl(&daemon, &["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2"]);
    assert_eq!(code, Some(1), "{said}");
    for fragment in ["veth1", "ring_mib", "--workers", &format!("{most} × 4096 MiB")] {
        assert!(said.contains(fragment), "lacks {fragment:?}: {said}");
    }
    assert_eq!(daemon.list(), json!([]));
    assert_eq!(lab.packet_sockets("relay"), 0);
    let groups = run(lab.command("relay", "cat").arg("/proc/net/igmp")).stdout;
    // 239.1.1.1, as the kernel prints it.
    assert!(!String::from_utf8_lossy(&groups).contains("010101EF"));
    daemon.stop();
    nothing_is_left(&lab.name);
}

/// A bridge takes a port's frames from the host's protocols, not from a ring.
pub(crate) fn a_bridge_port_is_received_from(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("relay", "link add br0 type bridge mcast_snooping 0");
    lab.ip("relay", "link set veth1 master br0");
    lab.ip("relay", "link set br0 up");
    let daemon = lab.daemon(&[]);
    add_streams(&daemon, 1);
    streams_are_whole(&lab, 1);
    sums(&daemon.settled("s1", 200), 0, 200);
}

pub(crate) fn what_a_ring_has_no_room_for_is_counted_there(plane: Plane) {
    const SENT: u64 = 5000;
    let lab = Lab::chain(plane);
    let daemon = configured(&lab, "[packet]\nring_mib = 1\n");
    change(&daemon, &json!([{"add": rule(1)}]));
    all_run(&daemon);
    let receiver = lab.receiver("sink", &format!("{SINK} --idle 3s"));
    // The supervisor gives them two seconds.
    let stopped = pids(&daemon);
    stopped.iter().for_each(|pid| end(Some(*pid), Signal::STOP));
    lab.send(&format!("{GEN} --rate 50000 --count {SENT} --size 200"));
    stopped.iter().for_each(|pid| end(Some(*pid), Signal::CONT));
    let report = receiver.report();
    assert_eq!((&report["duplicated"], &report["corrupt"]), (&json!(0), &json!(0)), "{report}");
    let received = report["received"].as_u64().unwrap();
    let dropped = dropped(&daemon);
    assert!(dropped > 0 && received > 0, "{dropped} dropped, {received} received");
    assert_eq!(received + dropped, SENT);
    let status = daemon.json(&["status", "--json"]);
    assert_eq!(status["interfaces"][0]["lost_before"]["ring"], dropped, "{status}");
    sums(&daemon.settled("s1", received), 0, received);
    assert_eq!(daemon.stats("s1")["received"]["packets"], received);
}

/// Large buffers need CAP_NET_ADMIN; without it they stay at the system's limit, and it is said.
pub(crate) fn without_the_capability_for_large_buffers_it_runs_with_what_it_gets(plane: Plane) {
    let lab = Lab::chain(plane);
    let mut command = lab.command("relay", "setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-all", env!("CARGO_BIN_EXE_mcrd")]);
    command.args(["--instance", &lab.name]).args(plane.arguments());
    let log = lab.folder.path().join("mcrd.log");
    let daemon = Daemon::start(command, &lab.name, log);
    wait_for("the daemon", || daemon.ctl(&["status"]).is_ok());
    add_streams(&daemon, 1);
    streams_are_whole(&lab, 1);
    let limit = |name: &str| -> u64 {
        fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap().trim().parse().unwrap()
    };
    let asked = of_each(&daemon, "send_buffers", "asked")[0].as_u64().unwrap();
    let granted = limit("wmem_max").min(asked);
    assert_eq!(of_each(&daemon, "send_buffers", "granted"), [granted, granted]);
    let copy = of_each(&daemon, "rings", "copy_buffer");
    assert!(copy.iter().all(|bytes| bytes.as_u64() <= Some(limit("rmem_max"))), "{copy:?}");
}
