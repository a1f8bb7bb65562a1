//! Which rule takes a packet: sources, ranges, unicast, rates.

use proptest::prelude::*;

use super::ipv6::{SENDER6, header6, judged6, output6, rule6};
use super::*;
use crate::flow::masked;

fn block(text: &str) -> AddressBlock {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    AddressBlock::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
}

/// Takes these, and sends them to the same groups of 225/8.
fn taker(id: u32, addresses: &str, ports: PortRange, sources: &[[u8; 4]]) -> PlaneRule {
    let addresses = block(addresses);
    let sources = sources.iter().map(|source| (*source).into()).collect();
    let take = Take { interface: ETH0, addresses, ports, sources };
    let first = IpAddr::V4([225, 0, 0, 0].into());
    let destination = if addresses.is_single() {
        single([225, 0, 0, 1])
    } else {
        AddressBlock::new(masked(first, addresses.prefix()), addresses.prefix()).unwrap()
    };
    let outputs = vec![PlaneOutput { destination, ..output() }];
    PlaneRule { id: RuleId(id), take, outputs, ..rule() }
}

fn to(source: [u8; 4], destination: [u8; 4], port: u16) -> Vec<u8> {
    let mut ip = header();
    (ip.source, ip.destination) = (source, destination);
    let packet = PacketBuilder::ethernet2(SENDER_MAC, [1, 0, 0x5e, 1, 1, 1]);
    let mut bytes = Vec::new();
    let ip = IpHeaders::Ipv4(ip, Ipv4Extensions::default());
    packet.ip(ip).udp(4000, port).write(&mut bytes, b"payload").unwrap();
    bytes
}

fn said(bench: &mut Bench, source: [u8; 4], destination: [u8; 4], port: u16) -> String {
    bench.relay(&here(&to(source, destination, port))).0
}

#[test]
fn two_rules_exchange_what_they_take() {
    let (a, b) =
        (taker(0, "239.1.1.1", ports(5, 5), &[]), taker(1, "239.1.1.0/24", ports(5, 9), &[]));
    let mut bench = Bench::new(vec![a.clone(), b.clone()]);
    let all = |bench: &mut Bench| {
        [1, 2].map(|host| said(bench, SENDER, [239, 1, 1, host], 5).chars().nth(5).unwrap())
    };
    assert_eq!(all(&mut bench), ['0', '1']);
    let swapped = vec![PlaneRule { id: b.id, ..a.clone() }, PlaneRule { id: a.id, ..b.clone() }];
    bench.table.apply(PlaneChange { install: swapped, ..PlaneChange::default() });
    assert_eq!(all(&mut bench), ['1', '0']);
    assert_eq!(bench.table.rule(RuleId(1)).map(|rule| &rule.take), Some(&a.take));
    bench.table.apply(PlaneChange { remove: vec![RuleId(1)], ..PlaneChange::default() });
    assert_eq!(all(&mut bench), ['0', '0']);
    bench.table.apply(PlaneChange { remove: vec![RuleId(0)], ..PlaneChange::default() });
    assert_eq!(all(&mut bench), ['n', 'n'], "no-rule");
    assert_eq!(bench.table.rules().count(), 0);
}

#[test]
fn two_rules_take_one_group_and_port_from_different_sources() {
    let [a, b, c, d] = [1, 2, 3, 4].map(|host| [10, 0, 0, host]);
    let mut bench = Bench::new(vec![
        taker(0, "232.1.1.1", ports(5, 5), &[a]),
        taker(1, "232.1.1.1", ports(5, 5), &[b, c]),
    ]);
    assert_eq!(said(&mut bench, a, [232, 1, 1, 1], 5), "rule 0 1/7");
    assert_eq!(said(&mut bench, b, [232, 1, 1, 1], 5), "rule 1 1/7");
    assert_eq!(said(&mut bench, c, [232, 1, 1, 1], 5), "rule 1 1/7");
    assert_eq!(said(&mut bench, d, [232, 1, 1, 1], 5), "pass other-source");
    assert_eq!(said(&mut bench, a, [232, 1, 1, 1], 6), "pass no-rule");
    assert_eq!(said(&mut bench, a, [232, 1, 1, 2], 5), "pass no-rule");
    bench.table.apply(PlaneChange { remove: vec![RuleId(0)], ..PlaneChange::default() });
    assert_eq!(said(&mut bench, a, [232, 1, 1, 1], 5), "pass other-source");
    assert_eq!(said(&mut bench, b, [232, 1, 1, 1], 5), "rule 1 1/7");
}

