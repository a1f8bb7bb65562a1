//! What was wrong with the streams of inspected rules when they came.

use std::sync::atomic::{AtomicI64, AtomicU64};

use mcr_core::api::{InspectStats, RtpStats, RuleStats, TsStats};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter<u64, AtomicU64>>;

/// A counter: its name without `_total`, what it means, and what it is of a stream.
type Of<T> = (&'static str, &'static str, fn(&T) -> u64);

const ALL: [Of<InspectStats>; 2] = [
    ("rule_inspect_other_packets", "Not what the stream is", |all| all.other),
    ("rule_inspect_unseen_packets", "Not looked into", |all| all.unseen),
];

/// What may still come is not lost: a counter must not fall.
const RTP: [Of<RtpStats>; 7] = [
    ("rule_rtp_packets", "RTP that arrived", |rtp| rtp.counts.packets),
    ("rule_rtp_expected_packets", "RTP that should have arrived", |rtp| rtp.counts.expected),
    ("rule_rtp_lost_packets", "RTP lost before MCR, and 100 packets ago", |rtp| {
        rtp.counts.lost.saturating_sub(rtp.counts.missing)
    }),
    ("rule_rtp_reordered_packets", "RTP behind a higher number", |rtp| rtp.counts.reordered),
    ("rule_rtp_duplicated_packets", "RTP that arrived again", |rtp| rtp.counts.duplicated),
    ("rule_rtp_unseen_packets", "RTP that the mirror may have missed", |rtp| rtp.counts.unseen),
    ("rule_rtp_restarts", "Senders of RTP that began anew", |rtp| rtp.counts.restarts),
];

const TS: [Of<TsStats>; 5] = [
    ("rule_ts_packets", "Packets of transport streams that arrived", |ts| ts.packets),
    ("rule_ts_continuity_errors", "Continuity_count_error of TR 101 290", |ts| {
        ts.continuity_errors
    }),
    ("rule_ts_sync_errors", "Sync_byte_error of TR 101 290", |ts| ts.sync_errors),
    ("rule_ts_transport_errors", "Transport_error of TR 101 290", |ts| ts.transport_errors),
    ("rule_ts_scrambled_packets", "With a scrambled payload", |ts| ts.scrambled),
];

/// Adds the series of all inspected rules.
pub(super) fn add(registry: &mut Registry, rules: &[RuleStats]) {
    let inspected = || rules.iter().filter_map(|rule| Some((&rule.name, rule.inspect.as_ref()?)));
    if inspected().next().is_none() {
        return;
    }
    let rtp = || inspected().filter_map(|(name, all)| Some((name, all.rtp.as_ref()?)));
    counters(registry, &ALL, inspected);
    counters(registry, &RTP, rtp);
    counters(registry, &TS, || {
        inspected().filter_map(|(name, all)| Some((name, all.ts.as_ref()?)))
    });
    let jitter: Family<Labels, Gauge<f64, AtomicU64>> = Family::default();
    let help = "Interarrival jitter (RFC 3550), the largest of the rule's sources";
    registry.register_with_unit("rule_rtp_jitter", help, Unit::Seconds, jitter.clone());
    let gap: Family<Labels, Gauge<i64, AtomicI64>> = Family::default();
    registry.register(
        "rule_rtp_longest_gap_packets",
        "The most in a row that were lost",
        gap.clone(),
    );
    for (name, stats) in rtp() {
        jitter.get_or_create(&labels(name)).set(stats.jitter_ms.as_secs_f64());
        let longest = i64::try_from(stats.counts.longest_gap).unwrap_or(i64::MAX);
        gap.get_or_create(&labels(name)).set(longest);
    }
}

fn counters<'s, T: 's, I: Iterator<Item = (&'s String, &'s T)>>(
    registry: &mut Registry,
    all: &[Of<T>],
    streams: impl Fn() -> I,
) {
    for (name, help, value) in all {
        let family = Counts::default();
        registry.register(*name, *help, family.clone());
        for (rule, stream) in streams() {
            family.get_or_create(&labels(rule)).inc_by(value(stream));
        }
    }
}

fn labels(rule: &str) -> Labels {
    vec![("rule", rule.to_owned())]
}
