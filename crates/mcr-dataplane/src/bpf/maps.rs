//! The program's maps, and how they change under packets that move.
//!
//! An element of a hash map that is updated can be read half done, and one that is deleted is used
//! again at once. So the value of a key that exists is never changed; what changes is one u64 of an
//! array, which is read and written whole:
//!
//! ```text
//! flows (hash)            slots (array of u64)         outputs (array)
//! key ──▶ slot number ──▶ first output, count ──▶ [ output | output | output ]
//! ```
//!
//! A change writes outputs that nobody uses, swaps slots, adds keys, deletes keys, and waits one
//! RCU grace period before anything that was given up is used again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::{Array, HashMap as BpfHash, Map, MapData, PerCpuHashMap, PerCpuValues};
use mcr_core::action::{
    Counters, FlowKey, OutputCounters, PlaneChange, PlaneRule, RuleCounters, RuleId, Volume,
};
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};

use super::abi::{self, OUTPUT_STATS, RULE_STATS, RawKey, RawOutput, RawPass};
use super::extents::Extents;
use crate::sys::{self, Grace};

/// The maps, and what is in them.
pub(super) struct Maps {
    flows: BpfHash<MapData, RawKey, u32>,
    slots: Array<MapData, u64>,
    outputs: Array<MapData, RawOutput>,
    own: BpfHash<MapData, [u8; 4], u8>,
    /// Per CPU, and read and written in batches, which aya does not do.
    rule_stats: MapData,
    output_stats: MapData,
    pass_stats: PerCpuHashMap<MapData, u32, RawPass>,
    grace: Grace,
    cpus: usize,
    sizes: Sizes,
    rules: HashMap<RuleId, FlowKey>,
    taken: BTreeMap<FlowKey, Slot>,
    free_outputs: Extents,
    free_slots: Extents,
    own_now: BTreeSet<Ipv4Addr>,
}

/// A slot in use.
#[derive(Debug, Clone, Copy)]
struct Slot {
    number: u32,
    value: u64,
    first: u32,
    count: u32,
}

/// What a change has done so far, to be taken back or to be completed.
#[derive(Default)]
pub(super) struct Pending {
    /// The rules installed: where, and the slot that was there before.
    installed: Vec<(FlowKey, RuleId, Slot, Option<Slot>)>,
    own_added: Vec<Ipv4Addr>,
}

