//! MPEG transport streams (ISO/IEC 13818-1 §2.4.3): the first-priority errors of TR 101 290 that
//! can be seen without knowing the programs.
//!
//! ```text
//!  0     1                2     3                    4
//! |0x47 |E  S  P  PID... |PID  |SC   AF  continuity |adaptation length | D... | payload
//! ```

#[cfg(test)]
pub(super) mod tests;

/// Bytes of a packet.
pub const PACKET: usize = 188;
/// Its first byte.
pub const SYNC: u8 = 0x47;
/// Padding, whose counter means nothing.
const PID_NULL: u16 = 0x1fff;
/// The program association table.
const PID_PAT: u16 = 0;

/// Of a PID: the last counter in the lower four bits, and these.
const KNOWN: u8 = 0x10;
const REPEATED: u8 = 0x20;
const SEEN: u8 = 0x40;

/// What became of the packets of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// With a sync byte.
    pub packets: u64,
    /// Counters that did not go on where they should (`Continuity_count_error`).
    pub continuity_errors: u64,
    /// Without a sync byte (`Sync_byte_error`; `TS_sync_loss` when it lasts).
    pub sync_errors: u64,
    /// Marked as damaged on the way to the sender (`transport_error_indicator`, `Transport_error`).
    pub transport_errors: u64,
    /// With a scrambled payload.
    pub scrambled: u64,
    /// PIDs seen, without padding.
    pub pids: u64,
    /// Whether a program association table was seen (its absence is `PAT_error`).
    pub pat: bool,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.continuity_errors += other.continuity_errors;
        self.sync_errors += other.sync_errors;
        self.transport_errors += other.transport_errors;
        self.scrambled += other.scrambled;
        self.pids += other.pids;
        self.pat |= other.pat;
    }
}

/// One stream.
#[derive(Debug, Clone)]
pub struct Stream {
    pids: Box<[u8]>,
    counts: Counts,
    /// Continuity errors before the first packet of a batch.
    mark: (u64, u64),
}

impl Default for Stream {
    fn default() -> Self {
        let pids = vec![0; usize::from(PID_NULL)].into();
        Self { pids, counts: Counts::default(), mark: (0, 0) }
    }
}

impl Stream {
    /// A datagram's payload as it arrived. False, and nothing counted, for what is no packets: of
    /// another length, without a sync byte at its beginning.
    pub fn observe(&mut self, payload: &[u8], batch: u64) -> bool {
        if self.mark.0 != batch {
            self.mark = (batch, self.counts.continuity_errors);
        }
        let packets = payload.chunks_exact(PACKET);
        let rest = packets.remainder();
        let begins = payload.first() == Some(&SYNC);
        if payload.len() < PACKET || !(rest.is_empty() || begins) {
            return false;
        }
        self.counts.sync_errors += u64::from(!rest.is_empty());
        for packet in packets {
            match packet {
                [SYNC, high, low, flags, length, adaptation, ..] => {
                    self.packet([*high, *low, *flags], [*length, *adaptation]);
                }
                _ => self.counts.sync_errors += 1,
            }
        }
        true
    }

    /// As [`super::rtp::Stream::missed`].
    pub fn missed(&mut self, batch: u64) {
        if self.mark.0 == batch {
            self.counts.continuity_errors = self.mark.1;
        }
        self.resume();
    }

    /// What comes next is not held against what came before.
    pub fn resume(&mut self) {
        self.pids.iter_mut().for_each(|state| *state &= SEEN);
    }

    /// So far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn packet(&mut self, [high, low, flags]: [u8; 3], adaptation: [u8; 2]) {
        self.counts.packets += 1;
        let damaged = high & 0x80 != 0;
        let pid = u16::from_be_bytes([high & 0x1f, low]);
        self.counts.transport_errors += u64::from(damaged);
        self.counts.scrambled += u64::from(flags & 0xc0 != 0 && !damaged && pid != PID_NULL);
        // Padding is beyond the end.
        let Some(state) = self.pids.get_mut(usize::from(pid)) else { return };
        if !damaged && *state & SEEN == 0 {
            *state |= SEEN;
            self.counts.pids += 1;
            self.counts.pat |= pid == PID_PAT;
        }
        let (has_adaptation, has_payload) = (flags & 0x20 != 0, flags & 0x10 != 0);
        if !has_adaptation && !has_payload {
            // Reserved, to be discarded (§2.4.3.3).
            return;
        }
        let [length, first] = adaptation;
        let discontinuity = has_adaptation && length > 0 && first & 0x80 != 0;
        let next = goes_on(*state, flags & 0xf, has_payload);
        // Of a damaged packet nothing is certain, but what fits is taken.
        if damaged && (next.is_none() || *state & KNOWN == 0) {
            return;
        }
        self.counts.continuity_errors += u64::from(next.is_none() && !discontinuity);
        let begins = if discontinuity { None } else { next };
        *state = *state & SEEN | begins.unwrap_or(KNOWN | flags & 0xf);
    }
}

/// The state of a PID after a counter that may follow: one more with a payload, the same without,
/// and once the same with a payload, which is then the packet sent again.
fn goes_on(state: u8, counter: u8, has_payload: bool) -> Option<u8> {
    let last = state & 0xf;
    if state & KNOWN == 0 || has_payload && counter == (last + 1) & 0xf {
        return Some(KNOWN | counter);
    }
    let again = counter == last && (!has_payload || state & REPEATED == 0);
    again.then_some(state & !SEEN | if has_payload { REPEATED } else { 0 })
}
