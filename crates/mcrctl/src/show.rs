//! What replies look like for people. Pure: texts with aligned columns and raw numbers, no box
//! drawing and no colours, so that `awk` can read them too.

mod loss;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;
use std::fmt::Write;

use mcr_core::api::{Change, Dropped, InterfaceStatus, OutputSpec, RuleList, RuleView, Status};
use mcr_core::relay::State;
use mcr_core::rule::Rule;

pub(crate) use stats::stats;
use table::{Side, Table};
pub(crate) use workers::workers;

/// All rules, a line each and a further line for each further output.
pub(crate) fn list(list: &RuleList) -> String {
    if list.rules.is_empty() {
        return "no rules\n".into();
    }
    let mut table = Table::new([Side::Left; 5]);
    table.row(["NAME", "STATE", "ORIGIN", "INPUT", "OUTPUTS"]);
    for view in &list.rules {
        let RuleView { name, named, origin, state, reason, warnings, rule } = view;
        let outputs: Vec<String> = rule.outputs.iter().map(OutputSpec::to_string).collect();
        let first = outputs.first().map_or("-", String::as_str);
        let name = if *named { name } else { "-" };
        table.row([name, state, origin, &input(view), first]);
        for output in outputs.iter().skip(1) {
            table.row(["", "", "", "", output]);
        }
        if let Some(rate) = &rule.max_rate {
            table.note(format!("  at most {rate}"));
        }
        for note in reason.iter().chain(warnings) {
            table.note(format!("  {note}"));
        }
    }
    table.to_string()
}

/// Rules in full.
pub(crate) fn rules(list: &RuleList) -> String {
    let texts: Vec<String> = list.rules.iter().map(rule).collect();
    texts.join("\n")
}

fn rule(view: &RuleView) -> String {
    let RuleView { name, named, origin, state, reason, warnings, rule } = view;
    let mut table = Table::new([Side::Left; 2]);
    table.row(["name", if *named { name } else { "-" }]);
    table.row(["state", state]);
    table.row(["reason", reason.as_deref().unwrap_or("-")]);
    for warning in warnings {
        table.row(["warning", warning]);
    }
    table.row(["origin", origin]);
    table.row(["comment", rule.comment.as_deref().unwrap_or("-")]);
    table.row(["input", &input(view)]);
    if many_sources(view) {
        for source in &rule.sources {
            table.row(["source", source]);
        }
    }
    table.row(["enabled", if rule.enabled { "yes" } else { "no" }]);
    table.row(["local", rule.local.as_deref().unwrap_or("auto")]);
    table.row(["join", rule.join.as_deref().unwrap_or("yes")]);
    table.row(["max_rate", rule.max_rate.as_deref().unwrap_or("none")]);
    table.row(["silence", rule.silence.as_deref().unwrap_or(DEFAULT_SILENCE)]);
    table.row(["inspect", rule.inspect.as_deref().unwrap_or("none")]);
    for output in &rule.outputs {
        let text = |setting: &Option<mcr_core::api::Setting>, default: &str| {
            setting.as_ref().map_or_else(|| default.to_owned(), ToString::to_string)
        };
        let (ttl, dscp) = (text(&output.ttl, DEFAULT_TTL), text(&output.dscp, "keep"));
        table.row(["output", &format!("{}  ttl {ttl}  dscp {dscp}", output.to)]);
    }
    table.to_string()
}

/// With its sources in front of it: the first and how many more, where they are many.
fn input(view: &RuleView) -> String {
    let Ok(Rule { mut input, .. }) = view.rule.check() else { return view.rule.input.clone() };
    if !many_sources(view) {
        return input.to_string();
    }
    let more = input.sources.len() - 1;
    input.sources.truncate(1);
    input.to_string().replacen('@', &format!(",+{more}@"), 1)
}

/// Whether the sources would make a line too long. A rule without a name is called by them.
fn many_sources(view: &RuleView) -> bool {
    view.named && view.rule.sources.len() > SOURCES_IN_A_LINE
}