#[test]
fn a_range_maps_one_to_one() {
    let rule = PlaneRule {
        outputs: vec![PlaneOutput {
            destination: block("225.7.4.0/22"),
            port_shift: 1000,
            ..output()
        }],
        ..taker(0, "239.1.8.0/22", ports(5000, 5003), &[])
    };
    let mut bench = Bench::new(vec![rule]);
    for (third, host) in [(8, 0), (8, 255), (9, 1), (11, 255)] {
        for port in 5000..=5003 {
            let sent = bench.sent(&here(&to(SENDER, [239, 1, third, host], port))).unwrap();
            assert_eq!(sent[..6], [1, 0, 0x5e, 7, third - 4, host]);
            let (ip, udp, _) = judged(&sent);
            assert_eq!(ip.destination, [225, 7, third - 4, host]);
            assert_eq!(udp.destination_port, port + 1000);
        }
    }
    for (group, port) in [
        ([239, 1, 7, 255], 5000),
        ([239, 1, 12, 0], 5000),
        ([239, 1, 8, 0], 4999),
        ([239, 1, 8, 0], 5004),
    ] {
        assert_eq!(said(&mut bench, SENDER, group, port), "pass no-rule");
    }
}

#[test]
fn the_port_moves_down_as_well() {
    let down = PlaneOutput { port_shift: 0_u16.wrapping_sub(4000), ..output() };
    let sent = Bench::to(down).sent(&here(&frame(header(), b"payload"))).unwrap();
    assert_eq!(judged(&sent).1.destination_port, 1000);
}

#[test]
fn ipv6_groups_map_one_to_one() {
    let group = |first: u16, last: u16| std::net::Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0x8000, last);
    let addresses = AddressBlock::new(group(0xff3e, 0).into(), 112).unwrap();
    let destination = AddressBlock::new(group(0xff1e, 0).into(), 112).unwrap();
    let take = Take { addresses, ..rule6().take };
    let outputs = vec![PlaneOutput { destination, ..output6() }];
    let mut bench = Bench::new(vec![PlaneRule { take, outputs, ..rule6() }]);
    for host in [0, 1, 0x1234, 0xffff] {
        let mut ip = header6();
        ip.destination = group(0xff3e, host).octets();
        let came = ipv6::framed6(&ipv6::packet6(ip, Default::default(), b"p"));
        let sent = bench.sent(&here(&came)).unwrap();
        assert_eq!(sent[..4], [0x33, 0x33, 0x80, 0]);
        assert_eq!(sent[4..6], host.to_be_bytes());
        assert_eq!(judged6(&sent[14..]).0.destination, group(0xff1e, host).octets());
    }
}

#[test]
fn what_is_exact_wins_over_a_range() {
    let [a, b, c] = [1, 2, 3].map(|host| [10, 0, 0, host]);
    let mut bench = Bench::new(vec![
        taker(0, "224.0.0.0/4", ports(9, 9), &[]),
        taker(1, "232.0.0.0/8", ports(5, 5), &[b]),
        taker(2, "232.1.1.0/24", ports(5, 5), &[a]),
        taker(3, "232.1.1.1", ports(5, 5), &[a]),
        taker(4, "232.1.1.1", ports(6, 7), &[]),
        taker(5, "239.9.9.9", ports(9, 9), &[]),
        taker(6, "239.1.0.0/16", ports(5, 5), &[]),
        taker(7, "239.1.1.1", ports(5, 5), &[c]),
    ]);
    let cases = [
        (a, [232, 1, 1, 1], 5, "rule 3 1/7"),
        (b, [232, 1, 1, 1], 5, "rule 1 1/7"),
        (c, [232, 1, 1, 1], 5, "pass other-source"),
        (a, [232, 1, 1, 2], 5, "rule 2 1/7"),
        (b, [232, 1, 1, 2], 5, "rule 1 1/7"),
        (b, [232, 9, 9, 9], 5, "rule 1 1/7"),
        (a, [232, 9, 9, 9], 5, "pass other-source"),
        (a, [232, 1, 1, 1], 7, "rule 4 1/7"),
        (a, [232, 1, 1, 1], 8, "pass no-rule"),
        (a, [224, 0, 1, 0], 9, "rule 0 1/7"),
        (a, [239, 255, 255, 255], 9, "rule 0 1/7"),
        (a, [239, 9, 9, 9], 9, "rule 5 1/7"),
        (c, [239, 1, 1, 1], 5, "rule 7 1/7"),
        (a, [239, 1, 1, 1], 5, "rule 6 1/7"),
    ];
    for (source, group, port, expected) in cases {
        assert_eq!(said(&mut bench, source, group, port), expected, "{source:?} {group:?} {port}");
    }
}

