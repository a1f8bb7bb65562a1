mod history;

use super::worker::HEALTH;
use super::*;

const MS: Duration = Duration::from_millis(1);
const ONE: WorkerId = WorkerId(0);

/// Workers and a virtual clock.
struct World {
    supervisor: Supervisor,
    begin: Instant,
    now: Instant,
}

impl World {
    fn new(count: u32) -> Self {
        let now = Instant::now();
        Self { supervisor: Supervisor::new(count, now), begin: now, now }
    }

    /// All are running, and their orders polled.
    fn running(count: u32) -> Self {
        let mut world = Self::new(count);
        world.orders();
        (0..count).for_each(|id| world.sync(id));
        world
    }

    fn orders(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.supervisor.poll_order()).map(text).collect()
    }

    fn incarnation(&self, id: u32) -> Incarnation {
        Incarnation(self.supervisor.status(WorkerId(id)).unwrap().restarts)
    }

    fn state(&self, id: u32) -> &'static str {
        self.supervisor.status(WorkerId(id)).unwrap().state.name()
    }

    fn error(&self, id: u32) -> Option<&str> {
        self.supervisor.status(WorkerId(id)).unwrap().last_error
    }

    fn change(&mut self) -> ChangeId {
        self.supervisor.handle_change(self.now)
    }

    fn sync(&mut self, id: u32) {
        let incarnation = self.incarnation(id);
        self.supervisor.handle_synced(WorkerId(id), incarnation, self.now);
    }

    fn answer(&mut self, id: u32, change: ChangeId) {
        let incarnation = self.incarnation(id);
        self.supervisor.handle_answered(WorkerId(id), incarnation, change);
    }

    fn exit(&mut self, id: u32) {
        let incarnation = self.incarnation(id);
        self.supervisor.handle_exited(WorkerId(id), incarnation, "exited".into(), self.now);
    }

    fn fail_start(&mut self, id: u32) {
        let incarnation = self.incarnation(id);
        let why = "cannot be spawned".into();
        self.supervisor.handle_start_failed(WorkerId(id), incarnation, why, self.now);
    }

    /// To the next timeout, and says how long that took.
    fn timeout(&mut self) -> Option<Duration> {
        let next = self.supervisor.poll_timeout()?;
        let waited = next.saturating_duration_since(self.now);
        self.now += waited;
        self.supervisor.handle_timeout(self.now);
        Some(waited)
    }

    /// For so long, with every ping answered.
    fn healthy_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.supervisor.poll_timeout().is_some_and(|at| at <= until) {
            self.timeout();
            while let Some(order) = self.supervisor.poll_order() {
                let Order::Ping(WorkerId(id), ping) = order else { panic!("{order:?}") };
                self.answer(id, ping);
            }
        }
        self.now = until;
    }
}

fn text(order: Order) -> String {
    match order {
        Order::Start(id, incarnation) => format!("start {}.{}", id.0, incarnation.0),
        Order::Send(id, change) => format!("send {} to {}", change.0, id.0),
        Order::Ping(id, change) => format!("ping {} to {}", change.0, id.0),
        Order::Kill(id) => format!("kill {}", id.0),
        Order::Done(change, absent) => {
            let absent = absent.into_iter();
            let absent: String = absent
                .map(|Absent { worker, reason }| format!(", {}: {reason}", worker.0))
                .collect();
            format!("done {}{absent}", change.0)
        }
    }
}

/// With `+1`, change 1 was sent and not answered.
const STATES: [&str; 6] = ["starting", "starting+1", "running", "running+1", "stopping", "waiting"];
const EVENTS: [&str; 9] = [
    "change",
    "answered 1",
    "synced",
    "exited",
    "start failed",
    "timeout",
    "early timeout",
    "old process",
    "stop",
];

fn in_state(state: &str) -> World {
    let mut world = World::new(1);
    world.orders();
    if state.starts_with("running") {
        world.sync(0);
    }
    if state.ends_with("+1") {
        world.change();
    }
    if state == "stopping" {
        world.timeout();
    }
    if state == "waiting" {
        world.exit(0);
        world.orders();
        world.exit(0);
    }
    world.orders();
    assert!(state.starts_with(world.state(0)), "{state}");
    world
}

