//! Random histories of processes that start, answer, hang and exit, against a plain model of them.

use proptest::prelude::*;

use super::super::*;
use super::{MS, text};

const WORKERS: u32 = 3;

#[derive(Debug, Clone)]
enum Event {
    Change,
    /// A process takes its table, and answers so many of the changes that it was sent.
    Work(u32, usize),
    /// A message of a process that is gone.
    Late(u32, u64),
    Exit(u32),
    FailNextStart(u32),
    /// Until it, or time passes, orders are left in the queue.
    Drain,
    Time(u32),
    /// To the next timeout.
    Timeout,
}

fn random_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Change),
        8 => (0..WORKERS, 0..4usize).prop_map(|(id, answers)| Event::Work(id, answers)),
        1 => (0..WORKERS, 0..20u64).prop_map(|(id, change)| Event::Late(id, change)),
        2 => (0..WORKERS).prop_map(Event::Exit),
        1 => (0..WORKERS).prop_map(Event::FailNextStart),
        8 => Just(Event::Drain),
        4 => (0..900u32).prop_map(Event::Time),
        4 => Just(Event::Timeout),
    ]
}

/// A process, as the machine has it.
#[derive(Debug)]
struct Process {
    incarnation: Incarnation,
    table: Vec<ChangeId>,
    inbox: VecDeque<(ChangeId, bool)>,
    synced: bool,
    killed: bool,
}

struct World {
    supervisor: Supervisor,
    now: Instant,
    processes: BTreeMap<WorkerId, Process>,
    starts: BTreeMap<WorkerId, u64>,
    fail: BTreeSet<WorkerId>,
    /// Every change that has begun, in order.
    table: Vec<ChangeId>,
    begun: BTreeMap<ChangeId, Instant>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            supervisor: Supervisor::new(WORKERS, now),
            now,
            processes: BTreeMap::new(),
            starts: BTreeMap::new(),
            fail: BTreeSet::new(),
            table: Vec::new(),
            begun: BTreeMap::new(),
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Change => {
                let change = self.supervisor.handle_change(self.now);
                self.table.push(change);
                self.begun.insert(change, self.now);
            }
            Event::Work(id, answers) => self.work(WorkerId(id), answers),
            Event::Late(id, change) => {
                let id = WorkerId(id);
                let gone = self.starts.get(&id).copied().unwrap_or(0);
                let gone = gone - u64::from(self.processes.contains_key(&id));
                if let Some(old) = gone.checked_sub(1).map(Incarnation) {
                    self.supervisor.handle_answered(id, old, ChangeId(change));
                    self.supervisor.handle_synced(id, old, self.now);
                    self.supervisor.handle_exited(id, old, "again".into(), self.now);
                }
            }
            Event::Exit(id) => {
                if let Some(process) = self.processes.remove(&WorkerId(id)) {
                    let why = "exited".into();
                    let incarnation = process.incarnation;
                    self.supervisor.handle_exited(WorkerId(id), incarnation, why, self.now);
                }
            }
            Event::FailNextStart(id) => drop(self.fail.insert(WorkerId(id))),
            Event::Drain => self.drain(),
            Event::Time(ms) => {
                self.now += MS * ms;
                self.time();
            }
            Event::Timeout => {
                let next = self.supervisor.poll_timeout().filter(|next| *next > self.now);
                self.now = next.unwrap_or(self.now);
                self.time();
            }
        }
    }

    fn time(&mut self) {
        self.drain();
        self.supervisor.handle_timeout(self.now);
        let next = self.supervisor.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a timeout does not repeat itself");
        self.drain();
        // Whatever was not done in time is seen at this very call.
        for (change, begun) in &self.begun {
            assert!(self.now < *begun + ANSWER, "{change:?} waits");
        }
    }

    fn work(&mut self, id: WorkerId, answers: usize) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.synced {
            process.synced = true;
            self.supervisor.handle_synced(id, process.incarnation, self.now);
        }
        for _ in 0..answers {
            let Some((change, ping)) = process.inbox.pop_front() else { return };
            if !ping {
                process.table.push(change);
            }
            self.supervisor.handle_answered(id, process.incarnation, change);
        }
    }

    fn drain(&mut self) {
        while let Some(order) = self.supervisor.poll_order() {
            match order {
                Order::Start(id, incarnation) => self.start(id, incarnation),
                Order::Send(id, change) => {
                    if let Some(process) = self.processes.get_mut(&id) {
                        process.inbox.push_back((change, false));
                    }
                }
                Order::Ping(id, change) => {
                    if let Some(process) = self.processes.get_mut(&id) {
                        assert!(process.synced && process.inbox.is_empty(), "{process:?}");
                        process.inbox.push_back((change, true));
                    }
                }
                Order::Kill(id) => {
                    if let Some(process) = self.processes.get_mut(&id) {
                        assert!(!process.killed, "{process:?}");
                        process.killed = true;
                    }
                }
                Order::Done(change, absent) => {
                    assert!(self.begun.remove(&change).is_some(), "{change:?} is done once");
                    for (id, process) in &self.processes {
                        let absent = absent.iter().any(|absent| absent.worker == *id);
                        assert!(absent || process.table.contains(&change), "{process:?}");
                    }
                }
            }
        }
    }

    fn start(&mut self, id: WorkerId, incarnation: Incarnation) {
        assert!(!self.processes.contains_key(&id), "{id:?} is started twice");
        let starts = self.starts.entry(id).or_default();
        assert_eq!(incarnation.0, *starts);
        *starts += 1;
        if self.fail.remove(&id) {
            let why = "cannot be spawned".into();
            self.supervisor.handle_start_failed(id, incarnation, why, self.now);
            return;
        }
        let (table, inbox) = (self.table.clone(), VecDeque::new());
        let process = Process { incarnation, table, inbox, synced: false, killed: false };
        self.processes.insert(id, process);
    }

    /// Every process does its work, and what was killed exits.
    fn recover(&mut self) {
        for _ in 0..200 {
            self.drain();
            for id in 0..WORKERS {
                if self.processes.get(&WorkerId(id)).is_some_and(|process| process.killed) {
                    self.apply(Event::Exit(id));
                }
                self.apply(Event::Work(id, usize::MAX));
            }
            self.drain();
            self.apply(Event::Time(100));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_change_is_done_once_in_time_and_every_worker_has_it_once(
        events in proptest::collection::vec(random_event(), 1..120),
    ) {
        let mut world = World::new();
        for event in events {
            world.apply(event);
        }
        world.recover();
        for id in (0..WORKERS).map(WorkerId) {
            prop_assert_eq!(world.supervisor.status(id).unwrap().state, WorkerState::Running);
            prop_assert_eq!(&world.processes[&id].table, &world.table);
        }
        prop_assert!(world.begun.is_empty(), "{:?}", world.begun);
        world.supervisor.handle_stop();
        (0..WORKERS).for_each(|id| world.apply(Event::Exit(id)));
        prop_assert_eq!(world.supervisor.poll_order().map(text), None);
        prop_assert_eq!(world.supervisor.poll_timeout(), None);
    }
}
