use proptest::prelude::*;

use super::*;

/// Runs a sender on a fake clock whose every sleep overruns by `late`; returns, for each wake-up,
/// the time and how many messages were sent.
fn simulate(pace: Pace, count: u64, late: Duration) -> Vec<(Duration, u64)> {
    let (mut now, mut sent, mut wakes) = (Duration::ZERO, 0, Vec::new());
    while sent < count {
        let due = pace.due(now).min(count) - sent;
        wakes.push((now, due));
        sent += due;
        now = pace.wake(sent, now) + late;
    }
    wakes
}

#[test]
fn slow_streams_leave_one_by_one_at_their_times() {
    let wakes = simulate(Pace::new(1000, 1), 4, Duration::ZERO);
    let expected: Vec<_> = (0..4).map(|ms| (Duration::from_millis(ms), 1)).collect();
    assert_eq!(wakes, expected);
}

#[test]
fn fast_streams_leave_by_the_tick() {
    let wakes = simulate(Pace::new(500_000, 1), 100_000, Duration::ZERO);
    assert_eq!(wakes.len(), 1001);
    assert!(wakes.iter().all(|(_, sent)| *sent <= 101), "{:?}", wakes.iter().max_by_key(|w| w.1));
}

#[test]
fn late_wake_ups_do_not_add_up() {
    let late = Duration::from_micros(70);
    let wakes = simulate(Pace::new(300_000, 1), 300_000, late);
    let (end, _) = wakes[wakes.len() - 1];
    assert!(end < Duration::from_secs(1) + TICK + late, "{end:?}");
}

#[test]
fn super_packets_are_paced_by_the_packet() {
    let pace = Pace::new(1000, 10);
    assert_eq!(pace.time_of(100), Duration::from_secs(1));
    assert_eq!(pace.due(Duration::from_millis(999)), 100);
    assert_eq!(pace.due(Duration::from_secs(1)), 101);
}

#[test]
fn unpaced_is_always_due() {
    assert_eq!(Pace::new(0, 1).due(Duration::ZERO), u64::MAX);
    assert_eq!(Pace::new(0, 1).time_of(u64::MAX), Duration::ZERO);
}

proptest! {
    #[test]
    fn a_message_is_due_exactly_from_its_time_on(
        rate in 1..10_000_000_u64,
        group in 1..64_u16,
        index in 1..1_000_000_000_u64,
    ) {
        let pace = Pace::new(rate, group);
        let time = pace.time_of(index);
        prop_assert!(pace.due(time) > index);
        prop_assert!(pace.due(time - Duration::from_nanos(1)) <= index);
    }
}
