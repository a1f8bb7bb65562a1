//! What was seen in the payload of a rule's input, as replies show it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a stream was when it arrived. Counters fall only where their text says so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InspectStats {
    /// What it was: `rtp`, `ts`, `rtp+ts`, or `unknown` as long as nothing was recognised.
    #[serde(rename = "as")]
    pub kind: String,
    /// Of RTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp: Option<RtpStats>,
    /// Of transport streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<TsStats>,
    /// Datagrams that were not what the stream is, and of RTP those that no other followed in order.
    pub other: u64,
    /// Datagrams that were not looked into: transport streams in fragments, and what the mirror has
    /// missed of all inspected rules of the interface.
    pub unseen: u64,
    /// Why nothing is seen at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl InspectStats {
    /// What was wrong with the stream before it came: losses of RTP, else continuity errors.
    pub fn faults(&self) -> Option<(u64, &'static str)> {
        let lost = self.rtp.as_ref().map_or(0, |rtp| rtp.counts.lost);
        let errors = self.ts.as_ref().map_or(0, |ts| ts.continuity_errors);
        match (lost, errors) {
            (0, 0) => None,
            (0, errors) => Some((errors, "continuity errors before MCR")),
            (lost, _) => Some((lost, "lost before MCR")),
        }
    }
}

/// Packets of RTP (RFC 3550). `expected` is packets - duplicated + lost + unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RtpCounts {
    /// Arrived, in order or not.
    pub packets: u64,
    /// Should have come, by their numbers.
    pub expected: u64,
    /// Have not come; falls by those that come late.
    pub lost: u64,
    /// Of those lost, the ones among the last 100 numbers, which may still come.
    pub missing: u64,
    /// Came behind a higher number.
    pub reordered: u64,
    /// Came again.
    pub duplicated: u64,
    /// Missing where the mirror missed packets: nothing is known of them.
    pub unseen: u64,
    /// Times that the numbers began anew, or another source came.
    pub restarts: u64,
    /// The most in a row that have not come.
    pub longest_gap: u64,
}

/// RTP of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RtpStats {
    /// Of all sources.
    #[serde(flatten)]
    pub counts: RtpCounts,
    /// Interarrival jitter (RFC 3550 §6.4.1), the largest of `ssrcs`.
    #[serde(with = "milliseconds")]
    pub jitter_ms: Duration,
    /// The last 8 sources, the last heard first.
    pub ssrcs: Vec<SsrcStats>,
}

/// One source of RTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SsrcStats {
    /// Its number, as in `0x0000cafe`.
    pub ssrc: String,
    /// Where it sends from, `ADDRESS:PORT`.
    pub from: String,
    /// Where it sends to.
    pub to: String,
    /// Of its last packet, 0 to 127.
    pub payload_type: u8,
    /// Units of its timestamp in a second that the jitter is reckoned by.
    pub clock_rate: u32,
    /// Interarrival jitter.
    #[serde(with = "milliseconds")]
    pub jitter_ms: Duration,
    /// Its packets.
    #[serde(flatten)]
    pub counts: RtpCounts,
}

/// Packets of transport streams (ISO/IEC 13818-1), with the names of ETSI TR 101 290.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TsStats {
    /// With a sync byte.
    pub packets: u64,
    /// `Continuity_count_error`.
    pub continuity_errors: u64,
    /// `Sync_byte_error`.
    pub sync_errors: u64,
    /// `Transport_error`.
    pub transport_errors: u64,
    /// With a scrambled payload.
    pub scrambled: u64,
    /// PIDs seen, without padding.
    pub pids: u64,
    /// Whether a program association table came.
    pub pat: bool,
}

/// Milliseconds with three decimals.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_micros() as f64 / 1000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let milliseconds = f64::deserialize(from)?;
        Ok(Duration::try_from_secs_f64(milliseconds / 1000.0).unwrap_or_default())
    }
}
