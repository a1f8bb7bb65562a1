//! The packet plane: `AF_PACKET` rings and worker processes, for kernels and containers where BPF
//! cannot be used.
//!
//! ```text
//!            frames of an interface
//!                     | socket filter: groups of the rules
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

mod channel;
mod confine;
mod filter;
mod interface;
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
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use mcr_core::action::{Counters, OutputId, PlaneChange, PlaneRefusal, PlaneRule, RuleId};
use mcr_core::api::WorkerStatus;
use mcr_core::link::IfIndex;
use mcr_core::packet::PacketOptions;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::{Limits, time};
use mcr_core::supervisor::{Absent, ChangeId, Incarnation, Order, Supervisor, WorkerId};
use mcr_core::verdict::Pass;
use rustix::thread::{CapabilitySet, sched_getaffinity};
use tokio::sync::mpsc;

use crate::{Applied, DataPlane, Description, Progress, bpf, netlink};
use channel::{FromWorker, ToWorker};
use interface::{Input, Output};
use process::{Channel, Event, Process, What};
use shared::CounterMemory;

/// Events of workers that wait; a worker's task waits when there are more.
const EVENTS: usize = 64;
/// For the workers to end when the plane stops; they are killed, so they do at once.
const STOP: Duration = Duration::from_secs(2);
/// Workers for each CPU, at most.
const WORKERS_PER_CPU: usize = 4;

/// How the plane is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instance, whose left-overs of an eBPF plane are ended.
    pub instance: String,
    /// How many workers; `None` for one on each CPU.
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
    counters: Vec<CounterMemory>,
    rules: BTreeMap<RuleId, PlaneRule>,
    own: BTreeSet<Ipv4Addr>,
    inputs: BTreeMap<IfIndex, Input>,
    outputs: BTreeMap<IfIndex, Output>,
    change: Option<Change>,
    done: Option<Applied>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
}

/// A change that is on its way to the workers.
struct Change {
    id: ChangeId,
    memory: OwnedFd,
    inputs: BTreeSet<IfIndex>,
    outputs: BTreeSet<IfIndex>,
    /// Inputs whose groups have changed.
    touched: BTreeSet<IfIndex>,
}

/// Whether so many workers can be had.
pub fn check_workers(workers: u32) -> Result<(), Refusal> {
    let most = cpus()?.len() * WORKERS_PER_CPU;
    if (1..=most).contains(&(workers as usize)) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Invalid,
        format!("--workers {workers}: the packet plane runs 1 to {most} workers here"),
        format!("{WORKERS_PER_CPU} for each CPU are the most; without --workers each has one"),
    ))
}

/// Whether the packet plane can run here, and if not why and what to do.
pub fn probe() -> Result<(), Refusal> {
    let capabilities = rustix::thread::capabilities(None)
        .map_err(|error| Refusal::new(Code::Internal, format!("capabilities: {error}"), ""))?;
    if !capabilities.effective.contains(CapabilitySet::NET_RAW) {
        return Err(Refusal::new(
            Code::Plane,
            "no privileges for AF_PACKET sockets: CAP_NET_RAW is needed",
            "run mcrd as root, or give it CAP_NET_RAW, and CAP_NET_ADMIN for large buffers",
        ));
    }
    socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None).map(drop).map_err(
        |error| {
            Refusal::new(
                Code::Plane,
                format!("the kernel opens no AF_PACKET socket: {error}"),
                "a kernel with CONFIG_PACKET is needed, and AF_PACKET allowed by the container",
            )
        },
    )
}

