//! What a tap sees of a namespace.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};
use mcr_core::flow::{AddressBlock, PortRange};
use mcr_core::link::IfIndex;
use mcr_dataplane::tap::{Catch, Caught, Tap, TapOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::namespace::{Namespace, index_of, ip, run, wait_for};
use crate::tun;

const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 10];
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 1, 1, 1];
const RING: u32 = 256 << 10;
const SNAP: u32 = 65_535;
const OUTGOING: u8 = 4;
const MULTICAST: u8 = 2;

/// A frame that was seen, kept.
#[derive(Debug, Clone)]
struct Seen {
    bytes: Vec<u8>,
    length: usize,
    bare: bool,
    interface: IfIndex,
    outgoing: bool,
    packet_type: u8,
    tag: Option<u16>,
    time: u64,
    segment_size: u16,
}

impl From<&Caught<'_>> for Seen {
    fn from(caught: &Caught<'_>) -> Self {
        Self {
            bytes: caught.bytes.to_vec(),
            length: caught.length,
            bare: caught.bare,
            interface: caught.interface,
            outgoing: caught.outgoing,
            packet_type: caught.packet_type,
            tag: caught.tag,
            time: caught.time,
            segment_size: caught.segment_size,
        }
    }
}

fn flows(blocks: &[(&str, u8)]) -> Catch {
    let block = |(first, prefix): &(&str, u8)| {
        let ports = PortRange::new(1, u16::MAX).unwrap();
        (AddressBlock::new(first.parse().unwrap(), *prefix).unwrap(), ports)
    };
    Catch::Flows(blocks.iter().map(block).collect())
}

fn open(interface: Option<IfIndex>, catch: Catch, snap: u32) -> Tap {
    Tap::open(&TapOptions { interface, catch, snap, ring_bytes: RING }).unwrap()
}

/// Waits for so many frames, and that the tap says when there are any.
fn frames(tap: &mut Tap, count: usize) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    wait_for("frames at the tap", || {
        while tap.read(|caught| seen.push(caught.into())) > 0 {}
        let more = seen.len() < count;
        if more {
            let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&limit)).unwrap();
        }
        !more
    });
    seen
}

fn datagram(to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(SENDER, GROUP_MAC).ipv4([10, 0, 0, 1], to, 16);
    let mut frame = Vec::new();
    builder.udp(4000, 5000).write(&mut frame, payload).unwrap();
    frame
}

fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tci.to_be_bytes(), &frame[12..]].concat()
}

/// A later fragment: it has no ports.
fn fragment(to: [u8; 4]) -> Vec<u8> {
    let mut header = Ipv4Header::new(80, 16, IpNumber::UDP, [10, 0, 0, 1], to).unwrap();
    header.fragment_offset = IpFragOffset::try_new(185).unwrap();
    header.header_checksum = header.calc_header_checksum();
    [&GROUP_MAC[..], &SENDER, &[8, 0], &header.to_bytes(), &[7; 80]].concat()
}

#[test]
fn frames_are_seen_on_their_way_in_and_out() {
    run(|namespace| {
        let (near, far) = (index_of("in0"), index_of("in0p"));
        let catch = flows(&[("239.1.1.0", 24)]);
        let mut at_near = open(Some(near), catch.clone(), SNAP);
        let mut everywhere = open(None, catch, 60);
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let sender = namespace.far_end("in0");
        let sent = [
            datagram([239, 1, 1, 1], &[1; 1000]),
            fragment([239, 1, 1, 255]),
            datagram([239, 1, 2, 1], b"of no flow"),
            tagged(&datagram([239, 1, 1, 2], &[3; 10]), 0x6007),
        ];
        for frame in &sent {
            assert_eq!(sender.send(frame).unwrap(), frame.len());
        }
        let seen = frames(&mut at_near, 3);
        let bytes: Vec<_> = seen.iter().map(|seen| seen.bytes.clone()).collect();
        // The tag is taken off on the way in.
        assert_eq!(bytes, [sent[0].clone(), sent[1].clone(), datagram([239, 1, 1, 2], &[3; 10])]);
        assert_eq!([seen[0].tag, seen[2].tag], [None, Some(0x6007)]);
        for seen in &seen {
            assert_eq!((seen.interface, seen.outgoing, seen.bare), (near, false, false));
            assert_eq!((seen.packet_type, seen.segment_size), (MULTICAST, 0));
            assert!(seen.time >= before && seen.time < before + 60_000_000_000, "{}", seen.time);
        }
        // Out by one end, in by the other, which may be when all are out; the tagged one leaves with
        // its tag in the frame.
        let (leaving, coming): (Vec<_>, Vec<_>) =
            frames(&mut everywhere, 5).into_iter().partition(|seen| seen.interface == far);
        let ways = |seen: &[Seen]| -> Vec<_> {
            seen.iter().map(|seen| (seen.interface, seen.outgoing, seen.length)).collect()
        };
        let [first, second] = [sent[0].len(), sent[1].len()];
        assert_eq!(ways(&leaving), [(far, true, first), (far, true, second)]);
        let third = sent[3].len() - 4;
        let expected = [first, second, third].map(|length| (near, false, length));
        assert_eq!(ways(&coming), expected);
        assert_eq!((leaving[0].packet_type, leaving[0].length), (OUTGOING, 1042));
        assert_eq!(leaving[0].bytes, sent[0][..60]);
        assert_eq!([at_near.lost(), everywhere.lost()], [0, 0]);
    });
}

