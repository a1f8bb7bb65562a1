#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use taps::{AD_HARDWARE, ALU_ADD, ALU_LSH, LD_B_IND};

/// What a program is asked about.
#[derive(Clone)]
struct Asked {
    bytes: Vec<u8>,
    /// Where the IP header begins.
    network: usize,
    packet_type: u32,
    protocol: u16,
    tag: Option<u32>,
    /// `ARPHRD_*` of the interface.
    hardware: u32,
}

impl Asked {
    fn load(&self, k: u32, size: usize) -> Option<u32> {
        match k {
            AD_PROTOCOL => return Some(self.protocol.into()),
            AD_PKTTYPE => return Some(self.packet_type),
            AD_HARDWARE => return Some(self.hardware),
            AD_VLAN_TAG => return Some(self.tag.unwrap_or(0)),
            AD_VLAN_TAG_PRESENT => return Some(self.tag.is_some().into()),
            _ => {}
        }
        let at = if k >= NET_OFF { self.network + (k - NET_OFF) as usize } else { k as usize };
        let bytes = self.bytes.get(at..at + size)?;
        Some(bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }
}

/// A program as the kernel would carry it out: what it returns.
fn run(program: &[sock_filter], asked: &Asked, mut a: u32) -> u32 {
    let (mut at, mut x) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        let branch = |taken: bool| usize::from(if taken { jt } else { jf });
        let load = |at, size| asked.load(at, size);
        at += 1;
        let loaded = match code {
            LD_W_ABS => load(k, 4),
            LD_H_ABS => load(k, 2),
            LD_B_ABS => load(k, 1),
            LD_H_IND => load(k + x, 2),
            LD_B_IND => load(k + x, 1),
            _ => Some(a),
        };
        let Some(loaded) = loaded else { return DROP };
        a = loaded;
        match code {
            LD_W_ABS | LD_H_ABS | LD_B_ABS | LD_H_IND | LD_B_IND => {}
            LDX_IMM => x = k,
            LDX_B_MSH => x = (load(k, 1).unwrap() & 0xf) * 4,
            MISC_TAX => x = a,
            ALU_AND => a &= k,
            ALU_ADD => a += k,
            ALU_LSH => a <<= k,
            ALU_MUL => a = a.wrapping_mul(k),
            ALU_RSH => a >>= k,
            ALU_XOR_X => a ^= x,
            JMP_JA => at += k as usize,
            JMP_JEQ => at += branch(a == k),
            JMP_JGE => at += branch(a >= k),
            JMP_JGT => at += branch(a > k),
            JMP_JSET => at += branch(a & k != 0),
            RET_K => return k,
            RET_A => return a,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// `ARPHRD_ETHER` and `ARPHRD_NONE`.
const ETHERNET: u32 = 1;
const TUN: u32 = 0xfffe;

/// A packet as it comes in by an interface with a link header, or by one without.
fn packet(destination: &str, protocol: u8, bare: bool) -> Asked {
    let (mut bytes, ethertype) = match destination.parse().unwrap() {
        IpAddr::V4(address) => {
            let mut bytes = vec![0; 28];
            (bytes[0], bytes[9]) = (0x45, protocol);
            bytes[16..20].copy_from_slice(&address.octets());
            (bytes, TYPE_IPV4)
        }
        IpAddr::V6(address) => {
            let mut bytes = vec![0; 48];
            (bytes[0], bytes[6]) = (0x60, protocol);
            bytes[24..40].copy_from_slice(&address.octets());
            (bytes, TYPE_IPV6)
        }
    };
    let network = if bare { 0 } else { HEADER_LEN };
    bytes.splice(..0, vec![0; network]);
    let hardware = if bare { TUN } else { ETHERNET };
    Asked { bytes, network, packet_type: 0, protocol: ethertype, tag: None, hardware }
}

fn set(texts: &[&str]) -> BTreeSet<AddressBlock> {
    let block = |text: &&str| match text.split_once('/') {
        Some((first, prefix)) => {
            AddressBlock::new(first.parse().unwrap(), prefix.parse().unwrap()).unwrap()
        }
        None => AddressBlock::single(text.parse().unwrap()),
    };
    texts.iter().map(block).collect()
}

fn accepts(program: &[sock_filter], asked: &Asked) -> bool {
    run(program, asked, 0) == ACCEPT
}

#[test]
fn every_address_that_a_rule_takes_is_let_in_and_few_others() {
    let taken = set(&[
        "239.1.1.1",
        "239.1.2.0/24",
        "239.1.2.7",
        "10.0.0.2",
        "ff3e::8000:1",
        "ff3e::9000:0/112",
        "ff35:40:fd00::/64",
        "fd00::2",
    ]);
    for bare in [false, true] {
        let program = blocks(&taken, bare);
        let cases = [
            ("239.1.1.1", true),
            ("239.1.1.0", false),
            ("239.1.1.2", false),
            ("239.1.2.0", true),
            ("239.1.2.255", true),
            ("239.1.3.0", false),
            ("10.0.0.2", true),
            ("10.0.0.3", false),
            ("ff3e::8000:1", true),
            ("ff3e::8000:2", false),
            ("ff3e::9000:0", true),
            ("ff3e::9000:ffff", true),
            ("ff3e::9001:0", false),
            ("ff35:40:fd00::1234:5678", true),
            ("ff05::2", true), // as long as only the last 32 bits are looked at
            ("ff36:40:fd00::1234:5678", false),
            ("fd00::2", true),
            ("fd00::3", false),
        ];
        for (destination, expected) in cases {
            let asked = packet(destination, PROTOCOL_UDP, bare);
            assert_eq!(accepts(&program, &asked), expected, "{destination}, bare {bare}");
        }
    }
}

#[test]
fn only_what_may_be_udp_for_this_host_and_of_this_interface_is_let_in() {
    let program = blocks(&set(&["239.1.1.1", "ff3e::8000:1"]), false);
    let v4 = packet("239.1.1.1", PROTOCOL_UDP, false);
    for (asked, expected) in [
        (v4.clone(), true),
        (packet("239.1.1.1", 2, false), false),
        (packet("ff3e::8000:1", 44, false), true),
        (packet("ff3e::8000:1", 0, false), true),
        (packet("ff3e::8000:1", 43, false), true),
        (packet("ff3e::8000:1", 60, false), true),
        (packet("ff3e::8000:1", 58, false), false),
        (Asked { packet_type: 2, ..v4.clone() }, true),
        (Asked { packet_type: 3, ..v4.clone() }, false),
        (Asked { packet_type: 4, ..v4.clone() }, false),
        (Asked { tag: Some(10), ..v4.clone() }, false),
        (Asked { tag: Some(0xa000), ..v4.clone() }, true),
        (Asked { protocol: 0x8100, ..v4.clone() }, false),
        (Asked { protocol: 0x0806, ..v4 }, false),
    ] {
        let Asked { packet_type, protocol, tag, ref bytes, .. } = asked;
        let about = format!("{packet_type} {protocol:#x} {tag:?} {bytes:02x?}");
        assert_eq!(accepts(&program, &asked), expected, "{about}");
    }
    let v4_only = blocks(&set(&["239.1.1.1"]), false);
    assert!(!accepts(&v4_only, &packet("ff3e::8000:1", PROTOCOL_UDP, false)));
    let v6_only = blocks(&set(&["ff3e::8000:1"]), false);
    assert!(!accepts(&v6_only, &packet("239.1.1.1", PROTOCOL_UDP, false)));
    assert!(accepts(&v6_only, &packet("ff3e::8000:1", PROTOCOL_UDP, false)));
}

/// What a bare interface puts before the packet is no part of it.
#[test]
fn a_header_before_the_packet_of_a_bare_interface_is_skipped() {
    let program = blocks(&set(&["239.1.1.1"]), true);
    let Asked { mut bytes, .. } = packet("239.1.1.1", PROTOCOL_UDP, true);
    bytes.splice(..0, [0xee; 24]);
    let asked = Asked { bytes, network: 24, ..packet("239.1.1.1", PROTOCOL_UDP, true) };
    assert!(accepts(&program, &asked));
}

#[test]
fn the_search_finds_the_ranges_and_nothing_else() {
    let asked = packet("239.1.1.1", PROTOCOL_UDP, false);
    let first = Ipv4Addr::new(239, 1, 1, 1).to_bits();
    for step in [1, 2, 3, 1000] {
        for count in [0, 1, 2, 3, 31, 79, 80] {
            let wanted: Vec<u32> = (0..count).map(|n| first + n * step).collect();
            let program = search(&join(wanted.iter().map(|word| (*word, *word)), RANGES), ACCEPT);
            for value in (first - 2)..(first + count * step + 2) {
                let found = run(&program, &asked, value) == ACCEPT;
                assert_eq!(found, wanted.contains(&value), "{value:#x}");
            }
        }
    }
    let nested = join([(10, 20), (12, 13), (21, 30), (5, 5), (0, u32::MAX)].into_iter(), 9);
    assert_eq!(nested, [(0, u32::MAX)]);
    assert_eq!(join([(12, 13), (10, 20), (22, 22)].into_iter(), 9), [(10, 20), (22, 22)]);
    // No more are joined than must be.
    let even = join((0..100).map(|n| (n * 10, n * 10)), RANGES);
    assert_eq!((even.len(), even[0], even[RANGES - 1]), (RANGES, (0, 200), (990, 990)));
}

#[test]
fn ten_thousand_groups_of_each_version_fit_and_the_closest_are_joined() {
    let group = |n: u32| Ipv4Addr::from_bits(0xef01_0000 + n * 2 + n / 400 * 1000);
    let wide = |n: u32| Ipv6Addr::from_bits(0xff3e_0000 << 96 | u128::from(n) << 90);
    let narrow = |n: u32| Ipv6Addr::from_bits(0xff3e << 112 | u128::from(0x8000_0000 + n * 3));
    let taken: BTreeSet<AddressBlock> = (0..10_000)
        .flat_map(|n| {
            let [v4, v6] = [group(n).into(), narrow(n).into()].map(AddressBlock::single);
            [v4, v6, AddressBlock::new(wide(n).into(), 40).unwrap()]
        })
        .collect();
    let program = blocks(&taken, false);
    assert!(program.len() < 600, "{}", program.len());
    for block in &taken {
        let asked = packet(&block.first().to_string(), PROTOCOL_UDP, false);
        assert!(accepts(&program, &asked), "{block}");
    }
    // The wide gaps stay closed.
    let gap = Ipv4Addr::from_bits(group(399).to_bits() + 500).to_string();
    assert!(!accepts(&program, &packet(&gap, PROTOCOL_UDP, false)));
}

/// Fragments without ports go where the others go; a stream stays together.
#[test]
fn a_stream_has_one_worker_and_streams_have_several() {
    let program = shard();
    let shard = |destination: &str, port: u16, change: &dyn Fn(&mut Vec<u8>)| {
        let mut asked = packet(destination, PROTOCOL_UDP, true);
        let udp = asked.bytes.len() - udp::HEADER_LEN;
        asked.bytes[udp + udp::DESTINATION_PORT..][..2].copy_from_slice(&port.to_be_bytes());
        change(&mut asked.bytes);
        run(&program, &asked, 0)
    };
    let plain = |_: &mut Vec<u8>| {};
    for (destination, fragment) in [
        ("239.1.1.1", (&|bytes: &mut Vec<u8>| bytes[6] = 0x20) as &dyn Fn(&mut Vec<u8>)),
        ("ff3e::8000:1", &|bytes: &mut Vec<u8>| bytes[6] = 44),
    ] {
        let source = |bytes: &mut Vec<u8>| bytes[12] = 7;
        assert_eq!(shard(destination, 5000, &plain), shard(destination, 5000, &source));
        assert_ne!(shard(destination, 5000, &plain), shard(destination, 5001, &plain));
        assert_eq!(shard(destination, 5000, fragment), shard(destination, 5001, fragment));
        let workers: BTreeSet<u32> = (1..40).map(|p| shard(destination, p, &plain) % 4).collect();
        assert_eq!(workers.len(), 4, "{destination}");
    }
    let groups = (1..40).map(|n| shard(&format!("ff3e::8000:{n}"), 5000, &plain) % 4);
    assert_eq!(groups.collect::<BTreeSet<u32>>().len(), 4);
    // Options move the port of IPv4.
    let options = |bytes: &mut Vec<u8>| {
        bytes[0] = 0x46;
        bytes.splice(20..20, [1; 4]);
    };
    assert_eq!(shard("239.1.1.1", 5000, &options), shard("239.1.1.1", 5000, &plain));
}

#[test]
fn a_tap_sees_both_ways_and_both_kinds_of_interfaces() {
    let program = taps::udp(&set(&["239.1.1.1", "ff35::1"]), 96);
    for bare in [false, true] {
        let asked = |destination, protocol| packet(destination, protocol, bare);
        for destination in ["239.1.1.1", "ff35::1"] {
            let mut caught = asked(destination, PROTOCOL_UDP);
            assert_eq!(run(&program, &caught, 0), 96, "{destination}, bare: {bare}");
            (caught.packet_type, caught.tag) = (4, Some(7));
            assert_eq!(run(&program, &caught, 0), 96, "outgoing and tagged");
            assert_eq!(run(&program, &asked(destination, 6), 0), DROP);
        }
        assert_eq!(run(&program, &asked("239.1.1.2", PROTOCOL_UDP), 0), DROP);
        assert_eq!(run(&program, &asked("ff35::2", PROTOCOL_UDP), 0), DROP);
        assert_eq!(run(&program, &asked("ff35::1", 44), 0), 96, "a fragment");
    }
    let none = taps::udp(&BTreeSet::new(), 96);
    assert_eq!(run(&none, &packet("239.1.1.1", PROTOCOL_UDP, false), 0), DROP);
}

#[test]
fn a_tap_tells_membership_from_the_rest() {
    let program = taps::membership(256);
    for bare in [false, true] {
        assert_eq!(run(&program, &packet("224.0.0.22", 2, bare), 0), 256);
        assert_eq!(run(&program, &packet("224.0.0.22", PROTOCOL_UDP, bare), 0), DROP);
        // Hop-by-hop options of so many bytes, then ICMPv6 of this type.
        let mld = |next: u8, options: u8, kind: u8| {
            let mut asked = packet("ff02::16", 0, bare);
            asked.bytes.truncate(asked.network + ipv6::HEADER_LEN);
            asked.bytes.extend([next, options / 8 - 1]);
            asked.bytes.extend(vec![0; usize::from(options) - 2]);
            asked.bytes.extend([kind, 0, 0, 0]);
            run(&program, &asked, 0)
        };
        for kind in [130, 131, 132, 143] {
            assert_eq!([mld(58, 8, kind), mld(58, 24, kind)], [256; 2]);
        }
        assert_eq!([mld(58, 8, 135), mld(17, 8, 143)], [DROP; 2]);
        assert_eq!(run(&program, &packet("ff02::16", 58, bare), 0), DROP, "no options");
    }
}
