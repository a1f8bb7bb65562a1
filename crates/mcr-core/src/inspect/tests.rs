use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::forward::PacketType;

const IN: IfIndex = IfIndex(2);

fn watched(key: &str, input: &str, inspect: Option<Inspect>) -> Watched {
    let input: Input = input.parse().unwrap();
    let take = Take {
        interface: IN,
        addresses: input.addresses,
        ports: input.ports,
        sources: input.sources.clone(),
    };
    Watched { key: RuleKey::from_user(key), input, inspect, take: Some(take) }
}

/// An inspector of these rules.
fn inspector(rules: impl IntoIterator<Item = Watched>) -> Inspector {
    let mut inspector = Inspector::default();
    let own = BTreeSet::from(["10.0.9.9".parse().unwrap()]);
    inspector.watch(WatchList { rules: rules.into_iter().collect(), own });
    inspector
}

fn one(inspect: Inspect) -> Inspector {
    inspector([watched("a", "239.1.1.1:5000@eth0", Some(inspect))])
}

fn frame_from(source: [u8; 4], group: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [1, 0, 0x5e, 1, 1, 1]);
    let mut frame = Vec::new();
    builder.ipv4(source, group, 9).udp(4000, 5000).write(&mut frame, payload).unwrap();
    frame
}

fn see(inspector: &mut Inspector, bytes: &[u8], segment_size: u16) {
    let frame = Frame {
        bytes,
        bare: false,
        interface: IN,
        packet_type: PacketType::Here,
        tagged: false,
        segment_size,
        partial_checksum: false,
    };
    inspector.observe(&frame, 1);
}

fn feed(inspector: &mut Inspector, payloads: impl IntoIterator<Item = Vec<u8>>) {
    for payload in payloads {
        see(inspector, &frame_from([10, 0, 0, 1], [239, 1, 1, 1], &payload), 0);
    }
}

fn stats(inspector: &Inspector) -> InspectStats {
    inspector.stats().remove(&RuleKey::from_user("a")).unwrap()
}

fn rtp(number: u16) -> Vec<u8> {
    [&rtp::tests::packet(number, 0, 7)[..], &[0; 100]].concat()
}

/// The n-th datagram of a transport stream of one PID.
fn ts(n: u8) -> Vec<u8> {
    (0..7).flat_map(|k| ts::tests::packet(0x100, n.wrapping_mul(7).wrapping_add(k))).collect()
}

fn rtp_ts(number: u16) -> Vec<u8> {
    [rtp::tests::packet(number, 0, 7), ts(number as u8)].concat()
}

#[test]
fn auto_takes_what_it_looks_like_from_the_first_datagram_on() {
    let mut of_rtp = one(Inspect::Auto);
    feed(&mut of_rtp, [1, 2, 3, 5, 6, 8].map(rtp));
    let seen = stats(&of_rtp);
    assert_eq!((&*seen.kind, seen.ts, seen.other), ("rtp", None, 0));
    let rtp = seen.rtp.unwrap();
    assert_eq!((rtp.counts.packets, rtp.counts.expected, rtp.counts.lost), (6, 8, 2));
    let source = &rtp.ssrcs[0];
    let ends = (&*source.ssrc, &*source.from, &*source.to);
    assert_eq!(ends, ("0x00000007", "10.0.0.1:4000", "239.1.1.1:5000"));

    let mut of_ts = one(Inspect::Auto);
    feed(&mut of_ts, [0, 1, 2, 4, 5, 6].map(ts));
    let seen = stats(&of_ts);
    assert_eq!((&*seen.kind, seen.rtp, seen.other), ("ts", None, 0));
    let ts = seen.ts.unwrap();
    assert_eq!((ts.packets, ts.continuity_errors, ts.pids, ts.pat), (42, 1, 1, false));

    let mut neither = one(Inspect::Auto);
    feed(&mut neither, vec![vec![1; 200]; 30]);
    let seen = stats(&neither);
    assert_eq!((&*seen.kind, seen.other, seen.faults()), ("unknown", 30, None));
}