#[test]
fn what_a_tap_is_too_slow_for_is_counted() {
    run(|namespace| {
        let mut tap = open(Some(index_of("in0")), flows(&[("239.1.1.1", 32)]), SNAP);
        let (sender, frame) = (namespace.far_end("in0"), datagram([239, 1, 1, 1], &[1; 1400]));
        let mut sent = 0;
        wait_for("a loss", || {
            for _ in 0..100 {
                sent += u64::from(sender.send(&frame).is_ok());
            }
            tap.lost() > 0
        });
        let mut seen = 0;
        wait_for("the rest", || {
            seen += tap.read(|_| {}) as u64;
            seen + tap.lost() == sent
        });
        assert!(seen > 100, "{seen}");
        // And it goes on.
        sender.send(&frame).unwrap();
        assert_eq!(frames(&mut tap, 1).len(), 1);
    });
}

#[test]
fn what_is_caught_changes_without_a_gap() {
    run(|namespace| {
        let (first, both) = (flows(&[("239.1.1.1", 32)]), flows(&[("239.1.1.0", 24)]));
        let mut tap = open(Some(index_of("in0")), first.clone(), SNAP);
        let sender = namespace.far_end("in0");
        let (wanted, other) = (datagram([239, 1, 1, 1], b"a"), datagram([239, 1, 1, 2], b"b"));
        // A frame may arrive some time after it was sent. When the last has, the change is no more
        // about those before it; and it is about to come again when the change is made.
        let mut seen = Vec::new();
        for (catch, count) in [(Some(both), 1), (Some(first), 3), (None, 2)] {
            sender.send(&other).unwrap();
            sender.send(&wanted).unwrap();
            seen.extend(frames(&mut tap, count).into_iter().map(|seen| seen.bytes));
            if let Some(catch) = catch {
                sender.send(&wanted).unwrap();
                tap.catch(&catch).unwrap();
            }
        }
        let [a, b] = [&wanted, &other];
        assert_eq!(seen.iter().collect::<Vec<_>>(), [a, a, b, a, a, a]);
    });
}

#[test]
fn all_groups_and_no_other_address() {
    run(|namespace| {
        let mut tap = open(Some(index_of("in0")), Catch::Multicast, 128);
        let sender = namespace.far_end("in0");
        sender.send(&datagram([10, 0, 0, 2], b"unicast")).unwrap();
        sender.send(&datagram([224, 0, 0, 1], b"the first")).unwrap();
        sender.send(&fragment([239, 255, 255, 255])).unwrap();
        for to in ["ff35::1", "fd00::2"] {
            let to = to.parse::<Ipv6Addr>().unwrap().octets();
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2(SENDER, [0x33, 0x33, 0, 0, 0, 1]);
            let builder = builder.ipv6(Ipv6Addr::LOCALHOST.octets(), to, 16);
            builder.udp(4000, 5000).write(&mut frame, b"six").unwrap();
            namespace.far_end_v6("in0").send(&frame).unwrap();
        }
        sender.send(&datagram([239, 1, 1, 1], b"the last")).unwrap();
        // Among MLD reports of either end's host, which have a hop-by-hop header: UDP may follow one.
        let payload = |seen: Seen| seen.bytes[seen.bytes.len() - 3..].to_vec();
        let mut ends: Vec<Vec<u8>> = Vec::new();
        wait_for("the last", || {
            let sent = frames(&mut tap, 1).into_iter().filter(|seen| seen.bytes[6..12] == SENDER);
            ends.extend(sent.map(payload));
            ends.last().is_some_and(|end| end == b"ast")
        });
        assert_eq!(ends, [b"rst".to_vec(), vec![7; 3], b"six".to_vec(), b"ast".to_vec()]);
    });
}

