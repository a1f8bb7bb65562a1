use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::str::FromStr;

use proptest::prelude::*;

use super::*;

/// Parsed, printed, and parsed again.
fn canonical<T: FromStr<Err = Refusal> + Display + PartialEq + Debug>(text: &str) -> String {
    let flow = text.parse::<T>().unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
    let printed = flow.to_string();
    assert_eq!(printed.parse::<T>().as_ref(), Ok(&flow), "{text} printed as {printed}");
    printed
}

fn refused<T: FromStr<Err = Refusal> + Debug>(text: &str, message: &str, hint: &str) {
    let refusal = text.parse::<T>().expect_err(text);
    assert_eq!(refusal.code, Code::Invalid, "{text}");
    assert!(refusal.message.contains(message), "{text}: {:?} lacks {message:?}", refusal.message);
    assert!(refusal.hint.contains(hint), "{text}: hint {:?} lacks {hint:?}", refusal.hint);
}

#[test]
fn good_inputs_print_in_one_canonical_form() {
    let same = [
        "239.1.1.1:5000@eth0",
        "239.1.1.1:1@lo",
        "239.1.1.1:65535@abcdefghijklmno",
        "239.1.1.1:5000@eth0.10",
        "239.1.1.1:5000@enp3s0-x_y%z",
        "10.0.0.1@232.1.1.1:5000@eth0",
        "10.0.0.1,10.0.0.2@232.1.1.1:5000@eth0",
        "[ff3e::8000:1]:5000@eth0",
        "[2001:db8::1]@[ff3e::8000:1]:5000@eth0",
        "239.1.1.0/24:5000@eth0",
        "[ff3e::8000:0]/112:5000@eth0",
        "239.1.1.1:5000-5015@eth0",
        "239.1.1.0/24:5000-5015@eth0",
        "10.9.0.7:5000@eth0",
    ];
    for text in same {
        assert_eq!(canonical::<Input>(text), text);
    }
    let respelled = [
        ("239.1.1.1/32:5000@eth0", "239.1.1.1:5000@eth0"),
        ("239.1.1.1:5000-5000@eth0", "239.1.1.1:5000@eth0"),
        ("[FF3E:0:0::8000:1]:5000@eth0", "[ff3e::8000:1]:5000@eth0"),
        ("[ff3e::8000:1]/128:5000@eth0", "[ff3e::8000:1]:5000@eth0"),
        ("2001:db8::1@[ff3e::8000:1]:5000@eth0", "[2001:db8::1]@[ff3e::8000:1]:5000@eth0"),
        ("10.0.0.2,10.0.0.1,10.0.0.2@232.1.1.1:5000@eth0", "10.0.0.1,10.0.0.2@232.1.1.1:5000@eth0"),
    ];
    for (text, expected) in respelled {
        assert_eq!(canonical::<Input>(text), expected);
    }
}

#[test]
fn good_outputs_print_in_one_canonical_form() {
    let same = [
        "239.10.1.1:6000@eth1",
        "239.10.1.1@eth1",
        "239.10.1.1@eth0.10",
        "10.9.0.7:6000",
        "10.9.0.7:6000@eth1",
        "10.9.0.7",
        "[2001:db8::7]:6000",
        "10.0.0.1@10.9.0.7:6000",
        "10.0.0.1@239.10.1.1:6000@eth1",
        "10.0.0.1@239.10.1.1@eth1",
        "10.0.0.1:7000@239.10.1.1:6000@eth1",
        "[2001:db8::1]:7000@[ff3e::1]:6000@eth1",
        "[2001:db8::1]@[ff3e::1]:6000@eth1",
        "keep@239.10.1.1:6000@eth1",
        "keep@239.10.1.0/24@eth1",
        "239.10.1.0/24:6000-6015@eth1",
    ];
    for text in same {
        assert_eq!(canonical::<Destination>(text), text);
    }
    let plain: Destination = "10.0.0.1@10.9.0.7:6000".parse().unwrap();
    assert_eq!(plain.source, OutputSource::Address("10.0.0.1".parse().unwrap()));
    assert_eq!(plain.interface, None);
    let kept: Destination = "keep@10.9.0.7:6000".parse().unwrap();
    assert_eq!((kept.source, kept.interface), (OutputSource::Keep, None));
}