#[test]
fn a_transport_stream_in_rtp_is_counted_as_both() {
    for inspect in [Inspect::Auto, Inspect::Ts] {
        let mut inspector = one(inspect);
        // One is doubled, one is late, and two are lost.
        feed(&mut inspector, [1, 2, 2, 3, 5, 4, 6, 9, 10].map(rtp_ts));
        let seen = stats(&inspector);
        assert_eq!((&*seen.kind, seen.other), ("rtp+ts", 0), "{inspect:?}");
        assert_eq!(seen.faults(), Some((2, "lost before MCR")));
        let (rtp, ts) = (seen.rtp.unwrap().counts, seen.ts.unwrap());
        let counted = (rtp.packets, rtp.lost, rtp.duplicated, rtp.reordered);
        assert_eq!(counted, (9, 2, 1, 1));
        assert_eq!((ts.packets, ts.continuity_errors), (49, 2));
    }
    let mut inspector = one(Inspect::Rtp);
    feed(&mut inspector, [1, 2, 3].map(rtp_ts));
    assert_eq!((&*stats(&inspector).kind, stats(&inspector).ts), ("rtp", None));
}

#[test]
fn what_does_not_fit_is_other_and_a_change_of_the_stream_is_noticed() {
    let mut inspector = one(Inspect::Auto);
    feed(&mut inspector, (0..10).map(ts));
    feed(&mut inspector, (0..20).map(rtp));
    let seen = stats(&inspector);
    assert_eq!((&*seen.kind, seen.other), ("rtp+ts", 16));
    assert_eq!(seen.rtp.unwrap().counts.packets, 4);
    // Who has asked for one gets errors, not another.
    let mut inspector = one(Inspect::Ts);
    let mut broken = ts(0);
    broken[0] = 1;
    feed(&mut inspector, [broken, rtp(1), ts(1)]);
    let seen = stats(&inspector);
    assert_eq!((seen.ts.unwrap().sync_errors, seen.other), (1, 1));
    let mut inspector = one(Inspect::Rtp);
    feed(&mut inspector, [ts(0), rtp(1), rtp(2)]);
    assert_eq!((&*stats(&inspector).kind, stats(&inspector).other), ("rtp", 1));
}

#[test]
fn a_super_packet_counts_as_its_datagrams() {
    let mut inspector = one(Inspect::Rtp);
    let payload: Vec<u8> =
        [1, 2, 4].into_iter().flat_map(rtp).chain(rtp(5)[..40].to_vec()).collect();
    see(&mut inspector, &frame_from([10, 0, 0, 1], [239, 1, 1, 1], &payload), 112);
    let counts = stats(&inspector).rtp.unwrap().counts;
    assert_eq!((counts.packets, counts.lost), (4, 1));
}

/// The first of two fragments, and the second.
fn fragments(id: u16, payload: &[u8]) -> [Vec<u8>; 2] {
    let whole = frame_from([10, 0, 0, 1], [239, 1, 1, 1], payload);
    let (cut, all) = (14 + 20 + 512, whole.len());
    let part = |from: usize, to: usize, bits: u16| {
        let mut frame = [&whole[..34], &whole[from..to]].concat();
        let length = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[20..22].copy_from_slice(&bits.to_be_bytes());
        frame
    };
    [part(34, cut, 0x2000), part(cut, all, 512 / 8)]
}

