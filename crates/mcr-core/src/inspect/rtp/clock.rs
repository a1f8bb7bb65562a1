//! Interarrival jitter (RFC 3550 §6.4.1 and A.8).

/// Units of the timestamp in a second, by payload type (RFC 3551 §6). Types that RFC 3551 leaves to
/// be agreed on outside the stream are taken for video.
pub fn clock_rate(payload_type: u8) -> u32 {
    match payload_type {
        0 | 3..=5 | 7..=9 | 12 | 13 | 15 | 18 => 8_000,
        6 => 16_000,
        10 | 11 => 44_100,
        16 => 11_025,
        17 => 22_050,
        _ => 90_000,
    }
}

/// The smoothed difference between how far apart packets were made and how far apart they arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    payload_type: u8,
    /// Arrival in nanoseconds, and timestamp, of the packet before.
    before: Option<(u64, u32)>,
    nanoseconds: f64,
}

impl Clock {
    /// A packet that arrived at `time`, in nanoseconds.
    pub(super) fn observe(&mut self, payload_type: u8, timestamp: u32, time: u64) {
        if payload_type != self.payload_type {
            *self = Self { payload_type, ..Self::default() };
        }
        if let Some((arrived, made)) = self.before.replace((time, timestamp)) {
            let made = f64::from(timestamp.wrapping_sub(made).cast_signed());
            let made = made * 1e9 / f64::from(clock_rate(payload_type));
            let arrived = time.wrapping_sub(arrived).cast_signed() as f64;
            self.nanoseconds += ((arrived - made).abs() - self.nanoseconds) / 16.0;
        }
    }

    /// The next packet is not compared with the one before.
    pub(super) fn pause(&mut self) {
        self.before = None;
    }

    pub(super) fn payload_type(&self) -> u8 {
        self.payload_type
    }

    /// In microseconds.
    pub(super) fn jitter(&self) -> u64 {
        (self.nanoseconds / 1000.0).round() as u64
    }
}
