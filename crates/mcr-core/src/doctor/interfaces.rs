//! Which interfaces rules use and for what, and whether they can serve.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{ByInterface, Checks, Evidence, RuleEvidence, Topic, counted, some_of};
use crate::flow::InterfaceName;
use crate::link::{Link, LinkKind, Links, Route, RouteQuery};
use crate::rule::Output;

/// `IFF_MULTICAST` of if.h.
const IFF_MULTICAST: u32 = 0x1000;

/// What rules want of an interface.
#[derive(Debug, Default)]
pub(super) struct Used<'e> {
    /// Rules that receive there.
    pub(super) inputs: Vec<&'e RuleEvidence>,
    /// Rules that send there, and the outputs that they send by.
    pub(super) outputs: Vec<(&'e RuleEvidence, &'e Output)>,
}

/// All interfaces that rules name, or that a route leads to.
pub(super) fn uses(evidence: &Evidence) -> ByInterface<Used<'_>> {
    let mut uses: ByInterface<Used<'_>> = ByInterface::new();
    for rule in &evidence.rules {
        let text = &rule.facts.rule;
        uses.entry(text.input.interface.clone()).or_default().inputs.push(rule);
        for output in &text.outputs {
            if let Some(name) = leaves_by(output, &evidence.links) {
                uses.entry(name).or_default().outputs.push((rule, output));
            }
        }
    }
    uses
}

/// The interface of an output: that it names, or that the route leads to.
pub(super) fn leaves_by(output: &Output, links: &Links) -> Option<InterfaceName> {
    let named = output.to.interface.clone();
    named.or_else(|| {
        let destination = output.to.addresses.first();
        match links.routes.get(&RouteQuery { destination, interface: None })? {
            Route::Via { interface, .. } => Some(interface.clone()),
            Route::Local | Route::None(_) => None,
        }
    })
}

pub(super) fn judge(
    evidence: &Evidence,
    name: &InterfaceName,
    used: &Used<'_>,
    checks: &mut Checks,
) {
    let Some(link) = evidence.links.by_name(name) else {
        let hint = "`ip link` shows the interfaces of this network namespace: make it, or correct \
                    the rule; a rule takes it up as soon as it is there";
        let found = format!("there is no such interface; used by {}", users(used));
        return checks.problem(Topic::InterfaceState, name, (found, hint.into()));
    };
    state(name, link, used, checks);
    flag(evidence, name, link, used, checks);
    addresses(name, link, used, checks);
    mtu(evidence, name, link, used, checks);
}

fn state(name: &InterfaceName, link: &Link, used: &Used<'_>, checks: &mut Checks) {
    let finding = match link {
        Link { kind: LinkKind::Other(number), .. } => (
            format!("is of link type {number} (ARPHRD), whose headers MCR does not know"),
            "use an Ethernet interface, or one without link headers (tun, WireGuard, GRE, IPIP)"
                .into(),
        ),
        Link { up: false, .. } => (
            format!("is down; used by {}", users(used)),
            format!("bring it up: ip link set {name} up"),
        ),
        Link { carrier: false, .. } => (
            format!("is up and has no carrier; used by {}", users(used)),
            format!(
                "look at the cable, the port of the switch, or the other end of the pair; \
                 `ip link show {name}` and `ethtool {name}` say what it knows"
            ),
        ),
        Link { mtu, .. } => {
            return checks.ok(Topic::InterfaceState, name, format!("up, carrier, MTU {mtu}"));
        }
    };
    checks.problem(Topic::InterfaceState, name, finding);
}

/// Only of an Ethernet device, whose filter has to let groups in.
fn flag(
    evidence: &Evidence,
    name: &InterfaceName,
    link: &Link,
    used: &Used<'_>,
    checks: &mut Checks,
) {
    if link.kind != LinkKind::Ethernet || groups_of(used).is_empty() {
        return;
    }
    let Some(facts) = evidence.interfaces.get(name) else { return };
    match &facts.flags {
        Ok(flags) if flags & IFF_MULTICAST != 0 => {
            checks.ok(Topic::MulticastFlag, name, "MULTICAST is set");
        }
        Ok(_) => checks.warning(
            Topic::MulticastFlag,
            name,
            (
                "has no MULTICAST flag, so its driver may not let groups in".into(),
                format!("set it: ip link set {name} multicast on"),
            ),
        ),
        Err(why) => checks.unread(Topic::MulticastFlag, name, why),
    }
}

