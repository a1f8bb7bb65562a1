use super::*;
use crate::action::{LinkHeader, PlaneOutput};
use crate::api::RuleSpec;
use crate::link::{IfIndex, LinkAddress, Mac, Route, Standing};

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
    let outputs = outputs.iter().map(|output| output.parse().unwrap()).collect();
    let spec = RuleSpec {
        name: None,
        comment: None,
        input: input.into(),
        sources: Vec::new(),
        outputs,
        enabled: true,
        local: None,
        join: None,
        max_rate: None,
    };
    spec.check().unwrap()
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
