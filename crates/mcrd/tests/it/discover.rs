//! `mcrctl discover`: what it lists is what was sent, and listening changes nothing.

use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control::ask;
use crate::lab::{Daemon, Lab, Plane, can_run, end, run, sibling, wait_for};

/// Seconds: long enough, unless the machine is busy with others.
const DURATIONS: [u64; 4] = [2, 6, 20, 60];

/// `mcrctl discover` in the background, once it listens on these interfaces of the relay. None if it
/// has ended before that was seen.
fn discover(lab: &Lab, daemon: &Daemon, interfaces: &[&str], arguments: &[&str]) -> Option<Child> {
    let mut command = Command::new(sibling("mcrctl"));
    command.args(["--instance", &daemon.instance, "discover"]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut has_ended = false;
    wait_for("the card's filter open", || {
        has_ended = child.try_wait().unwrap().is_some();
        has_ended || interfaces.iter().all(|name| is_open(lab, name))
    });
    if has_ended {
        said(child);
        return None;
    }
    Some(child)
}

/// What it has said at its end, which must be a good one: the list, and warnings.
fn said(child: Child) -> (Vec<u8>, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{stderr}");
    (stdout, stderr)
}

/// What is said by one that has listened to all that is done meanwhile. The first step is made before
/// it listens.
fn in_time(
    lab: &Lab,
    daemon: &Daemon,
    (interfaces, arguments): (&[&str], &[&str]),
    (before, meanwhile): (impl Fn(), impl Fn()),
) -> (Vec<u8>, String) {
    let found = DURATIONS.iter().find_map(|duration| {
        before();
        // That of the time before.
        wait_for("the card's filter closed", || !interfaces.iter().any(|name| is_open(lab, name)));
        // It does not listen before, so it does not end sooner than that long after.
        let begin = Instant::now();
        let text = format!("{duration}s");
        let arguments = [arguments, &["--duration", &text]].concat();
        let child = discover(lab, daemon, interfaces, &arguments)?;
        meanwhile();
        let in_time = begin.elapsed() < Duration::from_secs(*duration);
        let found = said(child);
        in_time.then_some(found)
    });
    found.expect("a minute is enough for it")
}

/// Whether an interface lets in all groups.
fn is_open(lab: &Lab, interface: &str) -> bool {
    let mut ip = Command::new("ip");
    ip.args(["-n", &lab.namespace("relay"), "-d", "-j", "link", "show", "dev", interface]);
    let shown: Value = serde_json::from_slice(&run(&mut ip).stdout).unwrap();
    shown[0]["allmulti"].as_u64().unwrap() > 0
}

/// All groups and sources that the relay's host has joined.
fn memberships(lab: &Lab) -> Vec<String> {
    // Of each line so many words: behind them are timers, which run.
    let files = [("igmp", 2), ("igmp6", 4), ("mcfilter", 4), ("mcfilter6", 4)];
    let lines = |(file, words): (&str, usize)| -> Vec<String> {
        let text = lab.read("relay", &format!("/proc/net/{file}"));
        let start = |line: &str| line.split_whitespace().take(words).collect::<Vec<_>>().join(" ");
        text.lines().map(start).collect()
    };
    files.into_iter().flat_map(lines).collect()
}

/// 36 RTP packets with a transport stream, and three packets of mDNS.
fn send_others(lab: &Lab) {
    lab.inside("gen", || {
        let socket = UdpSocket::bind("10.0.0.1:0").unwrap();
        let ts = [&[0x47][..], &[0; 187]].concat().repeat(7);
        for number in 65_500_u16..=u16::MAX {
            let [a, b] = number.to_be_bytes();
            let header = [0x80, 33, a, b, 0, 0, 0, 0, 0xca, 0xfe, 0xba, 0xbe];
            let packet = [&header[..], &ts].concat();
            socket.send_to(&packet, "239.1.1.4:5004").unwrap();
        }
        (0..3).for_each(|_| {
            socket.send_to(b"who is there", "224.0.0.251:5353").unwrap();
        });
    });
}

fn send_all(lab: &Lab) {
    let send = |flow: &str| lab.send(&format!("{flow} --rate 2000"));
    send("--group 239.1.1.1 --port 5001 --count 200 --size 100 --source 10.0.0.1");
    send("--group 239.1.1.2 --port 5002 --count 150 --size 500 --source 10.0.0.1");
    send("--group 239.1.1.2 --port 5002 --count 50 --size 700 --source 10.0.0.3 --ttl 4");
    send("--group 239.1.1.3 --port 5003 --count 20 --size 5000 --source 10.0.0.1");
    send("--group ff15::5 --port 5005 --count 120 --size 1200 --source fd00::1");
    send_others(lab);
}

/// What of a stream does not depend on time.
fn figures(stream: &Value) -> Value {
    let keys = ["group", "port", "source", "received", "ttl", "size", "rule", "state", "pass"];
    let mut figures = json!({"interface": stream["interface"], "ts": stream["ts"]});
    for key in keys.iter().chain(&["rtp", "fragments"]).filter(|key| !stream[key].is_null()) {
        figures[key] = stream[key].clone();
    }
    figures
}

/// A stream on `veth1` of so many packets of a size.
fn stream(flow: (&str, u16, &str), count: u64, size: u64, more: Value) -> Value {
    let mut stream = json!({
        "interface": "veth1", "group": flow.0, "port": flow.1, "source": flow.2, "ts": false,
        "received": {"packets": count, "bytes": count * size}, "ttl": {"min": 8, "max": 8},
        "size": {"min": size, "max": size},
    });
    let (Value::Object(all), Value::Object(more)) = (&mut stream, more) else { panic!() };
    all.extend(more);
    stream
}

pub(crate) fn the_streams_on_the_wire_are_listed_as_they_were_sent(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("gen", "address add 10.0.0.3/24 dev veth0");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "one"]);
    daemon.ok(&["add", "10.0.0.1@239.1.1.2:5002@veth1", "239.10.1.2:6002@veth2", "--name", "two"]);
    daemon.ok(&["disable", "two"]);
    let before = memberships(&lab);
    // What the relay itself sends by veth2 is none of it.
    let all_is_sent = || {
        assert_eq!(memberships(&lab), before, "nothing is joined");
        send_all(&lab);
    };
    let (found, _) =
        in_time(&lab, &daemon, (&["veth1", "veth2"], &["--json"]), (|| {}, all_is_sent));
    let found: Value = serde_json::from_slice(&found).unwrap();
    let all: Vec<Value> = found["streams"].as_array().unwrap().iter().map(figures).collect();
    // The packets may have come some time before the end.
    let state = all[0]["state"].as_str().unwrap();
    assert!(["forwarding", "idle"].contains(&state), "{found}");
    let expected = [
        stream(("239.1.1.1", 5001, "10.0.0.1"), 200, 100, json!({"rule": "one", "state": state})),
        stream(
            ("239.1.1.2", 5002, "10.0.0.1"),
            150,
            500,
            json!({"rule": "two", "state": "disabled"}),
        ),
        stream(
            ("239.1.1.2", 5002, "10.0.0.3"),
            50,
            700,
            json!({"pass": "other-source", "ttl": {"min": 4, "max": 4}}),
        ),
        // Four fragments each.
        stream(
            ("239.1.1.3", 5003, "10.0.0.1"),
            20,
            5000,
            json!({"pass": "no-rule", "fragments": 80,
            "received": {"packets": 80, "bytes": 100_000}}),
        ),
        stream(
            ("239.1.1.4", 5004, "10.0.0.1"),
            36,
            1328,
            json!({"pass": "no-rule", "ts": true,
            "rtp": {"payload_type": 33, "ssrc": 0xcafe_babe_u32}, "ttl": {"min": 1, "max": 1}}),
        ),
        stream(("ff15::5", 5005, "fd00::1"), 120, 1200, json!({"pass": "no-rule"})),
    ];
    for (seen, expected) in all.iter().zip(&expected) {
        assert_eq!(seen, expected);
    }
    assert_eq!(all.len(), expected.len(), "{found}");
    assert_eq!(found["left_out"], json!({"link-local": 3}), "{found}");
    assert_eq!((&found["missed"], &found["interfaces"]), (&json!(0), &json!(["veth1", "veth2"])));
    let first = &found["streams"][0];
    let seconds = found["seconds"].as_f64().unwrap();
    assert_eq!(first["rate"]["packets"], (200.0 / seconds).round() as u64, "{first}");
    assert_eq!(first["rate"]["bits"], (160_000.0 / seconds).round() as u64, "{first}");
    assert_eq!(memberships(&lab), before);
    wait_for("the card's filter as before", || !is_open(&lab, "veth1"));
}

