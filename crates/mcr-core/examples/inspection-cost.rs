//! What it costs to look into a packet, without what the mirror costs. `bench/run.sh` runs it.

#![allow(clippy::unwrap_used, reason = "it ends where something is wrong")]
#![allow(clippy::print_stdout, reason = "it prints what it has measured")]

use std::collections::BTreeSet;

use etherparse::PacketBuilder;
use mcr_core::action::Take;
use mcr_core::flow::Input;
use mcr_core::forward::{Frame, PacketType};
use mcr_core::inspect::{Inspector, WatchList, Watched};
use mcr_core::link::IfIndex;
use mcr_core::rule::RuleKey;
use mcr_core::watch::Inspect;

/// That of the datagram of a number.
type Payload = fn(u16) -> Vec<u8>;

const DATAGRAMS: u64 = 2_000_000;
const INTERFACE: IfIndex = IfIndex(1);

fn main() {
    let payloads: [(&str, Payload); 3] = [
        ("rtp", |n| [rtp(n), vec![0; 100]].concat()),
        ("ts, 7 packets", ts),
        ("rtp+ts, 7 packets", |n| [rtp(n), ts(n)].concat()),
    ];
    for (name, payload) in payloads {
        let frames: Vec<_> = (0..=u16::MAX).map(|n| frame(&payload(n))).collect();
        let mut inspector = inspector();
        let start = on_cpu();
        for bytes in frames.iter().cycle().take(DATAGRAMS as usize) {
            inspector.observe(
                &Frame {
                    bytes,
                    bare: false,
                    interface: INTERFACE,
                    packet_type: PacketType::Here,
                    tagged: false,
                    segment_size: 0,
                    partial_checksum: false,
                },
                1,
            );
        }
        println!("  {name}: {} ns a datagram", (on_cpu() - start) / DATAGRAMS);
        let stats = inspector.stats().remove(&RuleKey::from_user("a")).unwrap();
        assert_eq!(stats.faults(), None, "{name}");
    }
}

fn inspector() -> Inspector {
    let input: Input = "239.1.1.1:5000@eth0".parse().unwrap();
    let take = Take {
        interface: INTERFACE,
        addresses: input.addresses,
        ports: input.ports,
        sources: Vec::new(),
    };
    let key = RuleKey::from_user("a");
    let rule = Watched { key, input, inspect: Some(Inspect::Auto), take: Some(take) };
    let mut inspector = Inspector::default();
    inspector.watch(WatchList { rules: vec![rule], own: BTreeSet::new() });
    inspector
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [1, 0, 0x5e, 1, 1, 1]);
    let builder = builder.ipv4([10, 0, 0, 1], [239, 1, 1, 1], 9).udp(4000, 5000);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn rtp(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![0x80, 33, high, low, 0, 0, 0, 0, 0, 0, 0, 7]
}

/// Seven packets of one PID.
fn ts(number: u16) -> Vec<u8> {
    let mut datagram = vec![0xff; 7 * 188];
    for (packet, n) in datagram.chunks_mut(188).zip(0..) {
        let counter = number.wrapping_mul(7).wrapping_add(n) as u8 & 0xf;
        packet[..4].copy_from_slice(&[0x47, 1, 0, 0x10 | counter]);
    }
    datagram
}

/// Nanoseconds that this thread has run (proc(5)).
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
