use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::relay::Now;

fn now() -> Now {
    Now {
        monotonic: Instant::now(),
        wall: SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_250),
    }
}

fn rule() -> RuleKey {
    RuleKey::from_user("a")
}

fn changed(generation: u64) -> Event {
    let (added, replaced, removed, rules) = (1, 0, 0, vec!["a".into()]);
    Event::RulesChanged { generation, added, replaced, removed, rules }
}

#[test]
fn an_event_is_an_object_with_its_sentence() {
    let now = now();
    let last_packet = now.monotonic - Duration::from_millis(10_500);
    let silent_for = Duration::from_millis(10_500);
    let reason = Some("no interface eth9 (wait)".into());
    let ended = WorkerChange::Ended("killed by signal 9".into());
    let index = InterfaceChange::Index { from: IfIndex(2), to: IfIndex(7) };
    let interface = "eth0".parse().unwrap();
    for (event, view) in [
        (
            Event::RuleState { rule: rule(), from: None, to: State::Waiting, reason },
            json!({"id": 5, "time": "1970-01-02T00:00:00.250Z", "level": "warning",
                "kind": "rule-state", "rule": "a", "to": "waiting",
                "reason": "no interface eth9 (wait)",
                "message": "rule a is waiting: no interface eth9 (wait)"}),
        ),
        (
            Event::StreamSilent { rule: rule(), silent_for, last_packet },
            json!({"id": 5, "time": "1970-01-02T00:00:00.250Z", "level": "warning",
                "kind": "stream-silent", "rule": "a", "silent_for": 10.5,
                "last_packet": "1970-01-01T23:59:49.750Z",
                "message": "the stream of rule a has been silent for 10.5 s"}),
        ),
        (
            Event::StreamStarted {
                rule: rule(),
                silent_for: Some(Duration::from_millis(3_725_900)),
            },
            json!({"id": 5, "time": "1970-01-02T00:00:00.250Z", "level": "info",
                "kind": "stream-started", "rule": "a", "silent_for": 3725.9,
                "message": "the stream of rule a is back after 1h 2m 5s"}),
        ),
        (
            Event::Interface { interface, change: index },
            json!({"id": 5, "time": "1970-01-02T00:00:00.250Z", "level": "info",
                "kind": "interface", "interface": "eth0", "change": "index", "from": 2, "index": 7,
                "message": "interface eth0 is another one of that name: its index was 2, and is 7"}),
        ),
        (
            Event::Worker { worker: 2, pid: Some(77), change: ended },
            json!({"id": 5, "time": "1970-01-02T00:00:00.250Z", "level": "warning",
                "kind": "worker", "worker": 2, "pid": 77, "change": "ended",
                "reason": "killed by signal 9",
                "message": "worker 2 (process 77) ended: killed by signal 9"}),
        ),
        (
            changed(8),
            json!({"id": 5, "time": "1970-01-02T00:00:00.250Z", "level": "info",
                "kind": "rules-changed", "generation": 8, "added": 1, "replaced": 0, "removed": 0,
                "rules": ["a"], "message": "rules changed: 1 added, 0 replaced, 0 removed"}),
        ),
        (
            Event::Missed { count: Some(3) },
            json!({"id": 5, "time": "1970-01-02T00:00:00.250Z", "level": "warning",
                "kind": "missed", "missed": 3, "message": "3 events were missed"}),
        ),
    ] {
        let shown = event.view(5, now);
        assert_eq!(serde_json::to_value(&shown).unwrap(), view);
        assert_eq!(serde_json::from_value::<EventView>(view).unwrap(), shown);
    }
}

#[test]
fn kinds_have_names_and_others_are_refused() {
    for kind in Kind::ALL {
        assert_eq!(kind.name().parse::<Kind>(), Ok(kind));
    }
    let refusal = "stream".parse::<Kind>().unwrap_err();
    assert!(refusal.message.contains("\"stream\""), "{refusal}");
    assert!(refusal.hint.contains("stream-silent, second-sender"), "{refusal}");
}

#[test]
fn a_follower_gets_what_it_wants() {
    let started = Event::StreamStarted { rule: rule(), silent_for: None };
    let missed = Event::Missed { count: None };
    let many = Event::RulesChanged {
        generation: 8,
        added: 99,
        replaced: 0,
        removed: 0,
        rules: Vec::new(),
    };
    let worker = Event::Worker { worker: 1, pid: None, change: WorkerChange::Runs { restarts: 0 } };
    let all = [started, missed, changed(7), many, worker].map(|event| event.view(1, now()));
    let takes = |rule: Option<&str>, kinds: &[Kind]| {
        let wanted = Wanted { rule: rule.map(RuleKey::from_user), kinds: kinds.to_vec() };
        all.each_ref().map(|event| wanted.takes(event))
    };
    assert_eq!(takes(None, &[]), [true; 5]);
    assert_eq!(takes(Some("a"), &[]), [true, true, true, true, false]);
    assert_eq!(takes(Some("b"), &[]), [false, true, false, true, false]);
    let kinds = [Kind::Worker, Kind::StreamStarted];
    assert_eq!(takes(None, &kinds), [true, true, false, false, true]);
    assert_eq!(takes(Some("b"), &kinds), [false, true, false, false, false]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A follower that begins anywhere gets or misses every event once, in order.
    #[test]
    fn no_event_is_lost_unseen_or_told_twice(
        room in 1..8usize,
        bursts in proptest::collection::vec((0..12u64, 0..12u64), 1..20),
        since in 90..140u64,
    ) {
        let mut kept = Kept::new(room, 100);
        let (mut at, mut told) = (since, 100);
        let mut pasts = 0;
        for (news, reads) in bursts {
            for _ in 0..news {
                prop_assert_eq!(kept.push(&changed(told), now()).id, told);
                told += 1;
            }
            for _ in 0..reads {
                match kept.after(at) {
                    Next::Event(event) => {
                        prop_assert!(event.id == at + 1 || at < 99 && event.id == 100);
                        at = event.id;
                    }
                    Next::Missed { count: Some(count), last } => {
                        prop_assert_eq!((at + count, count > 0), (last, true));
                        prop_assert!(last < told);
                        at = last;
                    }
                    Next::Missed { count: None, last } => {
                        prop_assert!(at < 99 && last >= 99, "{at} {last}");
                        (at, pasts) = (last, pasts + 1);
                    }
                    Next::Nothing => prop_assert!(at + 1 >= told),
                }
            }
        }
        prop_assert!(pasts <= 1);
        prop_assert_eq!(kept.last(), told - 1);
    }
}

#[test]
fn after_zero_comes_all_that_is_kept() {
    let mut kept = Kept::new(2, 100);
    assert_eq!((kept.after(0), kept.last()), (Next::Nothing, 99));
    for generation in 0..5 {
        kept.push(&changed(generation), now());
    }
    let Next::Event(oldest) = kept.after(0) else { panic!() };
    assert_eq!((oldest.id, kept.iter().count()), (103, 2));
    assert_eq!(kept.after(1), Next::Missed { count: None, last: 102 });
    assert_eq!(kept.after(100), Next::Missed { count: Some(2), last: 102 });
    assert_eq!(kept.after(104), Next::Nothing);
}