pub(crate) fn the_rules_it_prints_relay_what_no_rule_took(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "one"]);
    let flows = [
        "--group 239.1.1.1 --port 5001 --streams 2",
        "--group ff15::5 --port 5005",
        "--group 232.1.1.1 --port 5006",
    ];
    let senders: Vec<_> =
        flows.iter().map(|flow| lab.sender(&format!("{flow} --rate 100 --size 100"))).collect();
    let mcrctl = format!("{} --instance {}", sibling("mcrctl").display(), daemon.instance);
    let pipe =
        format!("{mcrctl} discover veth1 --duration 1s --rules --to veth2 | {mcrctl} batch - 2>&1");
    // A sender may not have begun, and then it is left for the next time.
    wait_for("all rules", || {
        let output = run(Command::new("sh").args(["-c", &pipe]));
        let rules = daemon.list().as_array().unwrap().len();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("added ") || said.contains("nothing to change"), "{said}");
        rules == 4
    });
    drop(senders);
    let names: Vec<Value> =
        daemon.list().as_array().unwrap().iter().map(|rule| rule["name"].clone()).collect();
    let (two, six) = ("239.1.1.2:5002@veth1", "[ff15::5]:5005@veth1");
    for name in [two, six, "10.0.0.1@232.1.1.1:5006@veth1"] {
        assert!(names.contains(&json!(name)), "{names:?}");
    }
    let receive =
        |flow: &str| lab.receiver("sink", &format!("--interface veth3 {flow} --expect 100"));
    let receivers = ["--group 239.1.1.2 --port 5002", flows[1], flows[2]].map(receive);
    for flow in ["--group 239.1.1.2 --port 5002", flows[1], flows[2]] {
        lab.send(&format!("{flow} --rate 2000 --count 100 --size 100"));
    }
    receivers.into_iter().for_each(|receiver| receiver.lossless(100));
    let text = daemon.ok(&["discover", "veth1", "--duration", "1s", "--rules", "--to", "veth2"]);
    assert_eq!(text, "# no stream without a rule\n");
}

