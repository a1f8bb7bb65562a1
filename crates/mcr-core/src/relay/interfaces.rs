//! What of the interfaces is told: those that rules name, or that routes of theirs go by.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Relay;
use crate::action::Action;
use crate::event::{Event, InterfaceChange, LinkState};
use crate::flow::InterfaceName;
use crate::link::{Link, Links, Route, Standing};

impl Relay {
    /// Before `links` take the place of what was known. The first are no change.
    pub(super) fn tell_interfaces(&mut self, links: &Links) {
        if self.links.interfaces.is_empty() {
            return;
        }
        let names: BTreeSet<&InterfaceName> =
            self.links.interfaces.keys().chain(links.interfaces.keys()).collect();
        let mut news = Vec::new();
        for name in names {
            let changes = changes(self.links.by_name(name), links.by_name(name));
            news.extend(changes.into_iter().map(|change| (name.clone(), change)));
        }
        if news.is_empty() {
            return;
        }
        let used = self.used_interfaces(links);
        news.retain(|(interface, _)| used.contains(interface));
        let event = |(interface, change)| Action::Tell(Event::Interface { interface, change });
        self.actions.extend(news.into_iter().map(event));
    }

    fn used_interfaces(&self, links: &Links) -> BTreeSet<InterfaceName> {
        let routes = self.links.routes.values().chain(links.routes.values());
        let ways = routes.filter_map(|route| match route {
            Route::Via { interface, .. } => Some(interface),
            Route::Local | Route::None(_) => None,
        });
        let rules = self.table.iter().map(|(_, entry)| &entry.rule);
        let named = rules.flat_map(|rule| {
            let outputs = rule.outputs.iter().filter_map(|output| output.to.interface.as_ref());
            outputs.chain([&rule.input.interface])
        });
        named.chain(ways).cloned().collect()
    }
}

fn changes(old: Option<&Link>, new: Option<&Link>) -> Vec<InterfaceChange> {
    let mut changes = Vec::new();
    match (old, new) {
        (None, Some(new)) => changes.push(InterfaceChange::Appeared(new.index, state(new))),
        (Some(_), None) => changes.push(InterfaceChange::Gone),
        (Some(old), Some(new)) => {
            if old.index != new.index {
                changes.push(InterfaceChange::Index { from: old.index, to: new.index });
            }
            if state(old) != state(new) {
                changes.push(InterfaceChange::State(state(new)));
            }
            if usable(old) != usable(new) {
                changes.push(InterfaceChange::Addresses(usable(new)));
            }
        }
        (None, None) => {}
    }
    changes
}

fn state(link: &Link) -> LinkState {
    match (link.up, link.carrier) {
        (false, _) => LinkState::Down,
        (true, false) => LinkState::NoCarrier,
        (true, true) => LinkState::Up,
    }
}

fn usable(link: &Link) -> Vec<IpAddr> {
    let usable = link.addresses.iter().filter(|a| a.standing != Standing::Unusable);
    usable.map(|a| a.address).collect()
}