#[test]
fn of_fragments_the_first_has_the_number_and_a_transport_stream_is_not_looked_into() {
    for (inspect, unseen) in [(Inspect::Rtp, 0), (Inspect::Auto, 6)] {
        let mut inspector = one(inspect);
        for number in [1, 2, 3, 5, 6, 7] {
            for frame in fragments(number, &rtp_ts(number)) {
                see(&mut inspector, &frame, 0);
            }
        }
        let seen = stats(&inspector);
        let rtp = seen.rtp.unwrap().counts;
        assert_eq!((rtp.packets, rtp.lost, seen.other, seen.unseen), (6, 1, 0, unseen));
        assert_eq!(seen.ts, None);
    }
    let mut inspector = one(Inspect::Auto);
    fragments(8, &ts(2)).iter().for_each(|frame| see(&mut inspector, frame, 0));
    assert_eq!((stats(&inspector).other, stats(&inspector).unseen), (0, 1));
    let mut inspector = one(Inspect::Ts);
    feed(&mut inspector, [ts(0), ts(1)]);
    fragments(9, &ts(2)).iter().for_each(|frame| see(&mut inspector, frame, 0));
    feed(&mut inspector, [ts(3), ts(4)]);
    let seen = stats(&inspector);
    let ts = seen.ts.unwrap();
    assert_eq!((ts.packets, ts.continuity_errors, seen.other, seen.unseen), (28, 0, 0, 1));
}

#[test]
fn a_packet_is_of_the_rule_that_the_planes_find() {
    let mut inspector = inspector([
        watched("a", "239.1.1.0/24:5000@eth0", Some(Inspect::Rtp)),
        watched("exact", "239.1.1.2:5000@eth0", None),
        watched("one-sender", "10.0.0.1@232.1.1.1:5000@eth0", Some(Inspect::Rtp)),
    ]);
    for number in 1..=10 {
        for (source, group) in [
            ([10, 0, 0, 1], [239, 1, 1, 1]),
            ([10, 0, 0, 1], [239, 1, 1, 2]),
            ([10, 0, 0, 1], [239, 9, 9, 9]),
            ([10, 0, 0, 1], [232, 1, 1, 1]),
            ([10, 0, 0, 2], [232, 1, 1, 1]),
            // Our own.
            ([10, 0, 9, 9], [239, 1, 1, 1]),
        ] {
            see(&mut inspector, &frame_from(source, group, &rtp(number)), 0);
        }
    }
    let stats = inspector.stats();
    let packets: Vec<(&str, u64)> = stats
        .iter()
        .map(|(key, stats)| (key.as_str(), stats.rtp.as_ref().unwrap().counts.packets))
        .collect();
    assert_eq!(packets, [("a", 10), ("one-sender", 10)]);
}

#[test]
fn the_figures_of_a_rule_stay_while_its_input_stays() {
    let rule = || watched("a", "239.1.1.1:5000@eth0", Some(Inspect::Rtp));
    let list = |rules: Vec<Watched>| WatchList { rules, own: BTreeSet::new() };
    let mut inspector = inspector([rule()]);
    let packets = |inspector: &Inspector| stats(inspector).rtp.map(|rtp| rtp.counts);
    feed(&mut inspector, [1, 2].map(rtp));
    inspector.watch(list(vec![watched("0", "239.1.1.9:5000@eth0", None), rule()]));
    feed(&mut inspector, [3, 5].map(rtp));
    assert_eq!(packets(&inspector).map(|c| (c.packets, c.lost)), Some((4, 1)));
    // While it does not run, and after: what came meanwhile is unknown.
    inspector.watch(list(vec![Watched { take: None, ..rule() }]));
    feed(&mut inspector, [6, 7].map(rtp));
    inspector.watch(list(vec![rule()]));
    feed(&mut inspector, [8, 9].map(rtp));
    let counts = packets(&inspector).unwrap();
    assert_eq!((counts.packets, counts.lost, counts.unseen), (6, 1, 2));
    inspector.watch(list(vec![watched("a", "239.1.1.1:5000@eth0", Some(Inspect::Auto))]));
    assert_eq!(packets(&inspector), None);
    inspector.watch(list(Vec::new()));
    assert!(inspector.stats().is_empty());
}

#[test]
fn what_the_mirror_missed_is_shown_and_held_against_nobody() {
    let mut inspector = one(Inspect::Auto);
    feed(&mut inspector, [1, 2, 4].map(rtp_ts));
    inspector.settle(IN, 0);
    feed(&mut inspector, [5, 9].map(rtp_ts));
    inspector.settle(IN, 5);
    feed(&mut inspector, [14, 15, 17].map(rtp_ts));
    inspector.settle(IfIndex(9), 100);
    let seen = stats(&inspector);
    let rtp = seen.rtp.unwrap().counts;
    assert_eq!((rtp.packets, rtp.lost, rtp.unseen), (8, 2, 7));
    assert_eq!((seen.ts.unwrap().continuity_errors, seen.unseen), (2, 5));
}

