//! Fragmented datagrams, and the identifications of whole ones. What comes out is put together
//! again by etherparse.

use etherparse::{
    Ipv6Extensions, Ipv6FragmentHeader, NetSlice, SlicedPacket, defrag::IpDefragPool, ip_number,
};

use super::ipv6::{header6, output6, rule6};
use super::*;
use crate::action::PlaneChange;

const SECOND: u64 = 1_000_000_000;

fn offset(units: usize) -> IpFragOffset {
    IpFragOffset::try_new(units as u16).unwrap()
}

/// The fragments of a datagram to port 5000, each with `size` bytes of it.
fn cut(sender: u8, id: u16, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let ip = Ipv4Header { source: [10, 0, 0, sender], dont_fragment: false, ..header() };
    let udp = UdpHeader::with_ipv4_checksum(4000, 5000, &ip, payload).unwrap();
    let datagram = [&udp.to_bytes()[..], payload].concat();
    let count = datagram.len().div_ceil(size);
    let piece = |(n, piece): (usize, &[u8])| {
        let mut ip = Ipv4Header {
            identification: id,
            more_fragments: n + 1 < count,
            fragment_offset: offset(n * size / 8),
            protocol: ip_number::UDP,
            ..ip.clone()
        };
        ip.set_payload_len(piece.len()).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let link = [&[1, 0, 0x5e, 1, 1, 1][..], &SENDER_MAC, &[8, 0]].concat();
        [&link[..], &ip.to_bytes(), piece].concat()
    };
    datagram.chunks(size).enumerate().map(piece).collect()
}

/// The same of IPv6.
fn cut6(sender: u8, id: u32, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut ip = header6();
    ip.source[15] = sender;
    let udp = UdpHeader::with_ipv6_checksum(4000, 5000, &ip, payload).unwrap();
    let datagram = [&udp.to_bytes()[..], payload].concat();
    let count = datagram.len().div_ceil(size);
    let piece = |(n, piece): (usize, &[u8])| {
        let (more, at) = (n + 1 < count, offset(n * size / 8));
        let fragment = Ipv6FragmentHeader::new(ip_number::UDP, at, more, id);
        let mut ip = ip.clone();
        (ip.next_header, ip.payload_length) = (ip_number::IPV6_FRAG, (8 + piece.len()) as u16);
        ipv6::framed6(&[&ip.to_bytes()[..], &fragment.to_bytes(), piece].concat())
    };
    datagram.chunks(size).enumerate().map(piece).collect()
}

/// The identification of a fragment.
fn id(frame: &[u8]) -> u32 {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => ip.header().identification().into(),
        NetSlice::Ipv6(ip) => {
            let start = ip.header().next_header();
            let (extensions, _, _) =
                Ipv6Extensions::from_slice(start, ip.extensions().slice()).unwrap();
            extensions.fragment.unwrap().identification
        }
        NetSlice::Arp(_) => panic!("ARP"),
    }
}

/// The payloads of the datagrams that a receiver puts together, their UDP checksums found right.
fn put_together(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = Vec::new();
    for frame in frames {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(datagram) = pool.process_sliced_packet(&packet, (), ()).unwrap() else { continue };
        let (udp, payload) = UdpHeader::from_slice(&datagram.payload).unwrap();
        assert_eq!(usize::from(udp.length), datagram.payload.len());
        assert_eq!((udp.source_port, udp.destination_port), (4000, 6000));
        let made = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header().to_header();
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                udp.calc_checksum_ipv4(&ip, payload).unwrap()
            }
            NetSlice::Ipv6(ip) => {
                udp.calc_checksum_ipv6(&ip.header().to_header(), payload).unwrap()
            }
            NetSlice::Arp(_) => panic!("ARP"),
        };
        assert_eq!(udp.checksum, made);
        whole.push(payload.to_vec());
    }
    whole
}

fn payload(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 256 + seed) as u8).collect()
}

fn both() -> Bench {
    Bench::new(vec![rule(), rule6()])
}

#[test]
fn a_datagram_comes_out_whole_in_whatever_order_its_later_fragments_come() {
    for (size, length) in [(8, 1), (8, 77), (16, 100), (24, 101), (1480, 1481), (1448, 65_000)] {
        for version in [4, 6] {
            let payload = payload(length, size);
            let frames =
                if version == 4 { cut(1, 7, &payload, size) } else { cut6(1, 7, &payload, size) };
            let later = frames.len() - 1;
            let orders: [Vec<usize>; 3] = [
                (1..=later).collect(),
                (1..=later).rev().collect(),
                (1..=later)
                    .filter(|n| n % 2 == 0)
                    .chain((1..=later).filter(|n| n % 2 == 1))
                    .collect(),
            ];
            for order in orders {
                let mut bench = both();
                let all = std::iter::once(0).chain(order).map(|n| &frames[n]);
                let sent: Vec<_> = all.map(|f| bench.sent(&here(f)).unwrap()).collect();
                assert!(sent.iter().all(|frame| id(frame) == id(&sent[0])));
                if later > 0 {
                    assert_eq!(put_together(&sent), [&payload[..]], "IPv{version}, {size}");
                }
            }
        }
    }
}