impl Maps {
    /// Takes the maps over from a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, sizes: Sizes, grace: Grace) -> Result<Self, Refusal> {
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| {
            Refusal::new(Code::Internal, format!("{file}: {error}"), "is /sys mounted?")
        })?;
        Ok(Self {
            flows: typed(ebpf, "flows")?,
            slots: typed(ebpf, "slots")?,
            outputs: typed(ebpf, "outputs")?,
            own: typed(ebpf, "own")?,
            rule_stats: per_cpu_array(ebpf, "rule_stats")?,
            output_stats: per_cpu_array(ebpf, "output_stats")?,
            pass_stats: typed(ebpf, "pass_stats")?,
            grace,
            cpus,
            sizes,
            rules: HashMap::new(),
            taken: BTreeMap::new(),
            free_outputs: Extents::new(sizes.outputs),
            free_slots: Extents::new(sizes.rules),
            own_now: BTreeSet::new(),
        })
    }

    /// Installs what a change installs, if there is room. Until [`Maps::complete`] it can be taken back.
    pub(super) fn install(&mut self, change: &PlaneChange) -> Result<Pending, Refusal> {
        let fits = |id: u32, size: u32| if id < size { Ok(()) } else { Err(full()) };
        change.fresh_rules.iter().try_for_each(|id| fits(id.0, self.sizes.rules))?;
        change.fresh_outputs.iter().try_for_each(|id| fits(id.0, self.sizes.outputs))?;
        let fresh: Vec<u32> = change.fresh_rules.iter().map(|id| id.0).collect();
        self.zero(&fresh, RULE_STATS, |maps| maps.rule_stats.fd().as_fd())?;
        let fresh: Vec<u32> = change.fresh_outputs.iter().map(|id| id.0).collect();
        self.zero(&fresh, OUTPUT_STATS, |maps| maps.output_stats.fd().as_fd())?;

        let mut pending = Pending::default();
        let result = self.install_into(change, &mut pending);
        match result {
            Ok(()) => Ok(pending),
            Err(refusal) => {
                self.take_back(pending);
                Err(refusal)
            }
        }
    }

    fn install_into(&mut self, change: &PlaneChange, done: &mut Pending) -> Result<(), Refusal> {
        for address in change.own.difference(&self.own_now) {
            self.own.insert(address.octets(), 1, 0).map_err(|e| refused("own", &e))?;
            done.own_added.push(*address);
        }
        for rule in &change.install {
            self.install_rule(rule, done)?;
        }
        Ok(())
    }

    fn install_rule(&mut self, rule: &PlaneRule, done: &mut Pending) -> Result<(), Refusal> {
        let count = rule.outputs.len() as u32;
        let first = self.free_outputs.allocate(count).ok_or_else(full)?;
        let before = self.taken.get(&rule.key).copied();
        let number = match before {
            Some(slot) => Some(slot.number),
            None => self.free_slots.allocate(1),
        };
        let Some(number) = number else {
            self.free_outputs.release(first, count);
            return Err(full());
        };
        let slot = Slot { number, value: abi::slot(rule, first), first, count };
        // From here on the rule is in `done`, so that a failure takes all of it back.
        done.installed.push((rule.key, rule.id, slot, before));
        self.taken.insert(rule.key, slot);
        for (index, output) in (first..).zip(&rule.outputs) {
            let raw = RawOutput::from(output);
            self.outputs.set(index, raw, 0).map_err(|e| refused("outputs", &e))?;
        }
        self.slots.set(number, slot.value, 0).map_err(|e| refused("slots", &e))?;
        if before.is_none() {
            let key = RawKey::from(rule.key);
            self.flows.insert(key, number, 0).map_err(|e| refused("flows", &e))?;
        }
        Ok(())
    }

    /// Brings back what was there before [`Maps::install`].
    pub(super) fn take_back(&mut self, pending: Pending) {
        let mut free = Vec::new();
        for (key, _, slot, before) in pending.installed.into_iter().rev() {
            free.push((slot, before.is_none()));
            match before {
                Some(before) => {
                    report("slots", self.slots.set(before.number, before.value, 0));
                    self.taken.insert(key, before);
                }
                None => self.drop_key(key, slot.number),
            }
        }
        for address in pending.own_added {
            report("own", self.own.remove(&address.octets()));
        }
        if !self.wait() {
            return;
        }
        for (slot, new) in free {
            self.free_outputs.release(slot.first, slot.count);
            if new {
                self.free_slots.release(slot.number, 1);
            }
        }
    }

    /// Removes what the change removes, waits until nothing uses it, and frees it.
    pub(super) fn complete(&mut self, pending: Pending, change: &PlaneChange) {
        let installed: BTreeSet<FlowKey> = pending.installed.iter().map(|(k, ..)| *k).collect();
        let moved = pending
            .installed
            .iter()
            .filter_map(|(key, id, ..)| self.rules.get(id).filter(|old| *old != key).copied());
        let removed = change.remove.iter().filter_map(|id| self.rules.get(id).copied());
        let gone: BTreeSet<FlowKey> =
            moved.chain(removed).filter(|key| !installed.contains(key)).collect();

        let mut free_outputs: Vec<(u32, u32)> = pending
            .installed
            .iter()
            .filter_map(|(.., before)| *before)
            .map(|s| (s.first, s.count))
            .collect();
        let mut free_slots = Vec::new();
        for key in gone {
            if let Some(slot) = self.taken.get(&key).copied() {
                self.drop_key(key, slot.number);
                free_outputs.push((slot.first, slot.count));
                free_slots.push(slot.number);
            }
        }
        for id in &change.remove {
            self.rules.remove(id);
        }
        self.rules.extend(pending.installed.iter().map(|(key, id, ..)| (*id, *key)));
        let free = free_outputs.is_empty() || self.wait();
        for address in self.own_now.difference(&change.own) {
            report("own", self.own.remove(&address.octets()));
        }
        self.own_now.clone_from(&change.own);
        if !free {
            return;
        }
        free_outputs.into_iter().for_each(|(first, count)| self.free_outputs.release(first, count));
        free_slots.into_iter().for_each(|number| self.free_slots.release(number, 1));
    }

    /// No packet finds the key from here on; its slot is empty for those that already have.
    fn drop_key(&mut self, key: FlowKey, number: u32) {
        report("slots", self.slots.set(number, 0, 0));
        report("flows", self.flows.remove(&RawKey::from(key)));
        self.taken.remove(&key);
    }

    /// Whether nobody uses the old rules any more. If that cannot be known, their places are lost
    /// rather than used again.
    fn wait(&self) -> bool {
        let waited = self.grace.wait();
        if let Err(error) = &waited {
            tracing::error!(%error, "cannot wait for the eBPF program to let go of old rules");
        }
        waited.is_ok()
    }

    fn zero<'m>(
        &'m self,
        keys: &[u32],
        words: usize,
        map: impl Fn(&'m Self) -> std::os::fd::BorrowedFd<'m>,
    ) -> Result<(), Refusal> {
        if keys.is_empty() {
            return Ok(());
        }
        let zeros = vec![0; keys.len() * words * self.cpus];
        sys::update_batch(map(self), keys, &zeros, words * self.cpus)
            .map_err(|e| refused("stats", &e))
    }

    /// Counts what passes on an interface.
    pub(super) fn watch(&mut self, interface: IfIndex) -> Result<(), Refusal> {
        let zeros = PerCpuValues::try_from(vec![RawPass::default(); self.cpus])
            .map_err(|e| refused("pass_stats", &e))?;
        let known = self.pass_stats.get(&interface.0, 0).is_ok();
        if known {
            return Ok(());
        }
        self.pass_stats.insert(interface.0, zeros, 0).map_err(|e| refused("pass_stats", &e))
    }

    /// Counts no more on an interface.
    pub(super) fn unwatch(&mut self, interface: IfIndex) {
        report("pass_stats", self.pass_stats.remove(&interface.0));
    }

    /// Reads all counters.
    pub(super) fn counters(&self, (rules, outputs): (u32, u32)) -> Result<Counters, Refusal> {
        let mut counters = Counters::default();
        let fd = self.rule_stats.fd().as_fd();
        for [received, received_bytes, matched, matched_bytes, dropped @ ..] in
            self.read::<RULE_STATS>(fd, rules)?
        {
            counters.rules.push(RuleCounters {
                received: Volume { packets: received, bytes: received_bytes },
                matched: Volume { packets: matched, bytes: matched_bytes },
                dropped,
            });
        }
        let fd = self.output_stats.fd().as_fd();
        for [offered, offered_bytes, forwarded, forwarded_bytes, dropped @ ..] in
            self.read::<OUTPUT_STATS>(fd, outputs)?
        {
            counters.outputs.push(OutputCounters {
                offered: Volume { packets: offered, bytes: offered_bytes },
                forwarded: Volume { packets: forwarded, bytes: forwarded_bytes },
                dropped,
            });
        }
        for (interface, values) in self.pass_stats.iter().flatten() {
            let mut sum = RawPass::default();
            for cpu in values.iter() {
                sum.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
            }
            counters.passed.push((IfIndex(interface), sum));
        }
        Ok(counters)
    }

    /// The first `count` elements of a per-CPU array, summed over the CPUs.
    fn read<const WORDS: usize>(
        &self,
        map: std::os::fd::BorrowedFd<'_>,
        count: u32,
    ) -> Result<Vec<[u64; WORDS]>, Refusal> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut keys = vec![0; count as usize];
        let mut values = vec![0; count as usize * WORDS * self.cpus];
        sys::lookup_batch(map, &mut keys, &mut values, WORDS * self.cpus)
            .map_err(|e| refused("stats", &e))?;
        let sum = |element: &[u64]| {
            let mut sum = [0; WORDS];
            for cpu in element.chunks_exact(WORDS) {
                sum.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
            }
            sum
        };
        Ok(values.chunks_exact(WORDS * self.cpus).map(sum).collect())
    }
}

