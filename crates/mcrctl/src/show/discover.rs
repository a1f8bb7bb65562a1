//! The streams that were seen, a line each, and below them what they do not show.

use std::collections::BTreeSet;
use std::fmt::Write;

use mcr_core::api::{Discovery, Range, StreamSeen};
use mcr_core::discover::STREAMS_MAX;
use mcr_core::flow::AddressBlock;
use mcr_core::relay::State;
use mcr_core::verdict::{Pass, RuleDrop};

use super::counted;
use super::table::{Side, Table};

pub(crate) fn discovery(found: &Discovery) -> String {
    let mut text = if found.streams.is_empty() { String::new() } else { table(&found.streams) };
    let taken = found.streams.iter().filter(|seen| seen.rule.is_some()).count();
    let interfaces = found.interfaces.join(", ");
    let (streams, seconds) = (counted(found.streams.len(), "stream"), found.seconds);
    let mut notes = vec![format!("{streams} on {interfaces} in {seconds} s, {taken} with a rule")];
    notes.extend(left_out(found));
    if found.missed > 0 {
        notes.push(format!(
            "the figures are too low by about {} packets, which came faster than they could be looked \
             at: name one interface, or look when less comes",
            found.missed
        ));
    }
    notes.extend(helps(found));
    if !text.is_empty() {
        text.push('\n');
    }
    for note in notes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{note}");
    }
    text
}

fn table(streams: &[StreamSeen]) -> String {
    use Side::{Left, Right};
    let mut table = Table::new([Left, Right, Left, Left, Right, Right, Right, Right, Left, Left]);
    let tagged = streams.iter().any(|seen| seen.vlan.is_some());
    let vlan = if tagged { "VLAN" } else { "" };
    table.row([
        "INTERFACE",
        vlan,
        "GROUP:PORT",
        "SOURCE",
        "PACKETS/S",
        "BITS/S",
        "TTL",
        "SIZE",
        "LOOKS",
        "RULE",
    ]);
    for seen in streams {
        let vlan = match seen.vlan {
            Some(vlan) => vlan.to_string(),
            None if tagged => "-".into(),
            None => String::new(),
        };
        table.row([
            &seen.interface,
            &vlan,
            &format!("{}:{}", AddressBlock::single(seen.group), seen.port),
            &seen.source.to_string(),
            &seen.rate.packets.to_string(),
            &seen.rate.bits.to_string(),
            &span(seen.ttl),
            &span(seen.size),
            &looks(seen),
            &rule(seen),
        ]);
        if seen.fragments > 0 {
            let (fragments, packets) = (seen.fragments, seen.received.packets);
            table.note(format!("  {fragments} of its {packets} packets are fragments"));
        }
    }
    table.to_string()
}

/// `8`, or `4-8`.
fn span(Range { min, max }: Range) -> String {
    if min == max { min.to_string() } else { format!("{min}-{max}") }
}

/// `rtp+ts,pt=33,ssrc=0x1a2b3c4d`, or a part of it.
fn looks(seen: &StreamSeen) -> String {
    match (seen.rtp, seen.ts) {
        (Some(rtp), ts) => {
            let ts = if ts { "+ts" } else { "" };
            format!("rtp{ts},pt={},ssrc={:#010x}", rtp.payload_type, rtp.ssrc)
        }
        (None, true) => "ts".into(),
        (None, false) => "-".into(),
    }
}

/// The rule, with its state where that keeps it from relaying; or why there is none.
fn rule(seen: &StreamSeen) -> String {
    let runs = [State::Forwarding.name(), State::Idle.name()];
    match (&seen.rule, seen.state.as_deref(), seen.pass.as_deref()) {
        (Some(rule), Some(state), _) if !runs.contains(&state) => format!("{rule} ({state})"),
        (Some(rule), _, _) => rule.clone(),
        (None, _, Some(pass)) if pass != Pass::NoRule.name() => format!("- ({pass})"),
        (None, _, _) => "-".into(),
    }
}

fn left_out(found: &Discovery) -> Option<String> {
    let what = |(reason, count): (&String, &u64)| {
        let packets = if *count == 1 { "packet" } else { "packets" };
        match reason.as_str() {
            "link-local" => format!("{count} {packets} of link-local groups"),
            "fragment" => {
                format!("{count} {packets} of datagrams whose first fragment was not seen")
            }
            "malformed" => format!("{count} malformed {packets}"),
            "too-many" => format!("{count} {packets} of streams beyond the first {STREAMS_MAX}"),
            other => format!("{count} {packets} ({other})"),
        }
    };
    let parts: Vec<String> = found.left_out.iter().map(what).collect();
    (!parts.is_empty()).then(|| format!("left out: {}", parts.join(", ")))
}

/// A line for each reason that the table shows.
fn helps(found: &Discovery) -> Vec<String> {
    let shown: BTreeSet<&str> =
        found.streams.iter().filter_map(|seen| seen.pass.as_deref()).collect();
    let own = (RuleDrop::Own.name(), RuleDrop::Own.help());
    let passes = [Pass::OtherSource, Pass::Tagged].map(|pass| (pass.name(), pass.help()));
    let known = passes.into_iter().chain([own]).filter(|(name, _)| shown.contains(name));
    known.map(|(name, help)| format!("{name}: {help}")).collect()
}
