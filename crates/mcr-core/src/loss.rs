//! What is lost before MCR can see it: in the card, in the queue of a CPU, in a receive ring.
//!
//! The kernel counts since the interface exists. A [`Baseline`] is its first look at an interface, and
//! what is shown is what came later.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Dropped;
use crate::link::IfIndex;

/// Where packets of an input interface were lost. They count for all its traffic, and kinds may
/// overlap: a driver may count one packet under two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// `rx_dropped`.
    Dropped,
    /// `rx_missed_errors`.
    Missed,
    /// `rx_fifo_errors`.
    Fifo,
    /// `rx_over_errors`.
    Over,
    /// `rx_errors`.
    Errors,
    /// The receive rings of the packet plane.
    Ring,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Dropped, Self::Missed, Self::Fifo, Self::Over, Self::Errors, Self::Ring];

    /// Those that the kernel counts of a link (`struct rtnl_link_stats64` of if_link.h).
    pub const OF_A_LINK: [Self; 5] =
        [Self::Dropped, Self::Missed, Self::Fifo, Self::Over, Self::Errors];

    /// The name in JSON, tables and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dropped => "nic-dropped",
            Self::Missed => "nic-missed",
            Self::Fifo => "nic-fifo",
            Self::Over => "nic-over",
            Self::Errors => "nic-errors",
            Self::Ring => "ring",
        }
    }

    /// What it means, and what to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::Dropped => {
                "the kernel dropped what the card had received: the queue of a CPU was full (see \
                 softnet), or it is of a protocol that nobody takes, which is no loss"
            }
            Self::Missed => {
                "the card had no free buffer: raise its ring (ethtool -G IF rx N), spread its \
                 interrupts over CPUs"
            }
            Self::Fifo => {
                "the card's own queue overflowed: raise its ring (ethtool -G IF rx N), see \
                 ethtool -S IF"
            }
            Self::Over => "the card could not keep up: see ethtool -S IF",
            Self::Errors => {
                "frames arrived damaged: check cable, transceiver and duplex (ip -s -s link show IF)"
            }
            Self::Ring => {
                "no room in the receive ring of a worker: more --workers, a larger ring_mib, or a \
                 block ring"
            }
        }
    }
}

/// What a full queue of a CPU means, and what to do.
pub const SOFTNET_HELP: &str = "packets found the queue of a CPU full (net.core.netdev_max_backlog), of \
                                any interface and network namespace of the host: raise it, or spread \
                                the load over more CPUs (RSS, RPS)";

/// What the kernel has counted of a link since it exists, by [`Loss::OF_A_LINK`].
pub type LinkCounts = [u64; Loss::OF_A_LINK.len()];

/// The first look at each input interface.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    first: BTreeMap<IfIndex, LinkCounts>,
}

impl Baseline {
    /// Whether an interface has not been looked at.
    pub fn lacks(&self, mut inputs: impl Iterator<Item = IfIndex>) -> bool {
        inputs.any(|index| !self.first.contains_key(&index))
    }

    /// Looks at the input interfaces for the first time, where that is so, and forgets those that are
    /// none any more. An interface whose counts went back was made anew under its old index.
    pub fn look(&mut self, inputs: &BTreeSet<IfIndex>, counts: &BTreeMap<IfIndex, LinkCounts>) {
        self.first.retain(|index, _| inputs.contains(index));
        for index in inputs {
            let Some(counts) = counts.get(index) else { continue };
            let first = self.first.entry(*index).or_insert(*counts);
            if first.iter().zip(counts).any(|(first, now)| now < first) {
                *first = *counts;
            }
        }
    }

    /// What an interface has lost since the first look; nothing where a look is missing.
    pub fn since(&self, index: IfIndex, counts: Option<&LinkCounts>) -> Dropped {
        let Some((first, counts)) = self.first.get(&index).zip(counts) else {
            return Dropped::new();
        };
        let lost = Loss::OF_A_LINK.iter().zip(first.iter().zip(counts));
        let lost = lost.map(|(loss, (first, now))| (loss.name(), now.saturating_sub(*first)));
        lost.filter(|(_, count)| *count > 0).map(|(name, count)| (name.into(), count)).collect()
    }
}