#[test]
fn memberships_are_seen_as_the_host_reports_them() {
    run(|namespace: &Namespace| {
        let index = namespace.indexes[0];
        let mut tap = open(Some(index), Catch::Membership, SNAP);
        let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
        v4.join_multicast_v4(&Ipv4Addr::new(239, 1, 1, 1), &Ipv4Addr::new(10, 0, 0, 2)).unwrap();
        let v6 = UdpSocket::bind("[::]:0").unwrap();
        v6.join_multicast_v6(&"ff35::1".parse().unwrap(), index.0).unwrap();
        // Among others, of groups that the host is in anyway, and of the far end's host.
        let mut seen: Vec<Seen> = Vec::new();
        let six = "ff35::1".parse::<Ipv6Addr>().unwrap().octets();
        let holds = |seen: &Seen, octets: &[u8]| {
            seen.bytes.windows(octets.len()).any(|part| part == octets)
        };
        let groups = [&[239, 1, 1, 1][..], &six];
        wait_for("both reports", || {
            tap.read(|caught| seen.push(caught.into()));
            groups.iter().all(|group| seen.iter().any(|seen| holds(seen, group)))
        });
        let mut ours = seen.iter().filter(|seen| groups.iter().any(|group| holds(seen, group)));
        assert!(ours.all(|seen| seen.outgoing));
        let others = seen.iter().filter(|seen| {
            ![2, 0].contains(&seen.bytes[if seen.bytes[12] == 8 { 23 } else { 20 }])
        });
        assert_eq!(others.count(), 0, "UDP or neighbour discovery");
    });
}

#[test]
fn an_interface_without_link_header_is_seen_beside_others() {
    run(|namespace| {
        let mut tun = tun::open("tun0", libc::IFF_TUN, 0);
        let mut tap = open(None, flows(&[("239.1.1.1", 32)]), SNAP);
        let frame = datagram([239, 1, 1, 1], b"a payload");
        tun.write_all(&frame[14..]).unwrap();
        namespace.far_end("in0").send(&frame).unwrap();
        let seen = frames(&mut tap, 3);
        let from = |name: &str| seen.iter().find(|seen| seen.interface == index_of(name)).unwrap();
        assert_eq!((from("tun0").bare, &from("tun0").bytes[..]), (true, &frame[14..]));
        assert_eq!((from("in0").bare, &from("in0").bytes[..]), (false, &frame[..]));
    });
}

#[test]
fn a_super_packet_is_one_frame_with_the_size_of_its_segments() {
    run(|namespace| {
        let mut tap = open(Some(index_of("in0")), flows(&[("239.1.1.1", 32)]), SNAP);
        let sender = namespace.with_offload(namespace.far_end("in0"));
        let frame = datagram([239, 1, 1, 1], &[5; 10_000]);
        // needs_csum, GSO_UDP_L4, header length, segment size, checksum start and offset.
        let mut offload = vec![1, 5];
        for field in [42_u16, 1000, 34, 6] {
            offload.extend(field.to_ne_bytes());
        }
        sender.send(&[&offload[..], &frame].concat()).unwrap();
        let seen = frames(&mut tap, 1);
        assert_eq!((seen[0].segment_size, seen[0].length), (1000, frame.len()));
        assert_eq!(seen[0].bytes[42..], frame[42..]);
    });
}

#[test]
fn a_tap_outlives_an_interface_that_is_down_and_refuses_one_that_is_not_there() {
    run(|namespace| {
        let mut tap = open(Some(index_of("in0")), flows(&[("239.1.1.1", 32)]), SNAP);
        ip("link set in0 down");
        assert_eq!(tap.read(|_| {}), 0);
        let polled = |tap: &Tap| {
            let limit = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&limit)).unwrap()
        };
        assert_eq!(polled(&tap), 0, "an error that nobody takes would be reported for ever");
        ip("link set in0 up");
        let (sender, frame) = (namespace.far_end("in0"), datagram([239, 1, 1, 1], b"again"));
        let mut seen = 0;
        wait_for("a frame", || {
            let _ = sender.send(&frame);
            seen += tap.read(|_| {});
            seen > 0
        });
        let options = TapOptions {
            interface: Some(IfIndex(4_000_000)),
            catch: Catch::Multicast,
            snap: 1,
            ring_bytes: 0,
        };
        let error = Tap::open(&options).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    });
}
