//! The interfaces of the network namespace, with their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures_util::TryStreamExt;
use mcr_core::flow::InterfaceName;
use mcr_core::link::{IfIndex, Link, LinkAddress, LinkKind, Standing};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Error, Handle};

/// All of them.
pub(super) async fn read(handle: &Handle) -> Result<BTreeMap<InterfaceName, Link>, Error> {
    let messages: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let mut addresses: BTreeMap<u32, Vec<LinkAddress>> = BTreeMap::new();
    let mut stream = handle.address().get().execute();
    while let Some(message) = stream.try_next().await? {
        let of_link = addresses.entry(message.header.index).or_default();
        match address(&message) {
            // The kernel puts the youngest first, and the oldest shall stay the primary one.
            Some(address) if address.address.is_ipv6() => {
                let first = of_link.iter().position(|other| other.address.is_ipv6());
                of_link.insert(first.unwrap_or(of_link.len()), address);
            }
            address => of_link.extend(address),
        }
    }
    let parents: BTreeSet<u32> = messages.iter().filter_map(parent_of_shared).collect();
    let mut links = BTreeMap::new();
    for message in &messages {
        if let Some((name, mut link)) = link(message) {
            link.addresses = addresses.remove(&message.header.index).unwrap_or_default();
            link.shared |= parents.contains(&message.header.index);
            links.insert(name, link);
        }
    }
    Ok(links)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let (mut local, mut any) = (None, None);
    // IFA_FLAGS has all of them, the header those of the first 8 bits.
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            // IFA_LOCAL is the address; on a point-to-point link IFA_ADDRESS is the peer's.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => any = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let address = local.or(any)?;
    Some(LinkAddress { address, standing: standing(address, flags) })
}

/// Bit 0 means secondary for IPv4 and temporary for IPv6 (`IFA_F_TEMPORARY`).
fn standing(address: IpAddr, flags: AddressFlags) -> Standing {
    let tentative =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if address.is_ipv6() && (tentative || flags.contains(AddressFlags::Dadfailed)) {
        Standing::Unusable
    } else if flags.intersects(AddressFlags::Secondary | AddressFlags::Deprecated) {
        Standing::Lesser
    } else {
        Standing::Stable
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn link(message: &LinkMessage) -> Option<(InterfaceName, Link)> {
    let mut name = None;
    let mut link = Link {
        index: IfIndex(message.header.index),
        kind: LinkKind::from_arphrd(message.header.link_layer_type.into()),
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        no_arp: message.header.flags.contains(LinkFlags::Noarp),
        mac: [0; 6],
        mtu: 0,
        addresses: Vec::new(),
        shared: false,
        mc_forwarding: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse::<InterfaceName>().ok(),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or([0; 6]),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            // Whatever it is a port of takes its packets.
            LinkAttribute::Controller(_) => link.shared = true,
            _ => {}
        }
    }
    let name = name?;
    link.mc_forwarding = mc_forwarding(&name);
    Some((name, link))
}

/// The interface that a macvlan or ipvlan stands on.
#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn parent_of_shared(message: &LinkMessage) -> Option<u32> {
    let (mut parent, mut stands_on) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                stands_on = infos.iter().any(|info| {
                    let kinds = [InfoKind::MacVlan, InfoKind::MacVtap, InfoKind::IpVlan];
                    matches!(info, LinkInfo::Kind(kind) if kinds.contains(kind))
                });
            }
            _ => {}
        }
    }
    parent.filter(|_| stands_on)
}

/// Whether a multicast routing daemon has made the interface one of its own.
fn mc_forwarding(name: &InterfaceName) -> bool {
    let is_set = |family| {
        std::fs::read_to_string(format!("/proc/sys/net/{family}/conf/{name}/mc_forwarding"))
            .is_ok_and(|text| text.trim() != "0")
    };
    is_set("ipv4") || is_set("ipv6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_mean_something_else_for_each_family() {
        use Standing::{Lesser, Stable, Unusable};
        for (address, flags, expected) in [
            ("10.0.0.1", 0x80, Stable),
            ("10.0.0.1", 0x81, Lesser),
            ("10.0.0.1", 0xa0, Lesser),
            ("2001:db8::1", 0x80, Stable),
            ("2001:db8::1", 0x380, Stable),
            ("2001:db8::1", 0x01, Lesser),
            ("2001:db8::1", 0x21, Lesser),
            ("2001:db8::1", 0x40, Unusable),
            ("2001:db8::1", 0x41, Unusable),
            ("2001:db8::1", 0x44, Stable),
            ("2001:db8::1", 0x48, Unusable),
            ("2001:db8::1", 0x88, Unusable),
        ] {
            let flags = AddressFlags::from_bits_retain(flags);
            assert_eq!(standing(address.parse().unwrap(), flags), expected, "{address} {flags:?}");
        }
    }
}
