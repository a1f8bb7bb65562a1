//! A row: all repeats of one load through one relay, judged beside the bare path of the same repeat.

use crate::runs::{BARE, Run, Test};

/// All repeats of one load through one relay.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) relay: String,
    pub(crate) streams: u64,
    /// Packets a second and stream.
    pub(crate) rate: u64,
    pub(crate) repeats: Vec<Repeat>,
    /// Whether it belongs to the series of stream counts at one rate.
    pub(crate) in_series: bool,
    /// CPU seconds of the machine for a million packets on the bare path.
    pub(crate) bare_cpu: Option<f64>,
    /// Half the range of its runs: nothing smaller can be measured. Not known of a single run.
    pub(crate) bare_spread: Option<f64>,
    /// By how much the slab has moved at most in runs of the bare path, where nothing used any.
    pub(crate) bare_slab_kib: Option<u64>,
    /// CPU that socat added on the same load, in seconds for a million packets; not of a single run.
    pub(crate) socat_cpu: Option<f64>,
}

/// A run, and that of the bare path next to it.
#[derive(Debug, Clone)]
pub(crate) struct Repeat {
    pub(crate) run: Run,
    pub(crate) bare: Option<Run>,
}

impl Repeat {
    /// The path itself has lost packets: what is lost here is not the relay's.
    pub(crate) fn is_path_limited(&self) -> bool {
        self.bare.as_ref().is_some_and(|bare| bare.lost > 0)
    }

    /// The sender does not reach the rate asked for, relay or not.
    pub(crate) fn is_sender_limited(&self) -> bool {
        let run = self.bare.as_ref().unwrap_or(&self.run);
        run.achieved_rate < run.asked_rate * REACHED
    }

    /// The relay has taken CPU that the sender needed.
    pub(crate) fn is_slowed(&self) -> bool {
        !self.run.is_bare()
            && self
                .bare
                .as_ref()
                .is_some_and(|bare| self.run.achieved_rate < bare.achieved_rate * REACHED)
    }

    /// Most of what came stood in buffers before: a longer run would lose it.
    pub(crate) fn is_behind(&self) -> bool {
        self.run.p99_us.is_some_and(|p99| p99 > BEHIND_US)
    }

    /// Others needed so much of the machine that what is seen may be their doing.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.run.others_percent > DISTURBED_PERCENT
    }

    /// The senders did not start together.
    pub(crate) fn is_apart(&self) -> bool {
        self.run.apart_s > APART_S
    }

    /// Packets were lost that the path would have carried.
    pub(crate) fn has_lost(&self) -> bool {
        self.run.lost > 0 && !self.is_path_limited()
    }

    /// CPU seconds for a million packets that arrived: what the whole machine spent beyond the bare
    /// path, which is taken for every packet that was sent.
    fn added_cpu(&self, bare: f64) -> Option<f64> {
        let run = &self.run;
        run.per_million(run.system_cpu_s - bare * run.sent as f64 / 1e6)
    }
}

impl Row {
    /// How many repeats a condition holds for.
    pub(crate) fn count(&self, condition: impl Fn(&Repeat) -> bool) -> usize {
        self.repeats.iter().filter(|repeat| condition(repeat)).count()
    }

    /// The median of what is there; none when nothing is.
    pub(crate) fn median(&self, value: impl Fn(&Repeat) -> Option<f64>) -> Option<f64> {
        median(self.repeats.iter().filter_map(value).collect())
    }

    /// The largest.
    pub(crate) fn worst(&self, value: impl Fn(&Repeat) -> Option<f64>) -> Option<f64> {
        self.repeats.iter().filter_map(value).reduce(f64::max)
    }

    /// CPU seconds for a million packets, beyond the bare path.
    pub(crate) fn added_cpu(&self) -> Option<f64> {
        let bare = self.bare_cpu.filter(|_| !self.is_bare())?;
        self.median(|repeat| repeat.added_cpu(bare))
    }

