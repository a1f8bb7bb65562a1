mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use etherparse::{IpHeaders, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder};

use super::*;
use crate::action::{PlaneChange, PlaneRule, RuleId, Take, ToStack};
use crate::api::{Discovery, StreamSeen};
use crate::flow::{AddressBlock, PortRange};
use crate::forward::ForwardTable;
use crate::link::{Link, LinkKind};
use crate::relay::{State, Takers};
use crate::rule::RuleKey;

const ETH0: IfIndex = IfIndex(2);
const ETH1: IfIndex = IfIndex(3);
const SECOND: Duration = Duration::from_secs(1);

/// An Ethernet frame of a datagram.
fn frame(source: &str, to: (&str, u16), ttl: u8, payload: &[u8]) -> Vec<u8> {
    let (group, port) = to;
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [1, 0, 0x5e, 0, 0, 1]);
    let ip = match (source.parse().unwrap(), group.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(group)) => {
            let header = Ipv4Header::new(0, ttl, 17.into(), source.octets(), group.octets());
            IpHeaders::Ipv4(header.unwrap(), Default::default())
        }
        (IpAddr::V6(source), IpAddr::V6(group)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: 17.into(),
                hop_limit: ttl,
                source: source.octets(),
                destination: group.octets(),
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        mixed => panic!("{mixed:?}"),
    };
    let mut bytes = Vec::new();
    ethernet.ip(ip).udp(4444, port).write(&mut bytes, payload).unwrap();
    bytes
}

fn sight(bytes: &[u8]) -> Sight<'_> {
    Sight { bytes, length: bytes.len(), bare: false, interface: ETH0, tag: None, segment_size: 0 }
}

/// As a tap keeps it.
fn cut(bytes: &[u8]) -> Sight<'_> {
    Sight { bytes: &bytes[..bytes.len().min(SNAP as usize)], ..sight(bytes) }
}

fn survey() -> Survey {
    Survey::new([ETH0, ETH1].into())
}

/// eth0 and eth1, and rules with their sources.
fn takers(rules: &[(&str, u16, &[&str])]) -> Takers {
    let link = |index| Link {
        index,
        kind: LinkKind::Ethernet,
        up: true,
        carrier: true,
        no_arp: false,
        mac: [0; 6],
        mtu: 1500,
        addresses: Vec::new(),
        shared: false,
        mc_forwarding: false,
    };
    let rule = |(n, (group, port, sources)): (usize, &(&str, u16, &[&str]))| PlaneRule {
        id: RuleId(n as u32),
        take: Take {
            interface: ETH0,
            addresses: AddressBlock::single(group.parse().unwrap()),
            ports: PortRange::new(*port, *port).unwrap(),
            sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
        },
        to_stack: ToStack::Always,
        max_rate: None,
        outputs: Vec::new(),
    };
    let mut table = ForwardTable::default();
    let install = rules.iter().enumerate().map(rule).collect();
    let own = [[10, 9, 9, 9].into()].into();
    table.apply(PlaneChange { install, own, ..PlaneChange::default() });
    let name =
        |n: usize| (RuleId(n as u32), (RuleKey::from_user(&format!("rule-{n}")), State::Disabled));
    Takers {
        interfaces: BTreeMap::from([
            ("eth0".parse().unwrap(), link(ETH0)),
            ("eth1".parse().unwrap(), link(ETH1)),
        ]),
        table,
        rules: (0..rules.len()).map(name).collect(),
    }
}

fn report(survey: Survey) -> Discovery {
    survey.report(SECOND, 0, &takers(&[]))
}

fn only(survey: Survey) -> StreamSeen {
    let Discovery { mut streams, .. } = report(survey);
    assert_eq!(streams.len(), 1, "{streams:?}");
    streams.remove(0)
}

/// `GROUP:PORT SOURCE packets bytes`.
fn lines(found: &Discovery) -> Vec<String> {
    let line = |seen: &StreamSeen| {
        let StreamSeen { interface, group, port, source, received, .. } = seen;
        format!("{interface} {group}:{port} {source} {} {}", received.packets, received.bytes)
    };
    found.streams.iter().map(line).collect()
}

