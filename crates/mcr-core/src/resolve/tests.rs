use super::*;
use crate::action::LinkHeader;
use crate::api::RuleSpec;
use crate::link::{IfIndex, LinkAddress, Route, Standing};

fn link(index: u32, addresses: &[&str]) -> Link {
    Link {
        index: IfIndex(index),
        kind: LinkKind::Ethernet,
        up: true,
        carrier: true,
        no_arp: false,
        mac: [2, 0, 0, 0, 0, index as u8],
        mtu: 1500,
        addresses: addresses.iter().map(|a| address(a)).collect(),
        shared: false,
        mc_forwarding: false,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> LinkAddress {
    ip(text).into()
}

/// eth0 to eth2 and lo; eth2 has only IPv6.
fn machine() -> Links {
    let lo = Link { kind: LinkKind::Loopback, mac: [0; 6], ..link(1, &["127.0.0.1", "::1"]) };
    let links = [
        ("lo", lo),
        ("eth0", link(2, &["10.0.0.9"])),
        ("eth1", link(3, &["fe80::1", "10.1.0.9", "10.1.0.10"])),
        ("eth2", link(4, &["fe80::2"])),
    ];
    let interfaces = links.into_iter().map(|(name, link)| (name.parse().unwrap(), link)).collect();
    Links { interfaces, ..Links::default() }
}

fn with(mut links: Links, name: &str, change: impl FnOnce(&mut Link)) -> Links {
    change(links.interfaces.get_mut(&name.parse().unwrap()).unwrap());
    links
}

fn without(mut links: Links, name: &str) -> Links {
    links.interfaces.remove(&name.parse().unwrap());
    links
}

fn rule(input: &str, outputs: &[&str]) -> Rule {
    RuleSpec::plain("", input, outputs).check().unwrap()
}

#[test]
fn a_rule_becomes_indexes_addresses_and_macs() {
    let rule = rule(
        "239.1.1.1:5000@eth0",
        &[
            "239.138.1.1:6000@eth1,ttl=7,dscp=46",
            "10.1.0.10@239.10.1.2@eth1",
            "10.77.0.1:7@239.10.1.3@eth2,ttl=keep",
            "keep@239.10.1.4@eth0",
        ],
    );
    let Resolved { plane, missing, next_hops, .. } = resolve(&rule, &machine());
    assert_eq!((missing, next_hops.len()), (vec![], 0));
    let plane = plane.unwrap();
    assert!(plane.outputs.iter().all(|output| output.absent.is_none()));
    let (interface, sources) = (IfIndex(2), Vec::new());
    let Input { addresses, ports, .. } = rule.input;
    assert_eq!(plane.take, Take { interface, addresses, ports, sources });
    assert_eq!(plane.to_stack, ToStack::IfSocket);
    let sources: Vec<_> = plane.outputs.iter().map(|o| (o.source, o.source_port)).collect();
    let source = |octets: [u8; 4]| Some(IpAddr::from(octets));
    let expected = [
        (source([10, 1, 0, 9]), None),
        (source([10, 1, 0, 10]), None),
        (source([10, 77, 0, 1]), Some(7)),
        (None, None),
    ];
    assert_eq!(sources, expected);
    let first = &plane.outputs[0];
    let header = LinkHeader::Ethernet { source: [2, 0, 0, 0, 0, 3], next_hop: None };
    assert_eq!((first.interface, first.header), (IfIndex(3), header));
    assert_eq!((first.ttl, first.dscp), (rule.outputs[0].ttl, rule.outputs[0].dscp));
    let shifts: Vec<u16> = plane.outputs.iter().map(|o| o.port_shift).collect();
    assert_eq!(shifts, [1000, 0, 0, 0]);
}

#[test]
fn what_is_missing_is_named_with_a_hint() {
    let to_eth1: &[&str] = &["239.10.1.1:6000@eth1"];
    let input = "input 239.1.1.1:5000@eth0: ";
    let output = "output 239.10.1.1:6000@eth1: ";
    let tunnel = |link: &mut Link| link.kind = LinkKind::Other(801);
    let down = |link: &mut Link| link.up = false;
    let cases = [
        (without(machine(), "eth0"), input, "no interface eth0", "ip link", false),
        (
            with(machine(), "eth0", tunnel),
            input,
            "whose headers MCR does not know",
            "Ethernet",
            false,
        ),
        (without(machine(), "eth1"), output, "no interface eth1", "ip link", true),
        (with(machine(), "eth1", tunnel), output, "link type 801", "Ethernet", true),
        (with(machine(), "eth1", down), output, "eth1 is down", "ip link set eth1 up", true),
        (
            with(machine(), "eth1", |link| link.addresses = vec![address("fe80::1")]),
            output,
            "eth1 has no IPv4 address",
            "ip address add",
            true,
        ),
        (with(machine(), "eth0", down), "", "eth0 is down", "ip link set eth0 up", true),
        (Links::default(), input, "no interface eth0", "ip link", false),
    ];
    for (links, about, message, hint, runs) in cases {
        let resolved = resolve(&rule("239.1.1.1:5000@eth0", to_eth1), &links);
        let Missing { refusal, .. } = resolved.missing.into_iter().next().expect(message);
        assert!(refusal.message.starts_with(about), "{refusal}");
        assert!(refusal.message.contains(message), "{refusal}");
        assert!(refusal.hint.contains(hint), "{refusal}");
        assert_eq!(resolved.plane.is_some(), runs, "{message}");
    }
}

#[test]
fn outputs_that_can_be_served_run_without_the_others() {
    let outputs = ["239.10.1.1@eth9", "239.10.1.2@eth1", "239.10.1.3@eth2", "239.10.1.4@eth0"];
    let machine = with(machine(), "eth0", |link| link.addresses.clear());
    let machine = with(machine, "eth2", |link| link.up = false);
    let resolved = resolve(&rule("239.1.1.1:5000@eth0", &outputs), &machine);
    let absent: Vec<_> = resolved.plane.unwrap().outputs.iter().map(|o| o.absent).collect();
    let [gone, down, no_address] =
        [OutputDrop::InterfaceGone, OutputDrop::InterfaceDown, OutputDrop::NoAddress];
    assert_eq!(absent, [Some(gone), None, Some(down), Some(no_address)]);
    let parts: Vec<Part> = resolved.missing.iter().map(|missing| missing.part).collect();
    assert_eq!(parts, [0, 2, 3].map(Part::Output));
    assert!(resolved.missing[0].refusal.message.contains("no interface eth9"));
}

#[test]
fn local_says_whether_the_stack_sees_the_input() {
    let shared = || with(machine(), "eth0", |link| link.shared = true);
    let routed = || with(machine(), "eth0", |link| link.mc_forwarding = true);
    let output_shared = || with(machine(), "eth1", |link| link.shared = true);
    let cases = [
        (Local::Auto, machine(), ToStack::IfSocket),
        (Local::Auto, shared(), ToStack::Always),
        (Local::Auto, routed(), ToStack::Always),
        (Local::Auto, output_shared(), ToStack::IfSocket),
        (Local::Yes, machine(), ToStack::Always),
        (Local::No, shared(), ToStack::Never),
        (Local::No, routed(), ToStack::Never),
    ];
    for (local, links, expected) in cases {
        let rule = Rule { local, ..rule("239.1.1.1:5000@eth0", &["239.10.1.1@eth1"]) };
        assert_eq!(resolve(&rule, &links).plane.unwrap().to_stack, expected, "{local:?}");
    }
}

#[test]
fn an_output_on_lo_needs_a_kept_or_foreign_source() {
    let cases = [
        ("239.10.1.1@lo", false),
        ("127.0.0.1@239.10.1.1@lo", false),
        ("127.9.9.9@239.10.1.1@lo", false),
        ("10.0.0.9@239.10.1.1@lo", false),
        ("10.1.0.10:7@239.10.1.1@lo", false),
        ("10.77.0.1@239.10.1.1@lo", true),
        ("10.77.0.1:7@239.10.1.1@lo", true),
        ("keep@239.10.1.1@lo", true),
    ];
    for (output, runs) in cases {
        let resolved = resolve(&rule("239.1.1.1:5000@eth0", &[output]), &machine());
        let runs_now = resolved.plane.unwrap().outputs[0].absent.is_none();
        assert_eq!(runs_now, runs, "{output}");
        if !runs {
            let refusal = &resolved.missing[0].refusal;
            assert!(refusal.message.contains("martian"), "{refusal}");
            assert!(refusal.hint.contains("keep@"), "{refusal}");
        }
    }
    let from_lo = resolve(&rule("239.1.1.1:5000@lo", &["239.10.1.1@eth1"]), &machine());
    assert!(from_lo.plane.is_some() && from_lo.missing.is_empty());
}

const ROUTER_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 1];

/// The route to a host, asked for with that interface.
fn route(mut links: Links, to: &str, on: Option<&str>, route: Route) -> Links {
    let (destination, interface) = (ip(to), on.map(|name| name.parse().unwrap()));
    links.routes.insert(RouteQuery { destination, interface }, route);
    links
}

fn via(interface: &str, next_hop: &str, source: Option<&str>) -> Route {
    let interface = interface.parse().unwrap();
    Route::Via { interface, next_hop: ip(next_hop), source: source.map(ip) }
}

fn neighbour(mut links: Links, index: u32, address: &str) -> Links {
    let hop = NextHop { interface: IfIndex(index), address: ip(address) };
    links.neighbours.insert(hop, ROUTER_MAC);
    links
}

fn v6(links: Links) -> Links {
    let links = with(links, "eth0", |link| link.addresses.push(address("fd00::9")));
    with(links, "eth1", |link| {
        let lesser = LinkAddress { address: ip("2001:db8::7"), standing: Standing::Lesser };
        link.addresses.extend([lesser, address("2001:db8::9")]);
    })
}

#[test]
fn a_unicast_input_is_an_address_of_this_host() {
    let to: &[&str] = &["239.10.1.1@eth1"];
    for (address, fine) in [("10.0.0.9", true), ("10.1.0.10", true), ("10.0.0.8", false)] {
        let resolved = resolve(&rule(&format!("{address}:5000@eth0"), to), &machine());
        assert_eq!(resolved.plane.is_some(), fine, "{address}");
        if let Some(Missing { part, refusal, sought }) = resolved.missing.first() {
            assert_eq!((*part, *sought, resolved.claims.len()), (Part::Input, false, 0));
            assert!(refusal.message.contains("10.0.0.8 is no address of this host"), "{refusal}");
            assert!(refusal.hint.contains("ip address add 10.0.0.8 dev eth0"), "{refusal}");
        }
    }
}

#[test]
fn claims_are_each_group_from_each_source_or_each_port() {
    let claims = |input: &str, output: &str| -> Vec<String> {
        let output = format!("{output}@eth1");
        let text = |claim: &Claim| match claim {
            Claim::Group(Membership { interface, group, source }) => match source {
                Some(source) => format!("{source}@{group}@{interface}"),
                None => format!("{group}@{interface}"),
            },
            Claim::Port(address) => address.to_string(),
        };
        resolve(&rule(input, &[&output]), &v6(machine())).claims.iter().map(text).collect()
    };
    assert_eq!(claims("239.1.1.1:5000@eth0", "239.2.1.1"), ["239.1.1.1@2"]);
    assert_eq!(claims("239.1.1.1:5000-5999@eth0", "239.2.1.1"), ["239.1.1.1@2"]);
    assert_eq!(
        claims("10.0.0.1,10.0.0.2@232.1.1.0/31:5@eth0", "239.2.1.0/31"),
        [
            "10.0.0.1@232.1.1.0@2",
            "10.0.0.2@232.1.1.0@2",
            "10.0.0.1@232.1.1.1@2",
            "10.0.0.2@232.1.1.1@2"
        ]
    );
    assert_eq!(claims("[ff3e::1]:5@eth0", "[ff1e::1]"), ["ff3e::1@2"]);
    assert_eq!(claims("[fd00::1]@[ff3e::1]:5@eth0", "[ff1e::1]"), ["fd00::1@ff3e::1@2"]);
    assert_eq!(claims("239.0.0.0/18:5@eth0", "238.0.0.0/18").len(), 16_384);
    assert_eq!(
        claims("10.0.0.9:5000-5002@eth0", "239.2.1.1"),
        ["10.0.0.9:5000", "10.0.0.9:5001", "10.0.0.9:5002"]
    );
    assert_eq!(claims("[fd00::9]:5000@eth0", "[ff1e::1]"), ["[fd00::9]:5000"]);
    let linked = claims("[fe80::1]:5000@eth1", "[ff1e::1]");
    assert_eq!(linked, ["[fe80::1%3]:5000"], "of this link");
    let sixteen_million = Rule { join: false, ..rule("10.0.0.9:1@eth0", &["239.2.1.1@eth1"]) };
    let input = "[ff3e::]/16:5@eth0".parse().unwrap();
    let outputs = rule("[ff3e::1]:5@eth0", &["[ff1e::1]@eth1"]).outputs;
    let unjoined = Rule { input, outputs, ..sixteen_million.clone() };
    assert_eq!(resolve(&unjoined, &machine()).claims.len(), 0, "and at once");
    let port = resolve(&sixteen_million, &machine()).claims;
    assert_eq!(port.len(), 1, "a port is held whether groups are joined or not");
}

#[test]
fn a_range_and_its_sources_are_taken_as_they_are() {
    let rule =
        rule("10.0.0.2,10.0.0.1@232.1.1.0/24:5000-5003@eth0", &["239.2.1.0/24:4000-4003@eth1"]);
    let plane = resolve(&rule, &machine()).plane.unwrap();
    assert_eq!(plane.take.addresses, rule.input.addresses);
    assert_eq!(plane.take.ports, rule.input.ports);
    assert_eq!(plane.take.sources, [ip("10.0.0.1"), ip("10.0.0.2")]);
    assert_eq!(plane.outputs[0].destination, rule.outputs[0].to.addresses);
    assert_eq!(plane.outputs[0].port_shift, 0_u16.wrapping_sub(1000));
    let rate = "20mbit".parse().ok();
    let limited = Rule { max_rate: rate, ..rule };
    assert_eq!(resolve(&limited, &machine()).plane.unwrap().max_rate, rate);
}

#[test]
fn an_ipv6_output_is_sent_from_the_stable_address() {
    let rule = rule("[ff3e::1]:5000@eth0", &["[ff1e::1]:6000@eth1", "[ff1e::2]:6000@eth2"]);
    let resolved = resolve(&rule, &v6(machine()));
    assert_eq!(resolved.missing, []);
    let sources: Vec<_> = resolved.plane.unwrap().outputs.iter().map(|o| o.source).collect();
    assert_eq!(sources, [Some(ip("2001:db8::9")), Some(ip("fe80::2"))]);
    let none = with(v6(machine()), "eth2", |link| link.addresses.clear());
    let missing = resolve(&rule, &none).missing;
    assert!(missing[0].refusal.message.contains("eth2 has no IPv6 address"), "{missing:?}");
}

#[test]
fn a_host_is_reached_by_its_route() {
    let to = |output: &str, links: &Links| {
        let resolved = resolve(&rule("239.1.1.1:5000@eth0", &[output]), links);
        let output = resolved.plane.unwrap().outputs.remove(0);
        (output, resolved.next_hops, resolved.missing)
    };
    let next_hop = |header| match header {
        LinkHeader::Ethernet { next_hop, .. } => next_hop,
        LinkHeader::Bare => panic!("no Ethernet header"),
    };
    let hop = |address: &str| [NextHop { interface: IfIndex(3), address: ip(address) }].into();

    // A neighbour, with the interface named and without.
    for (output, on) in [("10.1.0.7:6000", None), ("10.1.0.7:6000@eth1", Some("eth1"))] {
        let links = route(machine(), "10.1.0.7", on, via("eth1", "10.1.0.7", None));
        let (output, next_hops, missing) = to(output, &neighbour(links, 3, "10.1.0.7"));
        assert_eq!((output.absent, missing), (None, vec![]));
        assert_eq!((output.interface, next_hop(output.header)), (IfIndex(3), Some(ROUTER_MAC)));
        assert_eq!((output.source, next_hops), (Some(ip("10.1.0.9")), hop("10.1.0.7")));
    }
    // A router, and the address that the route would send from.
    let links = route(machine(), "10.9.0.7", None, via("eth1", "10.1.0.1", Some("10.1.0.10")));
    let links = neighbour(links, 3, "10.1.0.1");
    let (output, next_hops, _) = to("10.9.0.7:6000", &links);
    assert_eq!((output.source, next_hops), (Some(ip("10.1.0.10")), hop("10.1.0.1")));
    let (output, ..) = to("10.1.0.9@10.9.0.7:6000", &links);
    assert_eq!(output.source, Some(ip("10.1.0.9")), "a fixed source is fixed");
    let (output, ..) = to("keep@10.9.0.7:6000", &links);
    assert_eq!(output.source, None);
    // Not by the interface that is not asked for.
    let (output, _, missing) = to("10.9.0.7:6000@eth1", &links);
    assert_eq!(output.absent, Some(OutputDrop::NoRoute));
    assert!(missing[0].refusal.message.contains("is not known yet"), "{missing:?}");
}

#[test]
fn what_is_missing_on_the_way_to_a_host_is_named() {
    let by_router = |links| route(links, "10.9.0.7", None, via("eth1", "10.1.0.1", None));
    let none = Route::None("Network is unreachable".into());
    let down = |link: &mut Link| link.up = false;
    let output = "10.9.0.7:6000";
    let on_eth1 = "10.9.0.7:6000@eth1";
    let cases = [
        (machine(), output, OutputDrop::NoRoute, "is not known yet", false),
        (
            route(machine(), "10.9.0.7", None, none),
            output,
            OutputDrop::NoRoute,
            "no route to 10.9.0.7: Network is unreachable",
            false,
        ),
        (by_router(machine()), output, OutputDrop::NoNeighbour, "10.1.0.1 has not answered", true),
        // Resolved on another link.
        (
            neighbour(by_router(machine()), 4, "10.1.0.1"),
            output,
            OutputDrop::NoNeighbour,
            "10.1.0.1 has not answered",
            true,
        ),
        (
            with(by_router(machine()), "eth1", down),
            output,
            OutputDrop::InterfaceDown,
            "down",
            false,
        ),
        (without(by_router(machine()), "eth1"), output, OutputDrop::InterfaceGone, "eth1", false),
        (with(machine(), "eth1", down), on_eth1, OutputDrop::InterfaceDown, "eth1 is down", false),
        (without(machine(), "eth1"), on_eth1, OutputDrop::InterfaceGone, "no interface", false),
        (
            with(neighbour(by_router(machine()), 3, "10.1.0.1"), "eth1", |l| l.addresses.clear()),
            output,
            OutputDrop::NoAddress,
            "eth1 has no IPv4 address",
            false,
        ),
    ];
    for (links, output, reason, message, sought) in cases {
        let resolved = resolve(&rule("239.1.1.1:5000@eth0", &[output]), &links);
        assert_eq!(resolved.plane.unwrap().outputs[0].absent, Some(reason), "{message}");
        let missing = &resolved.missing[0];
        assert_eq!((missing.part, missing.sought), (Part::Output(0), sought), "{missing:?}");
        assert!(missing.refusal.message.contains(message), "{missing:?}");
        assert!(!missing.refusal.hint.is_empty(), "{missing:?}");
        assert_eq!(
            resolved.next_hops.len(),
            usize::from(reason == OutputDrop::NoNeighbour || reason == OutputDrop::NoAddress)
        );
    }
}

#[test]
fn links_without_neighbours_need_none() {
    let unicast = || route(machine(), "10.9.0.7", None, via("eth1", "10.9.0.7", None));
    let rule = rule("239.1.1.1:5000@eth0", &["10.9.0.7:6000", "239.10.1.1:6000@eth1"]);
    let bare = with(unicast(), "eth1", |link| link.kind = LinkKind::Bare);
    let resolved = resolve(&rule, &bare);
    assert_eq!((resolved.missing, resolved.next_hops.len()), (vec![], 0));
    assert!(resolved.plane.unwrap().outputs.iter().all(|o| o.header == LinkHeader::Bare));

    let silent = with(unicast(), "eth1", |link| link.no_arp = true);
    let resolved = resolve(&rule, &silent);
    assert_eq!((resolved.missing, resolved.next_hops.len()), (vec![], 0));
    let source = [2, 0, 0, 0, 0, 3];
    let headers: Vec<_> = resolved.plane.unwrap().outputs.iter().map(|o| o.header).collect();
    let header = |next_hop| LinkHeader::Ethernet { source, next_hop };
    assert_eq!(headers, [header(Some(source)), header(None)]);

    let tunnel = with(machine(), "eth0", |link| link.kind = LinkKind::Bare);
    assert!(resolve(&rule, &tunnel).plane.is_some(), "received from as well");
}

#[test]
fn what_goes_to_this_host_itself_needs_a_foreign_source() {
    let here = || route(machine(), "10.1.0.9", None, Route::Local);
    let cases = [
        ("10.1.0.9:6000", false),
        ("10.0.0.9@10.1.0.9:6000", false),
        ("127.0.0.1@10.1.0.9:6000", false),
        ("10.77.0.1@10.1.0.9:6000", true),
        ("keep@10.1.0.9:6000", true),
    ];
    for (output, runs) in cases {
        let resolved = resolve(&rule("239.1.1.1:5000@eth0", &[output]), &here());
        let output_now = &resolved.plane.unwrap().outputs[0];
        assert_eq!(output_now.absent.is_none(), runs, "{output}");
        if runs {
            let header = LinkHeader::Ethernet { source: [0; 6], next_hop: Some([0; 6]) };
            assert_eq!((output_now.interface, output_now.header), (IfIndex::LOOPBACK, header));
            assert_eq!(resolved.next_hops.len(), 0);
        } else {
            assert!(resolved.missing[0].refusal.message.contains("martian"), "{output}");
        }
    }
    let links = route(machine(), "127.0.0.1", None, Route::Local);
    let resolved = resolve(&rule("239.1.1.1:5000@eth0", &["keep@127.0.0.1:6000"]), &links);
    assert!(resolved.missing[0].refusal.message.contains("127.0.0.1"), "{resolved:?}");
}
