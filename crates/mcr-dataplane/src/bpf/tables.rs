//! The program's tables in the kernel, and how they change under packets that move.
//!
//! An element of a hash map that is updated can be read half done, and one that is deleted is used
//! again at once. So the value of a key that exists is never changed; what changes is one u64 of an
//! array, which is read and written whole:
//!
//! ```text
//! flows (hash)             slots (array of u64)         outputs (array)
//! key ───▶ slot number ──▶ first output, count ──▶ [ output | output | output ]
//! sources (hash)      ┌──▶ by source
//! slot, source ───────┘
//! prefixes (LPM trie)      nodes (array of u64)         ranges (array)
//! prefix ──▶ node number ▶ first range, count ───▶ [ ports: slot | ports: slot ]
//! ```
//!
//! A change writes elements that nobody uses, swaps u64s, adds keys, deletes keys, and waits one RCU
//! grace period before anything that was given up is used again. A [`Journal`] has what was done, to
//! be taken back, and what is to be given up when all is done.

use std::collections::HashMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap as BpfHash, MapData, MapError};
use mcr_core::action::PlaneOutput;
use mcr_core::flow::AddressBlock;
use mcr_core::forward::FlowKey;
use mcr_core::link::IfIndex;
use mcr_core::rate::MaxRate;
use mcr_core::refusal::{Code, Refusal};

use super::abi::{
    NUMBERS, RawAddress, RawKey, RawNumber, RawOutput, RawPrefix, RawRange, RawRate, RawSource,
    raw_address,
};
use super::extents::Extents;
use super::maps::{Sizes, refused, typed};
use crate::sys::Grace;

/// The tables, and which of their elements are free.
pub(super) struct Tables {
    flows: BpfHash<MapData, RawKey, u32>,
    sources: BpfHash<MapData, RawSource, u32>,
    prefixes: LpmTrie<MapData, RawPrefix, u32>,
    slots: Words,
    nodes: Words,
    ranges: Array<MapData, RawRange>,
    outputs: Array<MapData, RawOutput>,
    rates: Array<MapData, RawRate>,
    own: BpfHash<MapData, RawAddress, u8>,
    free: [Extents; 4],
    grace: Grace,
}

/// What elements are taken of and given back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Slots,
    Nodes,
    Ranges,
    Outputs,
}

/// An array of u64, and what is in it.
struct Words {
    array: Array<MapData, u64>,
    values: HashMap<u32, u64>,
}

/// What a change has done, and what it will give up.
#[derive(Default)]
pub(super) struct Journal {
    done: Vec<Step>,
    later: Vec<Removal>,
}

enum Step {
    Took(Kind, u32, u32),
    Slot(u32, u64),
    Node(u32, u64),
    Rate(u32, Option<MaxRate>),
    Flow(FlowKey),
    Source(u32, IpAddr),
    Prefix(IfIndex, AddressBlock),
    Own(IpAddr),
}

/// Something that nobody needs when the change is complete.
pub(super) enum Removal {
    /// The rule in it, and the slot itself.
    Slot(u32),
    Flow(FlowKey),
    Source(u32, IpAddr),
    /// The key, and the node.
    Prefix(IfIndex, AddressBlock, u32),
    Elements(Kind, u32, u32),
}

impl Tables {
    /// Takes the maps over from a loaded object. Identifications begin at random, so that a restart
    /// repeats none that is still on its way.
    pub(super) fn take(ebpf: &mut Ebpf, sizes: Sizes, grace: Grace) -> Result<Self, Refusal> {
        let words = |array| Words { array, values: HashMap::new() };
        let mut numbers: Array<MapData, RawNumber> = typed(ebpf, "numbers")?;
        for index in 0..NUMBERS {
            let number = RawNumber::new(random(index));
            numbers.set(index, number, 0).map_err(|e| refused("numbers", &e))?;
        }
        Ok(Self {
            flows: typed(ebpf, "flows")?,
            sources: typed(ebpf, "sources")?,
            prefixes: typed(ebpf, "prefixes")?,
            slots: words(typed(ebpf, "slots")?),
            nodes: words(typed(ebpf, "nodes")?),
            ranges: typed(ebpf, "ranges")?,
            outputs: typed(ebpf, "outputs")?,
            rates: typed(ebpf, "rates")?,
            own: typed(ebpf, "own")?,
            free: [sizes.slots(), sizes.rules, sizes.ranges(), sizes.outputs].map(Extents::new),
            grace,
        })
    }