/// The families in which rules receive groups there.
pub(super) fn groups_of(used: &Used<'_>) -> BTreeSet<bool> {
    let inputs = used.inputs.iter().map(|rule| rule.facts.rule.input.addresses.first());
    inputs.filter(IpAddr::is_multicast).map(|group| group.is_ipv4()).collect()
}

/// Reports are sent from an address; what an output lacks is said by its own check.
fn addresses(name: &InterfaceName, link: &Link, used: &Used<'_>, checks: &mut Checks) {
    let joins = |rule: &&&RuleEvidence| {
        let rule = &rule.facts.rule;
        rule.join && rule.input.addresses.first().is_multicast()
    };
    let joined = used.inputs.iter().filter(joins);
    let families: BTreeSet<bool> =
        joined.map(|rule| rule.facts.rule.input.addresses.first().is_ipv4()).collect();
    for four in families {
        if link.kind == LinkKind::Loopback {
            continue;
        }
        let fit = |address: &&crate::link::LinkAddress| match address.address {
            IpAddr::V4(_) => four,
            IpAddr::V6(address) => !four && address.is_unicast_link_local(),
        };
        match (link.addresses.iter().find(fit), four) {
            (Some(found), _) => {
                checks.ok(Topic::Address, name, format!("reports are sent from {}", found.address));
            }
            (None, true) => checks.warning(
                Topic::Address,
                name,
                (
                    "has no IPv4 address: IGMP reports leave from 0.0.0.0, which some switches and \
                     routers ignore"
                        .into(),
                    format!("add one: ip address add ADDRESS/LENGTH dev {name}"),
                ),
            ),
            (None, false) => checks.warning(
                Topic::Address,
                name,
                (
                    "has no link-local IPv6 address: MLD reports leave from ::, which routers ignore \
                     (RFC 3590)"
                        .into(),
                    format!("allow it: sysctl net.ipv6.conf.{name}.addr_gen_mode=0 and set it up again"),
                ),
            ),
        }
    }
}

/// Along all rules that leave by this interface.
fn mtu(
    evidence: &Evidence,
    name: &InterfaceName,
    link: &Link,
    used: &Used<'_>,
    checks: &mut Checks,
) {
    let mut larger: BTreeSet<(u32, &InterfaceName)> = BTreeSet::new();
    let mut too_large: Vec<(usize, &RuleEvidence)> = Vec::new();
    for (rule, _) in &used.outputs {
        let input = &rule.facts.rule.input;
        let from = evidence.links.by_name(&input.interface);
        larger.extend(from.filter(|from| from.mtu > link.mtu).map(|f| (f.mtu, &input.interface)));
        if let Ok(seen) = &evidence.seen {
            let sights = seen.to(input.addresses, Some(input.ports));
            let here = sights.filter(|(flow, _)| from.is_some_and(|f| f.index == flow.interface));
            let largest = here.map(|(_, sight)| sight.largest).max().unwrap_or_default();
            if largest > link.mtu as usize {
                too_large.push((largest, rule));
            }
        }
    }
    let raise = format!(
        "raise it (ip link set {name} mtu N, and along the way to the receivers), or let the sender \
         make smaller packets: what does not fit is dropped as `mtu`"
    );
    if let Some((largest, _)) = too_large.iter().max_by_key(|(largest, _)| largest) {
        let rules = some_of(too_large.iter().map(|(_, rule)| &rule.facts.key));
        let found =
            format!("MTU {}, and packets of up to {largest} bytes come for {rules}", link.mtu);
        checks.problem(Topic::Mtu, name, (found, raise));
    } else if let Some((mtu, from)) = larger.last() {
        let found = format!("MTU {}, and that of the input {from} is {mtu}", link.mtu);
        checks.warning(Topic::Mtu, name, (found, raise));
    } else if !used.outputs.is_empty() {
        checks.ok(Topic::Mtu, name, format!("MTU {}, no input has a larger one", link.mtu));
    }
}

/// `3 rules: a, b, c`.
fn users(used: &Used<'_>) -> String {
    let rules = used.inputs.iter().map(|rule| &rule.facts.key);
    let rules: BTreeSet<_> =
        rules.chain(used.outputs.iter().map(|(rule, _)| &rule.facts.key)).collect();
    format!("{}: {}", counted(rules.len() as u64, "rule"), some_of(rules))
}