#[test]
fn bad_inputs_are_refused_with_a_hint() {
    let cases = [
        ("239.1.1.1:5000@eth0.10@eth0", "it has an '@'", "write eth0.10 alone"),
        ("10.0.0.1@232.1.1.1:5000@eth0.10@eth0", "it has an '@'", "write eth0.10 alone"),
        ("udp://239.1.1.1:5000@eth0", "is a URL", "leave out udp:// and write 239.1.1.1"),
        ("udp://@239.1.1.1:5000", "is a URL", "write 239.1.1.1:5000"),
        ("rtp://@239.1.1.1:5000", "is a URL", "leave out rtp://"),
        ("[ff3e::1%eth0]:5000@eth0", "has a zone", "leave out %eth0"),
        ("239.1.1.1%eth0:5000", "has a zone", "@eth0"),
        ("*:5000@eth0", "wildcard", "name the group"),
        (":5000@eth0", "wildcard", "name the group"),
        ("0.0.0.0:5000@eth0", "wildcard", "name the group"),
        ("0.0.0.0/0:5000@eth0", "wildcard", "range"),
        ("[::]:5000@eth0", "wildcard", "name the group"),
        ("239.1.1.1:5000@*", "wildcard", "one rule an interface"),
        ("239.1.1.1:5000@any", "wildcard", "one rule an interface"),
        ("239.1.1.1@eth0", "has no port", "ADDRESS:PORT@INTERFACE"),
        ("[ff3e::1]@eth0", "has no port", "ADDRESS:PORT@INTERFACE"),
        ("239.1.1.1:5000", "names no interface", "239.1.1.1:5000@eth0"),
        ("10.0.0.1@232.1.1.1:5000", "names no interface", "@eth0"),
        ("239.1.1.1:5000@", "it is empty", "@eth0"),
        ("[ff3e::1%eth1]:5000@eth0", "has a zone", "leave out %eth1: the interface stands behind"),
        ("[ff3e::%eth1]/120:5000@eth0", "has a zone", "leave out %eth1"),
        ("fe80::1%eth1@[ff3e::1]:5000@eth0", "has a zone", "leave out %eth1"),
        ("239.1.1.1:0@eth0", "port 0", "1 to 65535"),
        ("239.1.1.1:65530-65536@eth0", "\"65536\" is not a UDP port", "1 to 65535"),
        ("239.1.1.0/33:5000@eth0", "prefix length /33 is too long", "at most /32"),
        ("[ff3e::]/129:5000@eth0", "prefix length /129 is too long", "at most /128"),
        ("239.1.1.1/24:5000@eth0", "has host bits set", "239.1.1.0/24"),
        ("[ff3e::1]/112:5000@eth0", "has host bits set", "ff3e::/112"),
        ("239.1.1.1:0-5@eth0", "port 0", "1 to 65535"),
        ("239.1.1.1:65536@eth0", "\"65536\" is not a UDP port", "1 to 65535"),
        ("239.1.1.1:99999999999999999999@eth0", "is not a UDP port", "1 to 65535"),
        ("239.1.1.1:05000@eth0", "\"05000\" is not a UDP port", "1 to 65535"),
        ("239.1.1.1:+5@eth0", "\"+5\" is not a UDP port", "1 to 65535"),
        ("239.1.1.1:-5@eth0", "is not a UDP port", "1 to 65535"),
        ("239.1.1.1:5000-@eth0", "is not a UDP port", "1 to 65535"),
        ("239.1.1.1:@eth0", "is not a UDP port", "1 to 65535"),
        ("239.1.1.1:rtp@eth0", "is not a UDP port", "1 to 65535"),
        ("239.1.1.1:5015-5000@eth0", "is empty", "lower port first"),
        ("239.01.1.1:5000@eth0", "is not an IP address", "239.1.1.1:5000@eth0"),
        ("239.1.1:5000@eth0", "is not an IP address", "239.1.1.1:5000@eth0"),
        ("camera:5000@eth0", "is not an IP address", "239.1.1.1:5000@eth0"),
        ("ff3e::8000:1@eth0", "without brackets", "[ff3e::8000:1]:5000@eth0"),
        ("ff3e::8000:1:5000@eth0", "without brackets", "[ff3e::8000:1]:5000@eth0"),
        ("[ff3e::1:5000@eth0", "closing ']'", "[ff3e::1]:5000"),
        ("[ff3e::1]5000@eth0", "no address and port", "239.1.1.1:5000@eth0"),
        ("[239.1.1.1]:5000@eth0", "as its family asks", "brackets are for IPv6"),
        ("239.1.1.1:5000 @eth0", "white space", "without"),
        (" 239.1.1.1:5000@eth0", "white space", "without"),
        ("239.1.1.1:5000@eth0\n", "white space", "without"),
        ("", "\"\"", ""),
        ("@", "\"\"", ""),
        ("239.1.1.1/24:5000@eth0", "host bits", "239.1.1.0/24"),
        ("239.1.1.0/33:5000@eth0", "/33 is too long", "at most /32"),
        ("[ff3e::]/129:5000@eth0", "/129 is too long", "at most /128"),
        ("239.1.1.0/024:5000@eth0", "is not a prefix length", "239.1.1.0/24"),
        ("239.1.1.0/:5000@eth0", "is not a prefix length", "239.1.1.0/24"),
        ("239.1.1.0/24/25:5000@eth0", "is not a prefix length", "239.1.1.0/24"),
        ("239.1.1.1:5000@abcdefghijklmnop", "longer than 15 bytes", "ip link"),
        ("239.1.1.1:5000@ääääääää", "longer than 15 bytes", "ip link"),
        ("239.1.1.1:5000@eth/0", "'/'", "ip link"),
        ("239.1.1.1:5000@.", "kernel does not allow", "ip link"),
        ("239.1.1.1:5000@..", "kernel does not allow", "ip link"),
        ("10.0.0.1:7000@232.1.1.1:5000@eth0", "has a port", "address alone"),
        ("[2001:db8::1]:7000@[ff3e::1]:5000@eth0", "has a port", "address alone"),
        ("keep@239.1.1.1:5000@eth0", "\"keep\" is not an IP address", ""),
        ("10.0.0.0/8@232.1.1.1:5000@eth0", "is not an IP address", ""),
        ("10.0.0.1,,10.0.0.2@232.1.1.1:5000@eth0", "\"\"", ""),
    ];
    for (text, message, hint) in cases {
        refused::<Input>(text, message, hint);
    }
}

