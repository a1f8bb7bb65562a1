//! `max_rate`: what is more is dropped, and counted.

use serde_json::Value;

use crate::forwarding::sums;
use crate::lab::{Lab, Plane};

const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
const GEN: &str = "--group 239.1.1.1 --port 5001";

/// How much of what was sent gets through at so many a second, a tenth of a second ahead.
fn allowed(sent: &Value, per_second: f64) -> std::ops::RangeInclusive<u64> {
    let seconds = sent["seconds"].as_f64().unwrap();
    let expected = per_second * (seconds + 0.1);
    (expected * 0.95) as u64..=(expected * 1.05) as u64 + 1
}

pub(crate) fn what_is_more_than_the_rate_is_dropped_and_counted(plane: Plane) {
    // 800 kbit are 500 datagrams of 200 bytes.
    for (rate, per_second) in [("1000pps", 1000.0), ("800kbit", 500.0)] {
        let lab = Lab::chain(plane);
        let daemon = lab.daemon(&[]);
        let rule = ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"];
        daemon.ok(&[&rule[..], &["--max-rate", rate]].concat());
        let receiver = lab.receiver("sink", &format!("{SINK} --idle 1s"));
        let sent = lab.send(&format!("{GEN} --rate 5000 --count 10000 --size 200"));
        let report = receiver.report();
        let received = report["received"].as_u64().unwrap();
        let allowed = allowed(&sent, per_second);
        assert!(allowed.contains(&received), "{rate}: {received}, not {allowed:?}");
        assert_eq!((&report["corrupt"], &report["duplicated"]), (&0.into(), &0.into()), "{report}");
        let stats = daemon.settled("a", 10_000);
        sums(&stats, 0, received);
        assert_eq!(stats["received"]["packets"], 10_000, "{stats}");
        assert_eq!(stats["dropped"]["rate"], 10_000 - received, "{stats}");
        assert!(daemon.ok(&["stats", "a"]).contains("max_rate"), "the table says what it is");
        // Without it all goes through.
        daemon.ok(&["set", "a", "--max-rate", "none"]);
        let receiver = lab.receiver("sink", &format!("{SINK} --expect 2000"));
        lab.send(&format!("{GEN} --rate 5000 --count 2000 --size 200"));
        receiver.lossless(2000);
        let stats = daemon.settled("a", 12_000);
        sums(&stats, 0, received + 2000);
    }
}

/// A super-packet counts all its datagrams, and is taken or dropped whole.
pub(crate) fn super_packets_are_held_to_the_rate(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rule = ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"];
    daemon.ok(&[&rule[..], &["--max-rate", "1kpps"]].concat());
    let receiver = lab.receiver("sink", &format!("{SINK} --idle 1s"));
    let sent = lab.send(&format!("{GEN} --rate 5000 --count 10000 --size 200 --gso 10"));
    let received = receiver.report()["received"].as_u64().unwrap();
    let allowed = allowed(&sent, 1000.0);
    assert!(
        allowed.contains(&received) && received.is_multiple_of(10),
        "{received}, not {allowed:?}"
    );
    let stats = daemon.settled("a", 10_000);
    sums(&stats, 0, received);
    assert_eq!(stats["dropped"]["rate"], 10_000 - received, "{stats}");
}

/// A rule that is held back takes nothing from the others.
pub(crate) fn the_others_have_their_own_rate(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    for (n, rate) in [(1, "100pps"), (2, "3kpps"), (3, "1mpps")] {
        let (input, output) = (format!("239.1.1.{n}:500{n}@veth1"), format!("239.10.1.{n}:600{n}"));
        let name = format!("s{n}");
        daemon.ok(&[
            "add",
            &input,
            &format!("{output}@veth2"),
            "--name",
            &name,
            "--max-rate",
            rate,
        ]);
    }
    let sink = "--interface veth3 --group 239.10.1.2 --port 6002 --streams 2 --first-stream 2";
    let receiver = lab.receiver("sink", &format!("{sink} --expect 2000"));
    lab.send(&format!("{GEN} --streams 3 --rate 1000 --count 2000 --size 100"));
    receiver.lossless(4000);
    let stats = daemon.settled("s1", 2000);
    assert!(stats["dropped"]["rate"].as_u64().unwrap() > 1500, "{stats}");
    for rule in ["s2", "s3"] {
        sums(&daemon.settled(rule, 2000), 0, 2000);
    }
}
