//! What all who forward for one relay share: the identifications that datagrams get, and when the
//! next packet of a rule is due. Words of memory, written by all without a lock.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::action::{RuleId, Volume};
use crate::rate::MaxRate;

/// Counters of identifications, each for the pairs of addresses that fall to it.
const PAIRS: usize = 1024;
/// The number that the next fragmented datagram gets.
const FRAGMENTED: usize = PAIRS;
const DUE: usize = PAIRS + 1;

/// The shared words.
///
/// Identifications (RFC 6864) are made anew, since a pair of addresses of a relay's output has the
/// datagrams of several senders. Whole datagrams that somebody may cut have the lower half of the
/// numbers, a sequence for each pair; fragmented ones the upper half, one sequence for all.
#[derive(Debug, Clone, Copy)]
pub struct Shared<'m>(&'m [AtomicU64]);

impl<'m> Shared<'m> {
    /// How many words are needed for ids below `rules`.
    pub fn words(rules: u32) -> usize {
        DUE + rules as usize
    }

    /// In memory that is 0 at first, as large as [`Shared::words`] says.
    pub fn new(words: &'m [AtomicU64]) -> Self {
        Self(words)
    }

    /// Begins the identifications at `random` numbers: a relay that starts again does not repeat those
    /// of datagrams that are still on their way.
    pub fn begin(self, mut random: impl FnMut() -> u64) {
        for counter in &self.0[..=FRAGMENTED] {
            counter.store(random(), Ordering::Relaxed);
        }
    }

    /// For an id that is used for the first time since it was last free: its next packet is due.
    pub fn clear_rule(self, rule: RuleId) {
        self.0[DUE + rule.0 as usize].store(0, Ordering::Relaxed);
    }

    /// The identification of the next fragmented datagram, 32 bits; IPv4 takes its lower half as
    /// [`Shared::upper`] makes it.
    pub(super) fn fragmented(self) -> u32 {
        self.0[FRAGMENTED].fetch_add(1, Ordering::Relaxed) as u32
    }

    /// The identification of the next `count` datagrams from `source` to `destination`.
    pub(super) fn whole(self, source: IpAddr, destination: IpAddr, count: u64) -> u16 {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { return 0 };
        let hash = (source.to_bits() ^ destination.to_bits().rotate_left(16)).wrapping_mul(GOLDEN);
        let pair = (hash >> 22) as usize;
        self.0[pair].fetch_add(count, Ordering::Relaxed) as u16 & 0x7fff
    }

    /// Of a fragmented datagram's number, what IPv4 has room for.
    pub(super) fn upper(number: u32) -> u16 {
        number as u16 | 0x8000
    }

    /// Whether a packet is within the rate of its rule.
    pub(super) fn admit(self, rule: RuleId, max: MaxRate, now: u64, volume: Volume) -> bool {
        let due = &self.0[DUE + rule.0 as usize];
        due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| max.next_due(due, now, volume))
            .is_ok()
    }
}

/// 2^32 divided by the golden ratio.
const GOLDEN: u32 = 0x9e37_79b1;

const _: () = assert!(PAIRS == 1 << (32 - 22));
