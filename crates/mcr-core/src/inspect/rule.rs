//! What was seen of one rule's input.

use std::collections::HashMap;
use std::net::SocketAddr;

use foldhash::fast::RandomState;

use super::flow::Flow;
use super::rtp::{self, Source};
use super::ts;
use crate::api::{InspectStats, RtpCounts, RtpStats, SsrcStats, TsStats};
use crate::watch::Inspect;

/// Flows that are told apart at a time; with more, the one that was silent longest gives way.
const FLOWS_MAX: usize = 256;
/// Sources of RTP that are shown.
const SHOWN_MAX: usize = 8;

/// A datagram of a rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: &'a [u8],
    /// It is a first fragment, and its payload goes on.
    pub(super) cut: bool,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub(super) struct Inspection {
    inspect: Inspect,
    flows: HashMap<(SocketAddr, SocketAddr), Flow, RandomState>,
    gone: Gone,
    /// Packets that the mirror has missed, of all rules on the interface.
    missed: u64,
}

/// Of flows that gave way.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    rtp: Option<rtp::Counts>,
    ts: Option<ts::Counts>,
    other: u64,
    cut: u64,
}

impl Gone {
    fn add(&mut self, flow: &Flow) {
        if let Some(session) = &flow.rtp {
            *self.rtp.get_or_insert_default() += session.counts();
            self.other += session.other();
        }
        if let Some(stream) = &flow.ts {
            *self.ts.get_or_insert_default() += stream.counts();
        }
        self.other += flow.other;
        self.cut += flow.cut;
    }
}

impl Inspection {
    pub(super) fn new(inspect: Inspect) -> Self {
        Self { inspect, flows: HashMap::default(), gone: Gone::default(), missed: 0 }
    }

    /// A datagram at a moment: nanoseconds, and the number of the batch.
    pub(super) fn observe(&mut self, datagram: &Datagram<'_>, moment: (u64, u64)) {
        let Datagram { from, to, payload, cut } = *datagram;
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&(from, to)) {
            self.give_way();
        }
        let flow = self.flows.entry((from, to)).or_default();
        if cut {
            flow.observe_cut(self.inspect, payload, moment);
        } else {
            flow.observe(self.inspect, payload, moment);
        }
    }

    fn give_way(&mut self) {
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.heard).map(|(key, _)| *key);
        if let Some(flow) = oldest.and_then(|key| self.flows.remove(&key)) {
            self.gone.add(&flow);
            // They can no longer come.
            self.gone.rtp.iter_mut().for_each(|counts| counts.missing = 0);
        }
    }

    /// The mirror has missed so many packets of the interface during or after this batch.
    pub(super) fn missed(&mut self, packets: u64, batch: u64) {
        self.missed += packets;
        self.flows.values_mut().for_each(|flow| flow.missed(batch));
    }

    pub(super) fn stats(&self) -> InspectStats {
        let mut all = self.gone;
        self.flows.values().for_each(|flow| all.add(flow));
        let sources = self.shown();
        let kind = match (all.rtp.filter(|rtp| rtp.packets > 0), all.ts) {
            (Some(_), Some(_)) => "rtp+ts",
            (Some(_), None) => "rtp",
            (None, Some(_)) => "ts",
            (None, None) => "unknown",
        };
        let rtp = |counts: rtp::Counts| RtpStats {
            counts: counts.into(),
            jitter_ms: sources.iter().map(|source| source.jitter_ms).max().unwrap_or_default(),
            ssrcs: sources.clone(),
        };
        InspectStats {
            kind: kind.into(),
            rtp: all.rtp.map(rtp),
            ts: all.ts.map(TsStats::from),
            other: all.other,
            unseen: self.missed + all.cut,
            problem: None,
        }
    }

    /// The sources that were heard last, the last first.
    fn shown(&self) -> Vec<SsrcStats> {
        let of_flow = |((from, to), flow): (&(SocketAddr, SocketAddr), &Flow)| {
            let sources = flow.rtp.iter().flat_map(|session| session.sources());
            sources.map(|source| (*from, *to, source)).collect::<Vec<_>>()
        };
        let mut all: Vec<(SocketAddr, SocketAddr, Source)> =
            self.flows.iter().flat_map(of_flow).collect();
        all.sort_by_key(|(from, to, source)| {
            (std::cmp::Reverse(source.heard), *from, *to, source.ssrc)
        });
        all.truncate(SHOWN_MAX);
        let show = |(from, to, source): (SocketAddr, SocketAddr, Source)| SsrcStats {
            ssrc: format!("{:#010x}", source.ssrc),
            from: from.to_string(),
            to: to.to_string(),
            payload_type: source.payload_type,
            clock_rate: source.clock_rate,
            jitter_ms: super::milliseconds(source.jitter),
            counts: source.counts.into(),
        };
        all.into_iter().map(show).collect()
    }
}

impl From<rtp::Counts> for RtpCounts {
    fn from(counts: rtp::Counts) -> Self {
        let rtp::Counts {
            packets,
            lost,
            missing,
            reordered,
            duplicated,
            unseen,
            restarts,
            longest_gap,
        } = counts;
        let expected = packets.saturating_sub(duplicated) + lost + unseen;
        Self {
            packets,
            expected,
            lost,
            missing,
            reordered,
            duplicated,
            unseen,
            restarts,
            longest_gap,
        }
    }
}

impl From<ts::Counts> for TsStats {
    fn from(counts: ts::Counts) -> Self {
        let ts::Counts {
            packets,
            continuity_errors,
            sync_errors,
            transport_errors,
            scrambled,
            pids,
            pat,
        } = counts;
        Self { packets, continuity_errors, sync_errors, transport_errors, scrambled, pids, pat }
    }
}
