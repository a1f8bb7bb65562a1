//! What a UDP payload looks like, by its own bytes alone.

use super::rtp::Header;
use super::ts::{PACKET, SYNC};

/// What a payload is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RTP.
    Rtp,
    /// A transport stream in UDP itself.
    Ts,
    /// A transport stream in RTP.
    RtpTs,
}

impl Kind {
    /// The name in replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtp => "rtp",
            Self::Ts => "ts",
            Self::RtpTs => "rtp+ts",
        }
    }
}

/// What a payload of `length` bytes looks like, which begins with `start` and may be cut short.
pub fn looks_like(start: &[u8], length: usize) -> Option<Kind> {
    kind(start, |start, before| looks_like_ts(start, length - before))
}

/// What a payload looks like that begins with `start` and has any length.
pub fn begins_like(start: &[u8]) -> Option<Kind> {
    kind(start, |start, _| has_syncs(start))
}

/// `is_ts` judges what begins after so many bytes.
fn kind(start: &[u8], is_ts: impl Fn(&[u8], usize) -> bool) -> Option<Kind> {
    if is_ts(start, 0) {
        return Some(Kind::Ts);
    }
    let header = Header::parse(start).filter(is_known)?;
    let inside = is_ts(&start[header.length..], header.length);
    Some(if inside { Kind::RtpTs } else { Kind::Rtp })
}

/// Whether a payload that begins with `start` can be RTP (RFC 3550 §5.1) of a payload type that RFC
/// 3551 assigns or leaves to be agreed on. RTCP is not (RFC 5761 §4).
pub fn looks_like_rtp(start: &[u8]) -> bool {
    Header::parse(start).as_ref().is_some_and(is_known)
}

/// Whether a payload of `length` bytes that begins with `start` is whole packets of a transport
/// stream (ISO/IEC 13818-1 §2.4.3), as far as their sync bytes are there.
pub fn looks_like_ts(start: &[u8], length: usize) -> bool {
    length >= PACKET && length.is_multiple_of(PACKET) && has_syncs(start)
}

fn has_syncs(start: &[u8]) -> bool {
    !start.is_empty() && start.iter().step_by(PACKET).all(|byte| *byte == SYNC)
}

fn is_known(header: &Header) -> bool {
    matches!(header.payload_type, 0..=34 | 96..=127)
}
