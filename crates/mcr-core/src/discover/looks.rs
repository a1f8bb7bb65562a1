//! What a stream looks like, once enough of its packets agree.

use crate::inspect::looks::{RtpLook, TS_PACKET, rtp, ts};

/// So many packets at least.
const ENOUGH: u64 = 3;
/// RTP packets of one stream may come this far apart, by loss and in super-packets.
const STEP_MAX: u16 = 1000;

/// Of the payloads of one stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Looks {
    seen: u64,
    /// Like a transport stream, alone.
    ts: u64,
    /// Like RTP.
    rtp: u64,
    /// Like RTP, with a transport stream in it.
    rtp_ts: u64,
    /// Like RTP, and going on where the one before it was.
    steps: u64,
    last: Option<RtpLook>,
}

impl Looks {
    /// A payload of so many bytes, of which some were kept.
    pub(super) fn add(&mut self, start: &[u8], length: usize) {
        self.seen += 1;
        self.ts += u64::from(is_ts(start, length));
        let Some(look) = rtp(start) else { return };
        self.rtp += 1;
        let rest = length.saturating_sub(look.header_len);
        self.rtp_ts += u64::from(is_ts(&start[look.header_len..], rest));
        let goes_on = |last: RtpLook| {
            let step = look.sequence.wrapping_sub(last.sequence);
            // Forwards, or back by reordering.
            last.ssrc == look.ssrc && step != 0 && step.min(step.wrapping_neg()) <= STEP_MAX
        };
        self.steps += u64::from(self.last.is_some_and(goes_on));
        self.last = Some(look);
    }

    /// RTP is believed when its packets are of one source and their numbers step.
    pub(super) fn rtp(&self) -> Option<RtpLook> {
        self.last.filter(|_| self.most(self.rtp) && self.most(self.steps + 1))
    }

    /// A transport stream, in RTP if it is RTP.
    pub(super) fn ts(&self) -> bool {
        self.most(if self.rtp().is_some() { self.rtp_ts } else { self.ts })
    }

    /// Nine of ten.
    fn most(&self, count: u64) -> bool {
        self.seen >= ENOUGH && count * 10 >= self.seen * 9
    }
}

/// A datagram has whole packets of a transport stream.
fn is_ts(start: &[u8], length: usize) -> bool {
    length.is_multiple_of(TS_PACKET) && ts(start)
}
