use super::*;
use crate::payload::{Bodies, HEADER, Header};

/// A report on streams that got these sequences; each packet takes as many µs as its sequence.
fn report(expect: Option<u64>, streams: &[&[u64]]) -> RecvReport {
    let bodies = Bodies::new(HEADER);
    let mut arrivals = Arrivals::new();
    let tallies: Vec<_> = (1..)
        .zip(streams)
        .map(|(stream, sequences)| {
            let mut tally = Tally::new(stream, expect);
            for sequence in *sequences {
                let sent = 1_000_000_000 + sequence * 1_000_000;
                let header = Header { run: 1, stream, sequence: *sequence, sent };
                let mut payload = [0; HEADER];
                header.write(&bodies, &mut payload);
                let stamp = sent + sequence * 1000;
                tally.take(&payload, stamp);
                arrivals.take(stamp);
            }
            tally
        })
        .collect();
    let address = |stream: u32| SocketAddr::from(([239, 1, 1, stream as u8], 5000));
    let streams =
        (1..).zip(&tallies).map(|(k, tally)| StreamReport::new(k, address(k), tally, u64::from(k)));
    RecvReport::new(streams.collect(), &tallies, &arrivals)
}

fn text(report: &RecvReport, every_stream: bool) -> String {
    let mut out = Vec::new();
    report.write_text(&mut out, every_stream).expect("memory takes it");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn the_total_is_the_sum_of_the_streams() {
    let report = report(Some(4), &[&[0, 1, 2, 3], &[0, 0, 2, 1], &[]]);
    let Counts { received, lost, duplicated, reordered, socket_drops, bytes, .. } = report.counts;
    assert_eq!((received, lost, duplicated, reordered), (7, 5, 1, 1));
    assert_eq!((socket_drops, bytes), (6, 8 * HEADER as u64));
    assert!((report.counts.loss_percent - 500.0 / 12.0).abs() < 1e-9);
    assert!(!report.complete && !report.is_good());
}

#[test]
fn only_order_is_forgiven() {
    assert!(report(Some(2), &[&[0, 1]]).is_good());
    assert!(report(Some(2), &[&[1, 0]]).is_good());
    assert!(!report(Some(2), &[&[0, 0, 1]]).is_good());
    assert!(!report(Some(2), &[&[0]]).is_good());
    assert!(!report(None, &[&[]]).is_good());
    let duplicate = report(Some(2), &[&[0, 0, 1]]);
    assert!(duplicate.complete);
}

#[test]
fn latency_and_rate_come_from_the_stamps() {
    let sequences: Vec<u64> = (0..1001).collect();
    let report = report(None, &[&sequences]);
    let latency = report.counts.latency_us.as_ref().expect("packets came");
    let close = |value: f64, expected: f64| (value - expected).abs() <= expected * 0.01 + 0.001;
    assert!(close(latency.min, 0.0) && close(latency.p50, 500.0) && close(latency.max, 1000.0));
    assert!(close(latency.p99, 990.0) && close(latency.p999, 999.0), "{latency:?}");
    assert!(report.counts.delay_variation_us.is_some_and(|variation| close(variation, 999.0)));
    assert!(close(report.seconds, 1.001));
    assert!(close(report.rate, 1000.0 / 1.001));
}

#[test]
fn the_worst_stream_lost_most() {
    let report = report(Some(3), &[&[0, 1, 2], &[0, 1], &[0], &[0, 1, 2, 2]]);
    let worst = report.worst_stream.as_ref().expect("one lost");
    assert_eq!((worst.stream, worst.counts.lost), (3, 2));
    let text = text(&report, false);
    let listed: Vec<_> = text.lines().filter(|line| line.starts_with("stream ")).collect();
    assert_eq!(listed.len(), 3, "{text}");
    assert!(listed[0].starts_with("stream 3 239.1.1.3:5000: received 1, lost 2 (66.6667 %)"));
    assert!(listed[2].starts_with("stream 4"));
}

#[test]
fn every_stream_is_listed_on_request() {
    let report = report(Some(1), &[&[0], &[0]]);
    assert_eq!(text(&report, true).lines().filter(|l| l.starts_with("stream ")).count(), 2);
    assert_eq!(text(&report, false).lines().filter(|l| l.starts_with("stream ")).count(), 0);
}

#[test]
fn json_has_the_documented_keys() {
    let report = serde_json::to_value(report(Some(2), &[&[0], &[0, 1]])).expect("JSON");
    for key in [
        "streams",
        "expected",
        "received",
        "lost",
        "loss_percent",
        "duplicated",
        "reordered",
        "corrupt",
        "foreign",
        "surplus",
        "socket_drops",
        "rcvbuf",
        "seconds",
        "rate",
        "bytes",
        "complete",
        "cpu_seconds",
        "delay_variation_us",
    ] {
        assert!(report.get(key).is_some(), "{key}");
    }
    for key in ["min", "p50", "p99", "p999", "max"] {
        assert!(report["latency_us"][key].is_number(), "{key}");
    }
    assert_eq!(report["longest_burst"]["window_us"], 100);
    assert_eq!(report["worst_stream"]["stream"], 1);
    assert_eq!(report["per_stream"][1]["received"], 2);
}
