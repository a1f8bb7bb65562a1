//! Whatever comes: frames that etherparse builds, bytes like ours, bytes.

use std::num::NonZeroU8;

use etherparse::{
    Ipv4Options, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader,
    Ipv6RoutingExtensions, ip_number,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::ipv6::{frame6, header6, output6, rule6};
use super::*;

/// A frame, how it is received, and its UDP payload when it is a whole datagram.
#[derive(Debug)]
struct Built {
    bytes: Vec<u8>,
    bare: bool,
    payload: Option<Vec<u8>>,
}

fn ipv4() -> impl Strategy<Value = IpHeaders> {
    let options = vec(any::<[u8; 4]>(), 0..=10).prop_map(|words| words.concat());
    let addresses = (any::<[u8; 4]>(), prop_oneof![4 => Just(GROUP), 1 => any::<[u8; 4]>()]);
    let cut = (prop::bool::weighted(0.1), prop_oneof![9 => Just(0), 1 => 0..0x2000_u16]);
    (addresses, any::<(u8, u8, u16, bool)>(), cut, options).prop_map(
        |((source, destination), (tos, ttl, id, dont_fragment), (more_fragments, at), options)| {
            let header = Ipv4Header {
                dscp: (tos >> 2).try_into().unwrap(),
                ecn: (tos & 3).try_into().unwrap(),
                time_to_live: ttl,
                identification: id,
                dont_fragment,
                more_fragments,
                fragment_offset: IpFragOffset::try_new(at).unwrap(),
                source,
                destination,
                options: Ipv4Options::try_from(&options[..]).unwrap(),
                ..header()
            };
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        },
    )
}

fn extension() -> impl Strategy<Value = Ipv6RawExtHeader> {
    (any::<[u8; 6]>(), vec(any::<[u8; 8]>(), 0..4)).prop_map(|(head, rest)| {
        Ipv6RawExtHeader::new_raw(ip_number::UDP, &[&head[..], &rest.concat()].concat()).unwrap()
    })
}

fn ipv6() -> impl Strategy<Value = IpHeaders> {
    let group = header6().destination;
    let addresses = (any::<[u8; 16]>(), prop_oneof![4 => Just(group), 1 => any::<[u8; 16]>()]);
    let routing = (extension(), of(extension())).prop_map(|(routing, last)| {
        Ipv6RoutingExtensions { routing, final_destination_options: last }
    });
    let fragment = (prop_oneof![4 => Just(0), 1 => 0..0x2000_u16], any::<(bool, u32)>()).prop_map(
        |(at, (more, id))| {
            Ipv6FragmentHeader::new(ip_number::UDP, IpFragOffset::try_new(at).unwrap(), more, id)
        },
    );
    let rare = 0.15;
    let extensions = (
        proptest::option::weighted(rare, extension()),
        proptest::option::weighted(rare, extension()),
        proptest::option::weighted(rare, routing),
        proptest::option::weighted(rare, fragment),
    );
    (addresses, any::<(u8, u8)>(), 0..1_u32 << 20, extensions).prop_map(
        |((source, destination), (traffic_class, hop_limit), label, extensions)| {
            let flow_label = label.try_into().unwrap();
            let header = Ipv6Header {
                traffic_class,
                flow_label,
                hop_limit,
                source,
                destination,
                ..header6()
            };
            let (hop_by_hop_options, destination_options, routing, fragment) = extensions;
            let extensions = Ipv6Extensions {
                hop_by_hop_options,
                destination_options,
                routing,
                fragment,
                auth: None,
            };
            IpHeaders::Ipv6(header, extensions)
        },
    )
}

fn is_fragment(ip: &IpHeaders) -> bool {
    match ip {
        IpHeaders::Ipv4(header, _) => header.is_fragmenting_payload(),
        IpHeaders::Ipv6(_, extensions) => extensions.is_fragmenting_payload(),
    }
}

fn built() -> impl Strategy<Value = Built> {
    let ip = prop_oneof![ipv4(), ipv6()];
    let port = prop_oneof![6 => Just(5000), 1 => any::<u16>()];
    let transport = prop_oneof![8 => Just(0), 1 => Just(1), 1 => Just(2)];
    let tags = prop_oneof![8 => Just(0), 1 => Just(1), 1 => Just(2)];
    let body = (vec(any::<u8>(), 0..100), 0..10_usize);
    (ip, (any::<u16>(), port), transport, (tags, any::<bool>()), body).prop_map(
        |(ip, (from, to), transport, (tags, bare), (payload, padding))| {
            let is_udp = transport == 0 && !is_fragment(&ip);
            let builder = PacketBuilder::ethernet2(SENDER_MAC, [1; 6]);
            let builder = match tags {
                0 => builder.ip(ip),
                1 => builder.single_vlan(VlanId::ZERO).ip(ip),
                _ => builder.double_vlan(VlanId::ZERO, VlanId::ZERO).ip(ip),
            };
            let mut bytes = Vec::new();
            match transport {
                0 => builder.udp(from, to).write(&mut bytes, &payload).unwrap(),
                1 => builder.tcp(from, to, 1, 1).write(&mut bytes, &payload).unwrap(),
                _ => builder.icmpv4_echo_request(1, 1).write(&mut bytes, &payload).unwrap(),
            }
            bytes.extend(vec![0xee; padding]);
            let bare = bare && tags == 0;
            let bytes = if bare { bytes[14..].to_vec() } else { bytes };
            Built { bytes, bare, payload: is_udp.then_some(payload) }
        },
    )
}

fn random_output() -> impl Strategy<Value = PlaneOutput> {
    let link = prop_oneof![
        Just(LinkHeader::Bare),
        of(any::<[u8; 6]>()).prop_map(|next_hop| LinkHeader::Ethernet { source: [2; 6], next_hop })
    ];
    let ttl = prop_oneof![
        Just(Ttl::Keep),
        Just(Ttl::Decrement),
        (1..=255_u8).prop_map(|ttl| Ttl::Set(NonZeroU8::new(ttl).unwrap()))
    ];
    let dscp = prop_oneof![Just(Dscp::Keep), (0..64_u8).prop_map(Dscp::Set)];
    let source = of(any::<u128>());
    (link, ttl, dscp, source, of(any::<u16>()), any::<(u128, u16)>()).prop_map(
        |(header, ttl, dscp, source, source_port, (destination, port_shift))| PlaneOutput {
            header,
            ttl,
            dscp,
            source: source.map(|bits| IpAddr::V6(bits.into())),
            source_port,
            destination: single(IpAddr::V6(destination.into())),
            port_shift,
            ..output()
        },
    )
}

/// With the lower bits of its addresses.
fn as_ipv4(output: PlaneOutput) -> PlaneOutput {
    let v4 = |address| match address {
        IpAddr::V6(a) => IpAddr::V4((a.to_bits() as u32).into()),
        IpAddr::V4(_) => address,
    };
    PlaneOutput {
        source: output.source.map(v4),
        destination: single(v4(output.destination.first())),
        ..output
    }
}

/// The packet is what the output says, its checksums right, and its payload as it came.
fn judge(sent: &[u8], output: &PlaneOutput, built: &Built) {
    let link = match output.header {
        LinkHeader::Bare => 0,
        LinkHeader::Ethernet { .. } => 14,
    };
    let packet = PacketHeaders::from_ip_slice(&sent[link..]).unwrap();
    let destination: IpAddr = match packet.net.as_ref().unwrap() {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            ip.destination.into()
        }
        NetHeaders::Ipv6(ip, _) => ip.destination.into(),
        NetHeaders::Arp(_) => panic!("ARP"),
    };
    assert_eq!(destination, output.destination.first());
    let Some(payload) = &built.payload else { return };
    let Some(TransportHeader::Udp(udp)) = packet.transport else { panic!("not UDP") };
    assert_eq!(packet.payload.slice(), payload);
    let made = match packet.net.unwrap() {
        NetHeaders::Ipv4(ip, _) => udp.calc_checksum_ipv4(&ip, payload),
        NetHeaders::Ipv6(ip, _) => udp.calc_checksum_ipv6(&ip, payload),
        NetHeaders::Arp(_) => panic!("ARP"),
    };
    assert_eq!(udp.checksum, made.unwrap());
}

