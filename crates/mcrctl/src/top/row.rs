//! A rule as the screen has it: its counters, how fast they grow, and how fast they did.

use std::collections::VecDeque;

use mcr_core::api::{Dropped, OutputStats, RuleStats};

use super::reply::Found;

/// A rule.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) stats: RuleStats,
    pub(crate) found: Found,
    pub(crate) pace: Pace,
    /// Packets that its outputs or the rule have dropped so far, or that were lost before they came,
    /// as far as that is known.
    pub(crate) missing: u64,
    pub(crate) history: History,
    /// Reason to packets of all that is missing.
    reasons: Dropped,
    before: Option<Before>,
}

/// The look before, if the counters go on from there.
#[derive(Debug)]
struct Before {
    stats: Box<RuleStats>,
    reasons: Dropped,
    seconds: f64,
}

/// How fast counters grow, per second.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    pub(crate) packets: f64,
    pub(crate) bits: f64,
    /// Of what is missing.
    pub(crate) missing: f64,
}

impl Row {
    /// As seen at one look, and at the one before, so many seconds ago.
    pub(crate) fn new(stats: RuleStats, found: Found, before: Option<(Self, f64)>) -> Self {
        let reasons = reasons(&stats, &found);
        let (history, before) = match before {
            Some((Self { history, stats: then, reasons, .. }, seconds)) => {
                let goes_on = then.received.packets <= stats.received.packets && seconds > 0.0;
                let stats = Box::new(then);
                (history, goes_on.then_some(Before { stats, reasons, seconds }))
            }
            None => (History::default(), None),
        };
        let missing = reasons.values().sum();
        let pace = Pace::default();
        let mut row = Self { stats, found, pace, missing, history, reasons, before };
        row.pace = row.measured();
        row.history.push(Some(row.pace.packets));
        row
    }

    /// From the look before, or else what `mcrd` has measured.
    fn measured(&self) -> Pace {
        let Some(Before { stats: before, reasons, seconds }) = &self.before else {
            let rate = self.stats.rate;
            return Pace { packets: rate.packets as f64, bits: rate.bits as f64, missing: 0.0 };
        };
        let grown = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let (now, then) = (self.stats.received, before.received);
        Pace {
            packets: grown(now.packets, then.packets),
            bits: grown(now.bytes, then.bytes) * 8.0,
            missing: grown(self.missing, reasons.values().sum()),
        }
    }

    /// How fast packets go out by an output, and are dropped there; none before the second look.
    pub(crate) fn output_pace(&self, output: &OutputStats) -> Option<Pace> {
        let Before { stats: before, seconds, .. } = self.before.as_ref()?;
        let then = before.outputs.iter().find(|then| then.to == output.to)?;
        let grown = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds);
        let dropped = |of: &OutputStats| of.dropped.values().sum();
        Some(Pace {
            packets: grown(output.forwarded.packets, then.forwarded.packets)?,
            bits: grown(output.forwarded.bytes, then.forwarded.bytes)? * 8.0,
            missing: grown(dropped(output), dropped(then))?,
        })
    }

    /// The first output, and how many more.
    pub(crate) fn first_output(&self) -> String {
        match self.stats.outputs.as_slice() {
            [] => String::new(),
            [only] => only.to.clone(),
            [first, more @ ..] => format!("{} +{}", first.to, more.len()),
        }
    }

    /// The reason for most of what goes missing now, or else has, with its count and how fast that
    /// grows; and how many other reasons there are.
    pub(crate) fn main_reason(&self) -> Option<(&str, u64, f64, usize)> {
        let pace = |reason: &str, count: u64| {
            let Some(Before { reasons, seconds, .. }) = &self.before else { return 0.0 };
            let before = reasons.get(reason).copied().unwrap_or_default();
            count.saturating_sub(before) as f64 / seconds
        };
        let all = self.reasons.iter().map(|(reason, count)| (reason, *count, pace(reason, *count)));
        let main = all.max_by(|a, b| a.2.total_cmp(&b.2).then(a.1.cmp(&b.1)))?;
        Some((main.0, main.1, main.2, self.reasons.len() - 1))
    }
}

/// Reason to packets, of the rule, its outputs and what was found; none that is 0.
fn reasons(stats: &RuleStats, found: &Found) -> Dropped {
    let mut reasons = found.faults();
    let outputs = stats.outputs.iter().flat_map(|output| &output.dropped);
    for (reason, count) in stats.dropped.iter().chain(outputs).filter(|(_, count)| **count > 0) {
        *reasons.entry(reason.clone()).or_default() += count;
    }
    reasons
}

/// Packets per second at the last looks, the oldest first; none where `mcrd` did not answer.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Option<f32>>);

impl History {
    pub(crate) fn push(&mut self, packets: Option<f64>) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(packets.map(|packets| packets as f32));
    }

    /// The last so many.
    pub(crate) fn last(&self, count: usize) -> impl ExactSizeIterator<Item = Option<f32>> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).copied()
    }
}

/// As wide as wide terminals are; 1 KiB for a rule.
const HISTORY: usize = 240;
