//! One machine on which all is well, and faults that flip exactly their check.

mod streams;

use std::collections::BTreeSet;
use std::net::IpAddr;

use etherparse::PacketBuilder;

use super::heard::Hearing;
use super::seen::{Frame, Seen};
use super::*;
use crate::action::{OutputCounters, RuleCounters, Volume};
use crate::api::RuleSpec;
use crate::link::{IfIndex, Link, LinkKind, Links, Mac, NextHop, Route, RouteQuery};
use crate::refusal::{Code, Refusal};
use crate::relay::{RuleFacts, State};

const ETH0: IfIndex = IfIndex(2);
const ETH1: IfIndex = IfIndex(3);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: IfIndex, addresses: &[&str]) -> Link {
    Link {
        index,
        kind: LinkKind::Ethernet,
        up: true,
        carrier: true,
        no_arp: false,
        mac: [2, 0, 0, 0, 0, index.0 as u8],
        mtu: 1500,
        addresses: addresses.iter().map(|a| ip(a).into()).collect(),
        shared: false,
        mc_forwarding: false,
    }
}

fn facts() -> InterfaceFacts {
    InterfaceFacts {
        flags: Ok(0x1003),
        queues: Ok(Queues { count: 1, spread: false }),
        lro: Ok(false),
        rp_filter: Ok(0),
        groups: Ok([ip("224.0.0.1"), ip("239.1.1.1"), ip("ff15::5001")].into()),
        igmp: Ok(3),
        bridge: Ok(None),
    }
}

fn rule(name: &str, input: &str, outputs: &[&str]) -> RuleEvidence {
    let rule = RuleSpec::plain(name, input, outputs).check().unwrap();
    let outputs = vec![OutputCounters::default(); rule.outputs.len()];
    RuleEvidence {
        before: Some((RuleCounters::default(), outputs.clone())),
        facts: RuleFacts {
            key: rule.key(),
            rule,
            state: State::Forwarding,
            problem: None,
            counters: RuleCounters::default(),
            outputs,
            rate: Volume { packets: 2000, bytes: 2_000_000 },
            quiet: Some(Duration::ZERO),
            age: Duration::from_secs(600),
        },
    }
}

/// 239.1.1.1 and ff15::5001 on eth0, to groups on eth1 and to a host.
fn healthy() -> Evidence {
    let links = [
        ("eth0", link(ETH0, &["10.0.0.2", "fe80::2"])),
        ("eth1", link(ETH1, &["10.0.1.1", "fd00:1::1", "fe80::3"])),
    ];
    let named = |name: &str| name.parse::<InterfaceName>().unwrap();
    let mut links = Links {
        interfaces: links.into_iter().map(|(name, link)| (named(name), link)).collect(),
        ..Links::default()
    };
    let way = Route::Via { interface: named("eth1"), next_hop: ip("10.0.1.2"), source: None };
    links.routes.insert(RouteQuery { destination: ip("10.0.1.2"), interface: None }, way);
    let hop = NextHop { interface: ETH1, address: ip("10.0.1.2") };
    links.neighbours.insert(hop, Mac::default());
    let mut evidence = Evidence {
        duration: Duration::from_secs(3),
        rules: vec![
            rule("a", "239.1.1.1:5000@eth0", &["239.10.1.1:6000@eth1", "10.0.1.2:6000"]),
            rule("b", "[ff15::5001]:5000@eth0", &["[ff15::6001]:6000@eth1"]),
        ],
        links,
        host: HostFacts {
            cpus: 2,
            igmp_max_memberships: Ok(20),
            igmp_max_msf: Ok(10),
            mld_max_msf: Ok(64),
            optmem_max: Ok(131_072),
            membership_sockets: 2,
            rp_filter: Ok(0),
            listeners: Ok(BTreeSet::new()),
            backlog_drops: Ok(0),
        },
        plane: PlaneFacts { name: "ebpf", attach: "tcx", why: None },
        interfaces: [(named("eth0"), facts()), (named("eth1"), facts())].into(),
        seen: Ok(Seen::default()),
        heard: Ok(Hearing::default()),
        routes_back: BTreeMap::new(),
    };
    see(&mut evidence, &UDP);
    only_heard(&mut evidence, 330, &[query(300), member(310)], true);
    evidence
}

/// IGMPv3, an answer within 10 s.
const QUERY: [u8; 12] = [0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];

fn report([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, a, b, c, d]
}