/// Number of elements: twice what rules may use, since a change adds before it removes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rules: u32,
    pub(super) outputs: u32,
}

fn typed<T: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<T, Refusal> {
    let map = ebpf.take_map(name).ok_or_else(|| no_map(name))?;
    T::try_from(map).map_err(|e| refused(name, &e))
}

fn per_cpu_array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, Refusal> {
    match ebpf.take_map(name) {
        Some(Map::PerCpuArray(data)) => Ok(data),
        Some(_) | None => Err(no_map(name)),
    }
}

fn no_map(name: &str) -> Refusal {
    Refusal::new(Code::Internal, format!("the eBPF object has no map {name}"), "rebuild mcrd")
}

fn refused(map: &str, error: &dyn std::error::Error) -> Refusal {
    let mut message = format!("the kernel refused the eBPF map {map}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Refusal::new(Code::Plane, message, "is memory short? `mcrctl status` shows the limits in force")
}

fn full() -> Refusal {
    Refusal::new(
        Code::Capacity,
        "no room in the eBPF maps for the change",
        "make it in smaller steps, or raise max_outputs under [limits] in the config and restart",
    )
}

/// Taking something out of a map fails only when it is not there, which is what was wanted.
fn report(map: &str, result: Result<(), aya::maps::MapError>) {
    if let Err(error) = result {
        tracing::debug!(map, error = &error as &dyn std::error::Error, "not removed");
    }
}
