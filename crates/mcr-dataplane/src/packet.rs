//! The packet plane: `AF_PACKET` rings and worker processes, for kernels and containers where BPF
//! cannot be used.
//!
//! ```text
//!            frames of an interface
//!                     | socket filter: addresses of the rules
//!                     | fanout: (address, port) -> worker
//!        ring ------- ring ------- ring       kept by the supervisor, mapped by a worker
//!         |            |            |
//!       worker 1     worker 2     worker 3    mcr_core::forward, sendmmsg(2)
//!         |            |            |
//!        socket ----- socket ----- socket --> queue of the output interface
//! ```
//!
//! [`PacketPlane`] is the supervisor: it opens everything, hands it to the workers, tells them of
//! changes, reads the counters that they share with it, and starts them again when they end.
//! [`mcr_core::supervisor`] decides when. [`worker`] is what a worker does.

mod change;
mod channel;
mod confine;
mod filter;
mod interface;
mod orders;
mod probe;
mod process;
mod rhythm;
mod ring;
mod send;
mod shared;
mod socket;
mod vnet;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use mcr_core::action::{Counters, OutputId, PlaneChange, PlaneRule, RuleId};
use mcr_core::api::WorkerStatus;
use mcr_core::link::IfIndex;
use mcr_core::packet::PacketOptions;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::{Limits, time};
use mcr_core::senders::Senders;
use mcr_core::supervisor::{Supervisor, WorkerId, WorkerState};
use mcr_core::verdict::Pass;
use tokio::sync::mpsc;

use crate::{Applied, DataPlane, Description, Progress, bpf};
use change::{Change, Opening};
use interface::{Input, Output};
pub use probe::{check_workers, probe};
use process::{Channel, Event, Process, What};
use shared::{CounterMemory, SharedMemory};

/// Events of workers that wait; a worker's task waits when there are more.
const EVENTS: usize = 64;
/// For the workers to end when the plane stops; they are killed, so they do at once.
const STOP: Duration = Duration::from_secs(2);

/// How the plane is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instance, whose left-overs of an eBPF plane are ended.
    pub instance: String,
    /// How many workers; `None` for one on each CPU, at most 4.
    pub workers: Option<u32>,
    /// What it must hold.
    pub limits: Limits,
    /// Rings and queues.
    pub packet: PacketOptions,
    /// What makes this program run [`worker::run`] on a CPU, given as the next argument, with the
    /// channel as its standard input.
    pub worker_arguments: Vec<OsString>,
}

/// The plane. Dropping it ends its workers, and with them forwarding.
pub struct PacketPlane {
    options: Options,
    /// The CPU of each worker.
    cpus: Vec<usize>,
    supervisor: Supervisor,
    processes: Vec<Option<Process>>,
    /// What the counters of each worker have room for.
    room: Limits,
    counters: Vec<CounterMemory>,
    shared: SharedMemory,
    rules: BTreeMap<RuleId, PlaneRule>,
    own: BTreeSet<IpAddr>,
    inputs: BTreeMap<IfIndex, Input>,
    outputs: BTreeMap<IfIndex, Output>,
    opening: Option<Opening>,
    change: Option<Change>,
    done: Option<Applied>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
}

