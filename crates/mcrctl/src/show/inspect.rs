//! What was wrong with a stream before it came: in full, or in a remark.

use mcr_core::api::{InspectStats, RtpCounts, RtpStats, SsrcStats, TsStats};

use super::counted;

/// A line for each thing that was looked into.
pub(super) fn lines(stats: &InspectStats) -> Vec<String> {
    let InspectStats { kind, rtp, ts, other, unseen, problem } = stats;
    let unseen = if *unseen > 0 { format!(", {unseen} not looked into") } else { String::new() };
    let mut lines = vec![format!("inspected: {kind}, {other} other{unseen}")];
    lines.extend(problem.clone());
    lines.extend(rtp.iter().flat_map(of_rtp));
    lines.extend(ts.iter().map(of_ts));
    lines
}

/// Only of a stream that came with faults, or of one that cannot be looked into.
pub(super) fn remark(stats: &InspectStats) -> Option<String> {
    let fault = stats.faults().map(|(count, fault)| format!("{fault}: {count}"));
    fault.or_else(|| stats.problem.clone())
}

fn of_rtp(rtp: &RtpStats) -> Vec<String> {
    let RtpCounts { expected, lost, reordered, duplicated, unseen, restarts, longest_gap, .. } =
        rtp.counts;
    let jitter = rtp.jitter_ms.as_secs_f64() * 1000.0;
    let unseen = if unseen > 0 { format!(", {unseen} not looked into") } else { String::new() };
    let restarts = counted(usize::try_from(restarts).unwrap_or(usize::MAX), "restart");
    let all = format!(
        "rtp: lost before MCR: {lost} of {expected}{unseen}, longest gap {longest_gap}, {reordered} \
         reordered, {duplicated} duplicated, {restarts}, jitter {jitter:.3} ms"
    );
    [all].into_iter().chain(rtp.ssrcs.iter().map(of_source)).collect()
}

fn of_source(source: &SsrcStats) -> String {
    let SsrcStats { ssrc, from, to, payload_type, clock_rate, jitter_ms, counts } = source;
    let RtpCounts { expected, lost, .. } = counts;
    let jitter = jitter_ms.as_secs_f64() * 1000.0;
    format!(
        "rtp: ssrc {ssrc} from {from} to {to}, payload type {payload_type} ({clock_rate} Hz): lost \
         {lost} of {expected}, jitter {jitter:.3} ms"
    )
}

fn of_ts(ts: &TsStats) -> String {
    let TsStats { packets, continuity_errors, sync_errors, transport_errors, scrambled, pids, pat } =
        ts;
    let scrambled = if *scrambled > 0 { format!(", {scrambled} scrambled") } else { String::new() };
    let counted = |count: u64, what| counted(usize::try_from(count).unwrap_or(usize::MAX), what);
    let sync = counted(*sync_errors, "sync error");
    let transport = counted(*transport_errors, "transport error");
    let pids = counted(*pids, "PID");
    let pat = if *pat { "" } else { ", no PAT" };
    format!(
        "ts: continuity errors before MCR: {continuity_errors} in {packets} packets, {sync}, \
         {transport}{scrambled}, {pids}{pat}"
    )
}
