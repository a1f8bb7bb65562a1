//! The counters that the program keeps, for each CPU.

use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuHashMap, PerCpuValues};
use mcr_core::action::{Counters, OutputCounters, PlaneChange, RuleCounters, Volume};
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::senders::{self, Senders};

use super::abi::{OUTPUT_STATS, RULE_STATS, RULE_SUMS, RawPass};
use super::maps::{no_map, refused, typed};
use super::tables::report;
use crate::sys;

/// The maps of counters. Those by id are read and written in batches, which aya does not do.
pub(super) struct Stats {
    rule_stats: MapData,
    output_stats: MapData,
    pass_stats: PerCpuHashMap<MapData, u32, RawPass>,
    cpus: usize,
}

impl Stats {
    /// Takes the maps over from a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Refusal> {
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| {
            Refusal::new(Code::Internal, format!("{file}: {error}"), "is /sys mounted?")
        })?;
        Ok(Self {
            rule_stats: per_cpu_array(ebpf, "rule_stats")?,
            output_stats: per_cpu_array(ebpf, "output_stats")?,
            pass_stats: typed(ebpf, "pass_stats")?,
            cpus,
        })
    }

    /// Sets those of fresh ids to 0.
    pub(super) fn zero(&self, change: &PlaneChange) -> Result<(), Refusal> {
        let fresh: Vec<u32> = change.fresh_rules.iter().map(|id| id.0).collect();
        self.zero_of(&fresh, RULE_STATS, |stats| stats.rule_stats.fd().as_fd())?;
        let fresh: Vec<u32> = change.fresh_outputs.iter().map(|id| id.0).collect();
        self.zero_of(&fresh, OUTPUT_STATS, |stats| stats.output_stats.fd().as_fd())
    }

    fn zero_of<'m>(
        &'m self,
        keys: &[u32],
        words: usize,
        map: impl Fn(&'m Self) -> std::os::fd::BorrowedFd<'m>,
    ) -> Result<(), Refusal> {
        if keys.is_empty() {
            return Ok(());
        }
        let zeros = vec![0; keys.len() * words * self.cpus];
        sys::update_batch(map(self), keys, &zeros, words * self.cpus)
            .map_err(|e| refused("stats", &e))
    }

    /// Counts what passes on an interface.
    pub(super) fn watch(&mut self, interface: IfIndex) -> Result<(), Refusal> {
        let zeros = PerCpuValues::try_from(vec![RawPass::default(); self.cpus])
            .map_err(|e| refused("pass_stats", &e))?;
        let known = self.pass_stats.get(&interface.0, 0).is_ok();
        if known {
            return Ok(());
        }
        self.pass_stats.insert(interface.0, zeros, 0).map_err(|e| refused("pass_stats", &e))
    }

    /// Counts no more on an interface.
    pub(super) fn unwatch(&mut self, interface: IfIndex) {
        report("pass_stats", self.pass_stats.remove(&interface.0));
    }

    /// Reads all counters.
    pub(super) fn counters(&self, (rules, outputs): (u32, u32)) -> Result<Counters, Refusal> {
        let fd = self.rule_stats.fd().as_fd();
        let rules = self.read(fd, rules, RULE_STATS)?;
        let fd = self.output_stats.fd().as_fd();
        let outputs = self.read(fd, outputs, OUTPUT_STATS)?;
        let mut counters = Counters {
            rules: rules.chunks_exact(RULE_STATS * self.cpus).map(rule).collect(),
            outputs: outputs.chunks_exact(OUTPUT_STATS * self.cpus).map(output).collect(),
            passed: Vec::new(),
        };
        for (interface, values) in self.pass_stats.iter().flatten() {
            let mut sum = RawPass::default();
            for cpu in values.iter() {
                sum.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
            }
            counters.passed.push((IfIndex(interface), sum));
        }
        Ok(counters)
    }

    /// The first `count` elements of a per-CPU array, each of so many words for each CPU.
    fn read(
        &self,
        map: std::os::fd::BorrowedFd<'_>,
        count: u32,
        words: usize,
    ) -> Result<Vec<u64>, Refusal> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut keys = vec![0; count as usize];
        let mut values = vec![0; count as usize * words * self.cpus];
        sys::lookup_batch(map, &mut keys, &mut values, words * self.cpus)
            .map_err(|e| refused("stats", &e))?;
        Ok(values)
    }
}

/// A rule, of what each CPU has counted.
fn rule(element: &[u64]) -> RuleCounters {
    let [received, received_bytes, matched, matched_bytes, dropped @ ..] =
        sum::<RULE_SUMS>(element, RULE_STATS);
    let senders = |cpu: &[u64]| {
        let words = cpu[RULE_SUMS..].try_into().unwrap_or([0; senders::WORDS]);
        senders::senders(words)
    };
    RuleCounters {
        received: Volume { packets: received, bytes: received_bytes },
        matched: Volume { packets: matched, bytes: matched_bytes },
        dropped,
        senders: Senders::merge(element.chunks_exact(RULE_STATS).flat_map(senders)),
    }
}

/// Likewise an output.
fn output(element: &[u64]) -> OutputCounters {
    let [offered, offered_bytes, forwarded, forwarded_bytes, dropped @ ..] =
        sum::<OUTPUT_STATS>(element, OUTPUT_STATS);
    OutputCounters {
        offered: Volume { packets: offered, bytes: offered_bytes },
        forwarded: Volume { packets: forwarded, bytes: forwarded_bytes },
        dropped,
    }
}

/// The first words of each CPU's, of `words` in all, summed up.
fn sum<const SUMS: usize>(element: &[u64], words: usize) -> [u64; SUMS] {
    let mut sum = [0; SUMS];
    for cpu in element.chunks_exact(words) {
        sum.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
    }
    sum
}

fn per_cpu_array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, Refusal> {
    match ebpf.take_map(name) {
        Some(Map::PerCpuArray(data)) => Ok(data),
        Some(_) | None => Err(no_map(name)),
    }
}