impl PacketPlane {
    /// Starts the workers, within a tokio runtime, from the main thread.
    pub fn open(options: Options) -> Result<Self, Refusal> {
        let cpus = probe::cpus()?;
        let count = options.workers.unwrap_or_else(|| probe::default_workers(cpus.len()));
        let Limits { rules, outputs } = options.limits;
        // A change installs the new before it removes the old.
        let room = Limits { rules: rules.saturating_mul(2), outputs: outputs.saturating_mul(2) };
        let memory = |_| CounterMemory::new(room.rules, room.outputs);
        let refused = |error: io::Error| {
            Refusal::new(
                Code::Plane,
                format!("no memory for the counters of {count} workers: {error}"),
                "lower max_rules and max_outputs under [limits] in the configuration",
            )
        };
        let counters = (0..count).map(memory).collect::<io::Result<_>>().map_err(refused)?;
        let shared = SharedMemory::new(room.rules).map_err(refused)?;
        let (sender, events) = mpsc::channel(EVENTS);
        let mut plane = Self {
            cpus: cpus.iter().cycle().take(count as usize).copied().collect(),
            supervisor: Supervisor::new(count, Instant::now()),
            processes: (0..count).map(|_| None).collect(),
            room,
            counters,
            shared,
            rules: BTreeMap::new(),
            own: BTreeSet::new(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
            opening: None,
            change: None,
            done: None,
            events,
            sender,
            options,
        };
        plane.obey();
        Ok(plane)
    }

    fn workers(&self) -> u32 {
        self.processes.len() as u32
    }

    /// Waits for the next thing to do, and does it. May be dropped while it waits.
    async fn turn(&mut self) {
        let due = self.supervisor.poll_timeout();
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let opening = &mut self.opening;
        let opened = async {
            match opening {
                Some(opening) => (&mut opening.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => self.handle(event),
            () = due => self.look_at_time(),
            opened = opened => self.opened(opened),
        }
        self.obey();
    }
}

impl DataPlane for PacketPlane {
    fn describe(&self) -> Description {
        Description { plane: "packet", attach: "af_packet", tap: true }
    }

    fn apply(&mut self, change: &PlaneChange) -> Progress {
        self.change(change);
        self.done.take().map_or(Progress::Pending, Progress::Done)
    }

    async fn next(&mut self) -> Applied {
        loop {
            if let Some(done) = self.done.take() {
                return done;
            }
            self.turn().await;
        }
    }

    fn counters(&mut self, (rules, outputs): (u32, u32)) -> Result<Counters, Refusal> {
        let mut sums = Counters {
            rules: vec![Default::default(); rules as usize],
            outputs: vec![Default::default(); outputs as usize],
            passed: Vec::new(),
        };
        for counters in &self.counters {
            for (sum, id) in sums.rules.iter_mut().zip((0..).map(RuleId)) {
                counters.add_rule(id, sum);
            }
            for (sum, id) in sums.outputs.iter_mut().zip((0..).map(OutputId)) {
                counters.add_output(id, sum);
            }
        }
        for (sum, id) in sums.rules.iter_mut().zip((0..).map(RuleId)) {
            let of_all = self.counters.iter().flat_map(|counters| counters.senders_of(id));
            sum.senders = Senders::merge(of_all);
        }
        let mut stuck = Vec::new();
        for (index, input) in &mut self.inputs {
            stuck.extend(input.read_drops().then_some(*index));
            let mut passed = [0; Pass::COUNTED.len()];
            input.sum_passed(&mut passed);
            sums.passed.push((*index, passed));
        }
        stuck.into_iter().for_each(|index| self.reopen(index));
        Ok(sums)
    }

    /// What an eBPF plane of the instance has left would relay every packet once more. Refused when
    /// no worker can run.
    async fn settle(&mut self) -> Result<(), Refusal> {
        bpf::end_left(&self.options.instance);
        loop {
            let all = (0..self.workers()).filter_map(|n| self.supervisor.status(WorkerId(n)));
            let all: Vec<_> = all.map(|status| (status.state, status.last_error)).collect();
            if all.iter().any(|(state, _)| *state == WorkerState::Running) {
                return Ok(());
            }
            let errors: Option<Vec<&str>> = all.iter().map(|(_, error)| *error).collect();
            if let Some(error) = errors.and_then(|errors| errors.last().copied()) {
                return Err(Refusal::new(
                    Code::Plane,
                    format!("no worker can run: {error}"),
                    "is there memory for them, are there descriptors (`ulimit -n`), and may they be \
                     started (/proc/self/exe)?",
                ));
            }
            self.turn().await;
        }
    }

    async fn stop(&mut self) {
        self.supervisor.handle_stop();
        self.processes.iter().flatten().for_each(Process::kill);
        let all = async {
            while self.processes.iter().any(Option::is_some) {
                if let Some(event) = self.events.recv().await
                    && matches!(event.what, What::Exited(_))
                {
                    self.processes[event.worker.0 as usize] = None;
                }
            }
        };
        if tokio::time::timeout(STOP, all).await.is_err() {
            tracing::warn!("a worker does not end");
        }
    }

    fn worker_status(&self) -> Vec<WorkerStatus> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let status = |number: usize| {
            let status = self.supervisor.status(WorkerId(number as u32))?;
            let process = self.processes[number].as_ref();
            Some(WorkerStatus {
                worker: number as u32 + 1,
                state: status.state.name().into(),
                since: time(wall - now.saturating_duration_since(status.since)),
                pid: process.map(|process| process.pid),
                cpu: self.cpus[number] as u32,
                restarts: status.restarts,
                last_error: status.last_error.map(Into::into),
                rings: self.inputs.values().map(|input| input.status(number)).collect(),
                send_buffers: self.outputs.values().map(|output| output.status(number)).collect(),
            })
        };
        (0..self.processes.len()).filter_map(status).collect()
    }
}
