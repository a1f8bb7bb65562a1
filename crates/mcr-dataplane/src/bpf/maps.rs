//! What the program's maps hold for the rules there are.
//!
//! [`Maps::install`] makes a change of the rules so that packets that move see each rule as it was or
//! as it shall be; until [`Maps::complete`] it can be taken back. How the kernel's tables are changed is
//! a matter of [`super::tables`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::Map;
use mcr_core::action::{PlaneChange, PlaneRule, RuleId, Take};
use mcr_core::flow::AddressBlock;
use mcr_core::forward::FlowKey;
use mcr_core::link::IfIndex;
use mcr_core::rate::MaxRate;
use mcr_core::refusal::{Code, Refusal};

use super::abi::{self, RANGES_MAX, RawRange};
use super::ranges::{self, Interval};
use super::stats::Stats;
use super::tables::{Journal, Kind, Removal, Tables};
use crate::sys::Grace;

/// The maps, and what is in them.
pub(super) struct Maps {
    tables: Tables,
    stats: Stats,
    sizes: Sizes,
    rules: BTreeMap<RuleId, Installed>,
    flows: BTreeMap<FlowKey, Flow>,
    nodes: BTreeMap<NodeKey, Node>,
    own: BTreeSet<IpAddr>,
}

/// A rule as the tables have it.
#[derive(Debug, Clone)]
struct Installed {
    take: Take,
    rate: Option<MaxRate>,
    /// Of every slot that leads to it.
    value: u64,
    outputs: (u32, u32),
}

/// Where the rules of a flow, or of an interval of ports, are found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    slot: u32,
    /// When it depends on the source: the slot of each.
    sources: BTreeMap<IpAddr, u32>,
}

#[derive(Debug, Clone)]
struct Flow {
    takers: BTreeSet<RuleId>,
    place: Place,
}

type NodeKey = (IfIndex, AddressBlock);

#[derive(Debug, Clone)]
struct Node {
    number: u32,
    intervals: Vec<Interval>,
    places: Vec<Place>,
    ranges: (u32, u32),
}

/// What a change has done so far, to be taken back or to be completed: what is new in the place of
/// what, or gone.
#[derive(Default)]
pub(super) struct Pending {
    journal: Journal,
    rules: BTreeMap<RuleId, Option<Installed>>,
    flows: BTreeMap<FlowKey, Option<Flow>>,
    nodes: BTreeMap<NodeKey, Option<Node>>,
}

impl Maps {
    /// Takes the maps over from a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, sizes: Sizes, grace: Grace) -> Result<Self, Refusal> {
        Ok(Self {
            tables: Tables::take(ebpf, sizes, grace)?,
            stats: Stats::take(ebpf)?,
            sizes,
            rules: BTreeMap::new(),
            flows: BTreeMap::new(),
            nodes: BTreeMap::new(),
            own: BTreeSet::new(),
        })
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(super) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Installs what a change installs, if there is room. Until [`Maps::complete`] it can be taken back.
    pub(super) fn install(&mut self, change: &PlaneChange) -> Result<Pending, Refusal> {
        let fits = |id: u32, size: u32| {
            let why = "more ids of rules or outputs than the eBPF maps have room for";
            if id < size {
                Ok(())
            } else {
                Err(Refusal::new(Code::Capacity, why, "raise [limits]"))
            }
        };
        change.fresh_rules.iter().try_for_each(|id| fits(id.0, self.sizes.rules))?;
        change.fresh_outputs.iter().try_for_each(|id| fits(id.0, self.sizes.outputs))?;
        self.stats.zero(change)?;
        let mut pending = Pending::default();
        match self.install_into(change, &mut pending) {
            Ok(()) => Ok(pending),
            Err(refusal) => {
                self.take_back(pending);
                Err(refusal)
            }
        }
    }

    fn install_into(&mut self, change: &PlaneChange, pending: &mut Pending) -> Result<(), Refusal> {
        for address in change.own.difference(&self.own) {
            self.tables.insert_own(&mut pending.journal, *address)?;
        }
        for rule in &change.install {
            self.install_rule(rule, pending)?;
        }
        for id in &change.remove {
            if let Some(old) = self.rules.get(id) {
                give_up_outputs(&mut pending.journal, old);
                pending.rules.insert(*id, None);
            }
        }
        // The flows that are touched, each with the new rules that take it.
        let mut flows: BTreeMap<FlowKey, BTreeSet<RuleId>> = BTreeMap::new();
        let mut sides = BTreeSet::new();
        for (id, new) in &pending.rules {
            let old = self.rules.get(id).map(|old| (old, false));
            for (Installed { take, .. }, new) in
                old.into_iter().chain(new.as_ref().map(|n| (n, true)))
            {
                if take.is_range() {
                    sides.insert((take.interface, take.addresses.first().is_ipv6()));
                } else {
                    flows.entry(flow(take)).or_default().extend(new.then_some(id));
                }
            }
        }
        for (key, new) in flows {
            self.install_flow(key, new, pending)?;
        }
        sides.into_iter().try_for_each(|side| self.install_nodes(side, pending))
    }

