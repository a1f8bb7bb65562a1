//! Interfaces without link header, in and out, with a worker between them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use mcr_core::action::{PlaneChange, PlaneRule, RuleId, Volume};
use mcr_core::flow::AddressBlock;
use mcr_core::link::LinkKind;
use mcr_core::packet::{InterfaceOptions, PacketOptions, Receive};
use mcr_core::vectors::Vector;
use mcr_core::wire::checksum;

use crate::namespace::{Namespace, frames_until, run, wait_for};
use crate::plane::{Kind, TestPlane};
use crate::tun;

const RULES: &str = r#"
about = ''
frame = []
[[rule]]
input = "239.1.1.1:5000@tun0"
outputs = ["keep@239.10.1.1:6000@out0", "keep@239.10.1.1:6000@tun1"]
[[rule]]
input = "[ff35::1]:5000@tun0"
outputs = ["keep@[ff35::2]:6000@tun1"]
[[rule]]
input = "239.1.1.1:5000@in0"
outputs = ["keep@239.10.1.1:6000@tun1"]
[[rule]]
input = "[ff35::1]:5000@in0"
outputs = ["keep@[ff35::2]:6000@tun1"]
"#;

fn change(namespace: &Namespace) -> PlaneChange {
    let mut links = namespace.links();
    tun::add("tun0", LinkKind::Bare, &mut links);
    tun::add("tun1", LinkKind::Bare, &mut links);
    Vector::parse(RULES).unwrap().change(&links).unwrap()
}

/// Addresses, and what the pseudo-header has of them.
fn packet(v6: bool, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut udp = [4000_u16, 5000, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let header = if v6 {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, 17, 16];
        header[4..6].copy_from_slice(&length.to_be_bytes());
        for address in ["fd00::1", "ff35::1"] {
            header.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        }
        header
    } else {
        let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 16, 17, 0, 0, 192, 0, 2, 1, 239, 1, 1, 1];
        header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
        let field = checksum::checksum(&header);
        header[10..12].copy_from_slice(&field.to_be_bytes());
        header
    };
    let mut packet = [header, udp].concat();
    let field = checksum::mangle_zero(!sum(&packet));
    let at = udp_at(&packet) + 6;
    packet[at..at + 2].copy_from_slice(&field.to_be_bytes());
    packet
}

fn udp_at(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 6 { 40 } else { 20 }
}

fn addresses(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 6 { &packet[8..40] } else { &packet[12..20] }
}

/// Over the UDP datagram and its pseudo-header; all ones when the checksum is right.
fn sum(packet: &[u8]) -> u16 {
    let udp = &packet[udp_at(packet)..];
    let length = (udp.len() as u16).to_be_bytes();
    let pseudo = checksum::sum(addresses(packet)) + checksum::sum(&[0, 17, length[0], length[1]]);
    checksum::fold(pseudo + checksum::sum(udp))
}

/// What [`RULES`] make of [`packet`], without a link header.
fn is_relayed(packet: &[u8]) -> bool {
    let [destination, port] = match packet.first().map_or(0, |byte| byte >> 4) {
        4 => [&packet[16..20], &packet[22..24]],
        6 => [&packet[24..40], &packet[42..44]],
        _ => return false,
    };
    let v6: Ipv6Addr = "ff35::2".parse().unwrap();
    let to = [&[239, 10, 1, 1][..], &v6.octets()];
    to.contains(&destination) && port == 6000_u16.to_be_bytes()
}

#[test]
fn packets_pass_between_interfaces_with_and_without_link_header() {
    run(|namespace| {
        let mut tun0 = tun::open("tun0", libc::IFF_TUN, 0);
        let mut tun1 = tun::open("tun1", libc::IFF_TUN, 0);
        let mut plane = TestPlane::open(Kind::Packet);
        plane.apply(&change(namespace)).unwrap();
        let (far, out) = (namespace.far_end("in0"), namespace.tap("out0p"));
        for v6 in [false, true] {
            let packet = packet(v6, b"a payload that is odd");
            // From one without.
            tun0.write_all(&packet).unwrap();
            let relayed = tun::packets(&mut tun1, 1, is_relayed);
            assert_eq!(relayed.len(), 1);
            assert_eq!((relayed[0].len(), sum(&relayed[0])), (packet.len(), 0xffff));
            // From one with.
            let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
            let group_mac = if v6 { [0x33, 0x33, 0, 0, 0, 1] } else { [1, 0, 0x5e, 1, 1, 1] };
            let header = [&group_mac[..], &[2, 0, 0, 0, 0, 0xa], &ethertype].concat();
            far.send(&[header, packet].concat()).unwrap();
            let again = tun::packets(&mut tun1, 1, is_relayed);
            assert_eq!(again.len(), 1);
            assert_eq!((addresses(&again[0]), sum(&again[0])), (addresses(&relayed[0]), 0xffff));
        }
        let last = RefCell::default();
        frames_until(&out, |frame| {
            *last.borrow_mut() = frame.to_vec();
            is_relayed(frame.get(14..).unwrap_or_default())
        });
        let last = last.into_inner();
        assert_eq!(last[..14], [1, 0, 0x5e, 10, 1, 1, 2, 0, 0, 0, 0, 0x10, 8, 0]);
        assert_eq!(sum(&last[14..]), 0xffff);
        wait_for("the counters", || {
            let counters = plane.counters((4, 5));
            counters.outputs.iter().all(|output| output.forwarded.packets == 1)
        });
    });
}

