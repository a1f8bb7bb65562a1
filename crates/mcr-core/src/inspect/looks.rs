//! What one payload looks like, by its first bytes. A look is a hint: a few bytes may look like
//! anything, so whoever shows it waits until several packets of a stream agree.

pub use super::rtp::Header as RtpLook;
pub use super::ts::PACKET as TS_PACKET;
use super::ts::SYNC;

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

/// Whether it looks like an MPEG transport stream: the sync byte at 0, and every 188 bytes within
/// what there is.
pub fn ts(payload: &[u8]) -> bool {
    !payload.is_empty() && payload.iter().step_by(TS_PACKET).all(|byte| *byte == SYNC)
}

/// Whether it looks like RTP, and not RTCP: what its header says.
pub fn rtp(payload: &[u8]) -> Option<RtpLook> {
    RtpLook::parse(payload)
}

/// What a payload of `length` bytes looks like, which begins with `start` and may be cut short:
/// transport streams are in whole packets, and RTP has a payload type that RFC 3551 assigns or
/// leaves to be agreed on.
pub fn looks_like(start: &[u8], length: usize) -> Option<Kind> {
    kind(start, |start, before| {
        let length = length.saturating_sub(before);
        length > 0 && length.is_multiple_of(TS_PACKET) && ts(start)
    })
}

/// What a payload looks like that begins with `start` and has any length.
pub fn begins_like(start: &[u8]) -> Option<Kind> {
    kind(start, |start, _| ts(start))
}

/// `is_ts` judges what begins after so many bytes.
fn kind(start: &[u8], is_ts: impl Fn(&[u8], usize) -> bool) -> Option<Kind> {
    if is_ts(start, 0) {
        return Some(Kind::Ts);
    }
    let header = rtp(start).filter(|look| matches!(look.payload_type, 0..=34 | 96..=127))?;
    let inside = is_ts(&start[header.header_len..], header.header_len);
    Some(if inside { Kind::RtpTs } else { Kind::Rtp })
}