    /// Writes what the rule leads to; nothing leads to it yet.
    fn install_rule(&mut self, rule: &PlaneRule, pending: &mut Pending) -> Result<(), Refusal> {
        let old = self.rules.get(&rule.id);
        let before = old.and_then(|old| old.rate);
        let journal = &mut pending.journal;
        let first = self.tables.write_outputs(journal, &rule.outputs)?;
        self.tables.set_rate(journal, rule.id.0, rule.max_rate, before)?;
        if let Some(old) = old {
            give_up_outputs(journal, old);
        }
        let installed = Installed {
            take: rule.take.clone(),
            rate: rule.max_rate,
            value: abi::slot(rule, first),
            outputs: (first, rule.outputs.len() as u32),
        };
        pending.rules.insert(rule.id, Some(installed));
        Ok(())
    }

    fn install_flow(
        &mut self,
        key: FlowKey,
        mut takers: BTreeSet<RuleId>,
        pending: &mut Pending,
    ) -> Result<(), Refusal> {
        let old = self.flows.get(&key).cloned();
        let kept = old.iter().flat_map(|old| &old.takers);
        takers.extend(kept.filter(|id| !pending.rules.contains_key(id)));
        let old = old.map(|old| old.place);
        if takers.is_empty() {
            if let Some(place) = old {
                pending.journal.give_up(Removal::Flow(key));
                give_up_place(&mut pending.journal, place);
            }
            pending.flows.insert(key, None);
            return Ok(());
        }
        let place = self.install_place(old.as_ref(), takers.iter(), pending)?;
        if old.is_none() {
            self.tables.insert_flow(&mut pending.journal, key, place.slot)?;
        }
        pending.flows.insert(key, Some(Flow { takers, place }));
        Ok(())
    }

    /// Lets a place, which may be new, lead to these rules.
    fn install_place<'i>(
        &mut self,
        old: Option<&Place>,
        takers: impl Iterator<Item = &'i RuleId>,
        pending: &mut Pending,
    ) -> Result<Place, Refusal> {
        let slot = match old {
            Some(old) => old.slot,
            None => self.tables.take_free(&mut pending.journal, Kind::Slots, 1)?,
        };
        let mut place = Place { slot, sources: BTreeMap::new() };
        let mut value = abi::BY_SOURCE;
        for id in takers {
            let new = pending.rules.get(id).map(Option::as_ref);
            let Some(rule) = new.unwrap_or_else(|| self.rules.get(id)) else { continue };
            if rule.take.sources.is_empty() {
                value = rule.value;
            }
            for source in &rule.take.sources {
                let known = old.and_then(|old| old.sources.get(source)).copied();
                let number = match known {
                    Some(number) => number,
                    None => self.tables.take_free(&mut pending.journal, Kind::Slots, 1)?,
                };
                self.tables.set_slot(&mut pending.journal, number, rule.value)?;
                if known.is_none() {
                    self.tables.insert_source(&mut pending.journal, (slot, *source), number)?;
                }
                place.sources.insert(*source, number);
            }
        }
        self.tables.set_slot(&mut pending.journal, slot, value)?;
        for (source, number) in old.into_iter().flat_map(|old| &old.sources) {
            if !place.sources.contains_key(source) {
                pending.journal.give_up(Removal::Source(slot, *source));
                pending.journal.give_up(Removal::Slot(*number));
            }
        }
        Ok(place)
    }

    /// All ranges of an interface and family, of which some have changed.
    fn install_nodes(
        &mut self,
        (interface, v6): (IfIndex, bool),
        pending: &mut Pending,
    ) -> Result<(), Refusal> {
        let here = |take: &Take| {
            take.is_range() && take.interface == interface && take.addresses.first().is_ipv6() == v6
        };
        let kept = self.rules.iter().filter(|(id, _)| !pending.rules.contains_key(id));
        let new = pending.rules.iter().filter_map(|(id, new)| Some((id, new.as_ref()?)));
        let takes = kept.chain(new).filter(|(_, rule)| here(&rule.take));
        let mut wanted = ranges::nodes(takes.map(|(id, rule)| (*id, &rule.take)));
        let there = self.nodes.range(sides(interface)).map(|((_, block), _)| *block);
        let there: Vec<_> = there.filter(|block| block.first().is_ipv6() == v6).collect();
        for block in there {
            let key = (interface, block);
            match wanted.remove(&block) {
                Some(intervals) => self.install_node(key, intervals, pending)?,
                None => {
                    let Some(node) = self.nodes.get(&key).cloned() else { continue };
                    pending.journal.give_up(Removal::Prefix(interface, block, node.number));
                    give_up_ranges(&mut pending.journal, node);
                    pending.nodes.insert(key, None);
                }
            }
        }
        wanted.into_iter().try_for_each(|(block, intervals)| {
            self.install_node((interface, block), intervals, pending)
        })
    }

    fn install_node(
        &mut self,
        key: NodeKey,
        intervals: Vec<Interval>,
        pending: &mut Pending,
    ) -> Result<(), Refusal> {
        let old = self.nodes.get(&key).cloned();
        let changed = |id: &RuleId| pending.rules.contains_key(id);
        let same = old.as_ref().is_some_and(|old| old.intervals == intervals);
        if same && !intervals.iter().flat_map(|interval| &interval.takers).any(changed) {
            return Ok(());
        }
        if intervals.len() > RANGES_MAX {
            let message = format!("more than {RANGES_MAX} ranges of ports for {}", key.1);
            let hint = "join neighbouring ranges into one, or use rules of single flows";
            return Err(Refusal::new(Code::Capacity, message, hint));
        }
        // New places for all: packets find the old ones until the node leads to the new.
        let mut places = Vec::with_capacity(intervals.len());
        let mut raw = Vec::with_capacity(intervals.len());
        for Interval { first, last, takers } in &intervals {
            let place = self.install_place(None, takers.iter(), pending)?;
            raw.push(RawRange { first: *first, last: *last, slot: place.slot });
            places.push(place);
        }
        let journal = &mut pending.journal;
        let first = self.tables.write_ranges(journal, &raw)?;
        let number = match &old {
            Some(old) => old.number,
            None => self.tables.take_free(journal, Kind::Nodes, 1)?,
        };
        let ranges = (first, raw.len() as u32);
        self.tables.set_node(journal, number, abi::node(ranges.0, ranges.1))?;
        match old {
            Some(old) => give_up_ranges(journal, old),
            None => self.tables.insert_prefix(journal, key, number)?,
        }
        pending.nodes.insert(key, Some(Node { number, intervals, places, ranges }));
        Ok(())
    }

    /// Brings back what was there before [`Maps::install`].
    pub(super) fn take_back(&mut self, pending: Pending) {
        self.tables.undo(pending.journal);
    }

    /// Removes what the change removes, waits until nothing uses it, and frees it.
    pub(super) fn complete(&mut self, pending: Pending, change: &PlaneChange) {
        let Pending { journal, rules, flows, nodes } = pending;
        self.tables.complete(journal);
        merge(&mut self.rules, rules);
        merge(&mut self.flows, flows);
        merge(&mut self.nodes, nodes);
        for address in self.own.difference(&change.own) {
            self.tables.remove_own(*address);
        }
        self.own.clone_from(&change.own);
    }
}

