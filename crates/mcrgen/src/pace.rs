//! When messages are due: absolute times, so that the mean rate never drifts.
//!
//! Pure arithmetic on the time since the start; no clock, no sleeping. Message n is due at
//! n / rate. A sender that was held up finds everything due that it missed and sends it at once.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// The shortest sleep. Up to 5,000 messages/s, each leaves at its own due time; above, a wake-up
/// (10 to 20 µs of CPU in a virtual machine) sends all that are due by then: 100 at 500,000/s. The
/// CPU never spins.
pub(crate) const TICK: Duration = Duration::from_micros(200);

/// A steady rate in messages per second, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The rate as a fraction: `packets` / `packets_per_message` per second; 0 for unpaced.
    packets: u64,
    packets_per_message: u64,
}

impl Pace {
    /// `packets` per second in total (0: as fast as possible), `packets_per_message` at a time.
    pub(crate) fn new(packets: u64, packets_per_message: u16) -> Self {
        Self { packets, packets_per_message: u64::from(packets_per_message) }
    }

    /// How many messages are due `elapsed` after the start; the first at once.
    pub(crate) fn due(&self, elapsed: Duration) -> u64 {
        if self.packets == 0 {
            return u64::MAX;
        }
        let messages = elapsed.as_nanos() * u128::from(self.packets) / self.nanos_scale();
        u64::try_from(messages).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// When message `index` (from 0) is due, after the start.
    pub(crate) fn time_of(&self, index: u64) -> Duration {
        if self.packets == 0 {
            return Duration::ZERO;
        }
        let nanos = (u128::from(index) * self.nanos_scale()).div_ceil(u128::from(self.packets));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When to wake up for message `index`, `elapsed` after the start.
    pub(crate) fn wake(&self, index: u64, elapsed: Duration) -> Duration {
        self.time_of(index).max(elapsed + TICK)
    }

    fn nanos_scale(&self) -> u128 {
        u128::from(self.packets_per_message) * 1_000_000_000
    }
}
