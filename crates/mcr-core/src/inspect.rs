//! What was wrong with a stream before it reached the relay, from a mirror of the packets of the
//! rules that ask for it.
//!
//! ```text
//! frame ─ forward ─ rule ─ segments ─ flow ─┬─ rtp: session ─ stream (by SSRC)
//!         (as the planes do)                └─ ts: stream ─ PIDs
//! ```
//!
//! The mirror may miss packets that the planes have seen. So frames come in batches, each ended by
//! [`Inspector::settle`] with what the mirror missed; figures are asked for between batches. What is
//! missing in a batch of which the mirror has missed something is not held against the stream.

mod flow;
pub mod looks;
pub mod rtp;
mod rule;
#[cfg(test)]
mod tests;
pub mod ts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::action::{PlaneChange, PlaneRule, RuleId, Take, ToStack};
use crate::api::InspectStats;
use crate::flow::Input;
use crate::forward::{ForwardTable, Fragments, Frame, Match, Shared, Verdict, forward};
use crate::link::IfIndex;
use crate::rule::RuleKey;
use crate::watch::Inspect;
use rule::{Datagram, Inspection};

/// A rule that is inspected, or one that may take packets in front of such a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// What it is addressed by.
    pub key: RuleKey,
    /// Its figures are kept while this stays.
    pub input: Input,
    /// As what it is looked into, if at all.
    pub inspect: Option<Inspect>,
    /// What it takes; `None` while it does not run.
    pub take: Option<Take>,
}

/// All rules that matter to an inspector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchList {
    /// Those that are inspected, and the others on their interfaces.
    pub rules: Vec<Watched>,
    /// All addresses of this host that an output sends from.
    pub own: BTreeSet<IpAddr>,
}

impl WatchList {
    /// What is mirrored, by interface: the inspected rules' own packets.
    pub fn takes(&self) -> BTreeMap<IfIndex, Vec<&Take>> {
        let mut takes: BTreeMap<IfIndex, Vec<&Take>> = BTreeMap::new();
        for rule in self.rules.iter().filter(|rule| rule.inspect.is_some()) {
            if let Some(take) = &rule.take {
                takes.entry(take.interface).or_default().push(take);
            }
        }
        takes
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Inspector {
    /// The rules by their place in `rules`, without outputs.
    table: ForwardTable,
    fragments: Fragments,
    /// For [`Shared`].
    words: Vec<AtomicU64>,
    rules: Vec<(Watched, Option<Inspection>)>,
    batch: u64,
}

impl Inspector {
    /// Looks into these rules from now on. The figures of a rule stay while its input and what it is
    /// looked into as stay, also while it does not run.
    pub fn watch(&mut self, list: WatchList) {
        let WatchList { rules, own } = list;
        let old = std::mem::take(&mut self.rules).into_iter();
        let mut old: BTreeMap<RuleKey, (Watched, Option<Inspection>)> =
            old.map(|rule| (rule.0.key.clone(), rule)).collect();
        self.batch += 1;
        let batch = self.batch;
        let keep = |rule: Watched| {
            let before = old
                .remove(&rule.key)
                .filter(|(before, _)| before.input == rule.input && before.inspect == rule.inspect);
            let inspection = match before {
                Some((before, Some(mut inspection))) => {
                    if before.take != rule.take {
                        // What came in between was not mirrored.
                        inspection.missed(0, batch);
                    }
                    Some(inspection)
                }
                Some((_, None)) | None => rule.inspect.map(Inspection::new),
            };
            (rule, inspection)
        };
        self.rules = rules.into_iter().map(keep).collect();
        self.table = ForwardTable::default();
        self.table.apply(PlaneChange {
            install: (0..)
                .zip(&self.rules)
                .filter_map(|(n, (rule, _))| plane_rule(n, rule))
                .collect(),
            own,
            ..PlaneChange::default()
        });
        let words = Shared::words(u32::try_from(self.rules.len()).unwrap_or(u32::MAX));
        self.words.resize_with(words, AtomicU64::default);
    }

    /// A frame that arrived at `time`, in nanoseconds.
    pub fn observe(&mut self, frame: &Frame<'_>, time: u64) {
        let shared = Shared::new(&self.words);
        let verdict = forward(&self.table, (&mut self.fragments, shared), frame, time);
        // Without a rate, what is dropped is our own and no stream of others.
        let Verdict::Match(found) = verdict else { return };
        let rule = self.rules.get_mut(found.rule.id.0 as usize);
        let Some((_, Some(inspection))) = rule else { return };
        let moment = (time, self.batch);
        each_datagram(frame, &found, |datagram| inspection.observe(datagram, moment));
    }

    /// Ends a batch of frames of this interface: so many packets of it were missed, during or after
    /// the batch.
    pub fn settle(&mut self, interface: IfIndex, missed: u64) {
        if missed > 0 {
            let here =
                |rule: &Watched| rule.take.as_ref().is_some_and(|take| take.interface == interface);
            for (_, inspection) in self.rules.iter_mut().filter(|(rule, _)| here(rule)) {
                inspection.iter_mut().for_each(|it| it.missed(missed, self.batch));
            }
        }
        self.batch += 1;
    }

    /// The figures of each inspected rule.
    pub fn stats(&self) -> BTreeMap<RuleKey, InspectStats> {
        let stats = |(rule, inspection): &(Watched, Option<Inspection>)| {
            Some((rule.key.clone(), inspection.as_ref()?.stats()))
        };
        self.rules.iter().filter_map(stats).collect()
    }
}

fn plane_rule(number: u32, rule: &Watched) -> Option<PlaneRule> {
    Some(PlaneRule {
        id: RuleId(number),
        take: rule.take.clone()?,
        to_stack: ToStack::Always,
        max_rate: None,
        outputs: Vec::new(),
    })
}

/// Each datagram of a frame, of which a super-packet has many. A later fragment has none.
fn each_datagram(frame: &Frame<'_>, found: &Match<'_>, mut each: impl FnMut(&Datagram<'_>)) {
    let Some((udp, payload)) = found.datagram(frame.bytes) else { return };
    let (from, to) = found.addresses();
    let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    let from = SocketAddr::new(from, port(crate::wire::udp::SOURCE_PORT));
    let to = SocketAddr::new(to, port(crate::wire::udp::DESTINATION_PORT));
    let cut = found.is_fragment();
    match usize::from(frame.segment_size) {
        0 => each(&Datagram { from, to, payload, cut }),
        size => payload.chunks(size).for_each(|payload| {
            each(&Datagram { from, to, payload, cut });
        }),
    }
}

fn milliseconds(microseconds: u64) -> Duration {
    Duration::from_micros(microseconds)
}
