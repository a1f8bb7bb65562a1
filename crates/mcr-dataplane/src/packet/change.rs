//! A change on its way: what it needs is opened, the workers are told, what it gave up is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Instant;

use mcr_core::action::{PlaneChange, PlaneRefusal, PlaneRule, RuleId};
use mcr_core::flow::AddressBlock;
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::supervisor::{Absent, ChangeId};
use tokio::task::{JoinError, JoinHandle};

use super::interface::{Input, Output};
use super::{PacketPlane, channel};
use crate::netlink;

/// A change that is on its way to the workers.
pub(super) struct Change {
    pub(super) id: ChangeId,
    pub(super) memory: OwnedFd,
    pub(super) inputs: BTreeSet<IfIndex>,
    pub(super) outputs: BTreeSet<IfIndex>,
    /// Inputs whose rules have changed.
    touched: BTreeSet<IfIndex>,
}

/// Rings that are being made for a change.
pub(super) struct Opening {
    change: PlaneChange,
    pub(super) task: JoinHandle<Opened>,
}

/// They, or why not.
pub(super) type Opened = Result<BTreeMap<IfIndex, Input>, PlaneRefusal>;

impl PacketPlane {
    /// Begins a change; `done` says how it ends. Sockets first, workers after: a worker that takes
    /// the change finds its packets waiting.
    ///
    /// The kernel takes its time to make rings (each page is cleared), so another thread asks for
    /// them: workers and clients are served meanwhile.
    pub(super) fn change(&mut self, change: &PlaneChange) {
        let new = change.inputs.iter().filter(|index| !self.inputs.contains_key(index));
        let new: Vec<IfIndex> = new.copied().collect();
        if new.is_empty() {
            return self.change_with(change, BTreeMap::new());
        }
        let (options, workers) = (self.options.packet.clone(), self.workers());
        let open = move |index| {
            let input = Input::open(index, &options, workers);
            let blame = |refusal| PlaneRefusal { interface: Some(index), refusal };
            input.map(|input| (index, input)).map_err(blame)
        };
        let task = tokio::task::spawn_blocking(move || new.into_iter().map(open).collect());
        self.opening = Some(Opening { change: change.clone(), task });
    }

    /// The rings that a change needs are there, or not.
    pub(super) fn opened(&mut self, opened: Result<Opened, JoinError>) {
        let Some(Opening { change, .. }) = self.opening.take() else { return };
        let lost = |error: JoinError| {
            let refusal = Refusal::new(Code::Internal, format!("rings not opened: {error}"), "");
            Err(PlaneRefusal { interface: None, refusal })
        };
        match opened.unwrap_or_else(lost) {
            Ok(inputs) => self.change_with(&change, inputs),
            Err(refused) => self.done = Some(Err(refused)),
        }
    }

    fn change_with(&mut self, change: &PlaneChange, inputs: BTreeMap<IfIndex, Input>) {
        if let Err(refused) = self.begin(change, inputs) {
            self.done = Some(Err(refused));
        }
    }

    fn begin(
        &mut self,
        change: &PlaneChange,
        inputs: BTreeMap<IfIndex, Input>,
    ) -> Result<(), PlaneRefusal> {
        let memory = channel::write_change(change).map_err(|error| {
            let message = format!("no memory to hand the change to the workers: {error}");
            let hint = "raise `ulimit -n` (LimitNOFILE=), or free some memory";
            let refusal = Refusal::new(Code::Plane, message, hint);
            PlaneRefusal { interface: None, refusal }
        })?;
        let touched = self.prepare(change, inputs)?;
        for counters in &self.counters {
            change.fresh_rules.iter().for_each(|id| counters.clear_rule(*id));
            change.fresh_outputs.iter().for_each(|id| counters.clear_output(*id));
        }
        change.fresh_rules.iter().for_each(|id| self.shared.shared().clear_rule(*id));
        change.remove.iter().for_each(|id| drop(self.rules.remove(id)));
        self.rules.extend(change.install.iter().map(|rule| (rule.id, rule.clone())));
        self.own.clone_from(&change.own);
        let outputs = self.rules.values().flat_map(interfaces).collect();
        let id = self.supervisor.handle_change(Instant::now());
        let inputs = change.inputs.clone();
        self.change = Some(Change { id, memory, inputs, outputs, touched });
        self.obey();
        Ok(())
    }

    /// Opens what else a change needs and lets its packets in. Refused, nothing has changed.
    fn prepare(
        &mut self,
        change: &PlaneChange,
        inputs: BTreeMap<IfIndex, Input>,
    ) -> Result<BTreeSet<IfIndex>, PlaneRefusal> {
        let blame = |interface| move |refusal| PlaneRefusal { interface, refusal };
        let (options, workers) = (&self.options.packet, self.workers());
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
        let old = |id: &RuleId| self.rules.get(id).map(|rule| rule.take.interface);
        let ids = change.remove.iter().chain(change.install.iter().map(|rule| &rule.id));
        let mut touched: BTreeSet<IfIndex> = ids.filter_map(old).collect();
        touched.extend(change.install.iter().map(|rule| rule.take.interface));
        for index in &touched {
            let Some(input) = inputs.get(index).or_else(|| self.inputs.get(index)) else {
                continue;
            };
            // Both the old and the new, until every worker has the change.
            let blocks = blocks(self.rules.values().chain(&change.install), *index);
            input.admit(&blocks).map_err(blame(Some(*index)))?;
        }
        self.inputs.extend(inputs);
        self.outputs.extend(outputs);
        Ok(touched)
    }

    /// Every worker that runs has the change: what it gave up goes.
    pub(super) fn complete(&mut self, id: ChangeId, absent: &[Absent]) {
        let Some(Change { inputs, outputs, touched, .. }) =
            self.change.take_if(|change| change.id == id)
        else {
            return;
        };
        let gone: BTreeMap<IfIndex, Input> =
            self.inputs.extract_if(.., |index, _| !inputs.contains(index)).collect();
        if !gone.is_empty() {
            // To give the rings back takes the kernel its time too.
            drop(tokio::task::spawn_blocking(|| drop(gone)));
        }
        self.outputs.retain(|index, _| outputs.contains(index));
        for process in self.processes.iter_mut().flatten() {
            process.inputs.retain(|index| inputs.contains(index));
            process.outputs.retain(|index| outputs.contains(index));
        }
        for index in touched {
            let Some(input) = self.inputs.get(&index) else { continue };
            if let Err(refusal) = input.admit(&blocks(self.rules.values(), index)) {
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
}

/// The interfaces that a rule sends by.
fn interfaces(rule: &PlaneRule) -> impl Iterator<Item = IfIndex> {
    rule.outputs.iter().filter(|output| output.absent.is_none()).map(|output| output.interface)
}

/// The addresses that rules take on an interface.
pub(super) fn blocks<'r>(
    rules: impl Iterator<Item = &'r PlaneRule>,
    interface: IfIndex,
) -> BTreeSet<AddressBlock> {
    rules.map(|rule| &rule.take).filter(|t| t.interface == interface).map(|t| t.addresses).collect()
}
