//! Streams that start, pause and come back.

use proptest::prelude::*;

use super::super::*;
use super::plain;
use super::world::World;
use crate::event::Event;
use crate::rule::Rule;

const SECOND: Duration = Duration::from_secs(1);

fn silent_after(name: &str, n: u8, silence: &str) -> Rule {
    Rule { silence: silence.parse().unwrap(), ..plain(name, n) }
}

/// What was told of streams in the last step.
fn streams(world: &World) -> Vec<Event> {
    let stream = |e: &&Event| matches!(e, Event::StreamStarted { .. } | Event::StreamSilent { .. });
    world.told.iter().filter(stream).cloned().collect()
}

/// Reads the counters every half second.
fn pass(world: &mut World, time: Duration) -> Vec<Event> {
    let end = world.now + time;
    let mut told = Vec::new();
    while world.now < end {
        world.tick();
        told.extend(streams(world));
    }
    told
}

fn started(rule: &str, silent_for: Option<Duration>) -> Event {
    Event::StreamStarted { rule: RuleKey::from_user(rule), silent_for }
}

fn silent(rule: &str, silent_for: Duration, last_packet: Instant) -> Event {
    Event::StreamSilent { rule: RuleKey::from_user(rule), silent_for, last_packet }
}

#[test]
fn a_stream_that_pauses_longer_than_its_rule_allows_is_told_once_and_its_return_too() {
    let mut world = World::new();
    world.add(silent_after("a", 1, "2s"));
    assert_eq!(pass(&mut world, 60 * SECOND), [], "what has never come is not silent");
    world.count("a", 1);
    assert_eq!(streams(&world), [started("a", None)]);
    let last = world.now;
    assert_eq!(pass(&mut world, 2 * SECOND - SECOND / 2), []);
    assert_eq!(pass(&mut world, SECOND / 2), [silent("a", 2 * SECOND, last)]);
    assert_eq!(pass(&mut world, 60 * SECOND), [], "told once");
    world.count("a", 2);
    assert_eq!(streams(&world), [started("a", Some(62 * SECOND))]);
    for packets in 3..100 {
        assert_eq!(pass(&mut world, SECOND + SECOND / 2), [], "shorter than the silence");
        world.count("a", packets);
        assert_eq!(streams(&world), []);
    }
}

#[test]
fn a_stream_that_may_pause_for_ever_is_told_when_it_starts() {
    let mut world = World::new();
    world.add(silent_after("a", 1, "never"));
    world.count("a", 1);
    assert_eq!(streams(&world), [started("a", None)]);
    assert_eq!(pass(&mut world, 600 * SECOND), []);
    world.count("a", 2);
    assert_eq!(streams(&world), []);
    let last = world.now;
    world.request(super::put(silent_after("a", 1, "5s"))).unwrap();
    assert_eq!(pass(&mut world, 5 * SECOND), [silent("a", 5 * SECOND, last)]);
}

#[test]
fn what_cannot_come_is_not_silent() {
    let eth0 = "eth0".parse().unwrap();
    let mut world = World::new();
    world.add(silent_after("a", 1, "2s"));
    world.count("a", 1);
    let first = world.now;
    world.link(|links| links.get_mut(&eth0).unwrap().up = false);
    assert_eq!(pass(&mut world, 10 * SECOND), [], "the input is down");
    world.link(|links| drop(links.remove(&eth0)));
    assert_eq!(pass(&mut world, 10 * SECOND), [], "the input is gone");
    world.link(|links| drop(links.insert(eth0.clone(), super::link(2, "10.0.0.9"))));
    world.request(super::put(Rule { enabled: false, ..silent_after("a", 1, "2s") })).unwrap();
    assert_eq!(pass(&mut world, 10 * SECOND), [], "the rule is disabled");
    world.request(super::put(silent_after("a", 1, "2s"))).unwrap();
    // It has its time from the moment on that it could come.
    assert_eq!(pass(&mut world, 2 * SECOND), []);
    assert_eq!(pass(&mut world, SECOND / 2), [silent("a", world.now - first, first)]);
    let outage = world.now - first;
    world.count("a", 2);
    assert_eq!(streams(&world), [started("a", Some(outage))]);
    world.steps(vec![super::remove("a")]).unwrap();
    assert_eq!(pass(&mut world, 10 * SECOND), []);
    world.add(silent_after("a", 1, "2s"));
    world.count("a", 1);
    assert_eq!(streams(&world), [started("a", None)], "another rule of that name");
}

#[test]
fn a_rule_that_lacks_an_output_still_hears_the_silence_of_its_input() {
    let mut world = World::new();
    world.add(silent_after("a", 1, "2s"));
    world.count("a", 1);
    let last = world.now;
    world.link(|links| drop(links.remove(&"eth1".parse().unwrap())));
    assert!(world.state("a").starts_with("waiting"));
    assert_eq!(pass(&mut world, 2 * SECOND), [silent("a", 2 * SECOND, last)]);
}

#[test]
fn a_reading_that_comes_late_makes_no_silence() {
    let mut world = World::new();
    world.add(silent_after("a", 1, "1s"));
    world.count("a", 1);
    for packets in 2..5 {
        world.now += 60 * SECOND;
        world.count("a", packets);
        assert_eq!(streams(&world), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the times of the packets alone.
    #[test]
    fn starts_and_silences_are_those_of_the_packets(
        gaps in proptest::collection::vec(0..12u32, 1..30),
        limit in 1..5u32,
    ) {
        let mut world = World::new();
        world.add(silent_after("a", 1, &format!("{limit}s")));
        let limit = limit * SECOND;
        let (mut told, mut wanted) = (Vec::new(), Vec::new());
        let mut last: Option<Instant> = None;
        for (gap, packets) in gaps.into_iter().zip(1..) {
            told.extend(pass(&mut world, gap * SECOND / 2));
            world.count("a", packets);
            told.extend(streams(&world));
            let before = last.replace(world.now).map(|before| (before, world.now - before));
            match before {
                None => wanted.push(started("a", None)),
                Some((before, pause)) if gap * SECOND / 2 >= limit => {
                    wanted.push(silent("a", limit, before));
                    wanted.push(started("a", Some(pause)));
                }
                Some(_) => {}
            }
        }
        prop_assert_eq!(told, wanted);
    }
}