/// `struct virtio_net_hdr` of a super-packet, its checksum still to be made.
fn super_packet(mut packet: Vec<u8>, size: u16) -> Vec<u8> {
    let udp = udp_at(&packet);
    let length = packet[udp + 4..][..2].to_vec();
    let pseudo = checksum::sum(addresses(&packet)) + checksum::sum(&[0, 17, length[0], length[1]]);
    packet[udp + 6..][..2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    let mut header = vec![1, 5];
    for field in [udp as u16 + 8, size, udp as u16, 6] {
        header.extend(field.to_ne_bytes());
    }
    [header, packet].concat()
}

/// Larger than a slot of the ring, so that the worker takes it from the socket's queue.
#[test]
fn super_packets_pass_and_are_cut_where_the_device_cannot() {
    run(|namespace| super_packets(namespace, Receive::Frame));
    run(|namespace| super_packets(namespace, Receive::Block));
}

fn super_packets(namespace: &Namespace, receive: Receive) {
    let offloads = tun::CSUM | tun::USO4 | tun::USO6;
    let mut tun0 = tun::open("tun0", libc::IFF_TUN | libc::IFF_VNET_HDR, offloads);
    let mut tun1 = tun::open("tun1", libc::IFF_TUN, 0);
    let options = InterfaceOptions { receive, ..InterfaceOptions::default() };
    let interfaces = [("tun0".parse().unwrap(), options)].into();
    let options = PacketOptions { interfaces, ..PacketOptions::default() };
    let mut plane = TestPlane::open_packet(2, options);
    plane.apply(&change(namespace)).unwrap();
    let out = namespace.tap("out0p");
    for v6 in [false, true] {
        let payload: Vec<u8> = (0..2500).map(|n| (n / 9) as u8).collect();
        tun0.write_all(&super_packet(packet(v6, &payload), 1000)).unwrap();
        let relayed = tun::packets(&mut tun1, 3, is_relayed);
        let parts: Vec<&[u8]> = relayed.iter().map(|p| &p[udp_at(p) + 8..]).collect();
        assert_eq!(parts.concat(), payload);
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
        for packet in &relayed {
            assert_eq!(sum(packet), 0xffff, "{packet:02x?}");
        }
        let ids: BTreeSet<&[u8]> = relayed.iter().map(|packet| &packet[4..6]).collect();
        assert!(v6 || ids.len() == 3, "each datagram has its own identification");
    }
    // To a veth it goes whole.
    let length = Cell::new(0);
    frames_until(&out, |frame| {
        length.set(frame.len());
        is_relayed(frame.get(14..).unwrap_or_default())
    });
    assert_eq!(length.get(), 14 + 28 + 2500);
    let expected = Volume { packets: 3, bytes: 2500 };
    wait_for("the counters", || plane.counters((4, 5)).outputs[0].forwarded == expected);
}

/// Kernels before 6.9 have no more room for filters by default, and two are there while one replaces
/// the other.
#[test]
fn filters_of_many_rules_fit_into_a_small_optmem_max() {
    run(|namespace| {
        std::fs::write("/proc/sys/net/core/optmem_max", "20480").unwrap();
        let _tun0 = tun::open("tun0", libc::IFF_TUN, 0);
        let _tun1 = tun::open("tun1", libc::IFF_TUN, 0);
        let PlaneChange { install, .. } = change(namespace);
        let rules = |round: u32| {
            let rule = |n: u32| {
                let (v4, v6) = (0xef01_0000 + n * 7, u128::from(0x9000_0000 + n * 7));
                let block = match n % 3 {
                    // At last all of one version.
                    r if r == 0 || round > 1 => {
                        AddressBlock::single(Ipv4Addr::from_bits(v4).into())
                    }
                    1 => AddressBlock::single(Ipv6Addr::from_bits(0xff35 << 112 | v6).into()),
                    _ => {
                        let first = Ipv6Addr::from_bits((0xff35_0000 | u128::from(n)) << 96);
                        AddressBlock::new(first.into(), 64).unwrap()
                    }
                };
                let mut rule: PlaneRule = install[0].clone();
                (rule.id, rule.take.addresses) = (RuleId(n), block);
                rule.outputs.clear();
                rule
            };
            (200 * round..200 * round + 200).map(rule).collect::<Vec<_>>()
        };
        let mut plane = TestPlane::open(Kind::Packet);
        let inputs = BTreeSet::from([install[0].take.interface]);
        for round in 0..4 {
            let remove = (0..200).map(|n| RuleId(200 * ((round + 3) % 4) + n)).collect();
            let change = PlaneChange {
                install: rules(round),
                remove,
                inputs: inputs.clone(),
                ..PlaneChange::default()
            };
            plane.apply(&change).unwrap();
        }
    });
}
