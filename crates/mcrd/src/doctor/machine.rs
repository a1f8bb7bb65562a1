//! What files, sysfs and netlink tell of the host and of the interfaces that rules use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fs, io};

use mcr_core::doctor::{BridgeFacts, HostFacts, InterfaceFacts, Known, Queues, RuleEvidence};
use mcr_core::flow::InterfaceName;
use mcr_core::link::{IfIndex, Link, Links, Route};
use mcr_core::loss::{softnet_dropped, softnet_since};
use mcr_core::resolve::route_queries;
use mcr_dataplane::machine::{Sysfs, bridge_members, lro};
use mcr_dataplane::netlink::BridgeMember;

/// The interfaces that rules name, or that routes of theirs lead to.
pub(super) fn names(rules: &[RuleEvidence], links: &Links) -> BTreeSet<InterfaceName> {
    let mut names = BTreeSet::new();
    for rule in rules.iter().map(|rule| &rule.facts.rule) {
        names.insert(rule.input.interface.clone());
        names.extend(rule.outputs.iter().filter_map(|output| output.to.interface.clone()));
        for query in route_queries(rule) {
            if let Some(Route::Via { interface, .. }) = links.routes.get(&query) {
                names.insert(interface.clone());
            }
        }
    }
    names
}

/// Reads all of it; nothing here waits long.
pub(super) fn read(
    links: &Links,
    names: &BTreeSet<InterfaceName>,
    (membership_sockets, drops): (usize, Known<Vec<u32>>),
) -> (HostFacts, BTreeMap<InterfaceName, InterfaceFacts>) {
    let host = HostFacts {
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        igmp_max_memberships: sysctl("net/ipv4/igmp_max_memberships"),
        igmp_max_msf: sysctl("net/ipv4/igmp_max_msf"),
        mld_max_msf: sysctl("net/ipv6/mld_max_msf"),
        optmem_max: sysctl("net/core/optmem_max"),
        membership_sockets,
        rp_filter: sysctl("net/ipv4/conf/all/rp_filter"),
        listeners: listeners(),
        backlog_drops: drops.and_then(|before| {
            let since = softnet_since(&before, &backlog_drops()?);
            since.ok_or_else(|| "a CPU was switched on or off meanwhile".into())
        }),
    };
    let groups = groups();
    let members = bridge_members().map_err(|error| format!("bridges do not tell groups: {error}"));
    let sysfs = Sysfs::open();
    let facts = |name: &InterfaceName, link: &Link| InterfaceFacts {
        flags: at(&sysfs, name, link).and_then(|sysfs| flags(sysfs, name)),
        queues: at(&sysfs, name, link).and_then(|sysfs| queues(sysfs, name)),
        lro: lro(name.as_str())
            .map_err(|error| format!("{name} does not tell its offloads: {error}")),
        rp_filter: sysctl(&format!("net/ipv4/conf/{name}/rp_filter")),
        groups: groups
            .as_ref()
            .map_err(String::clone)
            .map(|all| all.groups.get(&link.index).cloned().unwrap_or_default()),
        igmp: groups.as_ref().map_err(String::clone).and_then(|all| {
            let version = all.versions.get(&link.index).copied();
            version.ok_or_else(|| "no version of IGMP is known".into())
        }),
        bridge: at(&sysfs, name, link).map(|sysfs| bridge(sysfs, (name, link), &members)),
    };
    let known = names.iter().filter_map(|name| Some((name, links.by_name(name)?)));
    (host, known.map(|(name, link)| (name.clone(), facts(name, link))).collect())
}

/// Frames that the queue of each CPU has dropped since the start of the host.
pub(super) fn backlog_drops() -> Known<Vec<u32>> {
    let path = "/proc/net/softnet_stat";
    softnet_dropped(&file(path)?).ok_or_else(|| format!("{path} is of another form"))
}

fn sysctl<T: std::str::FromStr>(name: &str) -> Known<T> {
    let text = file(&format!("/proc/sys/{name}"))?;
    text.trim().parse().map_err(|_| format!("/proc/sys/{name} says {:?}", text.trim()))
}

fn file(path: &str) -> Known<String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// sysfs, if it is of this network namespace.
fn at<'s>(sysfs: &'s io::Result<Sysfs>, name: &InterfaceName, link: &Link) -> Known<&'s Sysfs> {
    let sysfs = sysfs.as_ref().map_err(|error| format!("sysfs: {error}"))?;
    let index =
        sysfs.read(name.as_str(), "ifindex").map_err(|error| unread(name, "ifindex", &error))?;
    let mtu = sysfs.read(name.as_str(), "mtu").map_err(|error| unread(name, "mtu", &error))?;
    if index == link.index.to_string() && mtu == link.mtu.to_string() {
        Ok(sysfs)
    } else {
        Err("/sys is of another network namespace, and mcrd has no CAP_SYS_ADMIN for one of its own".into())
    }
}

fn unread(name: &InterfaceName, file: &str, error: &io::Error) -> String {
    format!("/sys/class/net/{name}/{file}: {error}")
}