#[test]
fn bad_outputs_are_refused_with_a_hint() {
    let cases = [
        ("239.10.1.1:6000@eth0.10@eth0", "it has an '@'", "write eth0.10 alone"),
        ("udp://239.10.1.1:6000", "is a URL", "leave out udp://"),
        ("[ff3e::1%eth1]:6000@eth1", "has a zone", "leave out %eth1"),
        ("0.0.0.0:6000@eth1", "wildcard", "name the group"),
        ("239.10.1.1:0@eth1", "port 0", "1 to 65535"),
        ("239.10.1.1:6001-6000@eth1", "is empty", "lower port first"),
        ("239.10.1.1:6000@", "it is empty", "@eth0"),
        ("eth1", "is not an IP address", "239.1.1.1:5000@eth0"),
        ("keep@eth1", "is not an IP address", "239.1.1.1:5000@eth0"),
        ("same@239.10.1.1:6000@eth1", "is not an IP address", "ADDRESS:PORT or keep"),
        ("10.0.0.1:0@239.10.1.1:6000@eth1", "port 0", "1 to 65535"),
        ("10.0.0.1:65536@239.10.1.1:6000@eth1", "65536", ""),
        ("10.0.0.1,10.0.0.2@239.10.1.1:6000@eth1", "10.0.0.1,10.0.0.2", "ADDRESS:PORT or keep"),
        ("", "\"\"", ""),
    ];
    for (text, message, hint) in cases {
        refused::<Destination>(text, message, hint);
    }
}

#[test]
fn source_port_of_an_output_is_written_as_any_other_port() {
    refused::<Destination>("10.0.0.1:07000@239.10.1.1:6000@eth1", "07000", "");
    refused::<Destination>("[fe80::1%2]:7000@[ff3e::1]:6000@eth1", "", "");
}

#[test]
fn interface_names_are_what_the_kernel_allows() {
    for name in ["eth0", "eth0.10", "a", "wlan0", "br-1a2b3c4d5e6f", "äöü", "keep"] {
        assert_eq!(name.parse::<InterfaceName>().map(|n| n.to_string()), Ok(name.into()));
    }
    for name in ["", ".", "..", "a b", "a/b", "a:b", "eth0@eth1", "*", "a\u{7f}", "a\u{a0}b"] {
        assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
    }
}

