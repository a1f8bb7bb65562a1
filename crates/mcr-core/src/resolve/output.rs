//! Where an output leads on this machine: to a group by its interface, or to a host by its route and
//! the neighbour on it.

use std::net::IpAddr;

use super::{down, family, interface, is_unicast};
use crate::action::{LinkHeader, OutputId, PlaneOutput};
use crate::flow::{Input, InterfaceName, OutputSource};
use crate::link::{IfIndex, Link, LinkKind, Links, NextHop, Route, RouteQuery};
use crate::refusal::{Code, Refusal};
use crate::rule::Output;
use crate::verdict::OutputDrop;

/// Why an output cannot be served: for its counter, and for the operator.
pub(super) type Missing = (OutputDrop, Refusal);

/// What has to be known of an output's host.
pub(super) fn route_query(output: &Output) -> Option<RouteQuery> {
    let (destination, interface) = (output.to.addresses.first(), output.to.interface.clone());
    is_unicast(output).then_some(RouteQuery { destination, interface })
}

/// The neighbour that the output needs, if any, and the output, or why it cannot be served.
pub(super) fn resolve(
    output: &Output,
    input: &Input,
    links: &Links,
) -> (Option<NextHop>, Result<PlaneOutput, Missing>) {
    let way = if is_unicast(output) { to_host(output, links) } else { to_group(output, links) };
    let way = match way {
        Ok(way) => way,
        Err(missing) => return (None, Err(missing)),
    };
    let served = header(&way, is_unicast(output), links).and_then(|header| {
        let source = source(output, &way, links)?;
        Ok(served(output, input, way.link, header, source))
    });
    (way.next_hop, served)
}

/// An output of which every packet is dropped for a reason.
pub(super) fn absent(output: &Output, reason: OutputDrop) -> PlaneOutput {
    PlaneOutput {
        id: OutputId(u32::MAX),
        absent: Some(reason),
        interface: IfIndex(0),
        mtu: 0,
        carrier: false,
        header: LinkHeader::Bare,
        source: None,
        source_port: None,
        destination: output.to.addresses,
        port_shift: 0,
        ttl: output.ttl,
        dscp: output.dscp,
    }
}

fn served(
    output: &Output,
    input: &Input,
    link: &Link,
    header: LinkHeader,
    source: Option<IpAddr>,
) -> PlaneOutput {
    let to = &output.to;
    PlaneOutput {
        id: OutputId(u32::MAX),
        absent: None,
        interface: link.index,
        mtu: link.mtu,
        carrier: link.carrier,
        header,
        source,
        source_port: match to.source {
            OutputSource::AddressAndPort(_, port) => Some(port),
            OutputSource::Primary | OutputSource::Address(_) | OutputSource::Keep => None,
        },
        destination: to.addresses,
        port_shift: to.ports.map_or(0, |ports| ports.first().wrapping_sub(input.ports.first())),
        ttl: output.ttl,
        dscp: output.dscp,
    }
}

/// How an output leaves.
struct Way<'l> {
    name: &'l InterfaceName,
    link: &'l Link,
    /// The address that the route would send from.
    preferred: Option<IpAddr>,
    /// Whose MAC address is needed.
    next_hop: Option<NextHop>,
}

fn to_group<'l>(output: &'l Output, links: &'l Links) -> Result<Way<'l>, Missing> {
    let name = output.to.interface.as_ref().ok_or_else(|| no_route("no interface is named"))?;
    Ok(Way { name, link: usable(name, links)?, preferred: None, next_hop: None })
}

