//! What the state machine of the supervisor orders, and what comes back from the workers.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use mcr_core::action::PlaneChange;
use mcr_core::event::{Event as Told, WorkerChange};
use mcr_core::link::IfIndex;
use mcr_core::relay::Limits;
use mcr_core::supervisor::{ChangeId, Incarnation, Order, WorkerId};

use super::change::blocks;
use super::channel::{FromWorker, ToWorker};
use super::interface::Input;
use super::process::{Event, Process, What};
use super::{PacketPlane, channel, process};

impl PacketPlane {
    /// Carries out what the supervisor orders.
    pub(super) fn obey(&mut self) {
        while let Some(order) = self.supervisor.poll_order() {
            match order {
                Order::Start(worker, incarnation) => self.start(worker, incarnation),
                Order::Send(worker, id) => self.say(worker, |plane, process| {
                    let Some(change) = plane.change.as_ref().filter(|change| change.id == id)
                    else {
                        return Ok(());
                    };
                    plane.hand_sockets(worker, process, &change.inputs)?;
                    let outputs = change.outputs.clone();
                    let message = ToWorker::Table { change: id.0, outputs };
                    channel::send(process.channel.as_fd(), &message, &[change.memory.as_fd()])
                }),
                Order::Ping(worker, id) => self.say(worker, |_, process| {
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
    fn say(&mut self, worker: WorkerId, say: impl FnOnce(&Self, &mut Process) -> io::Result<()>) {
        let Some(mut process) = self.processes[worker.0 as usize].take() else { return };
        if let Err(error) = say(self, &mut process) {
            process.said.get_or_insert_with(|| format!("its channel failed: {error}"));
            process.kill();
        }
        self.processes[worker.0 as usize] = Some(process);
    }

    fn tell(&mut self, worker: WorkerId, pid: Option<u32>, change: WorkerChange) {
        self.told.push_back(Told::Worker { worker: worker.0 + 1, pid, change });
    }

    fn start(&mut self, worker: WorkerId, incarnation: Incarnation) {
        let number = worker.0 as usize;
        let mut arguments = self.options.worker_arguments.clone();
        arguments.push(self.cpus[number].to_string().into());
        let sender = self.sender.clone();
        match Process::spawn(worker, incarnation, &arguments, sender) {
            Ok(process) => {
                self.processes[number] = Some(process);
                self.say(worker, |plane, process| plane.hand_everything(worker, process));
            }
            Err(error) => {
                let why = format!("cannot be started: {error}");
                self.tell(worker, None, WorkerChange::NotStarted(why.clone()));
                self.supervisor.handle_start_failed(worker, incarnation, why, Instant::now());
            }
        }
    }

    /// Memory, sockets and the whole table.
    fn hand_everything(&self, worker: WorkerId, process: &mut Process) -> io::Result<()> {
        let Limits { rules, outputs } = self.room;
        let setup = ToWorker::Setup { rules, outputs };
        let counters = &self.counters[worker.0 as usize];
        let memory = [counters.descriptor(), self.shared.descriptor()];
        channel::send(process.channel.as_fd(), &setup, &memory)?;
        let inputs = self.rules.values().map(|rule| rule.take.interface).collect();
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

    pub(super) fn handle(&mut self, event: Event) {
        let Event { worker, incarnation, what } = event;
        let (slot, now) = (&mut self.processes[worker.0 as usize], Instant::now());
        let process = slot.as_mut().filter(|process| process.incarnation == incarnation);
        let Some(process) = process else { return };
        let (number, pid) = (worker.0 + 1, process.pid);
        match what {
            What::Said(FromWorker::Synced) => {
                let restarts = incarnation.0;
                self.tell(worker, Some(pid), WorkerChange::Runs { restarts });
                self.supervisor.handle_synced(worker, incarnation, now);
            }
            What::Said(FromWorker::Answered(id)) => {
                self.supervisor.handle_answered(worker, incarnation, ChangeId(id));
            }
            What::Said(FromWorker::Warned(why)) => {
                tracing::warn!(worker = number, pid, why, "worker");
            }
            What::Said(FromWorker::Failed(why)) => process.said = Some(why),
            What::Exited(status) => {
                let why = process::describe(status, process.said.as_deref());
                *slot = None;
                self.tell(worker, Some(pid), WorkerChange::Ended(why.clone()));
                self.supervisor.handle_exited(worker, incarnation, why, now);
            }
        }
    }

    /// Takes what the workers have said, though their tasks had no time to pass it on, and then looks
    /// who has not answered in time.
    pub(super) fn look_at_time(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.handle(event);
            self.obey();
        }
        for number in 0..self.processes.len() {
            while let Some(process) = &self.processes[number]
                && let Ok(Some((said, _))) = channel::receive(process.channel.as_fd())
            {
                let (worker, incarnation) = (WorkerId(number as u32), process.incarnation);
                self.handle(Event { worker, incarnation, what: What::Said(said) });
                self.obey();
            }
        }
        self.supervisor.handle_timeout(Instant::now());
    }

    /// Replaces the rings of an interface of which one takes nothing any more.
    pub(super) fn reopen(&mut self, index: IfIndex) {
        let Some(old) = self.inputs.get(&index) else { return };
        let blocks = blocks(self.rules.values(), index);
        let opened =
            Input::open(index, &self.options.packet, self.workers()).and_then(|mut new| {
                // Never both at once: every packet would come twice.
                old.admit(&BTreeSet::new())?;
                new.admit(&blocks).inspect_err(|_| drop(old.admit(&blocks)))?;
                new.inherit(old);
                Ok(new)
            });
        match opened {
            Ok(new) => {
                tracing::warn!(
                    interface = new.name(),
                    "rings replaced: the kernel had filled none of one of them, and dropped \
                     (a super-packet with an offload that it cannot describe does that)"
                );
                self.inputs.insert(index, new);
            }
            Err(refusal) => return tracing::error!(%refusal, "a ring takes nothing, and no other"),
        }
        let inputs = BTreeSet::from([index]);
        for number in (0..self.workers()).map(WorkerId) {
            self.say(number, |plane, process| {
                process.inputs.remove(&index);
                plane.hand_sockets(number, process, &inputs)
            });
        }
    }
}
