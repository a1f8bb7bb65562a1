//! Neighbours that the kernel keeps resolved for us.
//!
//! An entry of ours is *managed* (`NTF_EXT_MANAGED`): the kernel asks for the neighbour by itself, at
//! once and again before the answer is stale. It carries our protocol number, so that what a crash
//! has left can be told from what others have made. To give it up is to make it an ordinary one,
//! which the kernel uses and forgets as it does all others: whoever else sends to that neighbour
//! notices nothing.
//!
//! What others have made to stay (permanent, `noarp`, managed, learned by a routing daemon) is used
//! and not touched. An entry that is gone, by `ip neigh flush` or for lack of room, is made again when
//! it is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use mcr_core::link::{IfIndex, Mac, NextHop};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::ask::Asker;

/// `NDA_PROTOCOL` of our entries: 'M', a number that no program of `rt_protos` has.
const OURS: RouteProtocol = RouteProtocol::Other(b'M');

/// The neighbours that are wanted.
#[derive(Default)]
pub(super) struct Neighbours {
    wanted: BTreeSet<NextHop>,
    /// The wanted as they were last read.
    seen: BTreeMap<NextHop, Seen>,
}

/// What matters of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    /// Its MAC address, while it can be used.
    mac: Option<Mac>,
    /// It stays, whoever has made it so.
    kept: bool,
}

/// An entry of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    seen: Seen,
    /// It is managed, and by us.
    ours: bool,
}

impl Neighbours {
    /// See [`super::Netlink::resolve`].
    pub(super) fn resolve(&mut self, asker: &mut Asker, wanted: &BTreeSet<NextHop>) {
        let changed = self.wanted.symmetric_difference(wanted).copied().collect();
        let entries = read(asker, &changed);
        for hop in self.wanted.difference(wanted) {
            if let Some(entry) = entries.get(hop).filter(|entry| entry.ours) {
                give_up(asker, *hop, entry.seen.mac);
            }
        }
        for hop in wanted.difference(&self.wanted) {
            if !entries.get(hop).is_some_and(|entry| entry.seen.kept) {
                keep(asker, *hop);
            }
        }
        self.wanted.clone_from(wanted);
        self.seen.retain(|hop, _| wanted.contains(hop));
    }

    /// See [`super::Netlink::settle`].
    pub(super) fn settle(&self, asker: &mut Asker) {
        let mut left = Vec::new();
        let dumped = dump(asker, None, |hop, entry| {
            if entry.ours && !self.wanted.contains(&hop) {
                left.push((hop, entry.seen.mac));
            }
        });
        if let Err(error) = dumped {
            tracing::warn!(%error, "neighbours not read; what an earlier mcrd left may stay");
        }
        left.into_iter().for_each(|(hop, mac)| give_up(asker, hop, mac));
    }

    /// The wanted ones that are resolved. One that does not stay is made to.
    pub(super) fn read(&mut self, asker: &mut Asker) -> BTreeMap<NextHop, Mac> {
        let entries = read(asker, &self.wanted);
        self.seen = entries.iter().map(|(hop, entry)| (*hop, entry.seen)).collect();
        for hop in &self.wanted {
            if !self.seen.get(hop).is_some_and(|seen| seen.kept) {
                keep(asker, *hop);
            }
        }
        self.seen.iter().filter_map(|(hop, seen)| Some((*hop, seen.mac?))).collect()
    }

    /// Whether a notification says something of a wanted neighbour that is not known.
    pub(super) fn is_news(&self, message: &RouteNetlinkMessage) -> bool {
        let (message, gone) = if let RouteNetlinkMessage::NewNeighbour(message) = message {
            (message, false)
        } else if let RouteNetlinkMessage::DelNeighbour(message) = message {
            (message, true)
        } else {
            return true;
        };
        let Some((hop, entry)) = entry(message) else { return false };
        let is = if gone { Seen::default() } else { entry.seen };
        self.wanted.contains(&hop) && self.seen.get(&hop).copied().unwrap_or_default() != is
    }
}

/// The entries of these neighbours.
fn read(asker: &mut Asker, of: &BTreeSet<NextHop>) -> BTreeMap<NextHop, Entry> {
    let mut entries = BTreeMap::new();
    let interfaces: BTreeSet<IfIndex> = of.iter().map(|hop| hop.interface).collect();
    for interface in interfaces {
        let dumped = dump(asker, Some(interface), |hop, entry| {
            if of.contains(&hop) {
                entries.insert(hop, entry);
            }
        });
        if let Err(error) = dumped {
            tracing::warn!(%interface, %error, "neighbours not read");
        }
    }
    entries
}

fn dump(
    asker: &mut Asker,
    interface: Option<IfIndex>,
    mut each: impl FnMut(NextHop, Entry),
) -> io::Result<()> {
    let mut message = NeighbourMessage::default();
    let filter = interface.map(|IfIndex(index)| NeighbourAttribute::IfIndex(index));
    message.attributes.extend(filter);
    asker.ask(RouteNetlinkMessage::GetNeighbour(message), NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewNeighbour(message) = answer
            && let Some((hop, found)) = entry(&message)
        {
            each(hop, found);
        }
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn entry(message: &NeighbourMessage) -> Option<(NextHop, Entry)> {
    let (mut address, mut mac, mut protocol) = (None, None, RouteProtocol::Unspec);
    let mut managed = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(&bytes[..]).ok(),
            NeighbourAttribute::Protocol(number) => protocol = *number,
            NeighbourAttribute::ExtFlags(flags) => {
                managed = flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let (resolved, stays) = match message.header.state {
        NeighbourState::Permanent | NeighbourState::Noarp => (true, true),
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe => (true, false),
        _ => (false, false),
    };
    let kept = managed || stays || message.header.flags.contains(NeighbourFlags::ExtLearned);
    let hop = NextHop { interface: IfIndex(message.header.ifindex), address: address? };
    let seen = Seen { mac: mac.filter(|_| resolved), kept };
    Some((hop, Entry { seen, ours: managed && protocol == OURS }))
}

/// `ip neigh replace ADDRESS dev INTERFACE managed`.
fn keep(asker: &mut Asker, hop: NextHop) {
    let mut message = message(hop);
    message.attributes.push(NeighbourAttribute::Protocol(OURS));
    message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    if let Err(error) = asker.ask(RouteNetlinkMessage::NewNeighbour(message), flags, |_| ()) {
        let NextHop { interface, address } = hop;
        tracing::warn!(%interface, %address, %error, "the kernel does not keep the neighbour");
    }
}

/// Makes it an ordinary entry, or removes it where nothing is known.
fn give_up(asker: &mut Asker, hop: NextHop, mac: Option<Mac>) {
    let mut message = message(hop);
    let given_up = if let Some(mac) = mac {
        message.header.state = NeighbourState::Stale;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.into()));
        let flags = NLM_F_ACK | NLM_F_REPLACE;
        asker.ask(RouteNetlinkMessage::NewNeighbour(message), flags, |_| ())
    } else {
        asker.ask(RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK, |_| ())
    };
    if let Err(error) = given_up {
        let NextHop { interface, address } = hop;
        tracing::debug!(%interface, %address, %error, "neighbour not given up; it may be gone");
    }
}

fn message(NextHop { interface: IfIndex(index), address }: NextHop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    let (family, address) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}