#[test]
fn blocks_and_ranges_contain_and_overlap_by_arithmetic() {
    let block = |text: &str| format!("{text}:1@x").parse::<Input>().unwrap().addresses;
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let net = block("239.1.1.0/24");
    assert!(net.contains(ip("239.1.1.0")) && net.contains(ip("239.1.1.255")));
    assert!(!net.contains(ip("239.1.2.0")) && !net.contains(ip("239.1.0.255")));
    assert!(!net.contains(ip("ff3e::1")) && !net.is_single());
    assert!(net.overlaps(block("239.1.0.0/16")) && block("239.1.0.0/16").overlaps(net));
    assert!(net.overlaps(net) && net.overlaps(block("239.1.1.7")));
    assert!(!net.overlaps(block("239.1.2.0/24")) && !net.overlaps(block("[ff3e::]/16")));
    assert!(block("128.0.0.0/1").contains(ip("239.1.1.1")));
    assert_eq!((net.host_bits(), block("[ff3e::8000:0]/112").host_bits()), (8, 16));
    assert_eq!((net.first(), net.last()), (ip("239.1.1.0"), ip("239.1.1.255")));
    assert_eq!(block("[ff3e::8000:0]/112").last(), ip("ff3e::8000:ffff"));
    assert_eq!(net.map(ip("225.9.9.77")), ip("239.1.1.77"));
    assert_eq!(block("[ff3e::8000:0]/112").map(ip("ff05::1:2")), ip("ff3e::8000:2"));
    assert_eq!(block("239.1.1.7").map(ip("225.9.9.77")), ip("239.1.1.7"));
    let all: Vec<IpAddr> = block("239.1.1.4/30").iter().collect();
    assert_eq!(all, ["239.1.1.4", "239.1.1.5", "239.1.1.6", "239.1.1.7"].map(ip));
    assert_eq!(block("[::8:0]/109").iter().count(), 1 << 19);
    assert_eq!(block("[ff3e::1]").iter().collect::<Vec<_>>(), [ip("ff3e::1")]);
    let ports = |first, last| PortRange::new(first, last).unwrap();
    assert_eq!((ports(1, 65535).size(), ports(7, 7).size()), (65535, 1));
    assert!(ports(5, 9).overlaps(ports(9, 12)) && !ports(5, 9).overlaps(ports(10, 12)));
    assert!(ports(5, 9).contains(9) && !ports(5, 9).contains(10));
}

fn block() -> impl Strategy<Value = AddressBlock> {
    let v4 = (any::<u32>(), 0..=32u8).prop_map(|(a, prefix)| (IpAddr::V4(a.into()), prefix));
    let v6 = (any::<u128>(), 0..=128u8).prop_map(|(a, prefix)| (IpAddr::V6(a.into()), prefix));
    prop_oneof![v4, v6]
        .prop_map(|(address, prefix)| AddressBlock::new(masked(address, prefix), prefix).unwrap())
        .prop_filter("a wildcard is no address", |block| !block.first().is_unspecified())
}

fn port_range() -> impl Strategy<Value = PortRange> {
    let any_two = (1..=u16::MAX, 1..=u16::MAX);
    let one = (1..=u16::MAX).prop_map(|port| (port, port));
    prop_oneof![any_two, one].prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap())
}

fn interface() -> impl Strategy<Value = InterfaceName> {
    "[a-zA-Z][a-zA-Z0-9_.%+,=-]{0,14}"
        .prop_filter("a wildcard", |name| name != "any")
        .prop_map(|name| name.parse().unwrap())
}

fn host() -> impl Strategy<Value = IpAddr> {
    block().prop_map(AddressBlock::first)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_input_prints_as_what_parses_to_it(
        mut sources in proptest::collection::vec(host(), 0..4),
        addresses in block(), ports in port_range(), interface in interface(),
    ) {
        sources.sort_unstable();
        sources.dedup();
        let input = Input { sources, addresses, ports, interface };
        prop_assert_eq!(input.to_string().parse(), Ok(input));
    }

    #[test]
    fn every_output_prints_as_what_parses_to_it(
        source in prop_oneof![
            Just(OutputSource::Primary),
            Just(OutputSource::Keep),
            host().prop_map(OutputSource::Address),
            (host(), 1..=u16::MAX).prop_map(|(a, port)| OutputSource::AddressAndPort(a, port)),
        ],
        addresses in block(),
        ports in proptest::option::of(port_range()),
        interface in proptest::option::of(interface()),
    ) {
        let output = Destination { source, addresses, ports, interface };
        prop_assert_eq!(output.to_string().parse(), Ok(output));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[0-9a-fx.:/@,%\\[\\]\\-* ]{0,40}|.{0,20}") {
        if let Ok(input) = text.parse::<Input>() {
            prop_assert_eq!(input.to_string().parse(), Ok(input));
        }
        if let Ok(output) = text.parse::<Destination>() {
            prop_assert_eq!(output.to_string().parse(), Ok(output));
        }
    }
}
