//! What was wrong with the streams of inspected rules when they came.

use mcr_core::api::{InspectStats, RtpStats, RuleStats, TsStats};

use super::catalogue::*;
use super::text::{Metric, Text};

/// The series of all inspected rules.
pub(super) fn write(text: &mut Text, rules: &[RuleStats]) {
    let mut all = |metric: Metric, value: fn(&InspectStats) -> u64| {
        each(text, rules, metric, |stats| Some(value(stats)));
    };
    all(INSPECT_OTHER, |stats| stats.other);
    all(INSPECT_UNSEEN, |stats| stats.unseen);

    let mut rtp = |metric: Metric, value: fn(&RtpStats) -> u64| {
        each(text, rules, metric, |stats| stats.rtp.as_ref().map(value));
    };
    rtp(RTP_PACKETS, |rtp| rtp.counts.packets);
    rtp(RTP_EXPECTED, |rtp| rtp.counts.expected);
    // What may still come is not lost: a counter must not fall.
    rtp(RTP_LOST, |rtp| rtp.counts.lost.saturating_sub(rtp.counts.missing));
    rtp(RTP_REORDERED, |rtp| rtp.counts.reordered);
    rtp(RTP_DUPLICATED, |rtp| rtp.counts.duplicated);
    rtp(RTP_UNSEEN, |rtp| rtp.counts.unseen);
    rtp(RTP_RESTARTS, |rtp| rtp.counts.restarts);
    rtp(RTP_LONGEST_GAP, |rtp| rtp.counts.longest_gap);
    each(text, rules, RTP_JITTER, |stats| {
        stats.rtp.as_ref().map(|rtp| rtp.jitter_ms.as_secs_f64())
    });

    let mut ts = |metric: Metric, value: fn(&TsStats) -> u64| {
        each(text, rules, metric, |stats| stats.ts.as_ref().map(value));
    };
    ts(TS_PACKETS, |ts| ts.packets);
    ts(TS_CONTINUITY, |ts| ts.continuity_errors);
    ts(TS_SYNC, |ts| ts.sync_errors);
    ts(TS_TRANSPORT, |ts| ts.transport_errors);
    ts(TS_SCRAMBLED, |ts| ts.scrambled);
}

fn each<V: std::fmt::Display>(
    text: &mut Text,
    rules: &[RuleStats],
    metric: Metric,
    value: impl Fn(&InspectStats) -> Option<V>,
) {
    let mut family = text.family(metric);
    for rule in rules {
        if let Some(value) = rule.inspect.as_ref().and_then(&value) {
            family.put(&[("rule", &rule.name)], value);
        }
    }
}