/// The CPUs that this process may use.
fn cpus() -> Result<Vec<usize>, Refusal> {
    let set = sched_getaffinity(None)
        .map_err(|error| Refusal::new(Code::Internal, format!("CPUs: {error}"), ""))?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

impl PacketPlane {
    /// Starts the workers, within a tokio runtime, from the main thread.
    pub fn open(options: Options) -> Result<Self, Refusal> {
        let cpus = cpus()?;
        let count = options.workers.unwrap_or(cpus.len() as u32);
        let Limits { rules, outputs } = options.limits;
        // A change installs the new before it removes the old.
        let (rules, outputs) = (rules.saturating_mul(2), outputs.saturating_mul(2));
        let memory = |_| CounterMemory::new(rules, outputs);
        let counters = (0..count).map(memory).collect::<io::Result<_>>().map_err(|error| {
            Refusal::new(
                Code::Plane,
                format!("no memory for the counters of {count} workers: {error}"),
                "lower max_rules and max_outputs under [limits] in the configuration",
            )
        })?;
        let (sender, events) = mpsc::channel(EVENTS);
        let mut plane = Self {
            cpus: cpus.iter().cycle().take(count as usize).copied().collect(),
            supervisor: Supervisor::new(count, Instant::now()),
            processes: (0..count).map(|_| None).collect(),
            counters,
            rules: BTreeMap::new(),
            own: BTreeSet::new(),
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
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

    /// Opens what a change needs and lets its packets in. Refused, nothing has changed.
    fn prepare(&mut self, change: &PlaneChange) -> Result<BTreeSet<IfIndex>, PlaneRefusal> {
        let blame = |interface| move |refusal| PlaneRefusal { interface, refusal };
        let (options, workers) = (&self.options.packet, self.workers());
        let mut inputs = BTreeMap::new();
        for index in change.inputs.iter().filter(|index| !self.inputs.contains_key(index)) {
            let input = Input::open(*index, options, workers).map_err(blame(Some(*index)))?;
            inputs.insert(*index, input);
        }
        let mut outputs = BTreeMap::new();
        for index in change.install.iter().flat_map(interfaces) {
            if self.outputs.contains_key(&index) || outputs.contains_key(&index) {
                continue;
            }
            match Output::open(index, options, workers) {
                Ok(output) => drop(outputs.insert(index, output)),
                // Netlink will say so too; until then its packets count as interface-gone.
                Err(_) if netlink::name_of(index).is_err() => {}
                Err(refusal) => return Err(blame(None)(refusal)),
            }
        }
        let old = |id: &RuleId| self.rules.get(id).map(|rule| rule.key.interface);
        let ids = change.remove.iter().chain(change.install.iter().map(|rule| &rule.id));
        let mut touched: BTreeSet<IfIndex> = ids.filter_map(old).collect();
        touched.extend(change.install.iter().map(|rule| rule.key.interface));
        for index in &touched {
            let Some(input) = inputs.get(index).or_else(|| self.inputs.get(index)) else {
                continue;
            };
            // Both the old and the new, until every worker has the change.
            let mut groups = groups(self.rules.values(), *index);
            groups.extend(self::groups(change.install.iter(), *index));
            input.admit(&groups).map_err(blame(Some(*index)))?;
        }
        self.inputs.extend(inputs);
        self.outputs.extend(outputs);
        Ok(touched)
    }

    /// Carries out what the supervisor orders.
    fn obey(&mut self) {
        while let Some(order) = self.supervisor.poll_order() {
            match order {
                Order::Start(worker, incarnation) => self.start(worker, incarnation),
                Order::Send(worker, id) => self.tell(worker, |plane, process| {
                    let Some(change) = plane.change.as_ref().filter(|change| change.id == id)
                    else {
                        return Ok(());
                    };
                    plane.hand_sockets(worker, process, &change.inputs)?;
                    let outputs = change.outputs.clone();
                    let message = ToWorker::Table { change: id.0, outputs };
                    channel::send(process.channel.as_fd(), &message, &[change.memory.as_fd()])
                }),
                Order::Ping(worker, id) => self.tell(worker, |_, process| {
                    channel::send(process.channel.as_fd(), &ToWorker::Ping(id.0), &[])
                }),
                Order::Kill(worker) => {
                    if let Some(process) = &self.processes[worker.0 as usize] {
                        process.kill();
                    }
                }
                Order::Done(id, absent) => self.complete(id, &absent),
            }
        }
    }

    /// Says something to a worker. One that cannot be spoken to is killed, and told all when it is
    /// started again.
    fn tell(&mut self, worker: WorkerId, say: impl FnOnce(&Self, &mut Process) -> io::Result<()>) {
        let Some(mut process) = self.processes[worker.0 as usize].take() else { return };
        if let Err(error) = say(self, &mut process) {
            process.said.get_or_insert_with(|| format!("its channel failed: {error}"));
            process.kill();
        }
        self.processes[worker.0 as usize] = Some(process);
    }

    fn start(&mut self, worker: WorkerId, incarnation: Incarnation) {
        let number = worker.0 as usize;
        let mut arguments = self.options.worker_arguments.clone();
        arguments.push(self.cpus[number].to_string().into());
        let sender = self.sender.clone();
        match Process::spawn(worker, incarnation, &arguments, sender) {
            Ok(process) => {
                self.processes[number] = Some(process);
                self.tell(worker, |plane, process| plane.hand_everything(worker, process));
            }
            Err(error) => {
                let why = format!("cannot be started: {error}");
                tracing::error!(worker = worker.0 + 1, %error, "worker not started");
                self.supervisor.handle_start_failed(worker, incarnation, why, Instant::now());
            }
        }
    }

    /// Counters, sockets and the whole table.
    fn hand_everything(&self, worker: WorkerId, process: &mut Process) -> io::Result<()> {
        let Limits { rules, outputs } = self.options.limits;
        let setup =
            ToWorker::Setup { rules: rules.saturating_mul(2), outputs: outputs.saturating_mul(2) };
        let counters = &self.counters[worker.0 as usize];
        channel::send(process.channel.as_fd(), &setup, &[counters.descriptor()])?;
        let inputs = self.rules.values().map(|rule| rule.key.interface).collect();
        self.hand_sockets(worker, process, &inputs)?;
        let install = self.rules.values().cloned().collect();
        let whole = PlaneChange { install, own: self.own.clone(), inputs, ..Default::default() };
        let memory = channel::write_change(&whole)?;
        let table = ToWorker::Table { change: 0, outputs: process.outputs.clone() };
        channel::send(process.channel.as_fd(), &table, &[memory.as_fd()])
    }

    /// Those that the worker has not got yet.
    fn hand_sockets(
        &self,
        worker: WorkerId,
        process: &mut Process,
        inputs: &BTreeSet<IfIndex>,
    ) -> io::Result<()> {
        let number = worker.0 as usize;
        for (index, output) in &self.outputs {
            if process.outputs.insert(*index) {
                output.hand(number, &process.channel)?;
            }
        }
        for index in inputs {
            if let Some(input) = self.inputs.get(index)
                && process.inputs.insert(*index)
            {
                input.hand(number, &process.channel)?;
            }
        }
        Ok(())
    }

    /// Every worker that runs has the change: what it gave up goes.
    fn complete(&mut self, id: ChangeId, absent: &[Absent]) {
        let Some(Change { inputs, outputs, touched, .. }) =
            self.change.take_if(|change| change.id == id)
        else {
            return;
        };
        self.inputs.retain(|index, _| inputs.contains(index));
        self.outputs.retain(|index, _| outputs.contains(index));
        for process in self.processes.iter_mut().flatten() {
            process.inputs.retain(|index| inputs.contains(index));
            process.outputs.retain(|index| outputs.contains(index));
        }
        for index in touched {
            let Some(input) = self.inputs.get(&index) else { continue };
            if let Err(refusal) = input.admit(&groups(self.rules.values(), index)) {
                tracing::error!(%refusal, "filter not narrowed: more is received than wanted");
            }
        }
        let warning = |Absent { worker, reason }: &Absent| {
            format!(
                "worker {} {reason}; it takes the change when it runs again, and what is its share \
                 of the streams waits until then",
                worker.0 + 1
            )
        };
        self.done = Some(Ok(absent.iter().map(warning).collect()));
    }

    fn handle(&mut self, event: Event) {
        let Event { worker, incarnation, what } = event;
        let (slot, now) = (&mut self.processes[worker.0 as usize], Instant::now());
        let process = slot.as_mut().filter(|process| process.incarnation == incarnation);
        let Some(process) = process else { return };
        let (number, pid) = (worker.0 + 1, process.pid);
        match what {
            What::Said(FromWorker::Synced) => {
                tracing::info!(worker = number, pid, "worker runs");
                self.supervisor.handle_synced(worker, incarnation, now);
            }
            What::Said(FromWorker::Answered(id)) => {
                self.supervisor.handle_answered(worker, incarnation, ChangeId(id));
            }
            What::Said(FromWorker::Failed(why)) => process.said = Some(why),
            What::Exited(status) => {
                let why = process::describe(status, process.said.as_deref());
                tracing::warn!(worker = number, pid, why, "worker ended");
                *slot = None;
                self.supervisor.handle_exited(worker, incarnation, why, now);
            }
        }
    }
}

impl DataPlane for PacketPlane {
    fn describe(&self) -> Description {
        Description { plane: "packet", attach: "af_packet", tap: true }
    }

    /// Sockets first, workers after: a worker that takes the change finds its packets waiting.
    fn apply(&mut self, change: &PlaneChange) -> Progress {
        let touched = match self.prepare(change) {
            Ok(touched) => touched,
            Err(refused) => return Progress::Done(Err(refused)),
        };
        let memory = match channel::write_change(change) {
            Ok(memory) => memory,
            Err(error) => {
                let message = format!("no memory to hand the change to the workers: {error}");
                let refusal = Refusal::new(Code::Plane, message, "free some memory");
                return Progress::Done(Err(PlaneRefusal { interface: None, refusal }));
            }
        };
        for counters in &self.counters {
            change.fresh_rules.iter().for_each(|id| counters.clear_rule(*id));
            change.fresh_outputs.iter().for_each(|id| counters.clear_output(*id));
        }
        change.remove.iter().for_each(|id| drop(self.rules.remove(id)));
        self.rules.extend(change.install.iter().map(|rule| (rule.id, rule.clone())));
        self.own.clone_from(&change.own);
        let outputs = self.rules.values().flat_map(interfaces).collect();
        let id = self.supervisor.handle_change(Instant::now());
        let inputs = change.inputs.clone();
        self.change = Some(Change { id, memory, inputs, outputs, touched });
        self.obey();
        self.done.take().map_or(Progress::Pending, Progress::Done)
    }

    async fn next(&mut self) -> Applied {
        loop {
            if let Some(done) = self.done.take() {
                return done;
            }
            let due = self.supervisor.poll_timeout();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.handle(event),
                () = due => {
                    // Answers that have come while the loop was busy count first.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    while let Ok(event) = self.events.try_recv() {
                        self.handle(event);
                    }
                    self.supervisor.handle_timeout(Instant::now());
                }
            }
            self.obey();
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
        for (index, input) in &mut self.inputs {
            input.read_drops();
            let mut passed = [0; Pass::COUNTED.len()];
            input.sum_passed(&mut passed);
            sums.passed.push((*index, passed));
        }
        Ok(sums)
    }

    /// What an eBPF plane of the instance has left would relay every packet once more.
    fn settle(&mut self) {
        bpf::end_left(&self.options.instance);
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

/// The interfaces that a rule sends by.
fn interfaces(rule: &PlaneRule) -> impl Iterator<Item = IfIndex> {
    rule.outputs.iter().filter(|output| output.absent.is_none()).map(|output| output.interface)
}

/// The groups that rules take on an interface.
fn groups<'r>(
    rules: impl Iterator<Item = &'r PlaneRule>,
    interface: IfIndex,
) -> BTreeSet<Ipv4Addr> {
    rules.filter(|rule| rule.key.interface == interface).map(|rule| rule.key.address).collect()
}
