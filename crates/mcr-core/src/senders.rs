//! Who sends to a rule: the last few source addresses, each with its packets and when it was last
//! seen.
//!
//! A plane keeps a [`Table`] for each rule and each CPU or worker, without locks and without memory
//! of its own: words that one writes and the daemon reads. The eBPF program does the same (`state.h`),
//! with the same words. [`Senders::merge`] makes one list of all tables of a rule.
//!
//! A sender that is seen no more gives its place to a new one, and what it counted is gone: packets
//! are since the address has its place, which is "since the rule exists" as long as there are no more
//! than [`SENDERS`] of them.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Senders that are remembered of a rule.
pub const SENDERS: usize = 4;
/// u64 words of a table: the place of the latest packet, then for each place the address (two words
/// in network byte order, IPv4 mapped), packets, and when it was last seen.
pub const WORDS: usize = 1 + SENDERS * PLACE;

const PLACE: usize = 4;
const PACKETS: usize = 2;
const SEEN: usize = 3;

/// One sender of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Its source address.
    pub address: IpAddr,
    /// Datagrams, also those that `max_rate` drops.
    pub packets: u64,
    /// When the last one came, by a clock of the plane (ticks of the kernel, or nanoseconds): it tells
    /// which of two came later, and that one has come since the last reading.
    pub seen: u64,
}

/// The senders of a rule, the latest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Senders([Option<Sender>; SENDERS]);

impl Senders {
    /// One list of several tables: packets of an address are summed up, and of more than
    /// [`SENDERS`] addresses the latest stay.
    pub fn merge(all: impl IntoIterator<Item = Sender>) -> Self {
        let mut sums: Vec<Sender> = Vec::new();
        for one in all {
            match sums.iter_mut().find(|sum| sum.address == one.address) {
                Some(sum) => {
                    sum.packets += one.packets;
                    sum.seen = sum.seen.max(one.seen);
                }
                None => sums.push(one),
            }
        }
        sums.sort_by_key(|sender| (Reverse(sender.seen), sender.address));
        let mut latest = sums.into_iter();
        Self(std::array::from_fn(|_| latest.next()))
    }

    /// The latest first.
    pub fn iter(&self) -> impl Iterator<Item = &Sender> {
        self.0.iter().flatten()
    }
}

/// A table of senders, in words that are 0 at first. One writes, others may read.
#[derive(Debug, Clone, Copy)]
pub struct Table<'m>(&'m [AtomicU64; WORDS]);

impl<'m> Table<'m> {
    /// In these words.
    pub fn new(words: &'m [AtomicU64; WORDS]) -> Self {
        Self(words)
    }

    /// Counts what came from an address at `now`. A new one takes the place of the one that was not
    /// seen for longest, never of the latest; of several the first behind the latest, in a circle.
    pub fn note(self, address: IpAddr, packets: u64, now: u64) {
        let raw = raw(address);
        let latest = self.read(0) as usize % SENDERS;
        let place = if self.is_at(latest, raw) {
            latest
        } else {
            let others = (1..SENDERS).map(|n| (latest + n) % SENDERS);
            let place = others.clone().find(|place| self.is_at(*place, raw)).unwrap_or_else(|| {
                let seen = |place: &usize| self.read(at(*place, SEEN));
                let oldest = others.min_by_key(seen).unwrap_or(latest);
                self.begin(oldest, raw);
                oldest
            });
            self.write(0, place as u64);
            place
        };
        let counted = self.read(at(place, PACKETS));
        self.write(at(place, PACKETS), counted.wrapping_add(packets));
        self.write(at(place, SEEN), now);
    }

    /// What is in it, in no order.
    pub fn senders(self) -> impl Iterator<Item = Sender> {
        senders(self.0.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    fn is_at(self, place: usize, [high, low]: [u64; 2]) -> bool {
        self.read(at(place, 0)) == high && self.read(at(place, 1)) == low
    }

    /// Whoever reads meanwhile finds no packets of a mixed address, or few.
    fn begin(self, place: usize, [high, low]: [u64; 2]) {
        self.write(at(place, PACKETS), 0);
        self.write(at(place, 0), high);
        self.write(at(place, 1), low);
    }

    fn read(self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    fn write(self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Relaxed);
    }
}

/// What is in the words of a table, in no order.
pub fn senders(words: [u64; WORDS]) -> impl Iterator<Item = Sender> {
    (0..SENDERS).filter_map(move |place| {
        let [high, low, packets, seen] = std::array::from_fn(|n| words[at(place, n)]);
        (packets > 0).then(|| Sender { address: address([high, low]), packets, seen })
    })
}

fn at(place: usize, word: usize) -> usize {
    1 + place * PLACE + word
}

fn raw(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64].map(u64::to_be)
}

fn address(raw: [u64; 2]) -> IpAddr {
    let [high, low] = raw.map(|word| u128::from(u64::from_be(word)));
    Ipv6Addr::from_bits(high << 64 | low).to_canonical()
}
