use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A header of 12 bytes.
pub(crate) fn packet(number: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut bytes = vec![0x80, 33];
    bytes.extend(number.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    bytes
}

fn header(number: u16, ssrc: u32) -> Header {
    Header::parse(&packet(number, 0, ssrc)).unwrap()
}

/// The numbers as they arrive, all in one batch.
fn session(numbers: impl IntoIterator<Item = u16>) -> Session {
    let mut session = Session::default();
    for number in numbers {
        session.observe(&header(number, 1), 0, 1);
    }
    session
}

fn counts(numbers: impl IntoIterator<Item = u16>) -> Counts {
    let session = session(numbers);
    let counts = session.counts();
    assert_eq!(session.other(), 0);
    counts
}

#[test]
fn a_header_is_as_long_as_its_sources_and_its_extension() {
    let plain = packet(7, 0x0102_0304, 0xcafe);
    let parsed = Header::parse(&plain).unwrap();
    let Header { payload_type, sequence, timestamp, ssrc, header_len } = parsed;
    assert_eq!(
        (payload_type, sequence, timestamp, ssrc, header_len),
        (33, 7, 0x0102_0304, 0xcafe, 12)
    );
    let mut long = plain.clone();
    (long[0], long[1]) = (0xb2, 0x80 | 96);
    long.extend([0; 8]);
    long.extend([0xbe, 0xde, 0, 2]);
    long.extend([0; 8]);
    let parsed = Header::parse(&long).unwrap();
    assert_eq!((parsed.header_len, parsed.payload_type), (32, 96));
    for cut in 0..long.len() {
        assert_eq!(Header::parse(&long[..cut]), None, "{cut}");
    }
    for (at, byte) in [(0, 0x40), (0, 0xc0), (1, 200), (1, 192), (1, 223)] {
        let mut other = plain.clone();
        other[at] = byte;
        assert_eq!(Header::parse(&other), None, "{byte:#x}");
    }
}

#[test]
fn numbers_in_order_wrap() {
    let numbers = (65_000..=u16::MAX).chain(0..1000);
    assert_eq!(counts(numbers), Counts { packets: 1536, ..Counts::default() });
}

#[test]
fn a_gap_is_lost_also_over_the_wrap() {
    let numbers = (65_500..65_530).chain(4..500);
    let found = counts(numbers);
    let known = Counts { packets: 526, lost: 10, longest_gap: 10, ..Counts::default() };
    assert_eq!(found, known);
}

#[test]
fn a_gap_in_the_last_hundred_may_still_be_filled() {
    let gap = Counts { packets: 20, lost: 5, missing: 5, longest_gap: 5, ..Counts::default() };
    assert_eq!(counts((0..10).chain(15..25)), gap);
    let filled = Counts {
        packets: 22,
        lost: 3,
        missing: 3,
        reordered: 2,
        longest_gap: 2,
        ..Counts::default()
    };
    assert_eq!(counts((0..10).chain(15..25).chain([12, 10])), filled);
    let settled = Counts { packets: 120, lost: 5, longest_gap: 5, ..Counts::default() };
    assert_eq!(counts((0..10).chain(15..125)), settled);
}

#[test]
fn what_comes_again_is_no_loss_and_no_order() {
    let numbers = (0..10).chain([9, 3]).chain(10..20);
    assert_eq!(counts(numbers), Counts { packets: 22, duplicated: 2, ..Counts::default() });
    // Late, and then again.
    let numbers = [1, 2, 4, 3, 3, 5];
    let known = Counts { packets: 6, reordered: 1, duplicated: 1, ..Counts::default() };
    assert_eq!(counts(numbers), known);
}

#[test]
fn a_far_number_begins_anew_when_the_next_follows() {
    let found = counts((100..200).chain([201, 202]).chain(40_000..40_100));
    let known = Counts { packets: 202, lost: 1, restarts: 1, longest_gap: 1, ..Counts::default() };
    assert_eq!(found, known);
    // A number by itself is nobody's.
    let stray = session((0..50).chain([30_000]).chain(50..100).chain([20_000, 40_000]));
    assert_eq!(stray.counts(), Counts { packets: 100, ..Counts::default() });
    assert_eq!(stray.other(), 2, "the last may still begin anew");
    // Just near enough.
    assert_eq!(counts([0, 1, 3000]).lost, 2998);
    assert_eq!(session([0, 1, 3001]).counts().packets, 2);
}

#[test]
fn two_in_order_make_a_source_and_another_is_a_restart() {
    let mut session = session([5, 9, 10, 11]);
    assert_eq!((session.counts().packets, session.other()), (3, 1));
    for number in [70, 71, 72] {
        session.observe(&header(number, 2), 1, 1);
    }
    let known = Counts { packets: 6, restarts: 1, ..Counts::default() };
    assert_eq!(session.counts(), known);
    let heard: Vec<u32> = session.sources().map(|source| source.ssrc).collect();
    assert_eq!(heard, [1, 2]);
}

#[test]
fn of_many_sources_the_last_are_kept_and_none_is_forgotten() {
    let mut session = Session::default();
    for ssrc in 0..20 {
        for number in [1, 2, 4] {
            session.observe(&header(number, ssrc), u64::from(ssrc), 1);
        }
    }
    let known = Counts {
        packets: 60,
        lost: 20,
        missing: 8,
        restarts: 19,
        longest_gap: 1,
        ..Counts::default()
    };
    assert_eq!(session.counts(), known);
    assert_eq!(session.sources().map(|s| s.ssrc).collect::<BTreeSet<_>>(), (12..20).collect());
    // What only looks like RTP drives nobody out.
    for ssrc in 100..200 {
        session.observe(&header(7, ssrc), 100, 1);
    }
    assert_eq!(session.counts(), known);
    assert_eq!(session.other(), 92);
}

#[test]
fn what_the_mirror_missed_is_not_lost() {
    let mut session = session((0..10).chain(12..20));
    // A batch that is whole.
    for number in (20..30).chain(34..40) {
        session.observe(&header(number, 1), 0, 2);
    }
    // A batch of which something is missing, in its middle and behind it.
    for number in (40..50).chain(60..70) {
        session.observe(&header(number, 1), 0, 3);
    }
    session.missed(3);
    for number in (80..90).chain(91..95) {
        session.observe(&header(number, 1), 0, 4);
    }
    let known = Counts {
        packets: 68,
        lost: 7,
        missing: 1,
        unseen: 20,
        longest_gap: 4,
        ..Counts::default()
    };
    assert_eq!(session.counts(), known);
    // It was missed after a batch without this stream.
    session.missed(7);
    session.observe(&header(5000, 1), 0, 8);
    session.observe(&header(5001, 1), 0, 8);
    let counts = session.counts();
    assert_eq!((counts.packets, counts.lost, counts.unseen, counts.restarts), (70, 7, 20, 0));
}

#[test]
fn jitter_is_that_of_the_standard() {
    let mut session = Session::default();
    // Every 20 ms by the clock of payload type 33, and every other 16 ms late.
    for n in 0..400_u32 {
        let bytes = packet(n as u16, n * 1800, 1);
        let late = if n % 2 == 1 { 16_000_000 } else { 0 };
        let time = u64::from(n) * 20_000_000 + late;
        session.observe(&Header::parse(&bytes).unwrap(), time, 1);
    }
    let source = session.sources().next().unwrap();
    assert_eq!((source.payload_type, source.clock_rate), (33, 90_000));
    assert!((15_990..=16_000).contains(&source.jitter), "{}", source.jitter);
}

/// What is done to a packet of an ordered stream.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Comes,
    Lost,
    /// Behind this many more.
    Late(usize),
    Again(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::Comes),
        2 => Just(Fate::Lost),
        1 => (1..40_usize).prop_map(Fate::Late),
        1 => (1..40_usize).prop_map(Fate::Again),
    ]
}

