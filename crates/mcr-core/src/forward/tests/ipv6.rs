//! IPv6: addresses, hop limit, traffic class, extension headers, and links with and without headers.

use std::net::Ipv6Addr;

use etherparse::{Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, ip_number};

use super::*;

pub(super) const SENDER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(super) const OUR6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 0, 0x8000, 1);
const TO6: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0x1234, 0x5678);

/// To [ff1e::1234:5678], 1000 ports up.
pub(super) fn output6() -> PlaneOutput {
    PlaneOutput { source: Some(OUR6.into()), destination: single(TO6), ..output() }
}

/// Takes [ff3e::8000:1]:5000 on eth0.
pub(super) fn rule6() -> PlaneRule {
    let take = Take { addresses: single(GROUP6), ..rule().take };
    PlaneRule { id: RuleId(6), take, outputs: vec![output6()], ..rule() }
}

pub(super) fn header6() -> Ipv6Header {
    Ipv6Header {
        traffic_class: 0x8b,
        flow_label: 0xfedcb.try_into().unwrap(),
        hop_limit: 5,
        source: SENDER6.octets(),
        destination: GROUP6.octets(),
        ..Ipv6Header::default()
    }
}

/// A packet to port 5000 as etherparse makes it.
pub(super) fn packet6(ip: Ipv6Header, extensions: Ipv6Extensions, payload: &[u8]) -> Vec<u8> {
    let packet = PacketBuilder::ip(IpHeaders::Ipv6(ip, extensions));
    let mut bytes = Vec::new();
    packet.udp(4000, 5000).write(&mut bytes, payload).unwrap();
    bytes
}

/// Behind an Ethernet header.
pub(super) fn framed6(packet: &[u8]) -> Vec<u8> {
    [&[0x33, 0x33, 0x80, 0, 0, 1][..], &SENDER_MAC, &[0x86, 0xdd], packet].concat()
}

pub(super) fn frame6(payload: &[u8]) -> Vec<u8> {
    framed6(&packet6(header6(), Ipv6Extensions::default(), payload))
}

/// Headers as etherparse reads them, the checksum found right.
pub(super) fn judged6(packet: &[u8]) -> (Ipv6Header, Ipv6Extensions, UdpHeader, Vec<u8>) {
    let packet = PacketHeaders::from_ip_slice(packet).unwrap();
    let Some(NetHeaders::Ipv6(ip, extensions)) = packet.net else { panic!("not IPv6") };
    let Some(TransportHeader::Udp(udp)) = packet.transport else { panic!("not UDP") };
    let payload = packet.payload.slice().to_vec();
    if udp.checksum != 0 {
        let right = udp.calc_checksum_ipv6(&ip, &payload).unwrap();
        assert_eq!(udp.checksum, if right == 0 { 0xffff } else { right });
    }
    (ip, extensions, udp, payload)
}

fn bench(output: PlaneOutput) -> Bench {
    Bench::new(vec![PlaneRule { outputs: vec![output], ..rule6() }])
}

fn raw(payload: &[u8]) -> Ipv6RawExtHeader {
    Ipv6RawExtHeader::new_raw(ip_number::UDP, payload).unwrap()
}

/// Each with one header of 8 bytes but the routing header, which has one address (RFC 6275).
fn extensions() -> [(Ipv6Extensions, usize); 5] {
    let options = || Some(raw(&[1, 4, 0, 0, 0, 0]));
    let home = [&[2, 0, 0, 0, 0, 0][..], &SENDER6.octets()].concat();
    let none = Ipv6Extensions::default;
    let (final_destination_options, routing) = (options(), raw(&home));
    [
        (none(), 0),
        (Ipv6Extensions { hop_by_hop_options: options(), ..none() }, 8),
        (Ipv6Extensions { destination_options: options(), ..none() }, 8),
        (
            Ipv6Extensions {
                hop_by_hop_options: options(),
                destination_options: options(),
                ..none()
            },
            16,
        ),
        (
            Ipv6Extensions {
                hop_by_hop_options: options(),
                destination_options: options(),
                routing: Some(Ipv6RoutingExtensions { routing, final_destination_options }),
                ..none()
            },
            48,
        ),
    ]
}

