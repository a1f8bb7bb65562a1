//! `max_rate`: what is more is dropped, and counted.

use std::io::Write;

use crate::forwarding::sums;
use crate::lab::{Lab, Plane};

const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";
const GEN: &str = "--group 239.1.1.1 --port 5001";

/// A sender that the machine stops for a while cannot make up for it: what it then sends at once is
/// more than the rate. Such a try shows only that not too much gets through, and is made again.
const TRIES: usize = 6;

/// Packets that were sent and received in all tries.
#[derive(Default)]
struct Tried {
    sent: u64,
    received: u64,
}

impl Tried {
    /// Sends until about as much gets through as the rate lets through in that time, a tenth of a
    /// second ahead. More never does.
    fn until_even(lab: &Lab, generator: &str, per_second: f64) -> Self {
        let mut tried = Self::default();
        for _ in 0..TRIES {
            let receiver = lab.receiver("sink", &format!("{SINK} --idle 1s"));
            let sent = lab.send(generator);
            let report = receiver.report();
            let received = report["received"].as_u64().unwrap();
            assert_eq!(
                (&report["corrupt"], &report["duplicated"]),
                (&0.into(), &0.into()),
                "{report}"
            );
            tried.sent += sent["sent"].as_u64().unwrap();
            tried.received += received;
            let allowed = per_second * (sent["seconds"].as_f64().unwrap() + 0.1);
            assert!(received as f64 <= allowed * 1.05 + 1.0, "{received}, and {allowed} may");
            if received as f64 >= allowed * 0.95 {
                return tried;
            }
            let _ = writeln!(std::io::stderr(), "{received} of {allowed}: the sender was held up");
        }
        panic!("less than the rate got through, {TRIES} times");
    }
}

pub(crate) fn what_is_more_than_the_rate_is_dropped_and_counted(plane: Plane) {
    // 800 kbit are 500 datagrams of 200 bytes.
    for (rate, per_second) in [("1000pps", 1000.0), ("800kbit", 500.0)] {
        let lab = Lab::chain(plane);
        let daemon = lab.daemon(&[]);
        let rule = ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"];
        daemon.ok(&[&rule[..], &["--max-rate", rate]].concat());
        let generator = format!("{GEN} --rate 5000 --count 10000 --size 200");
        let Tried { sent, received } = Tried::until_even(&lab, &generator, per_second);
        let stats = daemon.settled("a", sent);
        sums(&stats, 0, received);
        assert_eq!(stats["received"]["packets"], sent, "{stats}");
        assert_eq!(stats["dropped"]["rate"], sent - received, "{stats}");
        assert!(daemon.ok(&["stats", "a"]).contains("max_rate"), "the table says what it is");
        // Without it all goes through.
        daemon.ok(&["set", "a", "--max-rate", "none"]);
        let receiver = lab.receiver("sink", &format!("{SINK} --expect 2000"));
        lab.send(&format!("{GEN} --rate 5000 --count 2000 --size 200"));
        receiver.lossless(2000);
        let stats = daemon.settled("a", sent + 2000);
        sums(&stats, 0, received + 2000);
    }
}

/// A super-packet counts all its datagrams, and is taken or dropped whole.
pub(crate) fn super_packets_are_held_to_the_rate(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rule = ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"];
    daemon.ok(&[&rule[..], &["--max-rate", "1kpps"]].concat());
    let generator = format!("{GEN} --rate 5000 --count 10000 --size 200 --gso 10");
    let Tried { sent, received } = Tried::until_even(&lab, &generator, 1000.0);
    assert!(received.is_multiple_of(10), "{received}");
    let stats = daemon.settled("a", sent);
    sums(&stats, 0, received);
    assert_eq!(stats["dropped"]["rate"], sent - received, "{stats}");
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