/// What `mcrd` is and does.
pub(crate) fn status(status: &Status) -> String {
    let mut table = Table::new([Side::Left; 2]);
    table.row(["version", &status.version]);
    table.row(["instance", &status.instance]);
    table.row(["process", &status.pid.to_string()]);
    table.row(["since", &status.since]);
    table.row(["boot id", &status.boot_id]);
    table.row(["plane", &format!("{} ({})", status.plane, status.attach)]);
    if let Some(why) = &status.why {
        table.row(["why", why]);
    }
    table.row(["generation", &status.generation.to_string()]);
    table.row(["rules", &states(&status.states)]);
    let (rules, outputs) = (status.rules_max, status.outputs_max);
    table.row(["limits", &format!("{rules} rules, {outputs} outputs")]);
    let sockets = counted(status.membership_sockets, "socket");
    table.row(["memberships", &format!("on {sockets}")]);
    if let Some(cost) = status.program {
        let each = cost.nanoseconds.checked_div(cost.runs).unwrap_or_default();
        table.row(["program", &format!("{} runs of {each} ns", cost.runs)]);
    }
    for interface in &status.interfaces {
        let InterfaceStatus { name, index, groups, passed, lost_before } = interface;
        let groups = counted(*groups, "group");
        let passed = dropped(passed);
        table.row([
            "interface",
            &format!("{name}  index {index}  {groups} joined  passed {passed}"),
        ]);
        if !lost_before.is_empty() {
            table.row(["lost before", &format!("{name}  {}", dropped(lost_before))]);
        }
    }
    if let Some(count) = status.softnet_dropped.filter(|count| *count > 0) {
        table.row(["softnet", &format!("{count} dropped on the whole host")]);
    }
    for (name, text) in workers::summary(&status.workers) {
        table.row([name, &text]);
    }
    let mut text = table.to_string();
    // Writing to a String cannot fail.
    let helps = loss::helps(status);
    if !helps.is_empty() {
        let _ = writeln!(text, "\n{}", helps.join("\n"));
    }
    if status.rules_in_no_file > 0 {
        let (rules, verb, them) = match status.rules_in_no_file {
            1 => ("1 rule".to_owned(), "is", "it"),
            count => (counted(count, "rule"), "are", "them"),
        };
        let _ = writeln!(text, "\n{rules} {verb} in no file (mcrctl save --to FILE writes {them})");
    }
    text
}

/// `3: 1 forwarding, 2 idle`, states in their usual order, those without rules left out.
fn states(states: &BTreeMap<String, usize>) -> String {
    let place = |state: &str| State::ALL.iter().position(|known| known.name() == state);
    let mut present: Vec<(&String, &usize)> =
        states.iter().filter(|(_, count)| **count > 0).collect();
    present.sort_by_key(|(state, _)| place(state).unwrap_or(State::ALL.len()));
    let parts: Vec<String> =
        present.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let total: usize = states.values().sum();
    if parts.is_empty() { total.to_string() } else { format!("{total}: {}", parts.join(", ")) }
}

/// One short line for a change that was asked for by name.
pub(crate) fn done(change: &Change) -> String {
    let kinds =
        [("added", &change.added), ("changed", &change.replaced), ("removed", &change.removed)];
    let present = kinds.iter().filter(|(_, names)| !names.is_empty());
    let lines: String =
        present.map(|(verb, names)| format!("{verb} {}\n", names.join(", "))).collect();
    if lines.is_empty() { NOTHING.into() } else { lines }
}

/// A line for each rule that differs, and a summary.
pub(crate) fn difference(change: &Change, dry_run: bool) -> String {
    let kinds = [("+", &change.added), ("~", &change.replaced), ("-", &change.removed)];
    let lines: String = kinds
        .iter()
        .flat_map(|(sign, names)| names.iter().map(move |name| format!("{sign} {name}\n")))
        .collect();
    if lines.is_empty() {
        return NOTHING.into();
    }
    let [added, changed, removed] = kinds.map(|(_, names)| names.len());
    let would = if dry_run { "would be " } else { "" };
    format!("{lines}{would}{added} added, {changed} changed, {removed} removed\n")
}

/// `own=1 fragment=2`, or `-`.
fn dropped(reasons: &Dropped) -> String {
    let parts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
    if parts.is_empty() { "-".into() } else { parts.join(" ") }
}

/// `1 rule`, `2 rules`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{s}")
}

const SOURCES_IN_A_LINE: usize = 3;
const NOTHING: &str = "nothing to change\n";
/// That of `mcr_core::rule::Ttl::default()`.
const DEFAULT_TTL: &str = "32";
/// Of a rule that does not say.
const DEFAULT_SILENCE: &str = "10s";