fn mld_query() -> Vec<u8> {
    [&[130, 0, 0, 0, 0x27, 0x10, 0, 0][..], &[0; 16], &[2, 125, 0, 0]].concat()
}

fn mld_report(group: &str) -> Vec<u8> {
    let IpAddr::V6(group) = ip(group) else { panic!("{group}") };
    [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat()
}

fn igmp(source: &str, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V4(source) = ip(source) else { panic!("{source}") };
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(source.octets(), [224, 0, 0, 1], 1);
    builder.write(&mut packet, 2.into(), payload).unwrap();
    packet
}

fn mld(source: &str, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V6(source) = ip(source) else { panic!("{source}") };
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv6(source.octets(), [0xff; 16], 1);
    builder.write(&mut packet, 58.into(), payload).unwrap();
    packet
}

/// When, where, what.
type Said = (u64, IfIndex, Vec<u8>);

fn query(at: u64) -> Said {
    (at, ETH0, igmp("10.0.0.254", &QUERY))
}

fn member(at: u64) -> Said {
    (at, ETH1, igmp("10.0.1.2", &report([239, 10, 1, 1])))
}

/// Nothing of IGMP but this was heard, and before that a usual talk of MLD. `delivered`: queries get to
/// the kernel.
fn only_heard(evidence: &mut Evidence, now: u64, all: &[Said], delivered: bool) {
    let mut heard = Hearing::default();
    let mld = [
        (now - 20, ETH0, mld("fe80::ff", &mld_query())),
        (now - 10, ETH1, mld("fe80::4", &mld_report("ff15::6001"))),
    ];
    heard.delivered(ip("fe80::ff"), Duration::from_secs(now - 20));
    for (at, interface, packet) in all.iter().chain(&mld) {
        let at = Duration::from_secs(*at);
        let frame = Frame { interface: *interface, outgoing: false, tag: None, packet, segment: 0 };
        heard.observe(&frame, at);
        if delivered {
            heard.delivered(ip("10.0.0.254"), at);
        }
    }
    heard.now = Duration::from_secs(now);
    evidence.heard = Ok(heard);
}

/// A datagram on the wire.
#[derive(Clone, Copy)]
struct Datagram {
    interface: IfIndex,
    outgoing: bool,
    tag: Option<u16>,
    from: [u8; 4],
    to: [u8; 4],
    port: u16,
    ttl: u8,
    size: usize,
}

const UDP: Datagram = Datagram {
    interface: ETH0,
    outgoing: false,
    tag: None,
    from: [10, 0, 0, 1],
    to: [239, 1, 1, 1],
    port: 5000,
    ttl: 8,
    size: 1000,
};

fn see(evidence: &mut Evidence, datagram: &Datagram) {
    let Datagram { interface, outgoing, tag, from, to, port, ttl, size } = *datagram;
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from, to, ttl).udp(4000, port);
    builder.write(&mut packet, &vec![0; size]).unwrap();
    packet[6] &= !0x40;
    let frame = Frame { interface, outgoing, tag, packet: &packet, segment: 0 };
    evidence.seen.as_mut().unwrap().observe(&frame);
}

/// Rule a does not flow, and nothing but this was seen.
fn idle(evidence: &mut Evidence, datagrams: &[Datagram]) {
    let facts = &mut evidence.rules[0].facts;
    (facts.state, facts.quiet) = (State::Idle, None);
    evidence.seen = Ok(Seen::default());
    datagrams.iter().for_each(|datagram| see(evidence, datagram));
}

fn change_link(evidence: &mut Evidence, name: &str, change: impl FnOnce(&mut Link)) {
    change(evidence.links.interfaces.get_mut(&name.parse().unwrap()).unwrap());
}

fn change_facts(evidence: &mut Evidence, name: &str, change: impl FnOnce(&mut InterfaceFacts)) {
    change(evidence.interfaces.get_mut(&name.parse().unwrap()).unwrap());
}