    /// Takes `count` neighbouring elements that nobody uses.
    pub(super) fn take_free(
        &mut self,
        journal: &mut Journal,
        kind: Kind,
        count: u32,
    ) -> Result<u32, Refusal> {
        let first = self.free[kind as usize].allocate(count).ok_or_else(|| full(kind))?;
        journal.done.push(Step::Took(kind, first, count));
        Ok(first)
    }

    pub(super) fn write_outputs(
        &mut self,
        journal: &mut Journal,
        outputs: &[PlaneOutput],
    ) -> Result<u32, Refusal> {
        let first = self.take_free(journal, Kind::Outputs, outputs.len() as u32)?;
        for (index, output) in (first..).zip(outputs) {
            let raw = RawOutput::from(output);
            self.outputs.set(index, raw, 0).map_err(|e| refused("outputs", &e))?;
        }
        Ok(first)
    }

    pub(super) fn write_ranges(
        &mut self,
        journal: &mut Journal,
        ranges: &[RawRange],
    ) -> Result<u32, Refusal> {
        let first = self.take_free(journal, Kind::Ranges, ranges.len() as u32)?;
        for (index, range) in (first..).zip(ranges) {
            self.ranges.set(index, range, 0).map_err(|e| refused("ranges", &e))?;
        }
        Ok(first)
    }

    pub(super) fn set_slot(
        &mut self,
        journal: &mut Journal,
        number: u32,
        value: u64,
    ) -> Result<(), Refusal> {
        let before = self.slots.set(number, value).map_err(|e| refused("slots", &e))?;
        journal.done.push(Step::Slot(number, before));
        Ok(())
    }

    pub(super) fn set_node(
        &mut self,
        journal: &mut Journal,
        number: u32,
        value: u64,
    ) -> Result<(), Refusal> {
        let before = self.nodes.set(number, value).map_err(|e| refused("nodes", &e))?;
        journal.done.push(Step::Node(number, before));
        Ok(())
    }

    pub(super) fn set_rate(
        &mut self,
        journal: &mut Journal,
        rule: u32,
        rate: Option<MaxRate>,
        before: Option<MaxRate>,
    ) -> Result<(), Refusal> {
        if rate != before {
            journal.done.push(Step::Rate(rule, before));
            self.write_rate(rule, rate).map_err(|e| refused("rates", &e))?;
        }
        Ok(())
    }

    fn write_rate(&mut self, rule: u32, rate: Option<MaxRate>) -> Result<(), MapError> {
        self.rates.set(rule, rate.map(RawRate::from).unwrap_or_default(), 0)
    }

    pub(super) fn insert_flow(
        &mut self,
        journal: &mut Journal,
        key: FlowKey,
        slot: u32,
    ) -> Result<(), Refusal> {
        journal.done.push(Step::Flow(key));
        self.flows.insert(RawKey::from(key), slot, 0).map_err(|e| refused("flows", &e))
    }

    pub(super) fn insert_source(
        &mut self,
        journal: &mut Journal,
        (at, source): (u32, IpAddr),
        slot: u32,
    ) -> Result<(), Refusal> {
        journal.done.push(Step::Source(at, source));
        let key = RawSource::new(at, source);
        self.sources.insert(key, slot, 0).map_err(|e| refused("sources", &e))
    }

    pub(super) fn insert_prefix(
        &mut self,
        journal: &mut Journal,
        (interface, block): (IfIndex, AddressBlock),
        node: u32,
    ) -> Result<(), Refusal> {
        journal.done.push(Step::Prefix(interface, block));
        let key = prefix_key(interface, block);
        self.prefixes.insert(&key, node, 0).map_err(|e| refused("prefixes", &e))
    }

    pub(super) fn insert_own(
        &mut self,
        journal: &mut Journal,
        address: IpAddr,
    ) -> Result<(), Refusal> {
        journal.done.push(Step::Own(address));
        self.own.insert(raw_address(address), 1, 0).map_err(|e| refused("own", &e))
    }

