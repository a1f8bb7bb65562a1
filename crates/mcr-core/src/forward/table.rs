//! The rules as a data plane looks them up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::action::{PlaneChange, PlaneRule, RuleId, Take};
use crate::flow::{PortRange, masked};
use crate::link::IfIndex;
use crate::verdict::Pass;

/// What a packet is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Where it arrived.
    pub interface: IfIndex,
    /// Its destination address.
    pub address: IpAddr,
    /// Its destination port.
    pub port: u16,
}

/// What the table has for a packet.
#[derive(Debug)]
pub(super) enum Found<'t> {
    Rule(&'t PlaneRule),
    /// Rules for its destination, and all take other sources.
    OtherSource,
    Nothing,
}

/// A block's interface, first address and prefix length.
type Block = (IfIndex, IpAddr, u8);

/// Rules by what they take, and the addresses that are MCR's own.
#[derive(Debug, Clone, Default)]
pub struct ForwardTable {
    /// By id.
    rules: Vec<Option<PlaneRule>>,
    /// Several when their sources differ.
    exact: HashMap<FlowKey, Vec<RuleId>, RandomState>,
    /// With the ports of each.
    ranges: HashMap<Block, Vec<(PortRange, RuleId)>, RandomState>,
    /// Prefix lengths in use on an interface, IPv4 and IPv6, with how many blocks have them.
    prefixes: BTreeMap<(IfIndex, bool, u8), usize>,
    own: BTreeSet<IpAddr>,
}

impl ForwardTable {
    /// Makes a change. Rules may exchange what they take.
    pub fn apply(&mut self, change: PlaneChange) {
        let gone = change.remove.iter().chain(change.install.iter().map(|rule| &rule.id));
        for id in gone {
            let slot = self.rules.get_mut(id.0 as usize);
            if let Some(rule) = slot.and_then(Option::take) {
                self.forget(&rule);
            }
        }
        for rule in change.install {
            self.learn(&rule);
            let number = rule.id.0 as usize;
            if self.rules.len() <= number {
                self.rules.resize(number + 1, None);
            }
            self.rules[number] = Some(rule);
        }
        self.own = change.own;
    }

    fn learn(&mut self, rule: &PlaneRule) {
        if rule.take.is_range() {
            let (block, prefix) = places(&rule.take);
            self.ranges.entry(block).or_default().push((rule.take.ports, rule.id));
            *self.prefixes.entry(prefix).or_default() += 1;
        } else {
            self.exact.entry(flow(&rule.take)).or_default().push(rule.id);
        }
    }

    fn forget(&mut self, rule: &PlaneRule) {
        if !rule.take.is_range() {
            let key = flow(&rule.take);
            let left = self.exact.get_mut(&key).is_some_and(|ids| {
                ids.retain(|id| *id != rule.id);
                !ids.is_empty()
            });
            if !left {
                self.exact.remove(&key);
            }
            return;
        }
        let (block, prefix) = places(&rule.take);
        let left = self.ranges.get_mut(&block).is_some_and(|ids| {
            ids.retain(|(_, id)| *id != rule.id);
            !ids.is_empty()
        });
        if !left {
            self.ranges.remove(&block);
        }
        if let Some(count) = self.prefixes.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }

    /// The rule that takes a packet: an exact one before a range.
    pub(super) fn find(&self, key: &FlowKey, source: IpAddr) -> Found<'_> {
        let exact = self.exact.get(key).into_iter().flatten().copied();
        let mut other = false;
        let mut takes = |id: RuleId| {
            let rule = self.rules.get(id.0 as usize)?.as_ref()?;
            let takes = rule.take.takes_from(source);
            other |= !takes;
            takes.then_some(rule)
        };
        for id in exact {
            if let Some(rule) = takes(id) {
                return Found::Rule(rule);
            }
        }
        let v6 = key.address.is_ipv6();
        let lengths = (key.interface, v6, 0)..=(key.interface, v6, 128);
        for ((_, _, length), _) in self.prefixes.range(lengths).rev() {
            let block = (key.interface, masked(key.address, *length), *length);
            let here = self.ranges.get(&block).into_iter().flatten();
            for (_, id) in here.filter(|(ports, _)| ports.contains(key.port)) {
                if let Some(rule) = takes(*id) {
                    return Found::Rule(rule);
                }
            }
        }
        if other { Found::OtherSource } else { Found::Nothing }
    }

    /// The rule that takes a packet, or why none does.
    pub fn taker(&self, key: &FlowKey, source: IpAddr) -> Result<RuleId, Pass> {
        match self.find(key, source) {
            Found::Rule(rule) => Ok(rule.id),
            Found::OtherSource => Err(Pass::OtherSource),
            Found::Nothing => Err(Pass::NoRule),
        }
    }

    /// The rule of that id.
    pub fn rule(&self, id: RuleId) -> Option<&PlaneRule> {
        self.rules.get(id.0 as usize)?.as_ref()
    }

    /// All rules, by id.
    pub fn rules(&self) -> impl Iterator<Item = &PlaneRule> {
        self.rules.iter().flatten()
    }

    /// Whether MCR itself has sent what comes from `source` on `interface`. On the loopback interface
    /// the host's own packets are not MCR's.
    pub fn is_own(&self, source: IpAddr, interface: IfIndex) -> bool {
        interface != IfIndex::LOOPBACK && self.own.contains(&source)
    }
}

fn flow(take: &Take) -> FlowKey {
    let (interface, address) = (take.interface, take.addresses.first());
    FlowKey { interface, address, port: take.ports.first() }
}

/// Where a block stands, and the length of its prefix.
fn places(take: &Take) -> (Block, (IfIndex, bool, u8)) {
    let Take { interface, addresses, .. } = take;
    let (first, length) = (addresses.first(), addresses.prefix());
    ((*interface, first, length), (*interface, first.is_ipv6(), length))
}