#[test]
fn streams_are_told_apart_and_sorted() {
    let mut survey = survey();
    let mut add = |source, to, ttl, size, times| {
        let bytes = frame(source, to, ttl, &vec![0; size]);
        (0..times).for_each(|_| survey.add(&cut(&bytes)));
    };
    add("10.0.0.3", ("239.1.1.1", 5000), 4, 1000, 20);
    add("10.0.0.3", ("239.1.1.1", 5000), 9, 100, 1);
    add("10.0.0.1", ("239.1.1.1", 5000), 4, 0, 1);
    add("fd00::1", ("ff15::1", 5000), 7, 1400, 3);
    add("10.0.0.1", ("239.1.1.1", 4999), 4, 9, 2);
    let bytes = frame("10.0.0.1", ("224.0.1.1", 1), 1, b"x");
    survey.add(&Sight { interface: ETH1, ..cut(&bytes) });
    survey.add(&Sight { interface: IfIndex(7), ..cut(&bytes) });
    let found = survey.report(Duration::from_millis(1500), 3, &takers(&[]));
    assert_eq!(
        lines(&found),
        [
            "eth0 239.1.1.1:4999 10.0.0.1 2 18",
            "eth0 239.1.1.1:5000 10.0.0.1 1 0",
            "eth0 239.1.1.1:5000 10.0.0.3 21 20100",
            "eth0 ff15::1:5000 fd00::1 3 4200",
            "eth1 224.0.1.1:1 10.0.0.1 1 1",
        ]
    );
    let StreamSeen { rate, ttl, size, .. } = found.streams[2];
    assert_eq!((rate.packets, rate.bits), (14, 107_200));
    assert_eq!((ttl.min, ttl.max, size.min, size.max), (4, 9, 100, 1000));
    assert_eq!((found.interfaces, found.seconds), (vec!["eth0".into(), "eth1".into()], 1.5));
    assert_eq!((found.missed, found.left_out.len()), (3, 0));
}

#[test]
fn it_listens_where_something_can_arrive() {
    let mut links = takers(&[]).interfaces;
    let mut link = |name: &str, index, kind, up| {
        let like = links[&"eth0".parse().unwrap()].clone();
        links.insert(name.parse().unwrap(), Link { index: IfIndex(index), kind, up, ..like });
    };
    link("lo", 1, LinkKind::Loopback, true);
    link("off", 4, LinkKind::Ethernet, false);
    link("tun0", 5, LinkKind::Bare, true);
    link("ib0", 6, LinkKind::Other(32), true);
    let places = |name: Option<&str>| listening_places(&links, name);
    assert_eq!(places(None), Ok([ETH0, ETH1, IfIndex(5)].into()));
    assert_eq!(places(Some("lo")), Ok([IfIndex(1)].into()));
    assert_eq!(places(Some("tun0")), Ok([IfIndex(5)].into()));
    for (name, message, hint) in [
        ("eth9", "no interface eth9", "ip link"),
        ("off", "off is down", "ip link set off up"),
        ("ib0", "link type 32", "Ethernet"),
        ("eth0@if3", "is not an interface name", "write eth0 alone"),
        ("", "it is empty", ""),
    ] {
        let refusal = places(Some(name)).unwrap_err();
        assert!(refusal.message.contains(message), "{refusal}");
        assert!(refusal.hint.contains(hint), "{refusal}");
    }
    links.retain(|name, _| matches!(name.as_str(), "lo" | "off"));
    assert!(listening_places(&links, None).unwrap_err().message.contains("no interface is up"));
}

#[test]
fn it_listens_for_a_second_at_least_and_five_minutes_at_most() {
    assert_eq!(listening_time(TIME_DEFAULT), Ok(Duration::from_secs(3)));
    for text in ["1s", "1500ms", "5m"] {
        assert!(listening_time(text).is_ok(), "{text}");
    }
    for text in ["", "3", "0s", "999ms", "301s", "-3s", "ever"] {
        let refusal = listening_time(text).unwrap_err();
        assert!(refusal.message.contains(&format!("duration = {text:?}")), "{refusal}");
    }
}