fn apply(world: &mut World, event: &str) {
    match event {
        "change" => drop(world.change()),
        "answered 1" => world.answer(0, ChangeId(1)),
        "synced" => world.sync(0),
        "exited" => world.exit(0),
        "start failed" => world.fail_start(0),
        "timeout" => drop(world.timeout()),
        "early timeout" => world.supervisor.handle_timeout(world.now),
        "old process" => {
            let (old, why) = (Incarnation(world.incarnation(0).0 + 7), String::new());
            world.supervisor.handle_synced(ONE, old, world.now);
            world.supervisor.handle_answered(ONE, old, ChangeId(1));
            world.supervisor.handle_exited(ONE, old, why.clone(), world.now);
            world.supervisor.handle_start_failed(ONE, old, why, world.now);
        }
        "stop" => world.supervisor.handle_stop(),
        other => panic!("{other}"),
    }
}

/// What is not listed changes nothing and orders nothing.
const TRANSITIONS: [(&str, &str, &str, &[&str]); 27] = [
    ("starting", "change", "starting", &["send 1 to 0"]),
    ("starting", "synced", "running", &[]),
    ("starting", "exited", "starting", &["start 0.1"]),
    ("starting", "start failed", "starting", &["start 0.1"]),
    ("starting", "timeout", "stopping", &["kill 0"]),
    ("starting+1", "change", "starting", &["send 2 to 0"]),
    ("starting+1", "answered 1", "starting", &["done 1"]),
    ("starting+1", "synced", "running", &[]),
    ("starting+1", "exited", "starting", &["start 0.1", "done 1, 0: exited"]),
    ("starting+1", "start failed", "starting", &["start 0.1", "done 1, 0: cannot be spawned"]),
    ("starting+1", "timeout", "starting", &["done 1, 0: was still starting"]),
    ("running", "change", "running", &["send 1 to 0"]),
    ("running", "exited", "starting", &["start 0.1"]),
    ("running", "timeout", "running", &["ping 1 to 0"]),
    ("running+1", "change", "running", &["send 2 to 0"]),
    ("running+1", "answered 1", "running", &["done 1"]),
    ("running+1", "exited", "starting", &["start 0.1", "done 1, 0: exited"]),
    ("running+1", "timeout", "stopping", &["kill 0", "done 1, 0: did not answer within 2 s"]),
    ("stopping", "change", "stopping", &["done 1, 0: did not start within 5 s"]),
    ("stopping", "exited", "starting", &["start 0.1"]),
    ("stopping", "start failed", "starting", &["start 0.1"]),
    ("waiting", "change", "waiting", &["done 1, 0: exited"]),
    ("waiting", "timeout", "starting", &["start 0.2"]),
    // Nothing is due.
    ("stopping", "timeout", "stopping", &[]),
    // Has a process, so it can not have failed to start.
    ("running", "start failed", "running", &[]),
    ("running+1", "start failed", "running", &[]),
    // There is none.
    ("waiting", "exited", "waiting", &[]),
];

#[test]
fn every_event_in_every_state() {
    for state in STATES {
        for event in EVENTS {
            let mut world = in_state(state);
            let before = (world.state(0), world.error(0).map(str::to_owned));
            apply(&mut world, event);
            let listed = TRANSITIONS.iter().find(|row| (row.0, row.1) == (state, event));
            let (next, orders) = listed.map_or((before.0, &[][..]), |row| (row.2, row.3));
            assert_eq!(
                (world.state(0), &world.orders()[..]),
                (next, &as_text(orders)[..]),
                "{state}, {event}"
            );
            if ["stopping", "waiting"].contains(&state) {
                assert_eq!(world.error(0), before.1.as_deref(), "{state}, {event}");
            }
        }
    }
    let known = |row: &(&str, &str, _, _)| STATES.contains(&row.0) && EVENTS.contains(&row.1);
    assert!(TRANSITIONS.iter().all(known));
}

fn as_text(orders: &[&str]) -> Vec<String> {
    orders.iter().map(|&order| order.to_owned()).collect()
}

#[test]
fn every_worker_is_started_and_a_change_ends_when_all_have_answered() {
    let mut world = World::new(3);
    assert_eq!(world.orders(), ["start 0.0", "start 1.0", "start 2.0"]);
    (0..3).for_each(|id| world.sync(id));
    let change = world.change();
    assert_eq!(world.orders(), ["send 1 to 0", "send 1 to 1", "send 1 to 2"]);
    for id in [2, 0, 2, 0] {
        world.answer(id, change);
        assert_eq!(world.orders(), as_text(&[]));
    }
    world.answer(1, change);
    assert_eq!(world.orders(), ["done 1"]);
    world.answer(1, change);
    assert_eq!(world.orders(), as_text(&[]));
    assert!(world.supervisor.status(WorkerId(3)).is_none());
    world.supervisor.handle_synced(WorkerId(3), Incarnation(0), world.now);
}

