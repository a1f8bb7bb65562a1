use proptest::prelude::*;

use super::*;
use crate::payload::{Bodies, HEADER};

fn payload(run: u64, stream: u32, sequence: u64) -> Vec<u8> {
    let mut payload = vec![0; HEADER];
    Header { run, stream, sequence, sent: 1000 }.write(&Bodies::new(HEADER), &mut payload);
    payload
}

fn tally(expect: Option<u64>, sequences: &[u64]) -> Tally {
    let mut tally = Tally::new(1, expect);
    for sequence in sequences {
        tally.take(&payload(7, 1, *sequence), 1100);
    }
    tally
}

/// received, lost, duplicated, reordered
fn counts(expect: Option<u64>, sequences: &[u64]) -> [u64; 4] {
    let tally = tally(expect, sequences);
    [tally.received, tally.lost(), tally.duplicated, tally.reordered]
}

#[test]
fn loss_duplicates_and_order_by_sequence() {
    let table: &[(Option<u64>, &[u64], [u64; 4])] = &[
        (None, &[], [0, 0, 0, 0]),
        (Some(3), &[], [0, 3, 0, 0]),
        (Some(3), &[0, 1, 2], [3, 0, 0, 0]),
        (Some(4), &[0, 1, 2], [3, 1, 0, 0]),
        (None, &[0, 1, 2], [3, 0, 0, 0]),
        (None, &[0, 2], [2, 1, 0, 0]),
        (None, &[5], [1, 5, 0, 0]),
        (None, &[0, 2, 1], [3, 0, 0, 1]),
        (None, &[0, 3, 1, 2, 4], [5, 0, 0, 2]),
        (None, &[0, 1, 1, 1, 2], [3, 0, 2, 0]),
        (None, &[0, 2, 1, 1], [3, 0, 1, 1]),
        (None, &[2, 1, 0], [3, 0, 0, 2]),
        (Some(200), &[199], [1, 199, 0, 0]),
    ];
    for (expect, sequences, expected) in table {
        assert_eq!(counts(*expect, sequences), *expected, "{expect:?} {sequences:?}");
    }
}

#[test]
fn what_is_past_the_expected_is_surplus() {
    let tally = tally(Some(2), &[0, 1, 2, 3]);
    assert_eq!((tally.received, tally.surplus, tally.lost()), (2, 2, 0));
    assert!(tally.complete());
}

#[test]
fn complete_needs_every_sequence() {
    assert!(!tally(Some(2), &[0, 0]).complete());
    assert!(tally(Some(2), &[1, 0]).complete());
    assert!(!tally(None, &[0]).complete());
}

#[test]
fn other_streams_runs_and_tools_are_foreign() {
    let mut tally = tally(None, &[0]);
    assert!(!tally.take(&payload(7, 2, 1), 0));
    assert!(!tally.take(&payload(8, 1, 1), 0));
    assert!(!tally.take(b"hello", 0));
    let mut cut = payload(7, 1, 1);
    cut[39] ^= 1;
    assert!(!tally.take(&cut, 0));
    assert_eq!((tally.received, tally.foreign, tally.corrupt), (1, 3, 1));
    assert_eq!(tally.bytes, 40);
}

#[test]
fn latency_is_between_the_stamps_and_never_negative() {
    let tally = tally(None, &[0]);
    assert_eq!((tally.latency.min(), tally.latency.max()), (100, 100));
    let mut early = Tally::new(1, None);
    assert!(early.take(&payload(7, 1, 0), 10));
    assert_eq!(early.latency.max(), 0);
}

#[test]
fn a_burst_is_the_fullest_window() {
    let mut arrivals = Arrivals::new();
    for stamp in [1_000_000, 1_050_000, 1_099_999, 1_100_000, 5_000_000, 1_001_000] {
        arrivals.take(stamp);
    }
    assert_eq!(arrivals.longest_burst(), 4);
    assert!((arrivals.seconds() - 0.004).abs() < 1e-9);
    assert_eq!(Arrivals::new().seconds(), 0.0);
}

proptest! {
    #[test]
    fn every_packet_is_counted_once(sequences in prop::collection::vec(0..300_u64, 0..400)) {
        let distinct: std::collections::BTreeSet<_> = sequences.iter().collect();
        let tally = tally(None, &sequences);
        prop_assert_eq!(tally.received, distinct.len() as u64);
        prop_assert_eq!(tally.received + tally.duplicated, sequences.len() as u64);
        let span = distinct.last().map_or(0, |last| **last + 1);
        prop_assert_eq!(tally.received + tally.lost(), span);
    }
}