#[test]
fn what_is_no_stream_is_left_out_by_reason() {
    let mut survey = survey();
    survey.add(&cut(&frame("10.0.0.1", ("224.0.0.251", 5353), 255, b"mdns")));
    survey.add(&cut(&frame("fe80::1", ("ff02::fb", 5353), 255, b"mdns")));
    let good = frame("10.0.0.1", ("239.1.1.1", 5000), 1, &[0; 600]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for bytes in [
        with(14, 0x44),               // A header of 16 bytes.
        with(16, 9),                  // More than came.
        with(14 + 20 + 4, 9),         // The same of UDP.
        with(14 + 20 + 5, 7),         // 519 bytes: not so wrong.
        good[..14 + 20 + 7].to_vec(), // Cut on the wire.
    ] {
        survey.add(&cut(&bytes));
    }
    // The rest of a datagram whose beginning nobody has seen.
    survey.add(&cut(&with(21, 9)));
    // Neither UDP, nor to a group, nor IP.
    survey.add(&cut(&with(23, 6)));
    survey.add(&cut(&frame("10.0.0.1", ("10.0.0.2", 5000), 1, b"x")));
    survey.add(&cut(&with(12, 9)));
    survey.add(&cut(&[]));
    let found = report(survey);
    assert_eq!(lines(&found), ["eth0 239.1.1.1:5000 10.0.0.1 1 511"]);
    let left_out: Vec<(&str, u64)> = found.left_out.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    assert_eq!(left_out, [("fragment", 1), ("link-local", 2), ("malformed", 4)]);
}

#[test]
fn the_number_of_streams_is_bounded() {
    let mut survey = survey();
    let mut bytes = frame("10.0.0.1", ("239.1.1.1", 5000), 1, b"x");
    for n in 0..STREAMS_MAX as u32 + 10 {
        bytes[26..30].copy_from_slice(&(0x0a00_0000 + n).to_be_bytes());
        survey.add(&cut(&bytes));
    }
    // Those that are known go on.
    bytes[26..30].copy_from_slice(&0x0a00_0000_u32.to_be_bytes());
    survey.add(&cut(&bytes));
    let found = report(survey);
    assert_eq!((found.streams.len(), found.left_out["too-many"]), (STREAMS_MAX, 10));
    assert_eq!(found.streams[0].received.packets, 2);
}

#[test]
fn super_packets_count_as_their_datagrams() {
    let mut survey = survey();
    let bytes = frame("10.0.0.1", ("239.1.1.1", 5000), 1, &[0; 2500]);
    survey.add(&Sight { segment_size: 1000, ..cut(&bytes) });
    let seen = only(survey);
    assert_eq!((seen.received.packets, seen.received.bytes), (3, 2500));
    assert_eq!((seen.size.min, seen.size.max), (500, 1000));
}

#[test]
fn fragments_belong_to_the_stream_of_their_first() {
    let mut survey = survey();
    let whole = frame("10.0.0.1", ("239.1.1.1", 5000), 6, &[0; 1000]);
    // 600 bytes of the IP payload, then 408.
    let fragment = |bits: u16, id: u8, from: usize, to: usize| {
        let mut bytes = [&whole[..34], &whole[34 + from..34 + to]].concat();
        bytes[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
        bytes[18..20].copy_from_slice(&[0, id]);
        bytes[20..22].copy_from_slice(&bits.to_be_bytes());
        bytes
    };
    survey.add(&cut(&fragment(0x2000, 7, 0, 600)));
    survey.add(&cut(&fragment(75, 7, 600, 1008)));
    survey.add(&cut(&fragment(75, 8, 600, 1008)));
    // The same datagram in a VLAN is another.
    survey.add(&Sight { tag: Some(5), ..cut(&fragment(75, 7, 600, 1008)) });
    let found = report(survey);
    assert_eq!(found.left_out["fragment"], 2);
    let [seen] = &found.streams[..] else { panic!("{found:?}") };
    assert_eq!((seen.received.packets, seen.received.bytes, seen.fragments), (2, 1000, 2));
    assert_eq!((seen.size.min, seen.size.max), (1000, 1000), "of the datagram");
}

#[test]
fn only_so_many_datagrams_in_fragments_are_remembered() {
    let mut survey = survey();
    let mut bytes = frame("10.0.0.1", ("239.1.1.1", 5000), 1, &[0; 100]);
    bytes[20] = 0x20;
    for id in 0..5000_u16 {
        bytes[18..20].copy_from_slice(&id.to_be_bytes());
        survey.add(&cut(&bytes));
    }
    assert_eq!((survey.ports.len(), survey.order.len()), (DATAGRAMS_MAX, DATAGRAMS_MAX));
}

#[test]
fn a_tag_is_a_vlan_unless_it_is_a_priority() {
    let mut survey = survey();
    let bytes = frame("10.0.0.1", ("239.1.1.1", 5000), 1, b"x");
    for tag in [None, Some(0xe000), Some(0xe00a), Some(10)] {
        survey.add(&Sight { tag, ..cut(&bytes) });
    }
    let found = survey.report(SECOND, 0, &takers(&[("239.1.1.1", 5000, &[])]));
    let seen: Vec<_> = found.streams.iter().map(|s| (s.vlan, s.received.packets)).collect();
    assert_eq!(seen, [(None, 2), (Some(10), 2)]);
    assert_eq!(found.streams[0].rule.as_deref(), Some("rule-0"));
    assert_eq!((&found.streams[1].rule, found.streams[1].pass.as_deref()), (&None, Some("tagged")));
}

#[test]
fn interfaces_may_have_no_link_header() {
    let mut survey = survey();
    let bytes = frame("10.0.0.1", ("239.1.1.1", 5000), 1, &[0; 1000]);
    survey.add(&Sight { bare: true, length: 1028, ..cut(&bytes[14..]) });
    survey.add(&Sight { bare: true, ..cut(&[0x10]) });
    assert_eq!(only(survey).received.bytes, 1000);
}

#[test]
fn streams_are_named_by_the_rule_that_takes_them() {
    let mut survey = survey();
    for (source, port) in [
        ("10.0.0.1", 5000),
        ("10.0.0.1", 5001),
        ("10.0.0.2", 5001),
        ("10.9.9.9", 5000),
        ("10.9.9.9", 5002),
        ("10.0.0.1", 5002),
    ] {
        survey.add(&cut(&frame(source, ("239.1.1.1", port), 1, b"x")));
    }
    survey.add(&Sight { interface: ETH1, ..cut(&frame("10.0.0.1", ("239.1.1.1", 5000), 1, b"x")) });
    let rules = takers(&[("239.1.1.1", 5000, &[]), ("239.1.1.1", 5001, &["10.0.0.1"])]);
    let found = survey.report(SECOND, 0, &rules);
    let whose: Vec<_> =
        found.streams.iter().map(|s| s.rule.as_deref().or(s.pass.as_deref()).unwrap()).collect();
    let first = ["rule-0", "rule-0", "rule-1", "other-source", "no-rule", "own", "no-rule"];
    assert_eq!(whose, first);
    assert_eq!(found.streams[0].state.as_deref(), Some("disabled"));
    assert_eq!(found.streams[3].state, None);
}

/// The looks of a stream of these payloads: payload type of RTP, and whether it is TS.
fn looks(payloads: impl IntoIterator<Item = Vec<u8>>) -> (Option<u8>, bool) {
    let mut survey = survey();
    for payload in payloads {
        survey.add(&cut(&frame("10.0.0.1", ("239.1.1.1", 5000), 1, &payload)));
    }
    let seen = only(survey);
    (seen.rtp.map(|rtp| rtp.payload_type), seen.ts)
}

fn rtp_packet(sequence: u16, ssrc: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b] = sequence.to_be_bytes();
    [&[0x80, 33, a, b, 0, 0, 0, 0, 0, 0, 0, ssrc][..], payload].concat()
}

fn ts_packets(count: usize) -> Vec<u8> {
    [&[0x47][..], &[0; 187]].concat().repeat(count)
}

#[test]
fn several_packets_must_agree_on_what_a_stream_looks_like() {
    assert_eq!(looks((0..9).map(|_| ts_packets(7))), (None, true));
    assert_eq!(looks((0..2).map(|_| ts_packets(7))), (None, false), "two may be chance");
    let longer = || [ts_packets(7), vec![0]].concat();
    assert_eq!(looks((0..9).map(|_| longer())), (None, false), "no whole packets");
    let many = (0..19).map(|_| ts_packets(7)).chain([vec![0; 1316]]);
    assert_eq!(looks(many), (None, true), "one of many may be broken");

    assert_eq!(
        looks((65_530..=65_535).chain(0..5).map(|n| rtp_packet(n, 1, b"x"))),
        (Some(33), false)
    );
    assert_eq!(looks((0..9).map(|n| rtp_packet(n, 1, &ts_packets(7)))), (Some(33), true));
    assert_eq!(looks([1, 3, 2, 5, 9, 8].map(|n| rtp_packet(n, 1, b"x"))).0, Some(33), "order");
    assert_eq!(looks((0..9).map(|_| rtp_packet(7, 1, b"x"))).0, None, "the number stands");
    assert_eq!(looks((0..9).map(|n| rtp_packet(n, n as u8, b"x"))).0, None, "of many sources");
    assert_eq!(looks((0..9).map(|n| rtp_packet(n * 7919, 1, b"x"))).0, None, "wild numbers");
    assert_eq!(looks((0..9).map(|_| vec![0; 100])), (None, false));
    assert_eq!(looks((0..9).map(|_| Vec::new())), (None, false));
}
