//! Streams over a veth pair: what a receiver reports of them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::network::{DEADLINE, Network};

const FAULTS: [&str; 5] = ["lost", "duplicated", "reordered", "corrupt", "foreign"];
const G: &str = "--group 239.1.1.1 --port 5001";

#[test]
fn many_streams_without_loss() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --streams 150 --expect 200"));
    let sender = network.send(&format!("{G} --streams 150 --count 200 --rate 400"));
    assert_eq!(sender.code, Some(0), "{sender:?}");
    assert_eq!(sender.counts(["streams", "sent", "send_errors"]), [150, 30_000, 0]);
    let seconds = sender.report()["seconds"].as_f64().expect("a number");
    assert!(seconds >= 0.497, "{seconds} s: the last packet is due after 199 / 400 s");

    let received = receiver.finish();
    assert_eq!(received.code, Some(0), "{received:?}");
    assert_eq!(received.counts(FAULTS), [0; 5]);
    let keys = ["expected", "received", "bytes", "socket_drops"];
    assert_eq!(received.counts(keys), [30_000, 30_000, 30_720_000, 0]);
    let report = received.report();
    assert_eq!(report["complete"], true);
    assert_eq!(report["per_stream"][149]["address"], "239.1.1.150:5150");
    assert!(report["latency_us"]["p50"].as_f64().is_some_and(|p50| p50 > 0.0 && p50 < 1e6));
}

#[test]
fn loss_exits_1_and_names_the_worst_stream() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --streams 3 --expect 100 --idle 200ms"));
    network.send(&format!("{G} --streams 2 --count 90"));
    let received = receiver.finish();
    assert_eq!(received.code, Some(1), "{received:?}");
    assert_eq!(received.counts(["received", "lost", "expected"]), [180, 120, 300]);
    assert_eq!(received.report()["loss_percent"], 40.0);
    assert_eq!(received.report()["worst_stream"]["stream"], 3);
    assert_eq!(received.report()["complete"], false);
}

#[test]
fn nothing_at_all_is_total_loss() {
    let Some(network) = Network::new() else { return };
    let received = network.recv(&format!("{G} --expect 10 --wait-first 50ms")).finish();
    assert_eq!(received.code, Some(1));
    assert_eq!(received.counts(["received", "lost"]), [0, 10]);
    assert!(received.report()["latency_us"].is_null());
}

#[test]
fn duplicates_exit_1() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --streams 2 --idle 300ms"));
    network.send(&format!("{G} --streams 2 --count 50 --run 7"));
    network.send(&format!("{G} --streams 2 --count 10 --first-sequence 20 --run 7"));
    let received = receiver.finish();
    assert_eq!(received.code, Some(1), "{received:?}");
    assert_eq!(received.counts(["received", "duplicated", "reordered"]), [100, 20, 0]);
}

#[test]
fn duplicates_after_the_last_packet_are_caught_by_lingering() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --expect 50 --linger 1s"));
    network.send(&format!("{G} --count 50 --run 7"));
    network.send(&format!("{G} --count 1 --run 7"));
    let received = receiver.finish();
    assert_eq!(received.code, Some(1), "{received:?}");
    assert_eq!(received.counts(["received", "duplicated"]), [50, 1]);
}

#[test]
fn reordering_alone_is_no_failure() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --expect 50"));
    network.send(&format!("{G} --count 25 --first-sequence 25 --run 7"));
    network.send(&format!("{G} --count 25 --run 7"));
    let received = receiver.finish();
    assert_eq!(received.code, Some(0), "{received:?}");
    assert_eq!(received.counts(["received", "reordered"]), [50, 25]);
}

#[test]
fn foreign_packets_exit_1() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --expect 50"));
    network.send_text("hello", "239.1.1.1", 5001);
    network.send(&format!("{G} --count 5 --first-stream 2"));
    network.send(&format!("{G} --count 50"));
    let received = receiver.finish();
    assert_eq!(received.code, Some(1), "{received:?}");
    assert_eq!(received.counts(["received", "lost", "foreign"]), [50, 0, 6]);
}

#[test]
fn corrupt_packets_exit_1() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --streams 2 --expect 50 --idle 200ms"));
    network.send(&format!("{G} --streams 2 --count 50 --corrupt-every 10"));
    let received = receiver.finish();
    assert_eq!(received.code, Some(1), "{received:?}");
    assert_eq!(received.counts(["received", "lost", "corrupt"]), [90, 10, 10]);
}