#[test]
fn a_change_without_workers_ends_at_once() {
    let mut world = World::new(0);
    world.change();
    assert_eq!((world.orders(), world.timeout()), (as_text(&["done 1"]), None));
}

#[test]
fn a_change_with_all_workers_waiting_ends_at_once_with_all_absent() {
    let mut world = World::running(2);
    for id in [0, 1, 0, 1] {
        world.exit(id);
        world.orders();
    }
    world.change();
    assert_eq!(world.orders(), ["done 1, 0: exited, 1: exited"]);
}

#[test]
fn a_worker_that_does_not_answer_is_killed_and_named() {
    let mut world = World::running(2);
    let change = world.change();
    world.orders();
    world.answer(0, change);
    world.now += ANSWER - MS;
    world.supervisor.handle_timeout(world.now);
    assert_eq!(world.orders(), ["ping 2 to 0"]);
    world.answer(0, ChangeId(2));
    assert_eq!(world.timeout(), Some(MS));
    assert_eq!(world.orders(), ["kill 1", "done 1, 1: did not answer within 2 s"]);
    world.answer(1, change);
    world.now += MS;
    world.exit(1);
    assert_eq!(world.orders(), ["start 1.1"]);
    assert_eq!(world.error(1), Some("did not answer within 2 s"));
    world.sync(1);
    assert_eq!((world.state(1), world.error(1)), ("running", Some("did not answer within 2 s")));
    assert_eq!(world.supervisor.status(WorkerId(1)).unwrap().restarts, 1);
    assert_eq!(world.supervisor.status(WorkerId(1)).unwrap().since, world.now);
}

#[test]
fn changes_end_independently() {
    let mut world = World::running(2);
    let [first, second] = [world.change(), world.change()];
    world.orders();
    world.answer(0, second);
    world.answer(1, second);
    assert_eq!(world.orders(), ["done 2"]);
    world.answer(0, first);
    world.exit(1);
    assert_eq!(world.orders(), ["start 1.1", "done 1, 1: exited"]);
}

#[test]
fn a_start_that_is_ordered_and_not_polled_brings_the_change_with_it() {
    let mut world = World::new(2);
    assert_eq!(text(world.supervisor.poll_order().unwrap()), "start 0.0");
    let change = world.change();
    assert_eq!(world.orders(), ["start 1.0", "send 1 to 0"]);
    world.sync(0);
    world.answer(0, change);
    assert_eq!(world.orders(), ["done 1, 1: is about to start"]);
}

#[test]
fn a_long_start_outlasts_a_change_and_is_not_killed_for_it() {
    let mut world = World::new(1);
    world.orders();
    let change = world.change();
    world.orders();
    assert_eq!(world.timeout(), Some(ANSWER));
    assert_eq!(world.orders(), ["done 1, 0: was still starting"]);
    world.now = world.begin + START - MS;
    world.sync(0);
    world.now += ANSWER - MS;
    world.supervisor.handle_timeout(world.now);
    world.answer(0, change);
    world.timeout();
    assert_eq!(world.orders(), ["ping 2 to 0"]);
}

#[test]
fn a_worker_that_was_slow_to_start_must_still_answer() {
    let mut world = World::new(1);
    world.orders();
    world.change();
    world.now += ANSWER / 2;
    world.sync(0);
    world.orders();
    assert_eq!((world.timeout(), world.timeout()), (Some(ANSWER / 2), Some(ANSWER / 2)));
    assert_eq!(world.orders(), ["done 1, 0: was still starting", "kill 0"]);
}

#[test]
fn a_worker_that_does_not_start_is_killed() {
    let mut world = World::new(1);
    world.orders();
    assert_eq!(world.timeout(), Some(START));
    assert_eq!((world.orders(), world.state(0)), (as_text(&["kill 0"]), "stopping"));
    assert_eq!(world.error(0), Some("did not start within 5 s"));
    assert_eq!(world.timeout(), None, "waits for the exit");
}

/// Fails as soon as it is started, and says after what time it was started again.
fn delays(world: &mut World, times: usize, fail: fn(&mut World, u32)) -> Vec<u128> {
    let mut once = || {
        let failed = world.now;
        fail(world, 0);
        if world.state(0) == "waiting" {
            let status = world.supervisor.status(ONE).unwrap();
            let WorkerState::Waiting { until } = status.state else { panic!("{status:?}") };
            assert_eq!((status.since, until), (failed, world.supervisor.poll_timeout()));
            world.timeout();
        }
        assert_eq!(world.state(0), "starting");
        (world.now - failed).as_millis()
    };
    (0..times).map(|_| once()).collect()
}

