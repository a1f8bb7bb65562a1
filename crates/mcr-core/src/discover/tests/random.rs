//! Whatever comes: the sums are exact, and no bytes are too strange.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A datagram of one of a few streams, and how it comes.
#[derive(Debug, Clone)]
struct Sent {
    source: u8,
    group: u8,
    port: u16,
    ttl: u8,
    size: usize,
    tag: Option<u16>,
    six: bool,
    eth1: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let flow = (1..4_u8, 1..4_u8, 5000..5003_u16, any::<(bool, bool)>());
    let tag = prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(10))];
    (flow, any::<u8>(), 0..1400_usize, tag).prop_map(|(flow, ttl, size, tag)| {
        let (source, group, port, (six, eth1)) = flow;
        Sent { source, group, port, ttl, size, tag, six, eth1 }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_sums_are_exact(all in vec(sent(), 0..60)) {
        let mut survey = survey();
        let mut expected: BTreeMap<_, (u64, u64, u32, u32)> = BTreeMap::new();
        for Sent { source, group, port, ttl, size, tag, six, eth1 } in all {
            let (from, to) = match six {
                true => (format!("fd00::{source}"), format!("ff15::{group}")),
                false => (format!("10.0.0.{source}"), format!("239.1.1.{group}")),
            };
            let bytes = frame(&from, (&to, port), ttl, &vec![0; size]);
            let interface = if eth1 { ETH1 } else { ETH0 };
            survey.add(&Sight { interface, tag, ..cut(&bytes) });
            let name = if eth1 { "eth1" } else { "eth0" };
            let vlan = tag.filter(|tag| *tag > 0);
            let ip = |text: String| text.parse::<IpAddr>().unwrap();
            let key = (name.to_owned(), vlan, ip(to), port, ip(from));
            let ttl = u32::from(ttl);
            let sum = expected.entry(key).or_insert((0, 0, ttl, ttl));
            *sum = (sum.0 + 1, sum.1 + size as u64, sum.2.min(ttl), sum.3.max(ttl));
        }
        let found = report(survey);
        prop_assert!(found.left_out.is_empty());
        let seen: Vec<_> = found.streams.into_iter().map(|s| {
            let key = (s.interface, s.vlan, s.group, s.port, s.source);
            (key, (s.received.packets, s.received.bytes, s.ttl.min, s.ttl.max))
        }).collect();
        prop_assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_are_too_strange(
        frames in vec(
            (any::<(bool, bool)>(), vec(any::<u8>(), 0..200), any::<(usize, u16, Option<u16>)>()), 0..20,
        ),
    ) {
        let mut survey = survey();
        for ((bare, like_ours), mut bytes, (length, segment_size, tag)) in frames {
            // Deeper than the first check.
            let start: &[u8] = if bare { &[0x45, 0] } else { &[1, 0, 0x5e, 0, 0, 1, 2, 2, 2, 2, 2, 2, 8, 0, 0x45, 0] };
            if like_ours && bytes.len() > start.len() {
                bytes[..start.len()].copy_from_slice(start);
            }
            survey.add(&Sight { bytes: &bytes, length, bare, interface: ETH0, tag, segment_size });
        }
        report(survey);
    }

    #[test]
    fn a_broken_frame_of_ours_counts_once_or_not_at_all(
        at in 0..80_usize, byte in any::<u8>(), kept in 0..200_usize, segment_size in any::<u16>(),
    ) {
        let mut bytes = frame("10.0.0.1", ("239.1.1.1", 5000), 1, &[0x80; 120]);
        bytes[at] = byte;
        let mut survey = survey();
        let kept = &bytes[..kept.min(bytes.len())];
        survey.add(&Sight { segment_size, ..Sight { bytes: kept, ..sight(&bytes) } });
        let found = report(survey);
        let streams = found.streams.len() as u64;
        prop_assert!(streams + found.left_out.values().sum::<u64>() <= 1);
    }
}
