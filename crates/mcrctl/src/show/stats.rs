//! The counters of rules and, indented, of their outputs, and below them what each reason for a
//! dropped packet means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use mcr_core::api::{OutputStats, RuleStats, SenderStats, Stats};
use mcr_core::flow::Destination;
use mcr_core::verdict::{OutputDrop, RuleDrop};

use super::dropped;
use super::table::{Side, Table};

pub(crate) fn stats(stats: &Stats) -> String {
    if stats.rules.is_empty() {
        return "no rules\n".into();
    }
    let numbers = [Side::Right; 4];
    let [a, b, c, d] = numbers;
    let mut table = Table::new([Side::Left, Side::Left, a, b, c, d, Side::Left]);
    table.row(["NAME", "STATE", "PACKETS/S", "BITS/S", "RECEIVED", "MATCHED", "DROPPED"]);
    table.row(["  TO", "", "", "", "OFFERED", "FORWARDED", "DROPPED"]);
    for rule in &stats.rules {
        let RuleStats { name, state, reason, received, matched, rate, outputs, .. } = rule;
        table.row([
            name,
            state,
            &rate.packets.to_string(),
            &rate.bits.to_string(),
            &received.packets.to_string(),
            &matched.packets.to_string(),
            &dropped(&rule.dropped),
        ]);
        if let Some(reason) = reason {
            table.note(format!("  {reason}"));
        }
        if stats.rules.len() == 1 && !rule.senders.is_empty() {
            table.note(format!("  {}", senders(&rule.senders)));
        }
        for output in outputs {
            let (offered, forwarded) = (output.offered.packets, output.forwarded.packets);
            table.row([
                &format!("  {}", output.to),
                "",
                "",
                "",
                &offered.to_string(),
                &forwarded.to_string(),
                &dropped(&output.dropped),
            ]);
        }
    }
    let mut text = table.to_string();
    let notes = [helps(stats), interface_drops(stats)].concat();
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{note}");
    }
    text
}

/// `senders 10.0.0.1 (1000), 10.0.0.3 (7)`, the latest first.
fn senders(senders: &[SenderStats]) -> String {
    let one = |sender: &SenderStats| format!("{} ({})", sender.address, sender.packets);
    format!("senders {}", senders.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// A line for each reason that appears.
fn helps(stats: &Stats) -> Vec<String> {
    let rules = stats.rules.iter().flat_map(|rule| rule.dropped.keys());
    let outputs = stats.rules.iter().flat_map(|rule| &rule.outputs);
    let outputs = outputs.flat_map(|output| output.dropped.keys());
    let (rules, outputs): (BTreeSet<&String>, BTreeSet<&String>) =
        (rules.collect(), outputs.collect());
    let of_rules = RuleDrop::ALL.into_iter().filter(|drop| rules.iter().any(|r| *r == drop.name()));
    let of_outputs =
        OutputDrop::ALL.into_iter().filter(|drop| outputs.iter().any(|r| *r == drop.name()));
    let of_rules = of_rules.map(|drop| format!("{}: {}", drop.name(), drop.help()));
    of_rules.chain(of_outputs.map(|drop| format!("{}: {}", drop.name(), drop.help()))).collect()
}

/// What interfaces have dropped behind MCR, which is in no sum of the table.
fn interface_drops(stats: &Stats) -> Vec<String> {
    let interface = |output: &OutputStats| {
        let to = output.to.parse::<Destination>().ok()?;
        Some((to.interface?, output.interface_dropped))
    };
    let outputs = stats.rules.iter().flat_map(|rule| &rule.outputs);
    let drops: BTreeMap<_, u64> =
        outputs.filter_map(interface).filter(|(_, count)| *count > 0).collect();
    let line = |(name, count)| {
        format!(
            "{name} itself has dropped {count} packets on sending since it exists, of all its \
             traffic: see `ip -s link show {name}`"
        )
    };
    drops.into_iter().map(line).collect()
}
