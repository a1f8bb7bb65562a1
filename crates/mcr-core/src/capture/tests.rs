#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use super::pcap::{LinkType, Reader, add_record, header};
use super::*;
use crate::flow::Input;

const ETH0: IfIndex = IfIndex(2);
const ETH1: IfIndex = IfIndex(3);

fn take(text: &str) -> Take {
    let Input { sources, addresses, ports, .. } = text.parse().unwrap();
    Take { interface: ETH0, addresses, ports, sources }
}

fn matcher(points: Vec<Point>, others: Vec<Take>) -> Matcher {
    Matcher::new(Plan { link: LinkType::Ethernet, points, others })
}

/// An IPv4 packet behind an Ethernet header: which part of a datagram (offset in units of 8 bytes,
/// more), with an identification.
fn frame(from: &str, to: &str, (offset, more, id): (u16, bool, u16)) -> Vec<u8> {
    let (from, to): (std::net::SocketAddrV4, std::net::SocketAddrV4) =
        (from.parse().unwrap(), to.parse().unwrap());
    let mut packet = vec![0x45, 0, 0, 128, 0, 0, 0, 0, 7, 17, 0, 0];
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
    packet.extend([from.ip().octets(), to.ip().octets()].concat());
    packet.extend([from.port(), to.port(), 108, 0].map(u16::to_be_bytes).concat());
    packet.resize(128, 9);
    [&[0; 12][..], &[8, 0], &packet].concat()
}

const WHOLE: (u16, bool, u16) = (0, false, 1);

fn seen(bytes: &[u8]) -> Frame<'_> {
    Frame {
        bytes,
        length: bytes.len(),
        bare: false,
        interface: ETH0,
        outgoing: false,
        other_host: false,
        tag: None,
        time: 0,
    }
}

#[test]
fn what_comes_in_is_known_by_its_flow() {
    let take = take("10.0.0.1@239.1.1.0/24:5000-5003@eth0");
    let mut matcher = matcher(vec![Point::input(&take)], vec![]);
    let mut takes = |from: &str, to: &str| matcher.takes(&seen(&frame(from, to, WHOLE)));
    assert!(takes("10.0.0.1:4000", "239.1.1.255:5003"));
    assert!(!takes("10.0.0.2:4000", "239.1.1.255:5003"), "another source");
    assert!(!takes("10.0.0.1:4000", "239.1.2.0:5003"), "another group");
    assert!(!takes("10.0.0.1:4000", "239.1.1.255:5004"), "another port");
    let bytes = frame("10.0.0.1:4000", "239.1.1.1:5000", WHOLE);
    let mut takes = |frame: Frame<'_>| matcher.takes(&frame);
    let frame = seen(&bytes);
    assert!(takes(frame));
    assert!(!takes(Frame { interface: ETH1, ..frame }), "another interface");
    assert!(!takes(Frame { outgoing: true, ..frame }), "sent by this host");
    assert!(!takes(Frame { other_host: true, ..frame }));
    assert!(!takes(Frame { tag: Some(7), ..frame }), "of another VLAN");
    assert!(takes(Frame { tag: Some(0x6000), ..frame }), "a priority tag is none");
    let start = &bytes[..HEADERS as usize];
    assert!(takes(Frame { bytes: start, length: bytes.len(), ..frame }), "cut by the kernel");
    assert!(takes(Frame { bytes: &bytes[14..], length: bytes.len() - 14, bare: true, ..frame }));
    assert!(!takes(Frame { bytes: &bytes[..30], length: 30, ..frame }), "cut before");
    let mut tcp = bytes.clone();
    tcp[23] = 6;
    assert!(!takes(seen(&tcp)));
}

#[test]
fn what_leaves_is_known_by_what_the_output_makes_of_it() {
    let take = take("239.1.1.0/24:65000-65001@eth0");
    let mut point = Point::input(&take);
    (point.interface, point.outgoing) = (ETH1, true);
    point.addresses = AddressBlock::new("239.9.9.0".parse().unwrap(), 24).unwrap();
    point.port_shift = 6000_u16.wrapping_sub(65000);
    point.sources = vec!["10.0.1.1".parse().unwrap()];
    point.source_port = Some(7000);
    let mut matcher = matcher(vec![point], vec![]);
    let mut takes = |from: &str, to: &str, interface| {
        let bytes = frame(from, to, WHOLE);
        matcher.takes(&Frame { interface, outgoing: true, ..seen(&bytes) })
    };
    assert!(takes("10.0.1.1:7000", "239.9.9.3:6001", ETH1));
    assert!(!takes("10.0.1.1:7000", "239.9.9.3:6001", ETH0));
    assert!(!takes("10.0.1.1:7000", "239.9.9.3:6002", ETH1));
    assert!(!takes("10.0.1.1:7000", "239.1.1.3:6001", ETH1));
    assert!(!takes("10.0.1.1:7001", "239.9.9.3:6001", ETH1));
    assert!(!takes("10.0.1.2:7000", "239.9.9.3:6001", ETH1));
}