#[test]
fn more_flows_than_are_told_apart_lose_no_count() {
    let mut inspector = inspector([watched("a", "239.1.0.0/16:5000@eth0", Some(Inspect::Rtp))]);
    for host in 0..300_u16 {
        let [high, low] = host.to_be_bytes();
        for number in [1, 2, 4] {
            see(&mut inspector, &frame_from([10, 0, 0, 1], [239, 1, high, low], &rtp(number)), 0);
        }
    }
    let rtp = stats(&inspector).rtp.unwrap();
    assert_eq!((rtp.counts.packets, rtp.counts.lost, rtp.counts.missing), (900, 300, 256));
    assert_eq!(rtp.ssrcs.len(), 8);
}

#[test]
fn figures_have_the_names_of_the_reply() {
    let mut inspector = one(Inspect::Auto);
    feed(&mut inspector, [1, 2, 4].map(rtp_ts));
    let shown = serde_json::to_value(stats(&inspector)).unwrap();
    let counts = serde_json::json!({"packets": 3, "expected": 4, "lost": 1, "missing": 1,
        "reordered": 0, "duplicated": 0, "unseen": 0, "restarts": 0, "longest_gap": 1,
        "jitter_ms": 0.0});
    let mut source = counts.clone();
    for (key, value) in serde_json::json!({"ssrc": "0x00000007", "from": "10.0.0.1:4000",
        "to": "239.1.1.1:5000", "payload_type": 33, "clock_rate": 90_000})
    .as_object()
    .unwrap()
    {
        source[key] = value.clone();
    }
    let mut rtp = counts;
    rtp["ssrcs"] = serde_json::json!([source]);
    let ts = serde_json::json!({"packets": 21, "continuity_errors": 1, "sync_errors": 0,
        "transport_errors": 0, "scrambled": 0, "pids": 1, "pat": false});
    let known = serde_json::json!({"as": "rtp+ts", "rtp": rtp, "ts": ts, "other": 0, "unseen": 0});
    assert_eq!(shown, known);
    assert_eq!(serde_json::from_value::<InspectStats>(shown).unwrap(), stats(&inspector));
}

proptest! {
    #[test]
    fn any_frames_are_taken(frames in prop::collection::vec(
        (prop::collection::vec(any::<u8>(), 0..400), 0_u8..4, 0_u16..300), 0..60,
    )) {
        let mut inspector = one(Inspect::Auto);
        for (n, (mut payload, kind, size)) in frames.into_iter().enumerate() {
            match kind {
                0 => payload.iter_mut().step_by(188).for_each(|byte| *byte = 0x47),
                1 => payload.iter_mut().take(1).for_each(|byte| *byte = 0x80 | *byte & 0x3f),
                _ => {}
            }
            let frame = frame_from([10, 0, 0, 1], [239, 1, 1, 1], &payload);
            see(&mut inspector, &frame, if kind == 2 { size } else { 0 });
            see(&mut inspector, &payload, size);
            if n % 9 == 0 {
                inspector.settle(IN, (n % 2) as u64);
            }
        }
        stats(&inspector);
    }

    #[test]
    fn what_looks_like_something_is_found_also_when_it_is_cut(n: u8, cut in 13_usize..1316) {
        let plain = ts(n);
        prop_assert_eq!(looks::looks_like(&plain[..cut], 1316), Some(looks::Kind::Ts));
        let inside = rtp_ts(n.into());
        prop_assert_eq!(looks::looks_like(&inside[..cut], 1328), Some(looks::Kind::RtpTs));
        prop_assert_eq!(looks::looks_like(&rtp(n.into())[..13], 112), Some(looks::Kind::Rtp));
    }
}
