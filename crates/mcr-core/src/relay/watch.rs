//! What an inspector has to know.

use std::collections::BTreeSet;

use super::Relay;
use crate::inspect::{WatchList, Watched};
use crate::link::IfIndex;

impl Relay {
    /// Grows with every change of what runs.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The rules that are inspected, and those beside them.
    pub fn watch_list(&self) -> WatchList {
        let all = || {
            self.running.iter().filter_map(|(key, running)| {
                Some((key, &self.table.entry(key)?.rule, running.installed.as_ref()))
            })
        };
        let inspected = all().filter(|(_, rule, _)| rule.inspect.is_some());
        let interfaces: BTreeSet<IfIndex> =
            inspected.filter_map(|(.., plane)| Some(plane?.take.interface)).collect();
        let beside = |take: &crate::action::Take| interfaces.contains(&take.interface);
        let rules = all().filter(|(_, rule, plane)| {
            rule.inspect.is_some() || plane.is_some_and(|plane| beside(&plane.take))
        });
        let watched = rules.map(|(key, rule, plane)| Watched {
            key: key.clone(),
            input: rule.input.clone(),
            inspect: rule.inspect,
            take: plane.map(|plane| plane.take.clone()),
        });
        let rules: Vec<Watched> = watched.collect();
        let own = if rules.is_empty() { BTreeSet::new() } else { self.own.clone() };
        WatchList { rules, own }
    }
}