proptest! {
    #[test]
    fn every_loss_is_counted_once(
        first: u16,
        fates in prop::collection::vec(fate(), 1..600),
    ) {
        // The numbers by when they arrive.
        let mut arrivals: Vec<(usize, usize)> = vec![(0, 0), (1, 1)];
        for (n, fate) in (2..).zip(&fates) {
            match fate {
                Fate::Comes => arrivals.push((n, n)),
                Fate::Lost => {}
                Fate::Late(by) => arrivals.push((n + by, n)),
                Fate::Again(after) => arrivals.extend([(n, n), (n + after, n)]),
            }
        }
        arrivals.sort_by_key(|(at, n)| (*at, *n));
        let mut model = Counts::default();
        let (mut seen, mut highest) = (BTreeSet::new(), 0);
        for (_, n) in &arrivals {
            model.packets += 1;
            if !seen.insert(*n) {
                model.duplicated += 1;
            } else if *n < highest {
                model.reordered += 1;
            }
            highest = highest.max(*n);
        }
        let mut run = 0;
        for n in 0..=highest {
            run = if seen.contains(&n) { 0 } else { run + 1 };
            model.lost += u64::from(run > 0);
            model.missing += u64::from(run > 0 && highest - n < 100);
            model.longest_gap = model.longest_gap.max(run);
        }
        let found = counts(arrivals.iter().map(|(_, n)| first.wrapping_add(*n as u16)));
        prop_assert_eq!(found, model);
    }

    #[test]
    fn any_bytes_are_taken(packets in prop::collection::vec(
        (prop::collection::vec(any::<u8>(), 0..40), any::<u64>()), 0..200,
    )) {
        let mut session = Session::default();
        for (n, (mut bytes, time)) in (0..).zip(packets) {
            if let Some(first) = bytes.first_mut().filter(|_| n % 2 == 0) {
                *first = 0x80 | *first & 0x3f;
            }
            if let Some(header) = Header::parse(&bytes) {
                session.observe(&header, time, n / 10);
            }
            if n % 17 == 0 {
                session.missed(n / 10);
            }
        }
        let Counts { packets, lost, missing, duplicated, .. } = session.counts();
        prop_assert!(missing <= lost && duplicated <= packets);
    }

    #[test]
    fn any_numbers_of_one_source_are_taken(
        numbers in prop::collection::vec(any::<u16>(), 0..300),
    ) {
        session(numbers);
    }
}
