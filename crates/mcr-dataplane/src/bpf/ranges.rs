//! Ranges as the program looks them up: a longest-prefix match finds a node, and a binary search in
//! its port ranges the slot. Since the match ends at the longest prefix, a node also has the ranges of
//! all shorter prefixes around it.

use std::collections::{BTreeMap, BTreeSet};

use mcr_core::action::{RuleId, Take};
use mcr_core::flow::AddressBlock;

/// Ports at a node, and the rules that take them: several when their sources differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) takers: Vec<RuleId>,
}

/// The nodes for all ranges of one interface and family.
pub(super) fn nodes<'t>(
    takes: impl Iterator<Item = (RuleId, &'t Take)>,
) -> BTreeMap<AddressBlock, Vec<Interval>> {
    let mut blocks: BTreeMap<AddressBlock, Vec<(RuleId, &Take)>> = BTreeMap::new();
    for (id, take) in takes {
        blocks.entry(take.addresses).or_default().push((id, take));
    }
    // In the order of their first addresses, of which the shortest prefix first: what is around a
    // block comes before it.
    let mut nodes = BTreeMap::new();
    let mut around: Vec<(AddressBlock, &[(RuleId, &Take)])> = Vec::new();
    for (block, own) in &blocks {
        while around.last().is_some_and(|(outer, _)| !outer.contains(block.first())) {
            around.pop();
        }
        around.push((*block, own));
        nodes.insert(*block, intervals(around.iter().flat_map(|(_, takes)| takes.iter().copied())));
    }
    nodes
}

/// The ports cut where a rule begins or ends.
fn intervals<'t>(takes: impl Iterator<Item = (RuleId, &'t Take)>) -> Vec<Interval> {
    let mut begins: BTreeMap<u32, Vec<RuleId>> = BTreeMap::new();
    let mut ends: BTreeMap<u32, Vec<RuleId>> = BTreeMap::new();
    for (id, take) in takes {
        begins.entry(take.ports.first().into()).or_default().push(id);
        ends.entry(u32::from(take.ports.last()) + 1).or_default().push(id);
    }
    let cuts: BTreeSet<u32> = begins.keys().chain(ends.keys()).copied().collect();
    let mut taking: BTreeSet<RuleId> = BTreeSet::new();
    let mut intervals = Vec::new();
    let mut from = None;
    for cut in cuts {
        if let Some(first) = from.filter(|_| !taking.is_empty()) {
            let takers = taking.iter().copied().collect();
            intervals.push(Interval { first, last: (cut - 1) as u16, takers });
        }
        for id in ends.get(&cut).into_iter().flatten() {
            taking.remove(id);
        }
        taking.extend(begins.get(&cut).into_iter().flatten());
        from = Some(cut as u16);
    }
    intervals
}

#[cfg(test)]
mod tests {
    use mcr_core::flow::Input;
    use mcr_core::link::IfIndex;

    use super::*;

    fn shown(inputs: &[&str]) -> Vec<String> {
        let take = |text: &&str| {
            let Input { sources, addresses, ports, .. } =
                format!("{text}@eth0").parse::<Input>().unwrap();
            Take { interface: IfIndex(2), addresses, ports, sources }
        };
        let takes: Vec<Take> = inputs.iter().map(take).collect();
        let nodes = nodes((0..).map(RuleId).zip(&takes));
        let interval = |Interval { first, last, takers }: &Interval| {
            let takers: Vec<String> = takers.iter().map(|id| id.0.to_string()).collect();
            format!("{first}-{last}={}", takers.join("+"))
        };
        let line = |(block, intervals): (&AddressBlock, &Vec<Interval>)| {
            let intervals: Vec<String> = intervals.iter().map(interval).collect();
            format!("{block} {}", intervals.join(" "))
        };
        nodes.iter().map(line).collect()
    }

    #[test]
    fn a_node_has_the_ranges_around_it_too() {
        let inputs = [
            "239.0.0.0/8:5000",
            "239.1.0.0/16:6000-6010",
            "239.1.1.0/24:7000",
            "239.2.1.1:65530-65535",
        ];
        let expected = [
            "239.0.0.0/8 5000-5000=0",
            "239.1.0.0/16 5000-5000=0 6000-6010=1",
            "239.1.1.0/24 5000-5000=0 6000-6010=1 7000-7000=2",
            "239.2.1.1 5000-5000=0 65530-65535=3",
        ];
        assert_eq!(shown(&inputs), expected);
    }

    #[test]
    fn ports_that_several_sources_share_are_cut() {
        let inputs = ["10.0.0.1@239.1.0.0/16:5000-5010", "10.0.0.2@239.1.0.0/16:5005-5020"];
        let expected = ["239.1.0.0/16 5000-5004=0 5005-5010=0+1 5011-5020=1"];
        assert_eq!(shown(&inputs), expected);
        assert_eq!(shown(&["[ff3e::8000:0]/112:1-65535"]), ["[ff3e::8000:0]/112 1-65535=0"]);
    }
}