#[test]
fn each_failure_doubles_the_delay_until_a_minute_of_health() {
    let all = [0, 250, 500, 1000, 2000, 4000, 8000, 8000, 8000];
    let mut world = World::new(1);
    world.orders();
    assert_eq!(delays(&mut world, 5, World::fail_start), all[..5]);
    assert_eq!(delays(&mut world, 4, World::exit), all[5..]);
    world.orders();

    world.sync(0);
    world.healthy_for(HEALTH - MS);
    assert_eq!(delays(&mut world, 1, World::exit), [8000]);
    world.orders();

    world.sync(0);
    world.healthy_for(HEALTH);
    assert_eq!(delays(&mut world, 9, World::exit), all);
    assert_eq!(world.supervisor.status(ONE).unwrap().restarts, 19);
    world.orders();

    world.sync(0);
    world.healthy_for(HEALTH);
    world.change();
    world.timeout();
    world.timeout();
    assert_eq!(world.state(0), "stopping");
    world.now += HEALTH;
    assert_eq!(delays(&mut world, 2, World::exit), [0, 250], "a kill counts once");
}

#[test]
fn what_an_earlier_process_says_is_ignored() {
    let mut world = World::running(1);
    let first = world.change();
    world.exit(0);
    let second = world.change();
    world.orders();
    let third = world.change();
    assert_eq!(world.orders(), ["send 3 to 0"]);
    let old = Incarnation(0);
    for change in [first, second, third] {
        world.supervisor.handle_answered(ONE, old, change);
    }
    world.supervisor.handle_synced(ONE, old, world.now);
    world.supervisor.handle_exited(ONE, old, "again".into(), world.now);
    assert_eq!((world.state(0), world.orders()), ("starting", vec![]));
    assert_eq!(world.error(0), Some("exited"));
    world.sync(0);
    world.answer(0, third);
    assert_eq!(world.orders(), ["done 3"]);
}

#[test]
fn a_quiet_worker_is_pinged_and_one_ping_is_under_way() {
    let mut world = World::running(2);
    world.now += PING / 2;
    let change = world.change();
    world.answer(0, change);
    world.answer(1, change);
    world.orders();
    assert_eq!(world.timeout(), Some(PING));
    assert_eq!(world.orders(), ["ping 2 to 0", "ping 3 to 1"]);
    world.answer(0, ChangeId(3));
    world.now += MS;
    world.answer(0, ChangeId(2));
    assert_eq!(world.timeout(), Some(PING - MS));
    assert_eq!(world.orders(), ["ping 4 to 0"]);
    world.answer(0, ChangeId(4));
    assert_eq!(world.timeout(), Some(ANSWER - PING));
    assert_eq!(world.orders(), ["ping 5 to 0", "kill 1"]);
    assert_eq!(world.error(1), Some("did not answer within 2 s"));
}

#[test]
fn a_late_answer_in_time_is_followed_by_a_ping_at_once() {
    let mut world = World::running(1);
    world.timeout();
    world.now += ANSWER - MS;
    world.answer(0, ChangeId(1));
    assert_eq!(world.timeout(), Some(Duration::ZERO));
    assert_eq!(world.orders(), ["ping 1 to 0", "ping 2 to 0"]);
}

#[test]
fn after_a_stop_nothing_is_started() {
    let mut world = World::new(4);
    (0..3).for_each(|_| drop(world.supervisor.poll_order()));
    world.sync(0);
    world.exit(1);
    world.orders();
    world.exit(1);
    let mut unspawned = World::new(1);
    unspawned.supervisor.handle_stop();
    unspawned.change();
    assert_eq!(unspawned.orders(), ["done 1, 0: was never started"]);

    world.supervisor.handle_stop();
    world.change();
    assert_eq!(
        world.orders(),
        ["send 1 to 0", "send 1 to 2", "send 1 to 3"],
        "what runs is not cut off"
    );
    world.exit(2);
    world.sync(3);
    while world.timeout().is_some() {}
    (0..4).for_each(|id| world.exit(id));
    assert_eq!(world.timeout(), None);
    let orders = world.orders();
    assert_eq!(orders.iter().filter(|order| order.starts_with("start")).count(), 0, "{orders:?}");
    for id in 0..4 {
        let state = world.supervisor.status(WorkerId(id)).unwrap().state;
        assert_eq!(state, WorkerState::Waiting { until: None });
    }
}
