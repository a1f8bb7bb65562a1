//! Whether a rule runs, and whether its outputs lead anywhere. What an interface lacks is said of the
//! interface.

use super::{Checks, Evidence, RuleEvidence, Topic};
use crate::link::LinkKind;
use crate::refusal::{Code, Refusal};
use crate::relay::State;
use crate::resolve::{Part, Resolved};
use crate::rule::Output;
use crate::verdict::OutputDrop;

pub(super) fn judge(
    evidence: &Evidence,
    (rule, resolved): (&RuleEvidence, &Resolved),
    checks: &mut Checks,
) {
    let facts = &rule.facts;
    let link = evidence.links.by_name(&facts.rule.input.interface);
    let usable = link.is_some_and(|link| link.up && !matches!(link.kind, LinkKind::Other(_)));
    state(rule, (resolved, usable), checks);
    for (position, output) in facts.rule.outputs.iter().enumerate() {
        let absent = resolved.plane.as_ref().and_then(|plane| plane.outputs[position].absent);
        let missing = resolved.missing.iter().find(|m| m.part == Part::Output(position));
        path(rule, output, (absent, missing.map(|missing| &missing.refusal)), checks);
    }
}

fn state(rule: &RuleEvidence, input: (&Resolved, bool), checks: &mut Checks) {
    let facts = &rule.facts;
    match (&facts.problem, facts.state) {
        (_, State::Disabled) => checks.warning(
            Topic::RuleState,
            &facts.key,
            ("is disabled".into(), format!("mcrctl enable {}", facts.key)),
        ),
        (Some(refusal), _) if said_elsewhere(refusal, input) => {
            let found = format!("{}, as another check says", facts.state.name());
            checks.ok(Topic::RuleState, &facts.key, found);
        }
        (Some(Refusal { message, hint, .. }), state) => checks.problem(
            Topic::RuleState,
            &facts.key,
            (format!("{}: {message}", state.name()), hint.clone()),
        ),
        (None, state) => checks.ok(Topic::RuleState, &facts.key, state.name()),
    }
}

/// Checks of interfaces, addresses, routes and limits name what is missing. That the address of a
/// unicast input is not of this host has no check of its own.
fn said_elsewhere(refusal: &Refusal, (resolved, usable): (&Resolved, bool)) -> bool {
    let of_an_output = resolved.missing.iter().any(|missing| missing.part != Part::Input);
    refusal.code == Code::Join || !usable || refusal.code == Code::Machine && of_an_output
}

fn path(
    rule: &RuleEvidence,
    output: &Output,
    (absent, refusal): (Option<OutputDrop>, Option<&Refusal>),
    checks: &mut Checks,
) {
    let subject = format!("{} to {}", rule.facts.key, output.to);
    let finding = || {
        let (message, hint) = refusal.map_or_else(Default::default, |refusal| {
            let about = format!("output {}: ", output.to);
            let message = refusal.message.strip_prefix(&about).unwrap_or(&refusal.message);
            (message.to_owned(), refusal.hint.clone())
        });
        (message, hint)
    };
    match absent {
        Some(OutputDrop::NoAddress) => checks.problem(Topic::Address, subject, finding()),
        Some(OutputDrop::NoRoute | OutputDrop::NoNeighbour) => {
            checks.problem(Topic::Route, subject, finding());
        }
        // By the checks of the interface.
        Some(OutputDrop::InterfaceDown | OutputDrop::InterfaceGone) => {}
        Some(
            OutputDrop::Mtu
            | OutputDrop::TtlExpired
            | OutputDrop::QueueFull
            | OutputDrop::NoMemory
            | OutputDrop::Refused,
        ) => {}
        None if output.to.addresses.first().is_multicast() => {}
        None => checks.ok(Topic::Route, subject, "the way is known, and the neighbour answers"),
    }
}