fn bench(output: &PlaneOutput) -> Bench {
    let v4 = PlaneRule { outputs: vec![as_ipv4(output.clone())], ..rule() };
    let v6 = PlaneRule { outputs: vec![output.clone()], ..rule6() };
    Bench::new(vec![v4, v6])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frame_that_etherparse_builds_is_passed_or_comes_out_right(
        frames in vec(built(), 1..8), output in random_output(),
    ) {
        let mut bench = bench(&output);
        for built in &frames {
            let frame = Frame { bare: built.bare, ..here(&built.bytes) };
            let (said, sent) = bench.relay(&frame);
            for sent in sent {
                match sent {
                    Ok(sent) if said.starts_with("rule 6 ") => judge(&sent, &output, built),
                    Ok(sent) => judge(&sent, &as_ipv4(output.clone()), built),
                    Err(reason) => prop_assert_eq!(reason, OutputDrop::TtlExpired),
                }
            }
        }
    }

    #[test]
    fn any_frame_cut_short_does_no_harm(
        built in built(), output in random_output(), cut in any::<prop::sample::Index>(),
    ) {
        let bytes = &built.bytes[..cut.index(built.bytes.len() + 1)];
        let frame = Frame { bare: built.bare, ..here(bytes) };
        let (said, sent) = bench(&output).relay(&frame);
        prop_assert!(said.starts_with("rule ") || sent.is_empty());
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in vec(any::<u8>(), 0..120),
        (v6, like_ours) in (any::<bool>(), proptest::bits::u8::masked(0x3f)),
        packet_type in prop_oneof![
            Just(PacketType::Here), Just(PacketType::OtherHost), Just(PacketType::Loopback)],
        (bare, tagged, segment_size, partial_checksum) in any::<(bool, bool, u16, bool)>(),
    ) {
        let bare = bare || packet_type == PacketType::Loopback;
        let start: usize = if bare { 0 } else { 14 };
        let (model, places) = if v6 {
            (frame6(&[0; 78]), [12..14, 14..15, 18..20, 20..21, 38..54, 56..60])
        } else {
            (frame(header(), &[0; 78]), [12..14, 14..15, 16..18, 20..24, 30..34, 36..40])
        };
        for (bit, place) in places.into_iter().enumerate() {
            let Some(at) = (place.start + start).checked_sub(14) else { continue };
            if like_ours & 1 << bit != 0 && at + place.len() <= bytes.len() {
                bytes[at..at + place.len()].copy_from_slice(&model[place]);
            }
        }
        let received = Frame {
            bytes: &bytes,
            bare,
            interface: ETH0,
            packet_type,
            tagged,
            segment_size,
            partial_checksum,
        };
        let mut bench = Bench::new(vec![rule(), PlaneRule { outputs: vec![output6()], ..rule6() }]);
        for sent in bench.relay(&received).1 {
            prop_assert_eq!(sent.unwrap().len(), bytes.len() + 14 - start);
        }
    }

    #[test]
    fn every_rewrite_keeps_both_checksums_right(
        (source, destination) in (any::<[u8; 4]>(), any::<[u8; 4]>()),
        ports in (any::<u16>(), any::<u16>()),
        (ttl, tos) in (1..=255u8, 0..64u8),
        payload in vec(any::<u8>(), 0..64),
    ) {
        let ip = Ipv4Header { source: [10, 7, source[0], source[1]], time_to_live: ttl, ..header() };
        let output = PlaneOutput {
            source: Some(source.into()),
            source_port: Some(ports.0),
            destination: single(destination),
            port_shift: ports.1,
            ttl: Ttl::Keep,
            dscp: Dscp::Set(tos),
            ..output()
        };
        let (_, _, body) = judged(&rewritten(&frame(ip, &payload), &output).unwrap());
        prop_assert_eq!(body, payload);
    }
}
