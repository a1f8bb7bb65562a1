//! Where unicast goes: one question to the routing table for each destination.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use mcr_core::flow::InterfaceName;
use mcr_core::link::{IfIndex, Link, LinkKind, Route, RouteQuery, Standing};
use mcr_core::relay::Routes;
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::ask::Asker;

/// Answers all of them.
pub(super) fn ask(
    asker: &mut Asker,
    queries: &BTreeSet<RouteQuery>,
    interfaces: &BTreeMap<InterfaceName, Link>,
) -> Routes {
    let answer = |query: &RouteQuery| {
        let answer = answer(asker, query, interfaces);
        (query.clone(), answer.unwrap_or_else(|error| Route::None(words(&error))))
    };
    queries.iter().map(answer).collect()
}

fn answer(
    asker: &mut Asker,
    RouteQuery { destination, interface }: &RouteQuery,
    interfaces: &BTreeMap<InterfaceName, Link>,
) -> io::Result<Route> {
    let Some(name) = interface else {
        let found = get(asker, *destination, None, RouteFlags::empty())?;
        return Ok(read(&found, *destination, interfaces));
    };
    let Some(link) = interfaces.get(name) else {
        return Ok(Route::None(format!("no interface {name}")));
    };
    // The host's own addresses are reached by lo, whatever interface has them; the table names one
    // or the other, and finds nothing by the one that it does not name.
    let own = link.addresses.iter().any(|own| own.address == *destination);
    if own || link.kind == LinkKind::Loopback {
        let found = get(asker, *destination, None, RouteFlags::empty())?;
        if found.header.kind == RouteType::Local {
            return Ok(Route::Local);
        }
    }
    // Of IPv4 by a named interface the kernel believes that everybody is on the link when no route
    // says so; the tables themselves know better.
    if destination.is_ipv4() {
        get(asker, *destination, Some(link.index), RouteFlags::FibMatch)?;
    }
    let found = get(asker, *destination, Some(link.index), RouteFlags::empty())?;
    Ok(read(&found, *destination, interfaces))
}

/// `ip route get DESTINATION [oif INTERFACE]`.
fn get(
    asker: &mut Asker,
    destination: IpAddr,
    interface: Option<IfIndex>,
    flags: RouteFlags,
) -> io::Result<RouteMessage> {
    let mut message = RouteMessage::default();
    let (family, length) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.header.flags = flags;
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    message.attributes.extend(interface.map(|IfIndex(index)| RouteAttribute::Oif(index)));
    let mut found = None;
    asker.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK, |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            found = Some(route);
        }
    })?;
    found.ok_or_else(|| io::Error::other("the kernel has not answered"))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn read(
    message: &RouteMessage,
    destination: IpAddr,
    interfaces: &BTreeMap<InterfaceName, Link>,
) -> Route {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Route::Local,
        RouteType::Broadcast => return Route::None("it is a broadcast address".into()),
        RouteType::Anycast => return Route::None("it is an anycast address of this host".into()),
        other => return Route::None(format!("the route is of type {other:?}").to_lowercase()),
    }
    let (mut index, mut next_hop, mut source) = (None, destination, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(number) => index = Some(IfIndex(*number)),
            RouteAttribute::Gateway(address) => next_hop = ip(address).unwrap_or(next_hop),
            RouteAttribute::Via(RouteVia::Inet(address)) => next_hop = (*address).into(),
            // An IPv6 gateway of an IPv4 destination (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet6(address)) => next_hop = (*address).into(),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let Some((name, link)) = interfaces.iter().find(|(_, link)| Some(link.index) == index) else {
        return Route::None("its interface is gone".into());
    };
    // With use_tempaddr the kernel prefers addresses that change by themselves.
    let lesser = |address: &IpAddr| {
        let own = link.addresses.iter().find(|own| own.address == *address);
        own.is_some_and(|own| address.is_ipv6() && own.standing != Standing::Stable)
    };
    let source = source.filter(|source| !lesser(source));
    Route::Via { interface: name.clone(), next_hop, source }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some((*address).into())
    } else if let RouteAddress::Inet6(address) = address {
        Some((*address).into())
    } else {
        None
    }
}

/// The kernel's words, and what they mean here.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    match error.raw_os_error() {
        Some(libc::EINVAL) => format!("{text} (a blackhole route says so)"),
        Some(libc::EACCES) => format!("{text} (a prohibit route says so)"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_in_the_kernel_s_words() {
        let words = |number| words(&io::Error::from_raw_os_error(number));
        assert_eq!(words(libc::ENETUNREACH), "Network is unreachable");
        assert_eq!(words(libc::EINVAL), "Invalid argument (a blackhole route says so)");
    }
}