#[test]
fn where_nothing_can_be_listened_to_it_says_why() {
    if !can_run() {
        return;
    }
    let lab = Lab::chain_ipv4(Plane::Packet);
    let daemon = lab.daemon(&[]);
    let said = daemon.refused(&["discover", "eth9"]);
    assert!(said.contains("no interface eth9") && said.contains("`ip link` shows"), "{said}");
    for (query, expected) in [
        ("duration=0s", "is not a time from 1s to 5min"),
        ("duration=6m", "write it as in 3s or 1m"),
        ("interface=veth1%40if2", "write veth1 alone"),
        ("intreface=veth1", "unknown field `intreface`"),
    ] {
        let (status, reply) = ask(&daemon, "GET", &format!("/v1/discover?{query}"), "");
        assert!((400..500).contains(&status) && reply.to_string().contains(expected), "{reply}");
    }

    // It goes down while it is listened to, and nothing came.
    // As the daemon knows it.
    let is_down = || {
        let refused = daemon.ctl(&["discover", "veth2", "--duration", "1s"]);
        refused.is_err_and(|said| said.contains("veth2 is down"))
    };
    let comes_up = || {
        lab.ip("relay", "link set veth2 up");
        wait_for("veth2 up", || lab.is_running("relay", "veth2") && !is_down());
    };
    let goes_down = || {
        lab.ip("relay", "link set veth2 down");
        wait_for("veth2 down", is_down);
    };
    let (_, said) = in_time(&lab, &daemon, (&["veth2"], &["veth2"]), (comes_up, goes_down));
    assert!(said.contains("warning: veth2 went down while it was listened to"), "{said}");
    assert!(said.contains("nothing on veth2 in "), "{said}");
    assert!(said.contains("s: behind a snooping switch"), "{said}");
    let said = daemon.refused(&["discover", "veth2"]);
    assert!(said.contains("veth2 is down") && said.contains("ip link set veth2 up"), "{said}");

    let sockets = lab.packet_sockets("relay");
    let listen = |_| discover(&lab, &daemon, &["veth1"], &["veth1", "--duration", "5m"]);
    let children: Vec<Child> = (0..4).filter_map(listen).collect();
    wait_for("four that listen", || lab.packet_sockets("relay") == sockets + 4);
    let said = daemon.refused(&["discover", "veth1"]);
    assert!(said.contains("4 discovers are listening already"), "{said}");
    // Whoever hangs up gives back its place.
    for mut child in children {
        end(Some(child.id()), Signal::KILL);
        child.wait().unwrap();
    }
    wait_for("none that listens", || lab.packet_sockets("relay") == sockets);
    wait_for("the card's filter as before", || !is_open(&lab, "veth1"));
    daemon.ok(&["discover", "veth1", "--duration", "1s"]);
}