/// Number of elements: twice what rules may use, since a change adds before it removes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rules: u32,
    pub(super) outputs: u32,
}

impl Sizes {
    /// Sources of all flows and ranges, beside one slot a flow.
    pub(super) fn sources(self) -> u32 {
        self.rules.saturating_mul(2)
    }

    pub(super) fn slots(self) -> u32 {
        self.rules.saturating_add(self.ranges()).saturating_add(self.sources())
    }

    /// A range is repeated at every longer prefix within it.
    pub(super) fn ranges(self) -> u32 {
        self.rules.saturating_mul(2)
    }
}

/// The flow of an exact rule.
fn flow(take: &Take) -> FlowKey {
    let (interface, address) = (take.interface, take.addresses.first());
    FlowKey { interface, address, port: take.ports.first() }
}

/// The keys of all nodes of an interface.
fn sides(interface: IfIndex) -> std::ops::RangeInclusive<NodeKey> {
    let end = |address: IpAddr| (interface, AddressBlock::single(address));
    (interface, AddressBlock::lowest())..=end(std::net::Ipv6Addr::from_bits(u128::MAX).into())
}

fn give_up_outputs(journal: &mut Journal, rule: &Installed) {
    journal.give_up(Removal::Elements(Kind::Outputs, rule.outputs.0, rule.outputs.1));
}

fn give_up_place(journal: &mut Journal, place: Place) {
    for (source, number) in place.sources {
        journal.give_up(Removal::Source(place.slot, source));
        journal.give_up(Removal::Slot(number));
    }
    journal.give_up(Removal::Slot(place.slot));
}

fn give_up_ranges(journal: &mut Journal, node: Node) {
    node.places.into_iter().for_each(|place| give_up_place(journal, place));
    journal.give_up(Removal::Elements(Kind::Ranges, node.ranges.0, node.ranges.1));
}

fn merge<K: Ord, V>(map: &mut BTreeMap<K, V>, changes: BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => drop(map.remove(&key)),
        }
    }
}

pub(super) fn typed<T: TryFrom<Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<T, Refusal> {
    let map = ebpf.take_map(name).ok_or_else(|| no_map(name))?;
    T::try_from(map).map_err(|e| refused(name, &e))
}

pub(super) fn no_map(name: &str) -> Refusal {
    Refusal::new(Code::Internal, format!("the eBPF object has no map {name}"), "rebuild mcrd")
}

pub(super) fn refused(map: &str, error: &dyn std::error::Error) -> Refusal {
    let mut message = format!("the kernel refused the eBPF map {map}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Refusal::new(Code::Plane, message, "is memory short? `mcrctl status` shows the limits in force")
}