/// Packets that found the queue of a CPU full, since the host started, from the text of
/// `/proc/net/softnet_stat`: its second column, hexadecimal, a line for each CPU, each wrapping at 2³².
/// It is the same in every network namespace.
pub fn softnet_dropped(text: &str) -> Option<Vec<u32>> {
    let dropped = |line: &str| u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    let all: Option<Vec<u32>> = text.lines().map(dropped).collect();
    all.filter(|cpus| !cpus.is_empty())
}

/// What was dropped between two readings of [`softnet_dropped`]. Only CPUs that are online have a line:
/// where their number has changed nothing is known.
pub fn softnet_since(first: &[u32], now: &[u32]) -> Option<u64> {
    let same = first.len() == now.len();
    same.then(|| first.iter().zip(now).map(|(a, b)| u64::from(b.wrapping_sub(*a))).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH0: IfIndex = IfIndex(2);

    fn lost(baseline: &Baseline, counts: LinkCounts) -> Vec<(String, u64)> {
        baseline.since(ETH0, Some(&counts)).into_iter().collect()
    }

    #[test]
    fn what_was_lost_before_the_first_look_is_not_shown() {
        let mut baseline = Baseline::default();
        let (inputs, all) = (BTreeSet::from([ETH0]), |counts| BTreeMap::from([(ETH0, counts)]));
        assert!(baseline.lacks([ETH0].into_iter()));
        assert_eq!(lost(&baseline, [9; 5]), []);
        baseline.look(&inputs, &BTreeMap::new());
        assert!(baseline.lacks([ETH0].into_iter()), "it could not be read");
        baseline.look(&inputs, &all([5, 0, 0, 0, 7]));
        assert!(!baseline.lacks([ETH0].into_iter()));
        assert_eq!(lost(&baseline, [5, 0, 0, 0, 7]), []);
        baseline.look(&inputs, &all([6, 2, 0, 0, 7]));
        let expected = [("nic-dropped".to_owned(), 1), ("nic-missed".to_owned(), 2)];
        assert_eq!(lost(&baseline, [6, 2, 0, 0, 7]), expected);
        assert_eq!(baseline.since(ETH0, None), Dropped::new());

        baseline.look(&inputs, &all([6, 0, 0, 0, 0]));
        assert_eq!(lost(&baseline, [8, 0, 0, 0, 0]), [("nic-dropped".to_owned(), 2)], "made anew");
        baseline.look(&BTreeSet::new(), &all([9; 5]));
        baseline.look(&inputs, &all([9; 5]));
        assert_eq!(lost(&baseline, [9; 5]), [], "it was no input meanwhile");
    }

    #[test]
    fn the_second_column_is_what_was_dropped() {
        let text = "0000a1b2 00000010 00000003 0 0 0 0 0 0 0 0 00000000 00000000\n\
                    0000ffff ffffffff 00000000 0 0 0 0 0 0 0 0 00000000 00000001\n";
        let first = softnet_dropped(text).unwrap();
        assert_eq!(first, [16, u32::MAX]);
        assert_eq!(softnet_since(&first, &[17, 1]), Some(3), "it wraps");
        assert_eq!(softnet_since(&first, &[17]), None);
        for broken in ["", "0000a1b2\n", "1 xyz\n"] {
            assert_eq!(softnet_dropped(broken), None);
        }
    }

    #[test]
    fn the_counts_of_a_link_come_first_in_the_order_of_all() {
        assert_eq!(Loss::ALL[..5], Loss::OF_A_LINK);
        assert_eq!(Loss::ALL.map(|loss| loss as usize), [0, 1, 2, 3, 4, 5]);
    }
}