#[test]
fn what_an_exact_rule_takes_is_not_of_the_range() {
    let (range, exact) = (take("239.1.1.0/24:5000@eth0"), take("10.0.0.1@239.1.1.7:5000@eth0"));
    let points = vec![Point::input(&range)];
    let mut matcher = matcher(points.clone(), vec![exact]);
    let of = |from: &str| frame(from, "239.1.1.7:5000", WHOLE);
    assert!(!matcher.takes(&seen(&of("10.0.0.1:4000"))));
    assert!(matcher.takes(&seen(&of("10.0.0.2:4000"))), "the exact rule does not take that");
    matcher.follow(Plan { link: LinkType::Ethernet, points, others: vec![] });
    assert!(matcher.takes(&seen(&of("10.0.0.1:4000"))), "it is gone");
}

#[test]
fn later_fragments_are_known_by_their_first_for_a_while() {
    let mut matcher = matcher(vec![Point::input(&take("239.1.1.1:5000@eth0"))], vec![]);
    let (from, to) = ("10.0.0.1:4000", "239.1.1.1:5000");
    let mut takes = |from: &str, to: &str, part: (u16, bool, u16), time: u64| {
        let bytes = frame(from, to, part);
        matcher.takes(&Frame { time, ..seen(&bytes) })
    };
    assert!(!takes(from, to, (16, true, 5), 0), "before the first");
    assert!(takes(from, to, (0, true, 5), 1000));
    assert!(takes(from, to, (16, true, 5), 1000));
    assert!(takes(from, to, (32, false, 5), KNOWN_NS + 1000));
    assert!(!takes(from, to, (32, false, 5), KNOWN_NS + 1001), "too late");
    assert!(!takes(from, to, (32, false, 6), 1000), "another datagram");
    assert!(!takes("10.0.0.2:4000", to, (32, false, 5), 1000), "of another sender");
    assert!(!takes(from, "239.1.1.1:5001", (0, true, 7), 1000), "another port");
    assert!(!takes(from, to, (32, false, 7), 1000));
    for id in 0..=DATAGRAMS as u16 {
        assert!(takes(from, to, (0, true, 100 + id), 2000));
    }
    assert!(!takes(from, to, (32, false, 5), 2000), "forgotten");
    assert!(takes(from, to, (32, false, 100 + DATAGRAMS as u16), 2000));
}

#[test]
fn a_packet_is_told_in_short() {
    let bytes = frame("10.0.0.1:4000", "239.1.1.1:5000", WHOLE);
    let packet = Packet::of(&bytes[..64], bytes.len(), false).unwrap();
    assert_eq!(packet.ports, Some((4000, 5000)));
    assert_eq!((packet.length, packet.ttl, packet.fragment), (100, 7, false));
    let later = frame("10.0.0.1:4000", "239.1.1.1:5000", (16, false, 1));
    let packet = Packet::of(&later, later.len(), false).unwrap();
    assert_eq!((packet.ports, packet.length, packet.fragment), (None, 108, true));
    assert_eq!(Packet::of(&bytes[..20], bytes.len(), false), None);
    assert_eq!(Packet::of(&[], 0, true), None);
}

#[test]
fn a_file_is_read_in_pieces_of_any_size() {
    let mut file = header(LinkType::Raw, 65_535).to_vec();
    let frames = [vec![1; 60], vec![], vec![3; 1500]];
    for (frame, number) in frames.iter().zip(1..) {
        add_record(&mut file, number * 1_700_000_000_123_456_789, frame.len() + 7, frame);
    }
    assert_eq!(file[..8], [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0]);
    assert_eq!(file[16..24], [0xff, 0xff, 0, 0, 101, 0, 0, 0]);
    for size in [1, 7, 24, 100, file.len()] {
        let (mut reader, mut again, mut seen) = (Reader::default(), Vec::new(), Vec::new());
        for piece in file.chunks(size) {
            reader.push(piece);
            if let Some((link, header)) = reader.begin().unwrap() {
                assert_eq!(link, LinkType::Raw);
                again.extend_from_slice(header);
            }
            while let Some(record) = reader.record().unwrap() {
                again.extend_from_slice(record.raw);
                assert_eq!(record.length, record.kept.len() + 7);
                seen.push((record.time % 1_000_000_000, record.kept.to_vec()));
            }
        }
        assert!(again == file, "pieces of {size}");
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[0], (123_456_789, frames[0].clone()));
    }
    let mut reader = Reader::default();
    reader.push(&[0; 24]);
    assert!(reader.begin().is_err());
    let mut reader = Reader::default();
    reader.push(&header(LinkType::Ethernet, 1));
    reader.begin().unwrap();
    reader.push(&[0xff; 16]);
    assert!(reader.record().is_err(), "a record of 4 GiB");
}