#[test]
fn a_rewritten_packet_is_a_new_datagram_whatever_stands_before_its_udp_header() {
    for (extensions, length) in extensions() {
        for payload in [&b""[..], b"x", b"even", b"odd payload", &[0xff; 1300]] {
            let came = framed6(&packet6(header6(), extensions.clone(), payload));
            let keep = PlaneOutput { source: None, source_port: Some(7000), ..output6() };
            for (output, source, port) in [(output6(), OUR6, 4000), (keep, SENDER6, 7000)] {
                let sent = bench(output).sent(&here(&came)).unwrap();
                assert_eq!(
                    sent[..14],
                    [0x33, 0x33, 0x12, 0x34, 0x56, 0x78, 2, 0, 0, 0, 0, 3, 0x86, 0xdd]
                );
                assert_eq!(sent[54..54 + length], came[54..54 + length], "extension headers");
                let (ip, kept, udp, body) = judged6(&sent[14..]);
                assert_eq!((ip.source, ip.destination), (source.octets(), TO6.octets()));
                assert_eq!((udp.source_port, udp.destination_port), (port, 6000));
                assert_eq!((kept, &body[..]), (judged6(&came[14..]).1, payload));
                let wanted = Ipv6Header {
                    hop_limit: 32,
                    source: ip.source,
                    destination: ip.destination,
                    ..judged6(&came[14..]).0
                };
                assert_eq!(ip, wanted, "all else is kept");
            }
        }
    }
}

#[test]
fn the_hop_limit_is_set_kept_or_decremented_until_it_expires() {
    let cases = [
        (Ttl::default(), 1, Ok(32)),
        (Ttl::Keep, 255, Ok(255)),
        (Ttl::Keep, 1, Ok(1)),
        (Ttl::Decrement, 255, Ok(254)),
        (Ttl::Decrement, 2, Ok(1)),
        (Ttl::Decrement, 1, Err(OutputDrop::TtlExpired)),
        (Ttl::Decrement, 0, Err(OutputDrop::TtlExpired)),
    ];
    for (ttl, hop_limit, expected) in cases {
        let ip = Ipv6Header { hop_limit, ..header6() };
        let came = framed6(&packet6(ip, Ipv6Extensions::default(), b"payload"));
        let sent = bench(PlaneOutput { ttl, ..output6() }).sent(&here(&came));
        assert_eq!(sent.map(|bytes| judged6(&bytes[14..]).0.hop_limit), expected, "{ttl:?}");
    }
}

#[test]
fn the_code_point_is_set_and_ecn_and_the_flow_label_are_kept() {
    for (dscp, traffic_class, expected) in [
        (Dscp::Keep, 0xb8, 0xb8),
        (Dscp::Keep, 0xff, 0xff),
        (Dscp::Set(46), 0, 0xb8),
        (Dscp::Set(46), 3, 0xbb),
        (Dscp::Set(0), 0xfd, 1),
        (Dscp::Set(63), 2, 0xfe),
    ] {
        for label in [0, 0x12345, 0xfffff] {
            let flow_label = label.try_into().unwrap();
            let ip = Ipv6Header { traffic_class, flow_label, ..header6() };
            let came = framed6(&packet6(ip, Ipv6Extensions::default(), b"p"));
            let sent = bench(PlaneOutput { dscp, ..output6() }).sent(&here(&came)).unwrap();
            let (ip, ..) = judged6(&sent[14..]);
            assert_eq!((ip.traffic_class, ip.flow_label.value()), (expected, label), "{dscp:?}");
        }
    }
}

#[test]
fn links_without_headers_are_received_from_and_sent_to() {
    let bare = LinkHeader::Bare;
    let ethernet = output6().header;
    let packet = packet6(header6(), extensions()[4].0.clone(), b"payload");
    for (from_bare, header, link) in
        [(false, bare, 0), (true, bare, 0), (true, ethernet, 14), (false, ethernet, 14)]
    {
        let came = if from_bare { packet.clone() } else { framed6(&packet) };
        let frame = Frame { bare: from_bare, ..here(&came) };
        let sent = bench(PlaneOutput { header, ..output6() }).sent(&frame).unwrap();
        assert_eq!(sent.len(), link + packet.len());
        assert_eq!(judged6(&sent[link..]).3, b"payload");
    }
    let came = frame(header(), b"payload");
    for (from_bare, header, link) in [(false, bare, 0), (true, bare, 0), (true, ethernet, 14)] {
        let came = if from_bare { &came[14..] } else { &came[..] };
        let frame = Frame { bare: from_bare, ..here(came) };
        let sent = Bench::to(PlaneOutput { header, ..output() }).sent(&frame).unwrap();
        let (ip, _, payload) = judged_packet(PacketHeaders::from_ip_slice(&sent[link..]).unwrap());
        assert_eq!((ip.destination, &payload[..]), ([239, 10, 1, 1], &b"payload"[..]));
    }
    let other = Frame { bare: true, ..here(&[0x45; 20][..0]) };
    assert_eq!(Bench::new(vec![rule()]).relay(&other).0, "pass not-ours");
    let arp = Frame { bare: true, ..here(&[8, 6, 0, 1]) };
    assert_eq!(Bench::new(vec![rule()]).relay(&arp).0, "pass not-ours");
}

