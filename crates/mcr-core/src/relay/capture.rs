//! Where the packets of a rule are to be seen.

use super::{Problem, Relay, Running};
use crate::action::{PlaneOutput, PlaneRule, Take};
use crate::capture::pcap::LinkType;
use crate::capture::{Plan, Point, Question, Side};
use crate::link::{IfIndex, LinkKind};
use crate::refusal::{Code, Refusal};
use crate::rule::Rule;
use crate::table::unknown_rule;

impl Relay {
    /// What a capture has to look at, as the rule is now.
    pub fn capture(&self, question: &Question) -> Result<Plan, Refusal> {
        let Question { rule: key, side, .. } = question;
        let unknown = || unknown_rule(key);
        let entry = self.table.entry(key).ok_or_else(unknown)?;
        let running = self.running.get(key).ok_or_else(unknown)?;
        if !entry.rule.enabled {
            let hint = format!("enable it first: mcrctl enable {key}");
            let message = format!("rule {key} is disabled: it has no packets");
            return Err(Refusal::new(Code::Invalid, message, hint));
        }
        let installed = running.installed.as_ref().ok_or_else(|| not_there(running, question))?;
        let points = match side {
            Side::In => vec![Point::input(&installed.take)],
            Side::Out => outputs(question, &entry.rule, installed)?,
        };
        if points.is_empty() {
            return Err(not_there(running, question));
        }
        let others = match side {
            Side::In if installed.take.is_range() => self.within(&installed.take),
            Side::In | Side::Out => Vec::new(),
        };
        Ok(Plan { link: self.link_of(&points, question)?, points, others })
    }

    /// What exact rules take of a range: they win.
    fn within(&self, range: &Take) -> Vec<Take> {
        let takes =
            self.running.values().filter_map(|running| Some(&running.installed.as_ref()?.take));
        let exact = takes.filter(|take| {
            !take.is_range()
                && take.interface == range.interface
                && range.addresses.contains(take.addresses.first())
                && range.ports.contains(take.ports.first())
        });
        exact.cloned().collect()
    }

    fn link_of(&self, points: &[Point], question: &Question) -> Result<LinkType, Refusal> {
        let kind = |index: IfIndex| {
            let link = self.links.interfaces.values().find(|link| link.index == index);
            match link.map(|link| link.kind) {
                Some(LinkKind::Bare) => LinkType::Raw,
                Some(LinkKind::Ethernet | LinkKind::Loopback | LinkKind::Other(_)) | None => {
                    LinkType::Ethernet
                }
            }
        };
        let first = kind(points[0].interface);
        if points.iter().all(|point| kind(point.interface) == first) {
            return Ok(first);
        }
        Err(Refusal::new(
            Code::Invalid,
            format!(
                "outputs of rule {} leave by interfaces with Ethernet headers and by others without: \
                 one capture cannot hold both",
                question.rule
            ),
            "choose an output: --output TO (`mcrctl list` shows them)",
        ))
    }
}

/// What leaves by the outputs that are asked for; those that cannot send now have no place.
fn outputs(question: &Question, rule: &Rule, installed: &PlaneRule) -> Result<Vec<Point>, Refusal> {
    let wanted = |to| question.output.as_ref().is_none_or(|only| only == to);
    let both = rule.outputs.iter().zip(&installed.outputs);
    let found: Vec<&PlaneOutput> =
        both.filter(|(output, _)| wanted(&output.to)).map(|(_, plane)| plane).collect();
    if let Some(output) = question.output.as_ref().filter(|_| found.is_empty()) {
        let all: Vec<String> = rule.outputs.iter().map(|output| output.to.to_string()).collect();
        let message = format!("rule {} has no output {output}", question.rule);
        return Err(Refusal::new(Code::NotFound, message, format!("it has {}", all.join(", "))));
    }
    let there = found.into_iter().filter(|output| output.absent.is_none());
    Ok(there.map(|output| Point::output(&installed.take, output)).collect())
}

/// Of a rule, or an output, that does not run.
fn not_there(running: &Running, question: &Question) -> Refusal {
    let (state, why) = match &running.problem {
        Some(Problem::Waiting(refusal) | Problem::Sought(refusal)) => ("is waiting", refusal),
        Some(Problem::Failed(refusal)) => ("has failed", refusal),
        None => {
            let message = format!("rule {} is just being changed", question.rule);
            return Refusal::new(Code::Machine, message, "try again");
        }
    };
    let Refusal { message, hint, .. } = why.clone();
    let message = format!("rule {} {state}, so it has no packets: {message}", question.rule);
    Refusal::new(Code::Machine, message, hint)
}