#[test]
fn unicast_is_relayed_in_and_out() {
    const NEXT_HOP: [u8; 6] = [2, 7, 7, 7, 7, 7];
    let take = Take { addresses: single(OUR), ..rule().take };
    let header = LinkHeader::Ethernet { source: [2, 0, 0, 0, 0, 3], next_hop: Some(NEXT_HOP) };
    let host = PlaneOutput { header, destination: single([10, 9, 0, 7]), ..output() };
    let outputs = vec![output(), host];
    let mut bench = Bench::new(vec![PlaneRule { take, outputs, ..rule() }]);
    let came = to(SENDER, OUR, 5000);
    let (said_of_it, sent) = bench.relay(&here(&came));
    assert_eq!(said_of_it, "rule 2 1/7");
    let [group, host] = <[_; 2]>::try_from(sent).unwrap().map(Result::unwrap);
    assert_eq!((&group[..6], &host[..6]), (&[1, 0, 0x5e, 10, 1, 1][..], &NEXT_HOP[..]));
    assert_eq!(judged(&group).0.destination, [239, 10, 1, 1]);
    assert_eq!(judged(&host).0.destination, [10, 9, 0, 7]);
    assert_eq!(said(&mut bench, SENDER, OUR, 5001), "pass not-ours");
    assert_eq!(said(&mut bench, SENDER, [10, 1, 0, 10], 5000), "pass not-ours");
    assert_eq!(said(&mut bench, OUR, OUR, 5000), "rule 2 drop own 1/7");
    let other = PacketType::OtherHost;
    let other = Frame { packet_type: other, ..here(&came) };
    assert_eq!(bench.relay(&other).0, "pass not-ours");

    let take = Take { addresses: single(SENDER6), ..rule6().take };
    let outputs = vec![PlaneOutput { header, destination: single(SENDER6), ..output6() }];
    let mut bench = Bench::new(vec![PlaneRule { take, outputs, ..rule6() }]);
    let mut ip = header6();
    ip.destination = SENDER6.octets();
    let came = ipv6::framed6(&ipv6::packet6(ip, Default::default(), b"p"));
    let sent = bench.sent(&here(&came)).unwrap();
    assert_eq!(sent[..6], NEXT_HOP);
    assert_eq!(judged6(&sent[14..]).0.destination, SENDER6.octets());
}

#[test]
fn an_output_that_is_absent_says_why_and_the_others_send() {
    let outputs = vec![
        PlaneOutput { absent: Some(OutputDrop::NoNeighbour), ..output() },
        output(),
        PlaneOutput { absent: Some(OutputDrop::NoRoute), mtu: 0, ..output() },
    ];
    let mut bench = Bench::new(vec![PlaneRule { outputs, ..rule() }]);
    let (_, sent) = bench.relay(&here(&frame(header(), b"payload")));
    assert_eq!(sent[0], Err(OutputDrop::NoNeighbour));
    assert!(sent[1].is_ok());
    assert_eq!(sent[2], Err(OutputDrop::NoRoute));
}

#[test]
fn more_than_the_rate_is_dropped_and_the_others_notice_nothing() {
    let slow = PlaneRule { max_rate: Some("100pps".parse().unwrap()), ..rule() };
    let other = taker(3, "239.1.1.2", ports(5000, 5000), &[]);
    let mut bench = Bench::new(vec![slow, other]);
    let (taken, excess) = (frame(header(), b"payload"), to(SENDER, [239, 1, 1, 2], 5000));
    // At the rate nothing is dropped.
    for _ in 0..200 {
        assert_eq!(bench.relay(&here(&taken)).0, "rule 2 1/7");
        bench.now += 10_000_000;
    }
    // Ten times the rate for a second: a second's worth, and a tenth that may be ahead.
    let mut count = 0;
    for n in 0..1000 {
        match &*bench.relay(&here(&taken)).0 {
            "rule 2 1/7" => count += 1,
            "rule 2 drop rate 1/7" => assert!(n >= 10, "the burst is let through"),
            other => panic!("{other}"),
        }
        assert_eq!(bench.relay(&here(&excess)).0, "rule 3 1/7");
        bench.now += 1_000_000;
    }
    assert!((110..=111).contains(&count), "{count}");

    let bits = PlaneRule { max_rate: Some("56kbit".parse().unwrap()), ..rule() };
    let mut bench = Bench::new(vec![bits]);
    let received = Frame { segment_size: 1, ..here(&taken) };
    let taken = |bench: &mut Bench| bench.relay(&received).0 == "rule 2 7/7";
    assert_eq!((0..1000).filter(|_| taken(&mut bench)).count(), 101, "by payload, not by frames");
}