#[test]
fn super_packets_arrive_as_datagrams() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --streams 10 --expect 105"));
    let sender = network.send(&format!("{G} --streams 10 --count 105 --gso 10"));
    assert_eq!(sender.counts(["sent", "send_errors"]), [1050, 0]);
    let received = receiver.finish();
    assert_eq!(received.code, Some(0), "{received:?}");
    assert_eq!(received.counts(["received", "bytes"]), [1050, 1050 * 1024]);
}

#[test]
fn packets_without_checksum_arrive() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --streams 2 --expect 20"));
    let options = "--checksum none --dscp 46 --ttl 1 --source 10.99.0.1:7000";
    let sender = network.send(&format!("{G} --streams 2 --count 20 {options}"));
    assert_eq!(sender.code, Some(0), "{sender:?}");
    let received = receiver.finish();
    assert_eq!(received.code, Some(0), "{received:?}");
}

#[test]
fn ipv6_unicast_and_large_datagrams_arrive() {
    let Some(network) = Network::new() else { return };
    let table = [
        "--group ff3e::8000:ff --port 5001",
        "--group ff05::1 --port 5001 --same-group",
        "--group 10.99.0.2 --port 5001 --same-group",
        "--group fd99::2 --port 5001 --same-group",
        "--group 239.1.1.254 --port 5001 --same-port",
    ];
    for streams in table {
        for size in [40, 9000, 65_000] {
            let receiver = network.recv(&format!("{streams} --streams 2 --expect 10"));
            let sender = network.send(&format!("{streams} --streams 2 --count 10 --size {size}"));
            assert_eq!(sender.code, Some(0), "{streams}: {sender:?}");
            let received = receiver.finish();
            assert_eq!(received.code, Some(0), "{streams}: {received:?}");
            assert_eq!(received.counts(["bytes"]), [20 * size]);
        }
    }
}

#[test]
fn a_source_selects_one_sender() {
    let Some(network) = Network::new() else { return };
    for (group, source, other) in
        [("232.1.1.1", "10.99.0.1", "10.99.0.9"), ("ff3e::8000:1", "fd99::1", "fd99::9")]
    {
        let flow = format!("--group {group} --port 5001");
        let other = network.recv(&format!("{flow} --source {other}"));
        let receiver = network.recv(&format!("{flow} --source {source} --expect 50"));
        let sender = network.send(&format!("{flow} --count 50"));
        assert_eq!(sender.code, Some(0), "{sender:?}");
        assert_eq!(receiver.finish().counts(FAULTS), [0; 5], "{source}");
        kill(Pid::from_raw(other.id() as i32), Signal::SIGINT).expect("it runs");
        assert_eq!(other.finish().counts(["received", "foreign"]), [0, 0], "{flow}");
    }
}

#[test]
fn a_duration_ends_the_sender_and_idle_the_receiver() {
    let Some(network) = Network::new() else { return };
    let receiver = network.recv(&format!("{G} --idle 100ms"));
    let sender = network.send(&format!("{G} --duration 300ms --rate 1000"));
    let [sent] = sender.counts(["sent"]);
    assert!((1..=300).contains(&sent), "{sent}");
    let received = receiver.finish();
    assert_eq!(received.code, Some(0), "{received:?}");
    assert_eq!(received.counts(["received", "lost"]), [sent, 0]);
}

#[test]
fn a_sender_waits_for_its_moment() {
    let Some(network) = Network::new() else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let at = now + 0.5;
    let sender = network.send(&format!("{G} --count 1 --start-at {at}"));
    let started = sender.report()["started"].as_f64().unwrap();
    assert!((at..at + 1.0).contains(&started), "{started}, not {at}");
    // A moment that has passed is no reason to wait.
    let sender = network.send(&format!("{G} --count 1 --start-at {}", now - 1e6));
    assert_eq!(sender.counts(["sent"]), [1]);
}

#[test]
fn unpaced_sending_counts_every_packet() {
    let Some(network) = Network::new() else { return };
    let sender = network.send(&format!("{G} --streams 7 --count 1001 --rate 0"));
    assert_eq!(sender.code, Some(0), "{sender:?}");
    assert_eq!(sender.counts(["sent", "asked_rate"]), [7007, 0]);
}

#[test]
fn a_signal_ends_the_receiver_with_a_report() {
    let Some(network) = Network::new() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let begin = Instant::now();
        let receiver = network.recv(&format!("{G} --expect 5"));
        kill(Pid::from_raw(receiver.id() as i32), signal).expect("it runs");
        let received = receiver.finish();
        assert_eq!(received.code, Some(1), "{received:?}");
        assert_eq!(received.counts(["lost"]), [5]);
        assert!(begin.elapsed() < DEADLINE);
    }
}
