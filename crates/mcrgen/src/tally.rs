//! What a receiver knows of each stream: which sequences came, how often, in which order, how late.
//!
//! Pure: packets go in with their receive stamps, numbers come out. Duplicates are found exactly,
//! by one bit per sequence.

use hdrhistogram::Histogram;

use crate::args::MAX_EXPECT;
use crate::payload::{Fault, Header};

#[cfg(test)]
mod tests;

/// The counts of one stream.
pub(crate) struct Tally {
    /// The stream's number in the payload; any other is foreign.
    stream: u32,
    expect: Option<u64>,
    /// The run of the first packet; another run would be another sender.
    run: Option<u64>,
    seen: Vec<u64>,
    /// One more than the highest sequence seen: RFC 4737's NextExp.
    next: u64,
    /// Distinct sequences.
    pub(crate) received: u64,
    /// Copies of packets that had come before.
    pub(crate) duplicated: u64,
    /// Packets with a sequence below one that came before (RFC 4737 section 3).
    pub(crate) reordered: u64,
    /// Packets whose CRC does not fit.
    pub(crate) corrupt: u64,
    /// Packets of another stream, another sender or another tool.
    pub(crate) foreign: u64,
    /// Packets with sequences of `expect` and above.
    pub(crate) surplus: u64,
    /// Payload bytes of received and duplicated packets.
    pub(crate) bytes: u64,
    /// Nanoseconds from the sender's stamp to the kernel's receive stamp, precise to 1 %.
    pub(crate) latency: Histogram<u32>,
}

impl Tally {
    /// For the stream of this number, with `expect` packets if known, at most [`MAX_EXPECT`].
    pub(crate) fn new(stream: u32, expect: Option<u64>) -> Self {
        let words = expect.map_or(0, |expect| expect.div_ceil(64) as usize);
        Self {
            stream,
            expect,
            run: None,
            seen: vec![0; words],
            next: 0,
            received: 0,
            duplicated: 0,
            reordered: 0,
            corrupt: 0,
            foreign: 0,
            surplus: 0,
            bytes: 0,
            latency: latencies(),
        }
    }

    /// Takes in a payload that was stamped `stamp` (CLOCK_REALTIME, ns) on receipt; true if it is a
    /// packet of this stream.
    pub(crate) fn take(&mut self, payload: &[u8], stamp: u64) -> bool {
        match Header::read(payload) {
            Err(Fault::Foreign) => self.foreign += 1,
            Err(Fault::Corrupt) => self.corrupt += 1,
            Ok(header) if header.stream != self.stream => self.foreign += 1,
            Ok(header) if *self.run.get_or_insert(header.run) != header.run => self.foreign += 1,
            Ok(header) if header.sequence >= self.expect.unwrap_or(MAX_EXPECT) => self.surplus += 1,
            Ok(header) => {
                self.bytes += payload.len() as u64;
                self.count(header.sequence);
                // A receiver's clock behind the sender's gives 0.
                self.latency.saturating_record(stamp.saturating_sub(header.sent));
                return true;
            }
        }
        false
    }

    /// Whether every expected packet has come.
    pub(crate) fn complete(&self) -> bool {
        self.expect == Some(self.received)
    }

    /// Expected packets, or those up to the highest sequence seen, that have not come.
    pub(crate) fn lost(&self) -> u64 {
        self.expect.unwrap_or(self.next) - self.received
    }

    fn count(&mut self, sequence: u64) {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        if sequence < self.next {
            self.reordered += 1;
        } else {
            self.next = sequence + 1;
        }
    }
}

/// A histogram of latencies in nanoseconds, up to a minute, precise to two digits. A third would
/// cost 10 % of the receiver's CPU: the histograms of 150 streams would not stay in the cache.
pub(crate) fn latencies() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("the bounds are constants in order")
}

/// When packets of all streams together came.
pub(crate) struct Arrivals {
    first: u64,
    last: u64,
    longest_burst: u32,
    /// A ring of the last [`WINDOWS`] windows: the window's number and its packets. Streams are read
    /// one after another, so stamps are in disorder by as much as a socket buffer holds.
    windows: Vec<(u32, u32)>,
}

/// The window of the longest burst, in microseconds.
pub(crate) const WINDOW_US: u64 = 100;

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self { first: u64::MAX, last: 0, longest_burst: 0, windows: vec![(0, 0); WINDOWS] }
    }

    /// Counts a packet stamped `stamp` (CLOCK_REALTIME, ns).
    pub(crate) fn take(&mut self, stamp: u64) {
        self.first = self.first.min(stamp);
        self.last = self.last.max(stamp);
        let number = stamp / (WINDOW_US * 1000);
        let window = &mut self.windows[number as usize % WINDOWS];
        // 32 bits of the number tell windows apart for five days.
        if window.0 != number as u32 {
            *window = (number as u32, 0);
        }
        window.1 += 1;
        self.longest_burst = self.longest_burst.max(window.1);
    }

    /// Seconds from the first to the last packet.
    pub(crate) fn seconds(&self) -> f64 {
        self.last.saturating_sub(self.first) as f64 * 1e-9
    }

    /// The most packets stamped within one window of 100 µs, counted on a fixed grid of windows.
    pub(crate) fn longest_burst(&self) -> u32 {
        self.longest_burst
    }
}

/// 6.5 s of windows.
const WINDOWS: usize = 1 << 16;