fn to_host<'l>(output: &'l Output, links: &'l Links) -> Result<Way<'l>, Missing> {
    let destination = output.to.addresses.first();
    // What is down has no routes, and its name says more.
    if let Some(name) = &output.to.interface {
        usable(name, links)?;
    }
    let query = RouteQuery { destination, interface: output.to.interface.clone() };
    match links.routes.get(&query) {
        Some(Route::Via { interface, next_hop: address, source }) => {
            let link = usable(interface, links)?;
            let resolved = link.kind == LinkKind::Ethernet && !link.no_arp;
            let next_hop = NextHop { interface: link.index, address: *address };
            let next_hop = resolved.then_some(next_hop);
            Ok(Way { name: interface, link, preferred: *source, next_hop })
        }
        Some(Route::Local) if destination.is_loopback() => {
            Err(martian(&format!("what comes to {destination} from a relay")))
        }
        Some(Route::Local) => {
            let lo = links.interfaces.iter().find(|(_, link)| link.kind == LinkKind::Loopback);
            let (name, _) = lo.ok_or_else(|| no_route("there is no loopback interface"))?;
            Ok(Way { name, link: usable(name, links)?, preferred: None, next_hop: None })
        }
        Some(Route::None(why)) => Err(no_route(&format!("no route to {destination}: {why}"))),
        None => Err(no_route(&format!("the route to {destination} is not known yet"))),
    }
}

fn header(way: &Way<'_>, unicast: bool, links: &Links) -> Result<LinkHeader, Missing> {
    let Way { link, next_hop, .. } = way;
    let ethernet = |next_hop| Ok(LinkHeader::Ethernet { source: link.mac, next_hop });
    match (link.kind, next_hop) {
        (LinkKind::Bare | LinkKind::Other(_), _) => Ok(LinkHeader::Bare),
        // Where nobody is resolved the kernel writes the interface's own (arp_constructor).
        (LinkKind::Loopback | LinkKind::Ethernet, None) => ethernet(unicast.then_some(link.mac)),
        (LinkKind::Loopback | LinkKind::Ethernet, Some(next_hop)) => {
            match links.neighbours.get(next_hop) {
                Some(mac) => ethernet(Some(*mac)),
                None => Err((
                    OutputDrop::NoNeighbour,
                    Refusal::new(
                        Code::Machine,
                        format!("neighbour {} has not answered", next_hop.address),
                        "is it on, and in the right network? `ip neigh show` shows its state",
                    ),
                )),
            }
        }
    }
}

/// The address that is sent from; `None` keeps it.
fn source(output: &Output, way: &Way<'_>, links: &Links) -> Result<Option<IpAddr>, Missing> {
    let (to, loopback) = (output.to.addresses.first(), way.link.kind == LinkKind::Loopback);
    let source = match output.to.source {
        OutputSource::Primary if loopback => {
            return Err(martian("what comes from an address of lo"));
        }
        OutputSource::Primary => {
            let address = way.preferred.or_else(|| way.link.primary(to));
            Some(address.ok_or_else(|| no_address(way.name, to))?)
        }
        OutputSource::Keep => None,
        OutputSource::Address(address) | OutputSource::AddressAndPort(address, _) => Some(address),
    };
    match source.filter(|s| loopback && (s.is_loopback() || links.is_local(*s))) {
        Some(own) => Err(martian(&format!("what comes from the host's own {own} on lo"))),
        None => Ok(source),
    }
}

/// The interface of that name, if something can be sent by it.
fn usable<'l>(name: &InterfaceName, links: &'l Links) -> Result<&'l Link, Missing> {
    let link = interface(name, links).map_err(|r| (OutputDrop::InterfaceGone, r))?;
    if link.up { Ok(link) } else { Err((OutputDrop::InterfaceDown, down(name))) }
}

fn no_route(message: &str) -> Missing {
    let hint = "`ip route get ADDRESS` says what the kernel knows; a route that comes is followed";
    (OutputDrop::NoRoute, Refusal::new(Code::Machine, message, hint))
}

fn martian(what: &str) -> Missing {
    let message = format!("the kernel drops {what} as martian");
    let hint = "give the output a source (keep@, or an address that is not of this host), and an \
                address that is not of 127.0.0.0/8 or ::1";
    (OutputDrop::NoAddress, Refusal::new(Code::Machine, message, hint))
}

fn no_address(name: &InterfaceName, to: IpAddr) -> Missing {
    let message = format!("interface {name} has no {} address to send from", family(to));
    let hint = format!("add one (ip address add ... dev {name}), or give the output a source");
    (OutputDrop::NoAddress, Refusal::new(Code::Machine, message, hint))
}
