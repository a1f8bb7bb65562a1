//! Circles: an output that is the input of a rule whose outputs lead back.
//!
//! Mostly they are harmless, since a packet that MCR has sent is dropped as `own` by its source
//! address. A circle is refused where that check cannot hold on any of its outputs: through `lo`,
//! or with a source that is kept or is not an address of this host.

use std::collections::BTreeSet;

use super::{RuleTable, Target, targets};
use crate::flow::{InterfaceName, OutputSource};
use crate::link::{LinkKind, Links, Route, RouteQuery};
use crate::refusal::{Code, Refusal};
use crate::rule::{Output, Rule, RuleKey};

impl RuleTable {
    /// Refuses a rule from which a packet could come back to it unrecognised. Without links, every
    /// fixed source counts as an address of this host.
    pub(crate) fn refuse_circle(
        &self,
        start: &RuleKey,
        rule: &Rule,
        links: &Links,
    ) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        let mut paths = vec![(rule, vec![start.to_string()])];
        while let Some((rule, path)) = paths.pop() {
            let outputs = targets(rule).zip(&rule.outputs);
            for (target, _) in outputs.filter(|(_, output)| !recognised(output, links)) {
                let Some(interface) = comes_back_on(&target, links) else { continue };
                for (key, next) in self.takers_of(&target, interface) {
                    let mut path = path.clone();
                    path.push(target.to_string());
                    path.push(key.to_string());
                    if key == start {
                        return Err(circle(start, &path));
                    }
                    if seen.insert(key.clone()) {
                        paths.push((next, path));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where rules would take what is sent there. What goes to this host itself comes in on lo; where else
/// the route decides, it leads to another host, or nowhere.
fn comes_back_on<'a>(target: &'a Target, links: &'a Links) -> Option<&'a InterfaceName> {
    let (destination, interface) = (target.addresses.first(), target.interface.clone());
    let route = links.routes.get(&RouteQuery { destination, interface });
    if !links.is_local(destination) && route != Some(&Route::Local) {
        return target.interface.as_ref();
    }
    let mut loopbacks = links.interfaces.iter().filter(|(_, l)| l.kind == LinkKind::Loopback);
    loopbacks.next().map(|(name, _)| name)
}

/// Whether a packet of this output would be known as our own when it came in again.
fn recognised(output: &Output, links: &Links) -> bool {
    let through_loopback = output.to.interface.as_ref().is_some_and(|name| name.is_loopback());
    match output.to.source {
        OutputSource::Primary => !through_loopback,
        OutputSource::Address(address) | OutputSource::AddressAndPort(address, _) => {
            !through_loopback && (links.interfaces.is_empty() || links.is_local(address))
        }
        OutputSource::Keep => false,
    }
}

fn circle(start: &RuleKey, path: &[String]) -> Refusal {
    Refusal::new(
        Code::Conflict,
        format!("rule {start}: packets would go round for ever: {}", path.join(" -> ")),
        "their source address does not show that MCR has sent them: leave out `keep` or the \
         foreign source, keep off lo, or change a group",
    )
}
