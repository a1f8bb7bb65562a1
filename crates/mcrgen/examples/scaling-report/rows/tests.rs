use super::*;
use crate::columns::{self, by_key};
use crate::runs::BARE;

/// One run: relay, repeat, packets lost, rate reached, CPU of the machine.
fn run(relay: &str, repeat: u32, lost: u64, achieved: f64, cpu: f64) -> Run {
    Run {
        relay: relay.into(),
        repeat,
        streams: 20,
        rate: 2000,
        packets: 50_000,
        sent: 1_000_000,
        received: 1_000_000 - lost,
        lost,
        asked_rate: 40_000.0,
        achieved_rate: achieved,
        system_cpu_s: cpu,
        ..Run::default()
    }
}

fn rows_of(runs: Vec<Run>) -> Vec<Row> {
    let setting = serde_json::json!({"settings": {"per_stream_rate": "2000"}});
    rows(&Test { setting, runs })
}

fn text(row: &Row, key: &str) -> String {
    (by_key(key).text)(row)
}

#[test]
fn repeats_are_one_row_with_median_and_worst() {
    let rows = rows_of(vec![
        run(BARE, 1, 0, 40_000.0, 1.0),
        run("socat", 1, 10, 40_000.0, 21.0),
        run(BARE, 2, 0, 40_000.0, 2.0),
        run("socat", 2, 0, 40_000.0, 20.0),
        run(BARE, 3, 0, 40_000.0, 3.0),
        run("socat", 3, 100_000, 40_000.0, 30.0),
    ]);
    assert_eq!(rows.len(), 2);
    let socat = &rows[1];
    assert_eq!(text(socat, "lost"), "10");
    assert_eq!(text(socat, "lost_worst"), "100000");
    assert_eq!(text(socat, "loss_percent"), "0.0010");
    assert_eq!(text(socat, "loss_percent_worst"), "10.0000");
    // 20.0 (a million and 10 less), 18, 30 for 900,000 less 3.
    assert_eq!(text(socat, "added_cpu"), "20.000");
    assert_eq!(text(socat, "marks"), "");
    assert!(socat.has_lost());
    assert_eq!(text(&rows[0], "added_cpu"), "", "the bare path adds nothing to itself");
}

#[test]
fn a_loss_of_the_bare_path_is_not_blamed_on_the_relay() {
    let rows = rows_of(vec![run(BARE, 1, 5, 40_000.0, 1.0), run("ebpf", 1, 5, 40_000.0, 1.0)]);
    assert_eq!(text(&rows[1], "marks"), "path-limited 1");
    assert!(!rows[1].has_lost());
    // In the next repeat the path was good.
    let rows = rows_of(vec![
        run(BARE, 1, 5, 40_000.0, 1.0),
        run("ebpf", 1, 5, 40_000.0, 1.0),
        run(BARE, 2, 0, 40_000.0, 1.0),
        run("ebpf", 2, 1, 40_000.0, 1.0),
    ]);
    assert!(rows[1].has_lost());
}

#[test]
fn a_sender_that_is_slower_is_said_to_be() {
    let rows = rows_of(vec![run(BARE, 1, 0, 30_000.0, 1.0), run("ebpf", 1, 0, 29_000.0, 1.0)]);
    assert_eq!(text(&rows[0], "marks"), "sender-limited 1");
    assert_eq!(text(&rows[1], "marks"), "sender-limited 1", "not slowed: 29 of 30");
    let rows = rows_of(vec![run(BARE, 1, 0, 40_000.0, 1.0), run("socat", 1, 0, 20_000.0, 1.0)]);
    assert_eq!(text(&rows[1], "marks"), "slowed 1");
}

#[test]
fn a_relay_that_only_buffers_is_said_to_be_behind() {
    let late = Run { p99_us: Some(150_000.0), ..run("socat", 1, 0, 40_000.0, 1.0) };
    let rows = rows_of(vec![run(BARE, 1, 0, 40_000.0, 1.0), late]);
    assert_eq!(text(&rows[1], "marks"), "behind 1");
}

#[test]
fn relays_are_compared_with_socat_on_the_same_load() {
    let rows = rows_of(vec![
        run(BARE, 1, 0, 40_000.0, 2.0),
        run("ebpf", 1, 0, 40_000.0, 3.0),
        run("socat", 1, 0, 40_000.0, 22.0),
    ]);
    assert_eq!(text(&rows[1], "times_less_than_socat"), "20.0");
    assert_eq!(text(&rows[2], "times_less_than_socat"), "1.0");
    assert_eq!(text(&rows[0], "times_less_than_socat"), "");
}

#[test]
fn nothing_received_is_no_division_by_zero() {
    let rows =
        rows_of(vec![run(BARE, 1, 0, 40_000.0, 1.0), run("socat", 1, 1_000_000, 40_000.0, 1.0)]);
    assert_eq!(text(&rows[1], "loss_percent"), "100.0000");
    assert_eq!(text(&rows[1], "added_cpu"), "");
    assert_eq!(columns::json(&rows[1])["added_cpu"], serde_json::Value::Null);
}

#[test]
fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0]), Some(2.0));
    assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
}
