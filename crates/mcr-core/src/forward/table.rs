//! The rules as a data plane looks them up.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use foldhash::fast::RandomState;

use crate::action::{FlowKey, PlaneChange, PlaneRule, RuleId};
use crate::link::IfIndex;

/// Rules by what they take, and the addresses that are MCR's own.
#[derive(Debug, Clone, Default)]
pub struct ForwardTable {
    rules: HashMap<FlowKey, PlaneRule, RandomState>,
    keys: HashMap<RuleId, FlowKey, RandomState>,
    own: BTreeSet<Ipv4Addr>,
}

impl ForwardTable {
    /// The loopback interface, where the host's own packets are not MCR's. It is the first of every
    /// network namespace (`LOOPBACK_IFINDEX` of net/flow.h).
    pub const LOOPBACK: IfIndex = IfIndex(1);

    /// Makes a change. Rules may exchange what they take.
    pub fn apply(&mut self, change: PlaneChange) {
        let gone = change.remove.iter().chain(change.install.iter().map(|rule| &rule.id));
        for key in gone.filter_map(|id| self.keys.remove(id)) {
            self.rules.remove(&key);
        }
        for rule in change.install {
            self.keys.insert(rule.id, rule.key);
            self.rules.insert(rule.key, rule);
        }
        self.own = change.own;
    }

    /// The rule that takes a flow.
    pub fn rule(&self, key: &FlowKey) -> Option<&PlaneRule> {
        self.rules.get(key)
    }

    /// All rules, in no order.
    pub fn rules(&self) -> impl Iterator<Item = &PlaneRule> {
        self.rules.values()
    }

    /// Whether MCR itself has sent what comes from `source` on `interface`.
    pub fn is_own(&self, source: Ipv4Addr, interface: IfIndex) -> bool {
        interface != Self::LOOPBACK && self.own.contains(&source)
    }
}