    /// How many times less than socat added, where both are more than noise, of two runs at least.
    pub(crate) fn times_less_than_socat(&self) -> Option<f64> {
        let (socat, added, noise) = (self.socat_cpu?, self.added_cpu()?, self.bare_spread?);
        (self.repeats.len() > 1 && added > noise && socat > noise).then(|| socat / added)
    }

    /// Growth of the slab for each stream, where it is more in every run than it is without a relay.
    pub(crate) fn slab_kib_per_stream(&self) -> Option<f64> {
        let noise = self.bare_slab_kib.filter(|_| !self.is_bare())?;
        let is_more =
            |repeat: &Repeat| u64::try_from(repeat.run.slab_kib).is_ok_and(|kib| kib > noise);
        let median = self.median(|repeat| Some(repeat.run.slab_kib as f64))?;
        self.repeats.iter().all(is_more).then(|| median / self.streams as f64)
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.relay == BARE
    }

    /// Whether packets were lost that the path would have carried.
    pub(crate) fn has_lost(&self) -> bool {
        self.repeats.iter().any(Repeat::has_lost)
    }

    /// Whether all of these losses are of disturbed runs.
    pub(crate) fn has_lost_disturbed(&self) -> bool {
        self.has_lost()
            && self.repeats.iter().filter(|repeat| repeat.has_lost()).all(Repeat::is_disturbed)
    }
}

/// All rows, in the order of the runs.
pub(crate) fn rows(test: &Test) -> Vec<Row> {
    let rate = test.setting("per_stream_rate").parse::<u64>().ok();
    let mut rows: Vec<Row> = Vec::new();
    for run in &test.runs {
        let same = |other: &Run| {
            (other.streams, other.rate, other.repeat) == (run.streams, run.rate, run.repeat)
        };
        let bare = test.runs.iter().find(|other| other.is_bare() && same(other)).cloned();
        let repeat = Repeat { run: run.clone(), bare };
        let key = (&run.relay, run.streams, run.rate);
        match rows.iter_mut().find(|row| (&row.relay, row.streams, row.rate) == key) {
            Some(row) => row.repeats.push(repeat),
            None => rows.push(Row {
                relay: run.relay.clone(),
                streams: run.streams,
                rate: run.rate,
                repeats: vec![repeat],
                in_series: rate.is_none_or(|rate| rate == run.rate),
                bare_cpu: None,
                bare_spread: None,
                bare_slab_kib: None,
                socat_cpu: None,
            }),
        }
    }
    let same_load = |rows: &[Row], row: &Row, relay: &str| {
        let key = (relay, row.streams, row.rate);
        rows.iter().find(|other| (&*other.relay, other.streams, other.rate) == key).cloned()
    };
    for row in 0..rows.len() {
        let Some(bare) = same_load(&rows, &rows[row], BARE) else { continue };
        let cost = |repeat: &Repeat| repeat.run.per_million_sent(repeat.run.system_cpu_s);
        let least = bare.repeats.iter().filter_map(cost).reduce(f64::min);
        let range = bare.worst(cost).zip(least).filter(|_| bare.repeats.len() > 1);
        rows[row].bare_cpu = bare.median(cost);
        rows[row].bare_spread = range.map(|(most, least)| (most - least) / 2.0);
        let moved = bare.repeats.iter().map(|repeat| repeat.run.slab_kib.unsigned_abs());
        rows[row].bare_slab_kib = moved.max();
    }
    for row in 0..rows.len() {
        let socat = same_load(&rows, &rows[row], "socat");
        let socat = socat.filter(|socat| socat.repeats.len() > 1);
        rows[row].socat_cpu = socat.and_then(|socat| socat.added_cpu());
    }
    rows
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A relay that is late by more than this is behind.
pub(crate) const BEHIND_US: f64 = 100_000.0;
/// Others that take more than this of the machine have disturbed a run.
pub(crate) const DISTURBED_PERCENT: f64 = 5.0;
/// Senders that start within this time start together.
const APART_S: f64 = 0.1;
/// A rate counts as reached from here on.
const REACHED: f64 = 0.95;
