//! From a rule to what a data plane can do with it on this machine, or what it waits for.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use crate::action::{FlowKey, OutputId, PlaneOutput, PlaneRule, RuleId, ToStack};
use crate::flow::{InterfaceName, OutputSource};
use crate::link::{IfIndex, Link, LinkKind, Links};
use crate::refusal::{Code, Refusal};
use crate::rule::{Local, Output, Rule};
use crate::verdict::OutputDrop;
use crate::wire::ethernet::group_mac;

/// What of a rule can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The rule with all its outputs, in their order; those that cannot be served are `absent`.
    /// Its ids are placeholders. `None` when the input cannot be served.
    pub plane: Option<PlaneRule>,
    /// What is missing, and of which part of the rule.
    pub missing: Vec<(Part, Refusal)>,
}

/// A part of a rule that depends on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its input.
    Input,
    /// The output at this position.
    Output(usize),
}

/// What this version does not relay yet, though the grammar has it.
pub fn refuse_not_yet(rule: &Rule) -> Result<(), Refusal> {
    let not_yet = |what: String, hint: &str| {
        let message = format!("rule {}: {what} not relayed yet", rule.key());
        Err(Refusal::new(Code::NotYet, message, hint))
    };
    let input = &rule.input;
    if input.addresses.first().is_ipv6() {
        return not_yet("IPv6 is".into(), "use IPv4 groups");
    }
    if !input.addresses.first().is_multicast() {
        return not_yet(
            format!("{} is not a multicast group, and unicast inputs are", input.addresses),
            "use a group of 224.0.1.0 to 239.255.255.255 as the input",
        );
    }
    if input.is_range() {
        return not_yet(format!("{input} is a range, and ranges are"), "make a rule for each flow");
    }
    if !input.sources.is_empty() {
        return not_yet(
            "a source list on an input is".into(),
            "leave the source out: any may send",
        );
    }
    for output in &rule.outputs {
        if !output.to.addresses.first().is_multicast() {
            return not_yet(
                format!("{} is not a multicast group, and unicast outputs are", output.to),
                "use a group of 224.0.1.0 to 239.255.255.255 as the output",
            );
        }
    }
    Ok(())
}

/// Resolves a rule against the machine's interfaces.
pub fn resolve(rule: &Rule, links: &Links) -> Resolved {
    let none = |refusal| Resolved { plane: None, missing: vec![(Part::Input, refusal)] };
    let input = match ethernet(&rule.input.interface, links) {
        Ok(link) => link,
        Err(Missing(_, refusal)) => {
            return none(refusal.about(format_args!("input {}", rule.input)));
        }
    };
    let IpAddr::V4(address) = rule.input.addresses.first() else {
        return none(Refusal::new(Code::NotYet, "IPv6 is not relayed yet", "use IPv4 groups"));
    };
    let port = rule.input.ports.first();
    let mut missing = Vec::new();
    if !input.up {
        missing.push((Part::Input, down(&rule.input.interface).1));
    }
    let output = |(position, output): (usize, &Output)| {
        resolve_output(output, port, links).unwrap_or_else(|Missing(reason, refusal)| {
            let refusal = refusal.about(format_args!("output {}", output.to));
            missing.push((Part::Output(position), refusal));
            absent(output, reason)
        })
    };
    let outputs = rule.outputs.iter().enumerate().map(output).collect();
    let key = FlowKey { interface: input.index, address, port };
    let to_stack = to_stack(rule.local, input);
    let plane = Some(PlaneRule { id: RuleId(u32::MAX), key, to_stack, outputs });
    Resolved { plane, missing }
}

/// Why an output cannot be served: for its counter, and for the operator.
struct Missing(OutputDrop, Refusal);

fn absent(output: &Output, reason: OutputDrop) -> PlaneOutput {
    PlaneOutput {
        id: OutputId(u32::MAX),
        absent: Some(reason),
        interface: IfIndex(0),
        mtu: 0,
        carrier: false,
        source_mac: [0; 6],
        destination_mac: [0; 6],
        source: None,
        source_port: None,
        destination: Ipv4Addr::UNSPECIFIED,
        destination_port: 0,
        ttl: output.ttl,
        dscp: output.dscp,
    }
}