/// `0x1003`.
fn flags(sysfs: &Sysfs, name: &InterfaceName) -> Known<u32> {
    let text = sysfs.read(name.as_str(), "flags").map_err(|error| unread(name, "flags", &error))?;
    u32::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| format!("/sys/class/net/{name}/flags says {text:?}"))
}

fn queues(sysfs: &Sysfs, name: &InterfaceName) -> Known<Queues> {
    let mask = |number: usize| {
        let file = format!("queues/rx-{number}/rps_cpus");
        sysfs.read(name.as_str(), &file).map_err(|error| unread(name, &file, &error))
    };
    let masks: Vec<String> =
        std::iter::once(mask(0)?).chain((1..).map_while(|n| mask(n).ok())).collect();
    let spread = masks.iter().any(|mask| mask.contains(|digit: char| !matches!(digit, '0' | ',')));
    Ok(Queues { count: masks.len(), spread })
}

/// The bridge that an interface is, or is a port of.
fn bridge(
    sysfs: &Sysfs,
    (name, link): (&InterfaceName, &Link),
    members: &Known<Vec<BridgeMember>>,
) -> Option<BridgeFacts> {
    let read = |file: &str| sysfs.read(name.as_str(), file).ok();
    let is_bridge = read("bridge/bridge_id").is_some();
    let folder = if is_bridge { "" } else { "brport/bridge/" };
    let index =
        read(&format!("{folder}ifindex")).filter(|_| is_bridge || read("brport/state").is_some());
    let index = IfIndex(index?.parse().ok()?);
    let is_set =
        |file: &str| read(&format!("{folder}bridge/{file}")).is_some_and(|text| text != "0");
    let uevent = read(&format!("{folder}uevent")).unwrap_or_default();
    let bridge = uevent.lines().find_map(|line| line.strip_prefix("INTERFACE="));
    // What this host itself has joined is of no receiver.
    let here = |member: &&BridgeMember| {
        let port = if is_bridge { member.port != index } else { member.port == link.index };
        member.bridge == index && port
    };
    Some(BridgeFacts {
        name: bridge.unwrap_or("?").to_owned(),
        snooping: is_set("multicast_snooping"),
        querier: is_set("multicast_querier"),
        members: members.clone().map(|all| all.iter().filter(here).map(|m| m.group).collect()),
    })
}

/// The kernel's memberships.
#[derive(Default)]
struct Groups {
    groups: BTreeMap<IfIndex, BTreeSet<IpAddr>>,
    versions: BTreeMap<IfIndex, u8>,
}

fn groups() -> Known<Groups> {
    let mut all = Groups::default();
    // For each interface `INDEX NAME: COUNT VERSION`, and a line for each group, which is indented.
    let mut index = IfIndex(0);
    for line in file("/proc/thread-self/net/igmp")?.lines().skip(1) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if line.starts_with(|first: char| first.is_ascii_digit()) {
            let Ok(number) = first.parse() else { continue };
            index = IfIndex(number);
            let version =
                line.split_whitespace().find_map(|word| word.strip_prefix('V')?.parse().ok());
            all.versions.extend(version.map(|version| (index, version)));
        } else if let Ok(group) = u32::from_str_radix(first, 16) {
            // In the byte order of the network, read as the host's.
            let group = IpAddr::V4(Ipv4Addr::from(group.to_ne_bytes()));
            all.groups.entry(index).or_default().insert(group);
        }
    }
    // A line for each group: index, name, address. A kernel without IPv6 has none.
    for line in file("/proc/thread-self/net/igmp6").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let index = words.next().and_then(|word| word.parse().ok());
        let group = words.nth(1).and_then(|word| u128::from_str_radix(word, 16).ok());
        if let Some((index, group)) = index.zip(group) {
            let group = IpAddr::V6(Ipv6Addr::from_bits(group));
            all.groups.entry(IfIndex(index)).or_default().insert(group);
        }
    }
    Ok(all)
}

/// Ports with a UDP socket: the second column is `ADDRESS:PORT`, in hexadecimal.
fn listeners() -> Known<BTreeSet<u16>> {
    let port = |line: &str| {
        let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    let four = file("/proc/thread-self/net/udp")?;
    let six = file("/proc/thread-self/net/udp6").unwrap_or_default();
    Ok(four.lines().chain(six.lines()).filter_map(port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read() {
        let all = groups().unwrap();
        let everybody = IpAddr::from([224, 0, 0, 1]);
        assert!(all.groups[&IfIndex::LOOPBACK].contains(&everybody), "{:?}", all.groups);
        assert!((1..=3).contains(&all.versions[&IfIndex::LOOPBACK]));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(listeners().unwrap().contains(&port));
        assert!(backlog_drops().is_ok());
        let missing = sysctl::<u64>("net/ipv4/no_such").unwrap_err();
        assert!(missing.starts_with("/proc/sys/net/ipv4/no_such: "), "{missing}");
    }
}
