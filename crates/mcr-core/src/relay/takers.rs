//! Which rule takes a packet, told to those who have seen it elsewhere.

use std::collections::BTreeMap;

use super::view::{Now, state};
use super::{Relay, State};
use crate::action::{PlaneChange, PlaneRule, RuleId, Take, ToStack};
use crate::flow::{Input, InterfaceName};
use crate::forward::ForwardTable;
use crate::link::{IfIndex, Link};
use crate::rule::RuleKey;

/// What the relay takes at one moment: its rules, running or not, on the interfaces that there are.
#[derive(Debug, Clone, Default)]
pub struct Takers {
    /// The interfaces, by name.
    pub interfaces: BTreeMap<InterfaceName, Link>,
    /// The rules, with no outputs.
    pub table: ForwardTable,
    /// What the rules are addressed by, with their states.
    pub rules: BTreeMap<RuleId, (RuleKey, State)>,
}

impl Takers {
    /// The name of an interface.
    pub fn name(&self, index: IfIndex) -> Option<&InterfaceName> {
        self.interfaces.iter().find(|(_, link)| link.index == index).map(|(name, _)| name)
    }
}

impl Relay {
    /// What it takes now.
    pub fn takers(&self, now: Now) -> Takers {
        let mut install = Vec::new();
        let mut rules = BTreeMap::new();
        for (key, running) in &self.running {
            let Some(entry) = self.table.entry(key) else { continue };
            let Input { sources, addresses, ports, interface } = &entry.rule.input;
            let Some(link) = self.links.by_name(interface) else { continue };
            let take = Take {
                interface: link.index,
                addresses: *addresses,
                ports: *ports,
                sources: sources.clone(),
            };
            let id = running.id;
            rules.insert(id, (key.clone(), state(entry, running, now).0));
            let (to_stack, max_rate, outputs) = (ToStack::Always, None, Vec::new());
            install.push(PlaneRule { id, take, to_stack, max_rate, outputs });
        }
        let mut table = ForwardTable::default();
        table.apply(PlaneChange { install, own: self.own.clone(), ..PlaneChange::default() });
        Takers { interfaces: self.links.interfaces.clone(), table, rules }
    }
}
