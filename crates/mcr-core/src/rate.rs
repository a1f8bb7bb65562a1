//! `max_rate` of a rule: the generic cell rate algorithm (ITU-T I.371), which needs one number for
//! each rule: when the next packet is due.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::action::Volume;
use crate::refusal::{Code, Refusal};

/// How far a sender may be ahead of its rate, in nanoseconds: what comes in bursts of up to a tenth
/// of a second is let through.
pub const AHEAD_NS: u64 = 100_000_000;

/// The most that a rule takes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaxRate {
    /// Datagrams.
    Packets(NonZeroU64),
    /// Bits of UDP payload.
    Bits(NonZeroU64),
}

impl MaxRate {
    /// Nanoseconds that the rate gives for that much. The arithmetic of the eBPF program.
    pub fn time_of(self, volume: Volume) -> u64 {
        let (units, per_second) = match self {
            Self::Packets(per_second) => (volume.packets, per_second),
            Self::Bits(per_second) => (volume.bytes * 8, per_second),
        };
        units * 1_000_000_000 / per_second
    }

    /// When the packet after this one is due, or `None` when this one comes too early.
    pub fn next_due(self, due: u64, now: u64, volume: Volume) -> Option<u64> {
        (due <= now.saturating_add(AHEAD_NS)).then(|| due.max(now) + self.time_of(volume))
    }
}

/// The units of tc(8), powers of ten.
const UNITS: [(&str, bool, u64); 7] = [
    ("gbit", false, 1_000_000_000),
    ("mbit", false, 1_000_000),
    ("kbit", false, 1_000),
    ("bit", false, 1),
    ("mpps", true, 1_000_000),
    ("kpps", true, 1_000),
    ("pps", true, 1),
];

impl fmt::Display for MaxRate {
    /// The largest unit that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packets, rate) = match self {
            Self::Packets(rate) => (true, rate.get()),
            Self::Bits(rate) => (false, rate.get()),
        };
        let fits = |(_, of_packets, scale): &&(&str, bool, u64)| {
            *of_packets == packets && rate.is_multiple_of(*scale)
        };
        let (unit, _, scale) = UNITS.iter().find(fits).copied().unwrap_or(("", true, 1));
        write!(f, "{}{unit}", rate / scale)
    }
}

impl FromStr for MaxRate {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let lower = text.to_ascii_lowercase();
        let parsed = UNITS.iter().find_map(|(unit, packets, scale)| {
            let digits = lower.strip_suffix(unit)?;
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let number: u64 = plain.then(|| digits.parse().ok()).flatten()?;
            Some((*packets, number.checked_mul(*scale)?))
        });
        let known = parsed.filter(|(_, rate)| *rate <= RATE_MAX);
        match known.and_then(|(packets, rate)| Some((packets, NonZeroU64::new(rate)?))) {
            Some((true, rate)) => Ok(Self::Packets(rate)),
            Some((false, rate)) => Ok(Self::Bits(rate)),
            None => Err(Refusal::new(
                Code::Invalid,
                format!("max_rate = {text:?} is not a rate"),
                "write a whole number and a unit: 5000pps, 20kpps, 800kbit, 20mbit, 1gbit (bits of UDP \
                 payload)",
            )),
        }
    }
}

/// A terabit.
const RATE_MAX: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_tc_writes_them() {
        for (text, same) in [
            ("5000pps", "5kpps"),
            ("20mbit", "20mbit"),
            ("20Mbit", "20mbit"),
            ("1500kbit", "1500kbit"),
            ("1001bit", "1001bit"),
            ("3000mpps", "3000mpps"),
        ] {
            let rate: MaxRate = text.parse().unwrap();
            assert_eq!(rate.to_string(), same);
            assert_eq!(same.parse::<MaxRate>().unwrap(), rate);
        }
        for text in ["", "0pps", "5000", "pps", "-1pps", "+5pps", "1.5mbit", "5 pps", "2000gbit"] {
            assert!(text.parse::<MaxRate>().is_err(), "{text}");
        }
    }

    #[test]
    fn more_than_the_rate_is_too_early() {
        let rate: MaxRate = "1000pps".parse().unwrap();
        let one = Volume { packets: 1, bytes: 100 };
        let (mut due, mut taken) = (0, 0);
        // Ten times as many as the rate has, over a second.
        for n in 0..10_000_u64 {
            if let Some(next) = rate.next_due(due, 5_000_000_000 + n * 100_000, one) {
                (due, taken) = (next, taken + 1);
            }
        }
        assert!((1100..=1102).contains(&taken), "a second and a tenth: {taken}");
        // At the rate nothing is.
        let (mut due, start) = (0, 5_000_000_000);
        for n in 0..10_000_u64 {
            due = rate.next_due(due, start + n * 1_000_000, one).unwrap();
        }
        // A super-packet counts all it has.
        let many = Volume { packets: 60, bytes: 60_000 };
        assert_eq!(rate.time_of(many), 60_000_000);
        let bits: MaxRate = "1mbit".parse().unwrap();
        assert_eq!(bits.time_of(many), 480_000_000);
    }
}
