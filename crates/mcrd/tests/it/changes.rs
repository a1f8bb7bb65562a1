//! Rules that change while packets move.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::control::change;
use crate::lab::{Lab, Plane};

/// A rule for stream `k` that always sends to 239.10.1.k, and to `more` other groups.
fn rule(k: usize, more: usize) -> Value {
    let port = 6000 + k;
    let mut outputs = vec![format!("239.10.1.{k}:{port}@veth2")];
    outputs.extend((0..more).map(|n| format!("239.20.{n}.{k}:{port}@veth2")));
    json!({
        "name": format!("s{k}"),
        "input": format!("239.1.1.{k}:{}@veth1", 5000 + k),
        "outputs": outputs,
    })
}

/// A rule for a flow that nobody sends.
fn idle(n: usize) -> Value {
    json!({
        "name": format!("idle{n}"),
        "input": format!("239.2.{}.{}:7000@veth1", n / 250, n % 250 + 1),
        "outputs": ["239.30.1.1:7000@veth2"],
    })
}

/// Streams 1 to 10 are replaced all the time and lose nothing; 11 to 20 come and go; nothing ever
/// gets to an output of another rule.
pub(crate) fn rules_replaced_for_ten_seconds_under_load_miss_nothing_and_mix_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let add = |k| json!({"add": rule(k, 0)});
    change(&daemon, &(1..=20).map(add).collect());
    let count = 250 * 12;
    let receive = |group: &str, port: u16, more: &str| {
        let flow = format!("--interface veth3 --group {group} --port {port} --streams 10");
        lab.receiver("sink", &format!("{flow} --expect {count} --idle 3s {more}"))
    };
    let steady = receive("239.10.1.1", 6001, "");
    let flapping = receive("239.10.1.11", 6011, "--first-stream 11");
    let sending = AtomicBool::new(true);
    let changes = std::thread::scope(|scope| {
        scope.spawn(|| {
            let load = format!("--streams 20 --rate 250 --count {count} --size 200");
            lab.send(&format!("--group 239.1.1.1 --port 5001 {load}"));
            sending.store(false, Ordering::Relaxed);
        });
        let end = Instant::now() + Duration::from_secs(10);
        let mut changes = 0;
        while Instant::now() < end && sending.load(Ordering::Relaxed) {
            // Each rule at its own moment: other sizes, so that outputs move in the map.
            let (k, more) = (changes % 10 + 1, changes % 7);
            let mut steps =
                vec![json!({"replace": {"name": format!("s{k}"), "rule": rule(k, more)}})];
            let k = k + 10;
            let other = changes % 20 < 10;
            steps.push(if other {
                json!({"remove": format!("s{k}")})
            } else {
                json!({"add": rule(k, 1)})
            });
            steps.push(json!({"add": idle(changes)}));
            if changes >= 50 {
                steps.push(json!({"remove": format!("idle{}", changes - 50)}));
            }
            change(&daemon, &Value::Array(steps));
            changes += 1;
        }
        changes
    });
    assert!(changes > 100, "only {changes} changes");
    steady.lossless(10 * count);
    let flapping = flapping.report();
    for fault in ["foreign", "corrupt", "duplicated"] {
        assert_eq!(flapping[fault], 0, "{fault} after {changes} changes: {flapping}");
    }
    assert!(flapping["received"].as_u64().unwrap() > 0, "{flapping}");
    for k in 1..=10 {
        let stats = daemon.settled(&format!("s{k}"), count);
        assert_eq!(stats["outputs"][0]["forwarded"]["packets"], count, "{stats}");
        assert_eq!(stats["matched"]["packets"], count, "{stats}");
    }
}

/// Add, remove, replace, output add and output remove by the client, and nothing is lost on the
/// streams and outputs that they do not name.
pub(crate) fn the_other_streams_and_outputs_notice_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    change(&daemon, &json!([{"add": rule(1, 0)}, {"add": rule(2, 0)}, {"add": rule(3, 0)}]));
    let count = 1500;
    let flow = "--interface veth3 --group 239.10.1.1 --port 6001 --streams 3";
    let receiver = lab.receiver("sink", &format!("{flow} --expect {count}"));
    let sending = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let load = format!("--streams 3 --rate 500 --count {count} --size 200");
            lab.send(&format!("--group 239.1.1.1 --port 5001 {load}"));
            sending.store(false, Ordering::Relaxed);
        });
        let mut turns = 0;
        while sending.load(Ordering::Relaxed) || turns == 0 {
            daemon.ok(&["add", "239.1.1.9:5009@veth1", "239.10.1.9:6009@veth2", "--name", "nine"]);
            daemon.ok(&["output", "add", "s2", "239.20.0.2:6002@veth2,ttl=5"]);
            daemon.ok(&["set", "nine", "--ttl", "7"]);
            daemon.ok(&["output", "remove", "s2", "239.20.0.2:6002@veth2"]);
            daemon.ok(&["remove", "nine"]);
            turns += 1;
        }
    });
    receiver.lossless(3 * count);
    for k in 1..=3 {
        let stats = daemon.settled(&format!("s{k}"), count);
        assert_eq!(stats["outputs"][0]["forwarded"]["packets"], count, "{stats}");
    }
}

/// An output that comes late counts from then on, and the sums hold for each.
pub(crate) fn a_new_output_counts_since_it_exists(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    change(&daemon, &json!([{"add": rule(1, 0)}]));
    let send = || lab.send("--group 239.1.1.1 --port 5001 --rate 1000 --count 200 --size 50");
    send();
    daemon.settled("s1", 200);
    daemon.ok(&["output", "add", "s1", "239.20.0.1:6001@veth2"]);
    send();
    let stats = daemon.settled("s1", 400);
    assert_eq!(stats["matched"]["packets"], 400, "{stats}");
    assert_eq!(stats["outputs"][0]["offered"]["packets"], 400, "{stats}");
    assert_eq!(stats["outputs"][1]["offered"]["packets"], 200, "{stats}");
    assert_eq!(stats["outputs"][1]["forwarded"]["packets"], 200, "{stats}");
}

/// The reply comes after the change: the first packet behind it goes the new way.
pub(crate) fn the_reply_comes_after_the_data_plane_has_the_change(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    for round in 1..=10 {
        let flow = "--interface veth3 --group 239.10.1.1 --port 6001";
        let receiver = lab.receiver("sink", &format!("{flow} --expect 5"));
        change(&daemon, &json!([{"add": rule(1, round % 3)}]));
        lab.send("--group 239.1.1.1 --port 5001 --rate 0 --count 5 --size 50");
        receiver.lossless(5);
        change(&daemon, &json!([{"remove": "s1"}]));
    }
}