#[test]
fn a_checksum_of_zero_stays_and_one_that_comes_out_as_zero_is_ffff() {
    let mut none = frame6(b"payload");
    none[60..62].fill(0);
    let sent = bench(output6()).sent(&here(&none)).unwrap();
    assert_eq!(judged6(&sent[14..]).2.checksum, 0);
    let mut ffff = 0;
    for filler in 0..=u16::MAX {
        let sent = bench(output6()).sent(&here(&frame6(&filler.to_be_bytes()))).unwrap();
        let (_, _, udp, _) = judged6(&sent[14..]);
        assert_ne!(udp.checksum, 0);
        ffff += usize::from(udp.checksum == 0xffff);
    }
    assert!(ffff > 0);
}

/// What the kernel or the network card does with a checksum that is left to it.
#[test]
fn an_unfinished_checksum_comes_out_right_when_it_is_finished() {
    let pseudo = |bytes: &[u8]| {
        let length = (bytes.len() - 54) as u16;
        let rest = [&[0, 17][..], &length.to_be_bytes()].concat();
        checksum::fold(checksum::sum(&bytes[22..54]) + checksum::sum(&rest))
    };
    let mut came = frame6(b"payload");
    let unfinished = pseudo(&came);
    came[60..62].copy_from_slice(&unfinished.to_be_bytes());
    let received = Frame { partial_checksum: true, ..here(&came) };
    let mut sent = bench(output6()).sent(&received).unwrap();
    assert_eq!(sent[60..62], pseudo(&sent).to_be_bytes());
    let finished = checksum::mangle_zero(checksum::checksum(&sent[54..]));
    sent[60..62].copy_from_slice(&finished.to_be_bytes());
    judged6(&sent[14..]);
}

#[test]
fn the_mtu_counts_the_header_and_its_extensions() {
    let came = framed6(&packet6(header6(), extensions()[1].0.clone(), &[7; 1000]));
    for (segment_size, mtu, fits) in
        [(0, 1056, true), (0, 1055, false), (100, 156, true), (100, 155, false)]
    {
        let received = Frame { segment_size, ..here(&came) };
        let sent = bench(PlaneOutput { mtu, ..output6() }).sent(&received);
        assert_eq!(sent.err(), (!fits).then_some(OutputDrop::Mtu), "{segment_size} {mtu}");
    }
    let received = Frame { segment_size: 300, ..here(&came) };
    assert_eq!(bench(output6()).relay(&received).0, "rule 6 4/1000");
}

#[test]
fn every_packet_has_the_verdict_of_its_kind() {
    let own = Ipv6Header { source: OUR6.octets(), ..header6() };
    let unicast = Ipv6Header { destination: SENDER6.octets(), ..header6() };
    let other = Ipv6Header { destination: TO6.octets(), ..header6() };
    let plain = |ip| framed6(&packet6(ip, Ipv6Extensions::default(), b"payload"));
    let [own, unicast, other] = [own, unicast, other].map(plain);
    let mut tcp = frame6(b"payload");
    tcp[20] = 6;
    let mut wrong_version = frame6(b"payload");
    wrong_version[14] = 0x45;
    let mut v4_type = frame6(b"payload");
    v4_type[12..14].copy_from_slice(&TYPE_IPV4.to_be_bytes());
    let loopback = PacketType::Loopback;
    let whole = frame6(b"payload");
    let cases = [
        (here(&whole), "rule 6 1/7"),
        (here(&own), "rule 6 drop own 1/7"),
        (here(&unicast), "pass not-ours"),
        (here(&other), "pass no-rule"),
        (here(&tcp), "pass not-ours"),
        (here(&wrong_version), "pass malformed"),
        (here(&v4_type), "pass malformed"),
        (Frame { packet_type: loopback, ..here(&whole[14..]) }, "rule 6 drop local-sender 1/7"),
        (Frame { packet_type: PacketType::OtherHost, ..here(&whole) }, "pass not-ours"),
        (Frame { tagged: true, ..here(&whole) }, "pass tagged"),
        (Frame { interface: LO, ..here(&whole) }, "pass no-rule"),
    ];
    for (frame, expected) in cases {
        let rule = PlaneRule { outputs: vec![output6()], ..rule6() };
        let mut bench = Bench::new(vec![rule]);
        let own = [OUR6.into()].into();
        bench.table.apply(PlaneChange { own, ..PlaneChange::default() });
        assert_eq!(bench.relay(&frame).0, expected, "{frame:?}");
    }
}

#[test]
fn what_is_cut_short_anywhere_is_malformed() {
    for (extensions, _) in extensions() {
        let bytes = framed6(&packet6(header6(), extensions, b"payload"));
        assert_eq!(bench(output6()).relay(&here(&bytes)).0, "rule 6 1/7");
        for end in 0..bytes.len() {
            let said = bench(output6()).relay(&here(&bytes[..end])).0;
            assert_eq!(said, "pass malformed", "{end} bytes");
        }
    }
}