fn resolve_output(output: &Output, input_port: u16, links: &Links) -> Result<PlaneOutput, Missing> {
    let to = &output.to;
    let (Some(name), IpAddr::V4(destination)) = (&to.interface, to.addresses.first()) else {
        return Err(not_yet("is not relayed yet", "use an IPv4 group"));
    };
    let link = ethernet(name, links)?;
    if !link.up {
        return Err(down(name));
    }
    let source = match to.source {
        OutputSource::Primary if link.kind == LinkKind::Loopback => {
            return Err(martian("what comes from an address of lo"));
        }
        OutputSource::Primary => Some(link.primary_ipv4().ok_or_else(|| no_address(name))?),
        OutputSource::Keep => None,
        OutputSource::Address(IpAddr::V4(a)) | OutputSource::AddressAndPort(IpAddr::V4(a), _) => {
            Some(a)
        }
        OutputSource::Address(IpAddr::V6(_)) | OutputSource::AddressAndPort(IpAddr::V6(_), _) => {
            return Err(not_yet("IPv6 is not relayed yet", "use IPv4"));
        }
    };
    if let Some(source) = source.filter(|s| is_martian_on_loopback(*s, link, links)) {
        return Err(martian(&format!("what comes from the host's own {source} on lo")));
    }
    Ok(PlaneOutput {
        id: OutputId(u32::MAX),
        absent: None,
        interface: link.index,
        mtu: link.mtu,
        carrier: link.carrier,
        source_mac: link.mac,
        destination_mac: group_mac(destination),
        source,
        source_port: match to.source {
            OutputSource::AddressAndPort(_, port) => Some(port),
            OutputSource::Primary | OutputSource::Address(_) | OutputSource::Keep => None,
        },
        destination,
        destination_port: to.ports.map_or(input_port, |ports| ports.first()),
        ttl: output.ttl,
        dscp: output.dscp,
    })
}

fn is_martian_on_loopback(source: Ipv4Addr, link: &Link, links: &Links) -> bool {
    link.kind == LinkKind::Loopback && (source.is_loopback() || links.is_local(source.into()))
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

fn ethernet<'l>(name: &InterfaceName, links: &'l Links) -> Result<&'l Link, Missing> {
    let link = links.by_name(name).ok_or_else(|| {
        let message = format!("no interface {name}");
        let hint = "`ip link` shows the interfaces of this network namespace";
        Missing(OutputDrop::InterfaceGone, Refusal::new(Code::Machine, message, hint))
    })?;
    match link.kind {
        LinkKind::Ethernet | LinkKind::Loopback => Ok(link),
        LinkKind::Other(kind) => Err(not_yet(
            &format!("{name} has no Ethernet header (link type {kind}), which is not relayed yet"),
            "use an Ethernet interface",
        )),
    }
}

fn not_yet(message: &str, hint: &str) -> Missing {
    Missing(OutputDrop::InterfaceGone, Refusal::new(Code::NotYet, message, hint))
}

fn martian(what: &str) -> Missing {
    let message = format!("the kernel drops {what} as martian");
    let hint = "give the output a source: keep@, or an address that is not of this host";
    Missing(OutputDrop::NoAddress, Refusal::new(Code::Machine, message, hint))
}

fn down(name: &InterfaceName) -> Missing {
    let message = format!("interface {name} is down");
    let hint = format!("bring it up: ip link set {name} up");
    Missing(OutputDrop::InterfaceDown, Refusal::new(Code::Machine, message, hint))
}

fn no_address(name: &InterfaceName) -> Missing {
    let message = format!("interface {name} has no IPv4 address to send from");
    let hint = format!("add one (ip address add ... dev {name}), or give the output a source");
    Missing(OutputDrop::NoAddress, Refusal::new(Code::Machine, message, hint))
}