#[test]
fn a_fragment_counts_as_one_packet_of_the_bytes_it_has() {
    let frames = cut(1, 7, &payload(1000, 0), 800);
    let mut bench = both();
    let said = |frame: &Vec<u8>| bench.relay(&here(frame)).0;
    assert_eq!(frames.iter().map(said).collect::<Vec<_>>(), ["rule 2 1/792", "rule 2 1/208"]);
}

#[test]
fn what_comes_before_its_first_fragment_is_not_known() {
    for frames in [cut(1, 7, &payload(100, 0), 40), cut6(1, 7, &payload(100, 0), 40)] {
        let mut bench = both();
        assert_eq!(bench.relay(&here(&frames[2])).0, "pass fragment");
        bench.sent(&here(&frames[0])).unwrap();
        bench.sent(&here(&frames[2])).unwrap();
        let elsewhere = Frame { interface: IfIndex(9), ..here(&frames[1]) };
        assert_eq!(bench.relay(&elsewhere).0, "pass fragment");
        bench.sent(&here(&frames[1])).unwrap();
    }
    let other = [cut(2, 7, &payload(100, 0), 40), cut(1, 8, &payload(100, 0), 40)];
    let mut bench = both();
    bench.sent(&here(&cut(1, 7, &payload(100, 0), 40)[0])).unwrap();
    for frames in other {
        assert_eq!(bench.relay(&here(&frames[1])).0, "pass fragment");
    }
}

#[test]
fn a_first_fragment_is_remembered_for_two_seconds() {
    for frames in [cut(1, 7, &payload(100, 0), 40), cut6(1, 7, &payload(100, 0), 40)] {
        let mut bench = both();
        bench.sent(&here(&frames[0])).unwrap();
        bench.now += 2 * SECOND;
        bench.sent(&here(&frames[1])).unwrap();
        bench.now += 1;
        assert_eq!(bench.relay(&here(&frames[2])).0, "pass fragment");
        bench.sent(&here(&frames[0])).unwrap();
        bench.sent(&here(&frames[2])).unwrap();
    }
}

#[test]
fn datagrams_of_two_senders_with_one_identification_do_not_mix() {
    let (a, b) = (payload(300, 1), payload(300, 2));
    for (first, second) in
        [(cut(1, 7, &a, 104), cut(2, 7, &b, 104)), (cut6(1, 7, &a, 104), cut6(2, 7, &b, 104))]
    {
        let mut bench = both();
        let frames = first.iter().zip(&second).flat_map(|(a, b)| [a, b]);
        let sent: Vec<_> = frames.map(|f| bench.sent(&here(f)).unwrap()).collect();
        assert_ne!(id(&sent[0]), id(&sent[1]));
        assert_eq!(put_together(&sent), [&a[..], &b]);
    }
}

#[test]
fn an_identification_that_comes_again_is_a_new_datagram() {
    let (a, b) = (payload(100, 1), payload(100, 2));
    let mut bench = both();
    let mut sent = Vec::new();
    for payload in [&a, &b] {
        let frames = cut(1, 7, payload, 64);
        sent.extend(frames.iter().map(|frame| bench.sent(&here(frame)).unwrap()));
    }
    assert_ne!(id(&sent[0]), id(&sent[2]));
    assert_eq!(id(&sent[2]), id(&sent[3]));
    assert_eq!(put_together(&sent), [&a[..], &b]);
}

#[test]
fn of_too_many_datagrams_the_oldest_are_forgotten() {
    let mut bench = both();
    let frames: Vec<_> = (0..5000).map(|n| cut(1, n, &payload(10, 0), 16)).collect();
    frames.iter().for_each(|frames| drop(bench.sent(&here(&frames[0])).unwrap()));
    let mut known = |frames: &Vec<Vec<u8>>| !bench.relay(&here(&frames[1])).1.is_empty();
    let known: Vec<bool> = frames.iter().map(&mut known).collect();
    let forgotten = 5000 - 4096;
    assert!(known[..forgotten].iter().all(|known| !known));
    assert!(known[forgotten..].iter().all(|known| *known));
}

