//! RTP (RFC 3550): what was lost, late or doubled in streams of numbered packets, and their jitter.
//!
//! ```text
//!  0        1        2               4                   8        12
//! |V P X CC|M   PT  | number        | timestamp         | SSRC   | CSRC ... | extension ...
//! ```

mod clock;
mod session;
mod stream;
#[cfg(test)]
pub(super) mod tests;

pub use clock::clock_rate;
pub use session::{Session, Source};
pub use stream::{Counts, Place, Stream};

/// Bytes of a header without sources and extension.
const FIXED: usize = 12;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the payload is, 0 to 127 (RFC 3551 §6).
    pub payload_type: u8,
    /// Grows by one with each packet, modulo 65,536.
    pub sequence: u16,
    /// When the payload was made, in units of its clock.
    pub timestamp: u32,
    /// Who made it.
    pub ssrc: u32,
    /// Bytes of the header: its contributing sources and its extension included.
    pub header_len: usize,
}

impl Header {
    /// `None` for another version, for RTCP (second byte 192 to 223, RFC 5761 §4), and when the
    /// header is not whole.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk::<FIXED>()?;
        let [flags, kind, n0, n1, t0, t1, t2, t3, s0, s1, s2, s3] = *fixed;
        if flags >> 6 != 2 || matches!(kind, 192..=223) {
            return None;
        }
        let sources = usize::from(flags & 0xf) * 4;
        let mut header_len = FIXED + sources;
        if flags & 0x10 != 0 {
            // Two bytes that the profile defines, and a length in words without these four bytes.
            let [_, _, l0, l1] = *rest.get(sources..)?.first_chunk::<4>()?;
            header_len += 4 + usize::from(u16::from_be_bytes([l0, l1])) * 4;
        }
        (header_len <= packet.len()).then(|| Self {
            payload_type: kind & 0x7f,
            sequence: u16::from_be_bytes([n0, n1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            header_len,
        })
    }
}
