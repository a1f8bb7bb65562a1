//! A rule as the screen has it: its counters, how fast they grow, and how fast they did.

use std::collections::{BTreeMap, VecDeque};

use mcr_core::api::{OutputStats, RuleStats};

use super::reply::Further;

/// A rule.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) stats: RuleStats,
    pub(crate) further: Further,
    pub(crate) pace: Pace,
    /// Packets dropped so far, by the rule and its outputs.
    pub(crate) dropped: u64,
    pub(crate) history: History,
    /// The counters of the look before, if these go on from there, and the seconds since.
    before: Option<(Box<RuleStats>, f64)>,
}

/// How fast counters grow, per second.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    pub(crate) packets: f64,
    pub(crate) bits: f64,
    pub(crate) dropped: f64,
}

impl Row {
    /// As seen at one look, and at the one before, so many seconds ago.
    pub(crate) fn new(stats: RuleStats, further: Further, before: Option<(Self, f64)>) -> Self {
        let dropped = sums(&stats).values().sum();
        let (history, before) = match before {
            Some((row, seconds)) => {
                let goes_on = row.stats.received.packets <= stats.received.packets
                    && row.dropped <= dropped
                    && seconds > 0.0;
                (row.history, goes_on.then(|| (Box::new(row.stats), seconds)))
            }
            None => (History::default(), None),
        };
        let mut row = Self { stats, further, pace: Pace::default(), dropped, history, before };
        row.pace = row.measured();
        row.history.push(Some(row.pace.packets));
        row
    }

    /// From the look before, or else what `mcrd` has measured.
    fn measured(&self) -> Pace {
        let Some((before, seconds)) = &self.before else {
            let rate = self.stats.rate;
            return Pace { packets: rate.packets as f64, bits: rate.bits as f64, dropped: 0.0 };
        };
        let grown = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let (now, then) = (self.stats.received, before.received);
        Pace {
            packets: grown(now.packets, then.packets),
            bits: grown(now.bytes, then.bytes) * 8.0,
            dropped: grown(self.dropped, sums(before).values().sum()),
        }
    }

    /// How fast packets go out by an output, and are dropped there; none before the second look.
    pub(crate) fn output_pace(&self, output: &OutputStats) -> Option<Pace> {
        let (before, seconds) = self.before.as_ref()?;
        let then = before.outputs.iter().find(|then| then.to == output.to)?;
        let grown = |now: u64, before: u64| Some(now.checked_sub(before)? as f64 / seconds);
        let dropped = |of: &OutputStats| of.dropped.values().sum();
        Some(Pace {
            packets: grown(output.forwarded.packets, then.forwarded.packets)?,
            bits: grown(output.forwarded.bytes, then.forwarded.bytes)? * 8.0,
            dropped: grown(dropped(output), dropped(then))?,
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

    /// The reason for most of what is dropped now, or else has been, with its count and how fast
    /// that grows; and how many other reasons there are.
    pub(crate) fn main_drop(&self) -> Option<(&str, u64, f64, usize)> {
        let now = sums(&self.stats);
        let then = self.before.as_ref().map(|(before, seconds)| (sums(before), *seconds));
        let pace = |reason: &str, count: u64| {
            let Some((then, seconds)) = &then else { return 0.0 };
            count.saturating_sub(then.get(reason).copied().unwrap_or_default()) as f64 / seconds
        };
        let reasons = now.iter().map(|(reason, count)| (*reason, *count, pace(reason, *count)));
        let main = reasons.max_by(|a, b| a.2.total_cmp(&b.2).then(a.1.cmp(&b.1)))?;
        Some((main.0, main.1, main.2, now.len() - 1))
    }
}

/// Reason to packets, over the rule and its outputs; none that is 0.
fn sums(stats: &RuleStats) -> BTreeMap<&str, u64> {
    let outputs = stats.outputs.iter().flat_map(|output| &output.dropped);
    let mut sums = BTreeMap::new();
    for (reason, count) in stats.dropped.iter().chain(outputs).filter(|(_, count)| **count > 0) {
        *sums.entry(reason.as_str()).or_default() += count;
    }
    sums
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