/// A rule of the model, and what it takes.
fn random_take() -> impl Strategy<Value = Take> {
    let interface = (2..4_u32).prop_map(IfIndex);
    let v4 = (0..4_u32, prop_oneof![Just(32_u8), Just(31), Just(30), Just(24), Just(4)])
        .prop_map(|(host, prefix)| (IpAddr::V4((0xef01_0100 + host).into()), prefix));
    let v6 = (0..4_u128, prop_oneof![Just(128_u8), Just(127), Just(112), Just(8)])
        .prop_map(|(host, prefix)| (IpAddr::V6(((0xff3e << 112) + host).into()), prefix));
    let block = prop_oneof![3 => v4, 1 => v6];
    let ports = (5000..5003_u16, 0..3_u16).prop_map(|(first, more)| ports(first, first + more));
    let single_port = (5000..5003_u16).prop_map(|port| super::ports(port, port));
    let ports = prop_oneof![ports, single_port];
    (interface, block, ports, 0..16_u8).prop_map(
        |(interface, (address, prefix), ports, sources)| {
            let addresses = AddressBlock::new(masked(address, prefix), prefix).unwrap();
            let sources = (0..3_u8).filter(|bit| sources & 1 << bit != 0 && sources & 8 != 0);
            let sources = sources.map(|n| source(n, address.is_ipv6())).collect();
            Take { interface, addresses, ports, sources }
        },
    )
}

fn source(n: u8, v6: bool) -> IpAddr {
    if v6 {
        std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into()
    } else {
        [10, 0, 0, n].into()
    }
}

/// Whether a table may hold both: what is exact wins over a range, so the two do not meet.
fn meet(a: &Take, b: &Take) -> bool {
    let sources = a.sources.is_empty()
        || b.sources.is_empty()
        || a.sources.iter().any(|source| b.sources.contains(source));
    a.is_range() == b.is_range()
        && a.interface == b.interface
        && a.addresses.overlaps(b.addresses)
        && a.ports.overlaps(b.ports)
        && sources
}

/// By definition: of all rules for the destination that take the source, the exact one, or else
/// the only range.
fn naive(rules: &[PlaneRule], key: &FlowKey, source: IpAddr) -> (Option<RuleId>, bool) {
    let for_it = rules.iter().filter(|rule| {
        let Take { interface, addresses, ports, .. } = &rule.take;
        *interface == key.interface && addresses.contains(key.address) && ports.contains(key.port)
    });
    let for_it: Vec<&PlaneRule> = for_it.collect();
    let takers =
        for_it.iter().filter(|r| r.take.sources.is_empty() || r.take.sources.contains(&source));
    (takers.min_by_key(|rule| rule.take.is_range()).map(|rule| rule.id), !for_it.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_list_of_rules_would(
        changes in proptest::collection::vec((random_take(), 0..8_u32, any::<bool>()), 1..40),
    ) {
        let (mut table, mut rules) = (ForwardTable::default(), Vec::<PlaneRule>::new());
        for (take, id, remove) in changes {
            let id = RuleId(id);
            let mut change = PlaneChange::default();
            let there = rules.iter().any(|rule| rule.id == id);
            if remove && there {
                rules.retain(|rule| rule.id != id);
                change.remove.push(id);
            } else if !rules.iter().any(|rule| rule.id != id && meet(&rule.take, &take)) {
                let rule = PlaneRule { id, take, ..rule() };
                rules.retain(|rule| rule.id != id);
                rules.push(rule.clone());
                change.install.push(rule);
            }
            table.apply(change);
        }
        let mut ids: Vec<RuleId> = rules.iter().map(|rule| rule.id).collect();
        ids.sort();
        prop_assert_eq!(table.rules().map(|rule| rule.id).collect::<Vec<_>>(), ids);
        let v4 = (0..6_u32).map(|host| IpAddr::V4((0xef01_0100 + host).into()));
        let v6 = (0..6_u128).map(|host| IpAddr::V6(((0xff3e << 112) + host).into()));
        let far = [IpAddr::V4([230, 1, 1, 1].into()), IpAddr::V6((0xff05 << 112).into())];
        for address in v4.chain(v6).chain(far) {
            for (interface, port) in (2..4).flat_map(|i| (4999..5006).map(move |p| (IfIndex(i), p))) {
                let key = FlowKey { interface, address, port };
                for n in 0..4 {
                    let source = source(n, address.is_ipv6());
                    let found = match table.find(&key, source) {
                        Found::Rule(rule) => (Some(rule.id), true),
                        Found::OtherSource => (None, true),
                        Found::Nothing => (None, false),
                    };
                    prop_assert_eq!(found, naive(&rules, &key, source), "{:?} {}", key, source);
                }
            }
        }
    }
}
