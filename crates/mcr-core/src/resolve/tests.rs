use super::*;
use crate::api::RuleSpec;
use crate::link::IfIndex;

fn link(index: u32, addresses: &[&str]) -> Link {
    Link {
        index: IfIndex(index),
        kind: LinkKind::Ethernet,
        up: true,
        carrier: true,
        mac: [2, 0, 0, 0, 0, index as u8],
        mtu: 1500,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        shared: false,
        mc_forwarding: false,
    }
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
    Links(links.into_iter().map(|(name, link)| (name.parse().unwrap(), link)).collect())
}

fn with(mut links: Links, name: &str, change: impl FnOnce(&mut Link)) -> Links {
    change(links.0.get_mut(&name.parse().unwrap()).unwrap());
    links
}

fn without(mut links: Links, name: &str) -> Links {
    links.0.remove(&name.parse().unwrap());
    links
}

fn rule(input: &str, outputs: &[&str]) -> Rule {
    let outputs = outputs.iter().map(|output| output.parse().unwrap()).collect();
    let (name, comment, local, join) = (None, None, None, None);
    let sources = Vec::new();
    RuleSpec { name, comment, input: input.into(), sources, outputs, enabled: true, local, join }
        .check()
        .unwrap()
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
    let Resolved { plane, missing } = resolve(&rule, &machine());
    assert_eq!(missing, []);
    let plane = plane.unwrap();
    assert!(plane.outputs.iter().all(|output| output.absent.is_none()));
    let address = [239, 1, 1, 1].into();
    assert_eq!(plane.key, FlowKey { interface: IfIndex(2), address, port: 5000 });
    assert_eq!(plane.to_stack, ToStack::IfSocket);
    let sources: Vec<_> = plane.outputs.iter().map(|o| (o.source, o.source_port)).collect();
    let source = |octets: [u8; 4]| Some(octets.into());
    let expected = [
        (source([10, 1, 0, 9]), None),
        (source([10, 1, 0, 10]), None),
        (source([10, 77, 0, 1]), Some(7)),
        (None, None),
    ];
    assert_eq!(sources, expected);
    let first = &plane.outputs[0];
    assert_eq!((first.interface, first.source_mac), (IfIndex(3), [2, 0, 0, 0, 0, 3]));
    assert_eq!(first.destination_mac, [0x01, 0x00, 0x5e, 0x0a, 0x01, 0x01]);
    assert_eq!((first.ttl, first.dscp), (rule.outputs[0].ttl, rule.outputs[0].dscp));
    let ports: Vec<u16> = plane.outputs.iter().map(|o| o.destination_port).collect();
    assert_eq!(ports, [6000, 5000, 5000, 5000]);
}

#[test]
fn what_is_missing_is_named_with_a_hint() {
    let to_eth1: &[&str] = &["239.10.1.1:6000@eth1"];
    let input = "input 239.1.1.1:5000@eth0: ";
    let output = "output 239.10.1.1:6000@eth1: ";
    let tunnel = |link: &mut Link| link.kind = LinkKind::Other(65534);
    let down = |link: &mut Link| link.up = false;
    let cases = [
        (without(machine(), "eth0"), input, "no interface eth0", "ip link", false),
        (with(machine(), "eth0", tunnel), input, "no Ethernet header", "Ethernet", false),
        (without(machine(), "eth1"), output, "no interface eth1", "ip link", true),
        (with(machine(), "eth1", tunnel), output, "link type 65534", "Ethernet", true),
        (with(machine(), "eth1", down), output, "eth1 is down", "ip link set eth1 up", true),
        (
            with(machine(), "eth1", |link| link.addresses = vec!["fe80::1".parse().unwrap()]),
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
        let (_, refusal) = resolved.missing.into_iter().next().expect(message);
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
    let parts: Vec<Part> = resolved.missing.iter().map(|(part, _)| *part).collect();
    assert_eq!(parts, [0, 2, 3].map(Part::Output));
    assert!(resolved.missing[0].1.message.contains("no interface eth9"));
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
            let (_, refusal) = &resolved.missing[0];
            assert!(refusal.message.contains("martian"), "{refusal}");
            assert!(refusal.hint.contains("keep@"), "{refusal}");
        }
    }
    let from_lo = resolve(&rule("239.1.1.1:5000@lo", &["239.10.1.1@eth1"]), &machine());
    assert!(from_lo.plane.is_some() && from_lo.missing.is_empty());
}

#[test]
fn what_is_not_relayed_yet_is_refused_by_name() {
    let cases = [
        ("239.1.1.1:5000@eth0", "239.10.1.1@eth1", None),
        ("[ff3e::1]:5000@eth0", "[ff3e::2]:5000@eth1", Some("IPv6")),
        ("10.0.0.9:5000@eth0", "239.10.1.1@eth1", Some("unicast inputs")),
        ("239.1.1.0/24:5000@eth0", "239.10.1.0/24@eth1", Some("ranges")),
        ("239.1.1.1:5000-5001@eth0", "239.10.1.1@eth1", Some("ranges")),
        ("10.0.0.1@232.1.1.1:5000@eth0", "239.10.1.1@eth1", Some("source list")),
        ("239.1.1.1:5000@eth0", "10.9.0.7:6000", Some("unicast outputs")),
        ("239.1.1.1:5000@eth0", "10.9.0.7:6000@eth1", Some("unicast outputs")),
    ];
    for (input, output, what) in cases {
        let refused = refuse_not_yet(&rule(input, &[output])).err();
        assert_eq!(refused.is_some(), what.is_some(), "{input} {output}: {refused:?}");
        if let (Some(refusal), Some(what)) = (refused, what) {
            assert!(refusal.message.contains(what), "{refusal}");
            assert_eq!(refusal.code, Code::NotYet);
        }
    }
}
