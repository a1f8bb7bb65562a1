//! Whether a worker that finds its rings empty waits to be woken, or pauses for a moment.
//!
//! To be woken costs several microseconds, of the worker and of whoever wakes it; at 100,000 frames a
//! second and more that is most of the work. So when frames keep coming briskly, the worker lets
//! some gather, as network cards do (interrupt moderation). When they come slowly it is woken for
//! each, at once.

use std::time::Duration;

/// How long frames gather: what is added to the latency then, at most.
pub(super) const PAUSE: Duration = Duration::from_micros(50);
/// So many waits in a row that are shorter than a pause make a brisk stream.
const WAITS: u32 = 8;
/// A pause that gathers fewer frames was not worth it.
const LEAST: usize = 3;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    short_waits: u32,
    paused: bool,
}

impl Rhythm {
    /// A round over all rings has found so many frames.
    pub(super) fn found(&mut self, frames: usize) {
        if std::mem::take(&mut self.paused) && frames < LEAST {
            self.short_waits = 0;
        }
    }

    /// The rings are empty: whether to pause rather than to wait.
    pub(super) fn pauses(&mut self) -> bool {
        self.paused = self.short_waits >= WAITS;
        self.paused
    }

    /// A wait for frames took so long.
    pub(super) fn waited(&mut self, time: Duration) {
        self.short_waits = if time < PAUSE { self.short_waits + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_pauses_while_frames_come_briskly() {
        let mut rhythm = Rhythm::default();
        for _ in 0..WAITS {
            assert!(!rhythm.pauses());
            rhythm.waited(PAUSE / 2);
            rhythm.found(1);
        }
        for _ in 0..10 {
            assert!(rhythm.pauses());
            rhythm.found(LEAST);
            rhythm.found(0);
        }
        assert!(rhythm.pauses());
        rhythm.found(LEAST - 1);
        assert!(!rhythm.pauses());
    }

    #[test]
    fn it_is_woken_for_each_frame_of_a_slow_stream() {
        let mut rhythm = Rhythm::default();
        for _ in 0..100 {
            for _ in 1..WAITS {
                assert!(!rhythm.pauses());
                rhythm.waited(PAUSE / 2);
                rhythm.found(1);
            }
            assert!(!rhythm.pauses());
            rhythm.waited(PAUSE);
            rhythm.found(1);
        }
    }
}
