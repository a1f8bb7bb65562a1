//! From a rule to what a data plane can do with it on this machine, or what it waits for.

mod output;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use crate::action::{Claim, Membership, PlaneRule, RuleId, Take, ToStack};
use crate::flow::{Input, InterfaceName};
use crate::link::{Link, LinkKind, Links, NextHop, RouteQuery, is_link_local};
use crate::refusal::{Code, Refusal};
use crate::rule::{Local, Output, Rule};
use crate::verdict::OutputDrop;

/// What of a rule can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The rule with all its outputs, in their order; those that cannot be served are `absent`.
    /// Its ids are placeholders. `None` when the input cannot be served.
    pub plane: Option<PlaneRule>,
    /// What has to be joined and bound for it; empty when the input cannot be served.
    pub claims: Arc<[Claim]>,
    /// The neighbours that its outputs need, resolved or not.
    pub next_hops: BTreeSet<NextHop>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

/// What is missing of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Of which part.
    pub part: Part,
    /// What, and what to do.
    pub refusal: Refusal,
    /// The kernel is still looking for it: no reason to refuse a change.
    pub sought: bool,
}

/// A part of a rule that depends on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its input.
    Input,
    /// The output at this position.
    Output(usize),
}

/// What a rule has to ask the routing table.
pub fn route_queries(rule: &Rule) -> impl Iterator<Item = RouteQuery> {
    rule.outputs.iter().filter_map(output::route_query)
}

/// Resolves a rule against the machine's interfaces.
pub fn resolve(rule: &Rule, links: &Links) -> Resolved {
    let mut resolved = Resolved {
        plane: None,
        claims: Arc::default(),
        next_hops: BTreeSet::new(),
        missing: Vec::new(),
    };
    let input = match find_input(&rule.input, links) {
        Ok(link) => link,
        Err(refusal) => {
            let refusal = refusal.about(format_args!("input {}", rule.input));
            resolved.missing.push(Missing { part: Part::Input, refusal, sought: false });
            return resolved;
        }
    };
    if !input.up {
        let refusal = down(&rule.input.interface);
        resolved.missing.push(Missing { part: Part::Input, refusal, sought: false });
    }
    let mut outputs = Vec::with_capacity(rule.outputs.len());
    for (position, output) in rule.outputs.iter().enumerate() {
        let (next_hop, result) = output::resolve(output, &rule.input, links);
        resolved.next_hops.extend(next_hop);
        outputs.push(result.unwrap_or_else(|(reason, refusal)| {
            let refusal = refusal.about(format_args!("output {}", output.to));
            let (part, sought) = (Part::Output(position), reason == OutputDrop::NoNeighbour);
            resolved.missing.push(Missing { part, refusal, sought });
            output::absent(output, reason)
        }));
    }
    let Input { addresses, ports, ref sources, .. } = rule.input;
    resolved.claims = claims(rule, input);
    resolved.plane = Some(PlaneRule {
        id: RuleId(u32::MAX),
        take: Take { interface: input.index, addresses, ports, sources: sources.clone() },
        to_stack: to_stack(rule.local, input),
        max_rate: rule.max_rate,
        outputs,
    });
    resolved
}

fn find_input<'l>(input: &Input, links: &'l Links) -> Result<&'l Link, Refusal> {
    let link = interface(&input.interface, links)?;
    let address = input.addresses.first();
    if address.is_multicast() || links.is_local(address) {
        return Ok(link);
    }
    Err(Refusal::new(
        Code::Machine,
        format!("{address} is no address of this host, so nobody sends to it here"),
        format!("add it (ip address add {address} dev {}), or name a group", input.interface),
    ))
}

/// The interface of that name, if it is of a kind that can be relayed from and to.
fn interface<'l>(name: &InterfaceName, links: &'l Links) -> Result<&'l Link, Refusal> {
    let link = links.by_name(name).ok_or_else(|| {
        Refusal::new(
            Code::Machine,
            format!("no interface {name}"),
            "`ip link` shows the interfaces of this network namespace",
        )
    })?;
    match link.kind {
        LinkKind::Ethernet | LinkKind::Loopback | LinkKind::Bare => Ok(link),
        LinkKind::Other(kind) => Err(Refusal::new(
            Code::Machine,
            format!("{name} is of link type {kind} (ARPHRD), whose headers MCR does not know"),
            "use an Ethernet interface, or one without link headers (tun, WireGuard, GRE, IPIP)",
        )),
    }
}

fn down(name: &InterfaceName) -> Refusal {
    let hint = format!("bring it up: ip link set {name} up");
    Refusal::new(Code::Machine, format!("interface {name} is down"), hint)
}

/// `local = "auto"`: everything but the socket, which the plane looks up for each packet.
fn to_stack(local: Local, input: &Link) -> ToStack {
    match local {
        Local::Yes => ToStack::Always,
        Local::No => ToStack::Never,
        Local::Auto if input.shared || input.mc_forwarding => ToStack::Always,
        Local::Auto => ToStack::IfSocket,
    }
}

/// Each group from each source, or each port.
fn claims(rule: &Rule, link: &Link) -> Arc<[Claim]> {
    let Input { addresses, ports, sources, .. } = &rule.input;
    let interface = link.index;
    if addresses.first().is_multicast() && !rule.join {
        return Arc::default();
    }
    if addresses.first().is_multicast() {
        let from: Vec<Option<IpAddr>> = match &sources[..] {
            [] => vec![None],
            sources => sources.iter().copied().map(Some).collect(),
        };
        let each = |group| from.iter().map(move |source| (group, *source));
        return addresses
            .iter()
            .flat_map(each)
            .map(|(group, source)| Claim::Group(Membership { interface, group, source }))
            .collect();
    }
    let socket = |port| match addresses.first() {
        IpAddr::V6(a) if is_link_local(a.into()) => {
            SocketAddr::V6(SocketAddrV6::new(a, port, 0, interface.0))
        }
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => SocketAddr::new(address, port),
    };
    (ports.first()..=ports.last()).map(|port| Claim::Port(socket(port))).collect()
}

/// The family's name, for people.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Whether an output names a host.
fn is_unicast(output: &Output) -> bool {
    !output.to.addresses.first().is_multicast()
}