    pub(super) fn remove_own(&mut self, address: IpAddr) {
        report("own", self.own.remove(&raw_address(address)));
    }

    /// Brings back what was there before.
    pub(super) fn undo(&mut self, journal: Journal) {
        let mut taken = Vec::new();
        for step in journal.done.into_iter().rev() {
            match step {
                Step::Took(kind, first, count) => taken.push((kind, first, count)),
                Step::Slot(number, before) => self.put_slot(number, before),
                Step::Node(number, before) => report("nodes", self.nodes.put(number, before)),
                Step::Rate(rule, before) => report("rates", self.write_rate(rule, before)),
                Step::Flow(key) => report("flows", self.flows.remove(&RawKey::from(key))),
                Step::Source(at, source) => self.remove_source(at, source),
                Step::Prefix(interface, block) => self.remove_prefix(interface, block),
                Step::Own(address) => self.remove_own(address),
            }
        }
        self.release(taken);
    }

    /// Gives up what the journal says, and waits until nobody uses it.
    pub(super) fn complete(&mut self, journal: Journal) {
        let mut gone = Vec::new();
        for removal in journal.later {
            match removal {
                Removal::Slot(number) => {
                    self.put_slot(number, 0);
                    gone.push((Kind::Slots, number, 1));
                }
                Removal::Flow(key) => report("flows", self.flows.remove(&RawKey::from(key))),
                Removal::Source(at, source) => self.remove_source(at, source),
                Removal::Prefix(interface, block, node) => {
                    self.remove_prefix(interface, block);
                    gone.push((Kind::Nodes, node, 1));
                }
                Removal::Elements(kind, first, count) => gone.push((kind, first, count)),
            }
        }
        self.release(gone);
    }

    fn put_slot(&mut self, number: u32, value: u64) {
        report("slots", self.slots.put(number, value));
    }

    fn remove_source(&mut self, at: u32, source: IpAddr) {
        report("sources", self.sources.remove(&RawSource::new(at, source)));
    }

    fn remove_prefix(&mut self, interface: IfIndex, block: AddressBlock) {
        report("prefixes", self.prefixes.remove(&prefix_key(interface, block)));
    }

    /// Frees elements when nobody uses them any more. If that cannot be known, they are lost rather
    /// than used again.
    fn release(&mut self, gone: Vec<(Kind, u32, u32)>) {
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.grace.wait() {
            tracing::error!(%error, "cannot wait for the eBPF program to let go of old rules");
            return;
        }
        for (kind, first, count) in gone {
            self.free[kind as usize].release(first, count);
        }
    }
}

impl Journal {
    /// For when the change is complete.
    pub(super) fn give_up(&mut self, removal: Removal) {
        self.later.push(removal);
    }
}

impl Words {
    /// What was there before.
    fn set(&mut self, index: u32, value: u64) -> Result<u64, MapError> {
        self.array.set(index, value, 0)?;
        Ok(self.values.insert(index, value).unwrap_or(0))
    }

    fn put(&mut self, index: u32, value: u64) -> Result<(), MapError> {
        if value == 0 {
            self.values.remove(&index);
        } else {
            self.values.insert(index, value);
        }
        self.array.set(index, value, 0)
    }
}

fn prefix_key(interface: IfIndex, block: AddressBlock) -> Key<RawPrefix> {
    let (length, prefix) = RawPrefix::new(interface, block);
    Key::new(length, prefix)
}

/// A number that nobody can guess before: of the hasher's random keys.
fn random(salt: u32) -> u32 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(salt) as u32
}

fn full(kind: Kind) -> Refusal {
    let what = match kind {
        Kind::Slots => "flows and sources",
        Kind::Nodes | Kind::Ranges => "ranges",
        Kind::Outputs => "outputs",
    };
    Refusal::new(
        Code::Capacity,
        format!("no room in the eBPF maps for the {what} of the change"),
        "make it in smaller steps, or raise max_rules and max_outputs under [limits] in the config and \
         restart",
    )
}

/// Taking something out of a map fails only when it is not there, which is what was wanted.
pub(super) fn report(map: &str, result: Result<(), MapError>) {
    if let Err(error) = result {
        tracing::debug!(map, error = &error as &dyn std::error::Error, "not removed");
    }
}