/// The check that is not well after a fault, and what it says.
#[track_caller]
fn flips(level: Level, topic: Topic, words: &[&str], fault: impl FnOnce(&mut Evidence)) {
    let mut evidence = healthy();
    fault(&mut evidence);
    let checks = judge(&evidence);
    let bad: Vec<&Check> = checks.iter().filter(|check| check.level != Level::Ok).collect();
    let [check] = bad[..] else { panic!("{topic:?}: {bad:#?}") };
    assert_eq!((check.level, check.topic), (level, topic), "{check:#?}");
    let said = format!(
        "{}: {} → {}",
        check.subject,
        check.evidence,
        check.remedy.as_deref().unwrap_or("-")
    );
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

#[test]
fn on_a_healthy_machine_all_is_well() {
    let checks = judge(&healthy());
    let bad: Vec<&Check> = checks.iter().filter(|check| check.level != Level::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(checks.iter().all(|check| check.remedy.is_none()));
    let made: BTreeSet<Topic> = checks.iter().map(|check| check.topic).collect();
    assert_eq!(made, Topic::ALL.into());
}

#[test]
fn each_check_has_a_name_of_its_own_and_is_documented() {
    let names: BTreeSet<&str> = Topic::ALL.map(Topic::name).into();
    assert_eq!(names.len(), Topic::ALL.len());
    let page = include_str!("../../../../docs/troubleshooting.md");
    for name in names {
        assert!(
            page.contains(&format!("| `{name}` |")),
            "{name} is not in docs/troubleshooting.md"
        );
    }
}

#[test]
fn faults_of_the_host_are_named() {
    use Level::{Problem, Unknown, Warning};
    flips(Warning, Topic::Plane, &["host", "no BTF", "packet (rings)"], |e| {
        let why = Some("the ebpf plane cannot run: no BTF".into());
        e.plane = PlaneFacts { name: "packet", attach: "rings", why };
    });
    flips(Problem, Topic::JoinLimits, &["igmp_max_memberships = 0", "sysctl"], |e| {
        e.host.igmp_max_memberships = Ok(0);
    });
    flips(Problem, Topic::JoinLimits, &["a: the kernel refused", "raise it"], |e| {
        e.rules[0].facts.state = State::Failed;
        let refusal = Refusal::new(Code::Join, "the kernel refused to join 239.1.1.1", "raise it");
        e.rules[0].facts.problem = Some(refusal);
    });
    flips(Warning, Topic::Backlog, &["7 frames", "netdev_max_backlog"], |e| {
        e.host.backlog_drops = Ok(7);
    });
    flips(Unknown, Topic::Backlog, &["no such file"], |e| {
        e.host.backlog_drops = Err("no such file".into());
    });
}

#[test]
fn faults_of_interfaces_are_named() {
    use Level::{Problem, Unknown, Warning};
    flips(
        Problem,
        Topic::InterfaceState,
        &["eth1", "down", "2 rules: a, b", "ip link set eth1 up"],
        |e| {
            change_link(e, "eth1", |link| link.up = false);
        },
    );
    flips(Problem, Topic::InterfaceState, &["eth0", "no carrier", "cable"], |e| {
        change_link(e, "eth0", |link| link.carrier = false);
    });
    flips(Problem, Topic::InterfaceState, &["eth0", "no such interface"], |e| {
        e.links.interfaces.remove(&"eth0".parse().unwrap());
    });
    flips(Problem, Topic::InterfaceState, &["eth0", "link type 801"], |e| {
        change_link(e, "eth0", |link| link.kind = LinkKind::Other(801));
    });
    flips(Warning, Topic::MulticastFlag, &["eth0", "multicast on"], |e| {
        change_facts(e, "eth0", |facts| facts.flags = Ok(0x3));
    });
    flips(Warning, Topic::Address, &["eth0", "0.0.0.0"], |e| {
        change_link(e, "eth0", |link| link.addresses.retain(|a| a.address.is_ipv6()));
    });
    flips(Problem, Topic::Address, &["b to ", "no IPv6 address"], |e| {
        change_link(e, "eth1", |link| link.addresses.retain(|a| a.address.is_ipv4()));
    });
    flips(Warning, Topic::Mtu, &["eth1: MTU 1500", "eth0 is 9000"], |e| {
        change_link(e, "eth0", |link| link.mtu = 9000);
    });
    flips(Problem, Topic::Mtu, &["up to 1028 bytes", "for a"], |e| {
        change_link(e, "eth0", |link| link.mtu = 1000);
        change_link(e, "eth1", |link| link.mtu = 1000);
    });
    flips(Warning, Topic::Offloads, &["eth0", "ethtool -K eth0 lro off"], |e| {
        change_facts(e, "eth0", |facts| facts.lro = Ok(true));
    });
    flips(Warning, Topic::ReceiveQueues, &["RPS off", "200000 packets/s", "echo 3 >"], |e| {
        e.rules[0].facts.rate.packets = 198_000;
    });
    flips(Unknown, Topic::ReceiveQueues, &["rx-0"], |e| {
        change_facts(e, "eth0", |facts| facts.queues = Err("rx-0 is not there".into()));
    });
}

#[test]
fn rp_filter_matters_to_local_programs_and_to_queries() {
    let strict = |e: &mut Evidence, source: &str| {
        e.host.rp_filter = Ok(1);
        let interface = "eth1".parse().unwrap();
        let away = Route::Via { interface, next_hop: ip("10.0.1.2"), source: None };
        e.routes_back.insert(ip(source), away);
    };
    let mut evidence = healthy();
    strict(&mut evidence, "10.0.0.1");
    assert!(judge(&evidence).iter().all(|check| check.level == Level::Ok), "nobody listens here");
    flips(Level::Warning, Topic::RpFilter, &["eth0", "10.0.0.1", "by eth1", "port 5000"], |e| {
        strict(e, "10.0.0.1");
        e.host.listeners = Ok([5000].into());
    });
    flips(Level::Warning, Topic::RpFilter, &["queries of 10.0.0.254", "260 s"], |e| {
        strict(e, "10.0.0.254");
    });
    flips(Level::Warning, Topic::RpFilter, &["no route leads to it"], |e| {
        change_facts(e, "eth0", |facts| facts.rp_filter = Ok(2));
        e.routes_back.insert(ip("10.0.0.254"), Route::None("unreachable".into()));
    });
}

#[test]
fn faults_of_memberships_are_named() {
    use Level::{Problem, Unknown, Warning};
    flips(Problem, Topic::Membership, &["eth0", "no member of 239.1.1.1"], |e| {
        change_facts(e, "eth0", |facts| facts.groups = Ok([ip("ff15::5001")].into()));
    });
    flips(Warning, Topic::Membership, &["IGMPv2", "those of a", "force_igmp_version"], |e| {
        e.rules[0] = rule("a", "10.0.0.1@239.1.1.1:5000@eth0", &["239.10.1.1:6000@eth1"]);
        change_facts(e, "eth0", |facts| facts.igmp = Ok(2));
    });
    let words = ["eth0", "no IGMP query heard for 4m 20s", "querier on"];
    flips(Warning, Topic::Querier, &words, |e| only_heard(e, 330, &[member(310)], true));
    flips(Warning, Topic::Querier, &["the last was IGMPv3", "10.0.0.254", "5m ago"], |e| {
        only_heard(e, 600, &[query(300), member(590)], true);
    });
    flips(Unknown, Topic::Querier, &["in the 40s since mcrd started"], |e| {
        only_heard(e, 40, &[member(30)], true);
    });
    let bridge = |name: &str, querier, members: &[&str]| BridgeFacts {
        name: name.into(),
        snooping: true,
        querier,
        members: Ok(members.iter().map(|group| ip(group)).collect()),
    };
    flips(Warning, Topic::Querier, &["bridge br0 snoops", "mcast_querier 1"], |e| {
        only_heard(e, 330, &[member(310)], true);
        change_facts(e, "eth0", |facts| facts.bridge = Ok(Some(bridge("br0", false, &[]))));
    });
    let mut evidence = healthy();
    only_heard(&mut evidence, 330, &[member(310)], true);
    change_facts(&mut evidence, "eth0", |facts| facts.bridge = Ok(Some(bridge("br0", true, &[]))));
    assert!(judge(&evidence).iter().all(|check| check.level == Level::Ok), "it asks itself");
    flips(Problem, Topic::QueriesAnswered, &["10.0.0.254", "30s ago", "nft insert rule"], |e| {
        only_heard(e, 330, &[query(300), member(310)], false);
    });
    flips(Unknown, Topic::Downstream, &["eth1", "239.10.1.1", "nobody asks"], |e| {
        only_heard(e, 330, &[query(300)], true);
    });
    flips(Warning, Topic::Downstream, &["no IGMP report for 239.10.1.1", "10.0.1.254"], |e| {
        let asked = (300, ETH1, igmp("10.0.1.254", &QUERY));
        only_heard(e, 330, &[query(300), asked], true);
    });
    flips(Warning, Topic::Downstream, &["bridge br1 knows no member of 239.10.1.1", "mdb"], |e| {
        let known = bridge("br1", true, &["ff15::6001"]);
        change_facts(e, "eth1", |facts| facts.bridge = Ok(Some(known)));
    });
}
