//! What an output sends: whether others send it too, and what was dropped.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::doctor::interfaces::leaves_by;
use crate::doctor::seen::{Flow, Seen};
use crate::doctor::{Checks, Evidence, RuleEvidence, Topic, counted, some_of, span};
use crate::resolve::Resolved;
use crate::rule::Output;
use crate::verdict::{OutputDrop, RuleDrop};

/// Who else sends what this output sends, seen on its interface.
pub(super) fn second_relays(
    evidence: &Evidence,
    seen: &Seen,
    (rule, resolved): (&RuleEvidence, &Resolved),
    checks: &mut Checks,
) {
    for (position, output) in rule.facts.rule.outputs.iter().enumerate() {
        let own = resolved.plane.as_ref().and_then(|plane| plane.outputs[position].source);
        if output.to.addresses.first().is_multicast() {
            second_relay(evidence, seen, (rule, output, own), checks);
        }
    }
}

fn second_relay(
    evidence: &Evidence,
    seen: &Seen,
    (rule, output, own): (&RuleEvidence, &Output, Option<IpAddr>),
    checks: &mut Checks,
) {
    let to = &output.to;
    let Some(link) =
        leaves_by(output, &evidence.links).and_then(|name| evidence.links.by_name(&name))
    else {
        return;
    };
    let subject = format!("{} to {to}", rule.facts.key);
    let ports = to.ports.unwrap_or(rule.facts.rule.input.ports);
    let other = |flow: &Flow| match own {
        _ if !flow.outgoing => true,
        Some(own) => flow.source != own,
        None => false,
    };
    let flows = seen.to(to.addresses, Some(ports));
    let others: Vec<_> = flows.filter(|(f, _)| f.interface == link.index && other(f)).collect();
    if others.is_empty() {
        return checks.ok(Topic::SecondRelay, subject, "nobody else sends to it here");
    }
    let from: BTreeSet<IpAddr> = others.iter().map(|(flow, _)| flow.source).collect();
    let packets: u64 = others.iter().map(|(_, sight)| sight.packets).sum();
    let back = own.is_some_and(|own| others.iter().any(|(f, _)| !f.outgoing && f.source == own));
    let found = if back {
        format!("{packets} of its packets come back, from {}", some_of(from))
    } else {
        format!("{} sends to it too ({packets} packets): receivers get both", some_of(from))
    };
    let remedy = "look for a second relay or sender of this group, or for a loop in the network: stop one, \
                  or give this output another group or port";
    checks.warning(Topic::SecondRelay, subject, (found, remedy.into()));
}

/// What was dropped while it was watched; what was dropped before is past.
pub(super) fn drops(evidence: &Evidence, rule: &RuleEvidence, checks: &mut Checks) {
    let facts = &rule.facts;
    let Some((before, outputs)) = &rule.before else { return };
    // What comes back from an output is no loss.
    let reasons = RuleDrop::ALL.into_iter().filter(|drop| *drop != RuleDrop::Own);
    let mut grown: Vec<(u64, &str, &str)> = Vec::new();
    let mut past: u64 = 0;
    for drop in reasons {
        let (now, then) = (facts.counters.dropped[drop as usize], before.dropped[drop as usize]);
        grown.push((now.saturating_sub(then), drop.name(), drop.help()));
        past += now;
    }
    for drop in OutputDrop::ALL {
        let index = drop as usize;
        let now: u64 = facts.outputs.iter().map(|output| output.dropped[index]).sum();
        let then: u64 = outputs.iter().map(|output| output.dropped[index]).sum();
        grown.push((now.saturating_sub(then), drop.name(), drop.help()));
        past += now;
    }
    let duration = span(evidence.duration);
    let Some((packets, name, help)) = grown.into_iter().filter(|(n, ..)| *n > 0).max() else {
        let found = if past == 0 {
            "none since the rule exists".to_owned()
        } else {
            format!("none in {duration}, {past} since the rule exists")
        };
        return checks.ok(Topic::Drops, &facts.key, found);
    };
    let found = format!("{} dropped in {duration} as {name}", counted(packets, "packet"));
    checks.problem(Topic::Drops, &facts.key, (found, help.to_owned()));
}
