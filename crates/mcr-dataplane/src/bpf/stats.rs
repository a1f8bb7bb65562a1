//! The counters that the program keeps, for each CPU.

use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuHashMap, PerCpuValues};
use mcr_core::action::{Counters, OutputCounters, PlaneChange, RuleCounters, Volume};
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};

use super::abi::{OUTPUT_STATS, RULE_STATS, RawPass};
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
        let mut counters = Counters::default();
        let fd = self.rule_stats.fd().as_fd();
        for [received, received_bytes, matched, matched_bytes, dropped @ ..] in
            self.read::<RULE_STATS>(fd, rules)?
        {
            counters.rules.push(RuleCounters {
                received: Volume { packets: received, bytes: received_bytes },
                matched: Volume { packets: matched, bytes: matched_bytes },
                dropped,
            });
        }
        let fd = self.output_stats.fd().as_fd();
        for [offered, offered_bytes, forwarded, forwarded_bytes, dropped @ ..] in
            self.read::<OUTPUT_STATS>(fd, outputs)?
        {
            counters.outputs.push(OutputCounters {
                offered: Volume { packets: offered, bytes: offered_bytes },
                forwarded: Volume { packets: forwarded, bytes: forwarded_bytes },
                dropped,
            });
        }
        for (interface, values) in self.pass_stats.iter().flatten() {
            let mut sum = RawPass::default();
            for cpu in values.iter() {
                sum.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
            }
            counters.passed.push((IfIndex(interface), sum));
        }
        Ok(counters)
    }

    /// The first `count` elements of a per-CPU array, summed over the CPUs.
    fn read<const WORDS: usize>(
        &self,
        map: std::os::fd::BorrowedFd<'_>,
        count: u32,
    ) -> Result<Vec<[u64; WORDS]>, Refusal> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut keys = vec![0; count as usize];
        let mut values = vec![0; count as usize * WORDS * self.cpus];
        sys::lookup_batch(map, &mut keys, &mut values, WORDS * self.cpus)
            .map_err(|e| refused("stats", &e))?;
        let sum = |element: &[u64]| {
            let mut sum = [0; WORDS];
            for cpu in element.chunks_exact(WORDS) {
                sum.iter_mut().zip(cpu).for_each(|(sum, count)| *sum += count);
            }
            sum
        };
        Ok(values.chunks_exact(WORDS * self.cpus).map(sum).collect())
    }
}

fn per_cpu_array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, Refusal> {
    match ebpf.take_map(name) {
        Some(Map::PerCpuArray(data)) => Ok(data),
        Some(_) | None => Err(no_map(name)),
    }
}
