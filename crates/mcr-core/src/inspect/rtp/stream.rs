//! The numbers of one source (RFC 3550 A.1 and A.3), which count what never arrived.

use super::Header;
use super::clock::Clock;

/// A number that is further ahead than this begins the stream anew (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// A number that is at least this far behind, too.
const MAX_MISORDER: u16 = 100;
/// The numbers that can still come late, as bits.
const WINDOW: u128 = (1 << MAX_MISORDER) - 1;

/// What became of the packets of a stream, or of several. Those that should have come are packets -
/// duplicated + lost + unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Arrived, in order or not.
    pub packets: u64,
    /// Have not arrived.
    pub lost: u64,
    /// Of those lost, the ones that would still count as late if they came.
    pub missing: u64,
    /// Arrived late, behind a higher number.
    pub reordered: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Missing where the mirror has missed packets, so that nothing is known of them.
    pub unseen: u64,
    /// Times that the numbers began anew.
    pub restarts: u64,
    /// The most in a row that were lost.
    pub longest_gap: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.lost += other.lost;
        self.missing += other.missing;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.unseen += other.unseen;
        self.restarts += other.restarts;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }
}

/// Where a packet stands in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In front of all so far.
    Ahead,
    /// Behind a higher number.
    Late,
    /// It was there before.
    Again,
    /// Far from all others: it counts when the next one follows it.
    Astray,
}

/// One source's packets.
#[derive(Debug, Clone)]
pub struct Stream {
    highest: u16,
    /// Bit n: the number n before the highest has not come.
    missing: u128,
    /// Those that are lost in a row up to the window.
    run: u64,
    /// How many numbers there are since the beginning; no matter how many beyond the window.
    age: u16,
    /// The number that would follow the one that was astray.
    follows: Option<u16>,
    /// The mirror has missed packets since the last one.
    resume: bool,
    /// Without what the window has.
    counts: Counts,
    clock: Clock,
    mark: Mark,
}

/// How things stood before the first packet of a batch.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    batch: u64,
    lost: u64,
    longest_gap: u64,
    restarts: u64,
}

impl Stream {
    /// A stream whose first two packets were in order, of which this is the second.
    pub fn new(second: &Header, batch: u64) -> Self {
        Self {
            highest: second.sequence,
            missing: 0,
            run: 0,
            age: 1,
            follows: None,
            resume: false,
            counts: Counts { packets: 2, ..Counts::default() },
            clock: Clock::default(),
            mark: Mark { batch, ..Mark::default() },
        }
    }

    /// The next packet as it arrived; whether one was astray before that nothing followed.
    pub fn observe(&mut self, header: &Header, batch: u64) -> (Place, bool) {
        if self.mark.batch != batch {
            let Counts { lost, longest_gap, restarts, .. } = self.counts();
            self.mark = Mark { batch, lost, longest_gap, restarts };
        }
        let ahead = header.sequence.wrapping_sub(self.highest);
        let behind = self.highest.wrapping_sub(header.sequence);
        if behind < MAX_MISORDER {
            return (self.late(behind), false);
        }
        if self.resume {
            let known = if ahead < MAX_DROPOUT { u64::from(ahead) - 1 } else { 0 };
            self.counts.unseen += known;
            self.counts.packets += 1;
            self.begin(header.sequence, 0);
            return (Place::Ahead, false);
        }
        if ahead < MAX_DROPOUT {
            self.advance(ahead);
            self.counts.packets += 1;
            return (Place::Ahead, false);
        }
        if self.follows == Some(header.sequence) {
            self.counts.packets += 2;
            self.counts.restarts += 1;
            self.begin(header.sequence, 1);
            return (Place::Ahead, false);
        }
        let before = self.follows.replace(header.sequence.wrapping_add(1));
        (Place::Astray, before.is_some())
    }

    /// The arrival of a packet that is no duplicate, for the jitter.
    pub fn arrived(&mut self, header: &Header, time: u64) {
        self.clock.observe(header.payload_type, header.timestamp, time);
    }

    /// The mirror has missed packets during or after this batch: what is missing since its beginning
    /// may have been there.
    pub fn missed(&mut self, batch: u64) {
        let now = self.counts();
        if self.mark.batch == batch {
            let Mark { lost, longest_gap, restarts, .. } = self.mark;
            self.counts.unseen += now.lost.saturating_sub(lost);
            self.counts.lost = now.lost.min(lost);
            (self.counts.longest_gap, self.counts.restarts) = (longest_gap, restarts);
        } else {
            (self.counts.lost, self.counts.longest_gap) = (now.lost, now.longest_gap);
        }
        (self.missing, self.run, self.age) = (0, 0, 0);
        self.follows = None;
        self.resume = true;
        self.clock.pause();
    }

    /// So far.
    pub fn counts(&self) -> Counts {
        let missing = u64::from(self.missing.count_ones());
        let lost = self.counts.lost + missing;
        Counts { lost, missing, longest_gap: self.longest_gap(), ..self.counts }
    }

    /// Of the last packet.
    pub fn payload_type(&self) -> u8 {
        self.clock.payload_type()
    }

    /// In microseconds.
    pub fn jitter(&self) -> u64 {
        self.clock.jitter()
    }

    /// Numbers are counted from here on; what is missing so far is lost.
    fn begin(&mut self, number: u16, age: u16) {
        let Counts { lost, longest_gap, .. } = self.counts();
        (self.counts.lost, self.counts.longest_gap) = (lost, longest_gap);
        (self.highest, self.missing, self.run, self.age) = (number, 0, 0, age);
        self.follows = None;
        self.resume = false;
        self.clock.pause();
    }

    fn advance(&mut self, ahead: u16) {
        self.highest = self.highest.wrapping_add(ahead);
        self.age = self.age.saturating_add(ahead);
        if self.missing == 0 && ahead == 1 {
            self.run = 0;
            return;
        }
        for step in 1..=ahead {
            let leaves = self.missing >> (MAX_MISORDER - 1) != 0;
            self.run = if leaves { self.run + 1 } else { 0 };
            self.counts.lost += u64::from(leaves);
            self.counts.longest_gap = self.counts.longest_gap.max(self.run);
            self.missing = (self.missing << 1 | u128::from(step != ahead)) & WINDOW;
        }
    }

    fn late(&mut self, behind: u16) -> Place {
        self.counts.packets += 1;
        let bit = 1 << behind;
        // What is older than the beginning has not been there either.
        if self.missing & bit == 0 && behind <= self.age {
            self.counts.duplicated += 1;
            return Place::Again;
        }
        self.missing &= !bit;
        self.counts.reordered += 1;
        Place::Late
    }

    fn longest_gap(&self) -> u64 {
        let (mut longest, mut run) = (self.counts.longest_gap, self.run);
        if self.missing == 0 {
            return longest;
        }
        for behind in (0..MAX_MISORDER).rev() {
            run = if self.missing >> behind & 1 == 1 { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        longest
    }
}