#[test]
fn what_is_not_taken_leaves_no_trace() {
    let frames = cut(1, 7, &payload(100, 0), 40);
    let dropped = PlaneRule { max_rate: Some("1pps".parse().unwrap()), ..rule() };
    let mut bench = Bench::new(vec![dropped]);
    let plain = frame(header(), b"payload");
    bench.sent(&here(&plain)).unwrap();
    assert_eq!(bench.relay(&here(&frames[0])).0, "rule 2 drop rate 1/32");
    assert_eq!(bench.relay(&here(&frames[1])).0, "pass fragment");

    let mut bench = Bench::new(Vec::new());
    assert_eq!(bench.relay(&here(&frames[0])).0, "pass no-rule");
    assert_eq!(bench.relay(&here(&frames[1])).0, "pass fragment");

    let mut bench = both();
    bench.sent(&here(&frames[0])).unwrap();
    bench.table.apply(PlaneChange { remove: vec![rule().id], ..PlaneChange::default() });
    assert_eq!(bench.relay(&here(&frames[1])).0, "pass no-rule");
}

#[test]
fn fragments_cut_short_anywhere_do_no_harm() {
    for frames in [cut(1, 7, &payload(100, 0), 40), cut6(1, 7, &payload(100, 0), 40)] {
        for frame in &frames {
            for end in 0..frame.len() {
                let mut bench = both();
                assert_eq!(bench.relay(&here(&frame[..end])).0, "pass malformed", "{end} bytes");
            }
        }
    }
    // A first fragment without room for the UDP header has no port to be known by.
    let tiny = cut(1, 7, &[], 8)[0].clone();
    let mut tiny = [&tiny[..34], &tiny[34..38]].concat();
    tiny[16..18].copy_from_slice(&24_u16.to_be_bytes());
    tiny[20] = 0x20;
    assert_eq!(both().relay(&here(&tiny)).0, "pass malformed");
}

#[test]
fn each_fragment_is_held_to_the_mtu_by_itself() {
    let frames = cut(1, 7, &payload(1000, 0), 800);
    let mut bench = Bench::to(PlaneOutput { mtu: 819, ..output() });
    assert_eq!(bench.sent(&here(&frames[0])).err(), Some(OutputDrop::Mtu));
    bench.sent(&here(&frames[1])).expect("small enough");
    let frames = cut6(1, 7, &payload(1000, 0), 800);
    for (mtu, fits) in [(848, true), (847, false)] {
        let rule = PlaneRule { outputs: vec![PlaneOutput { mtu, ..output6() }], ..rule6() };
        assert_eq!(Bench::new(vec![rule]).sent(&here(&frames[0])).is_ok(), fits);
    }
}

#[test]
fn an_ipv6_fragment_that_is_the_whole_datagram_is_one() {
    let frames = cut6(1, 7, b"payload", 64);
    let mut bench = both();
    let sent = bench.sent(&here(&frames[0])).unwrap();
    assert_eq!(id(&sent), 7, "nothing is cut, and nothing to mix (RFC 6946)");
    ipv6::judged6(&sent[14..]);
}

#[test]
fn datagrams_that_somebody_may_cut_get_identifications_of_their_own() {
    let whole = |sender: u8, id: u16| {
        let ip = Ipv4Header {
            source: [10, 0, 0, sender],
            dont_fragment: false,
            identification: id,
            ..header()
        };
        frame(ip, b"payload")
    };
    let mut bench = both();
    let sent: Vec<_> =
        (0..400).map(|n| bench.sent(&here(&whole(n as u8 % 2 + 1, 7))).unwrap()).collect();
    sent.iter().for_each(|frame| drop(judged(frame)));
    let ids: Vec<u32> = sent.iter().map(|frame| id(frame)).collect();
    let unique: std::collections::BTreeSet<&u32> = ids.iter().collect();
    assert_eq!(unique.len(), 400);
    let large = cut(1, 7, &payload(100, 0), 40);
    let sent: Vec<_> = large.iter().map(|frame| bench.sent(&here(frame)).unwrap()).collect();
    assert!(id(&sent[0]) >= 0x8000 && ids.iter().all(|id| *id < 0x8000), "two halves");

    // As many as a super-packet is cut into.
    let came = whole(1, 7);
    let many = Frame { segment_size: 1, ..here(&came) };
    let first = id(&bench.sent(&many).unwrap());
    assert_eq!(id(&bench.sent(&here(&whole(1, 7))).unwrap()), first + 7);
}

#[test]
fn datagrams_that_nobody_may_cut_keep_theirs() {
    for identification in [0, 7, 0xffff] {
        let came = frame(Ipv4Header { identification, ..header() }, b"payload");
        let sent = both().sent(&here(&came)).unwrap();
        assert_eq!((id(&sent), sent[20] & 0x40), (identification.into(), 0x40));
    }
}
