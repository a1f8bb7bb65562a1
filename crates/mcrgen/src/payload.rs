//! The payload of a test packet: what a sender writes and a receiver checks.
//!
//! ```text
//!  0       4       8               16      20      24              32              40      size
//!  +-------+-------+---------------+-------+-------+---------------+---------------+--------+
//!  | magic | CRC32 | run           | stream|version| sequence      | sent          | body   |
//!  +-------+-------+---------------+-------+-------+---------------+---------------+--------+
//! ```
//!
//! Big endian. `magic` is "MCRG"; `version` is 1; `run` is one number per sender process; `stream`
//! counts from 1, `sequence` from 0; `sent` is CLOCK_REALTIME in nanoseconds. The CRC covers the
//! body, then the header without the CRC itself: in this order the sender needs to compute only
//! the header's part per packet, because the bodies are 256 slices of one fixed block, chosen by
//! stream and sequence, whose CRCs are computed once. Neighbouring packets have different bodies,
//! so a head joined to another packet's tail does not pass.

use crc32fast::Hasher;

#[cfg(test)]
mod tests;

/// Bytes of the header, the smallest payload.
pub(crate) const HEADER: usize = 40;

/// The largest UDP payload in IPv4: 65535 - 20 - 8.
pub(crate) const MAX_PAYLOAD: usize = 65_507;

/// What a packet says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) run: u64,
    /// Counted from 1.
    pub(crate) stream: u32,
    /// Counted from 0.
    pub(crate) sequence: u64,
    /// CLOCK_REALTIME in nanoseconds.
    pub(crate) sent: u64,
}

/// Why a payload is not one of ours, or no longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// No magic, too short, or another version: not sent by this tool.
    Foreign,
    /// The magic is there and the CRC does not fit.
    Corrupt,
}

impl Header {
    /// Writes the whole payload; `out` has the size that `bodies` was made for.
    pub(crate) fn write(&self, bodies: &Bodies, out: &mut [u8]) {
        let (body, body_crc) = bodies.of(self.stream, self.sequence);
        let (header, rest) = out.split_at_mut(HEADER);
        rest.copy_from_slice(body);
        header[..4].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.run.to_be_bytes());
        header[16..20].copy_from_slice(&self.stream.to_be_bytes());
        header[20..24].copy_from_slice(&VERSION.to_be_bytes());
        header[24..32].copy_from_slice(&self.sequence.to_be_bytes());
        header[32..40].copy_from_slice(&self.sent.to_be_bytes());
        let crc = finish(Hasher::new_with_initial(body_crc), header);
        header[4..8].copy_from_slice(&crc.to_be_bytes());
    }

    /// Checks a received payload, all of it.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, Fault> {
        let (header, body) = payload.split_first_chunk::<HEADER>().ok_or(Fault::Foreign)?;
        if header[..4] != MAGIC {
            return Err(Fault::Foreign);
        }
        let mut hasher = Hasher::new();
        hasher.update(body);
        if finish(hasher, header) != number(header, 4, 4) as u32 {
            return Err(Fault::Corrupt);
        }
        if number(header, 20, 4) as u32 != VERSION {
            return Err(Fault::Foreign);
        }
        Ok(Self {
            run: number(header, 8, 8),
            stream: number(header, 16, 4) as u32,
            sequence: number(header, 24, 8),
            sent: number(header, 32, 8),
        })
    }
}

/// The bodies of all packets of one size, with their CRCs.
pub(crate) struct Bodies {
    block: Vec<u8>,
    crcs: Vec<u32>,
    length: usize,
}

impl Bodies {
    /// For payloads of `size` bytes, at least [`HEADER`].
    pub(crate) fn new(size: usize) -> Self {
        let length = size - HEADER;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        let block: Vec<u8> =
            words.flat_map(u64::to_be_bytes).take(length + VARIANTS * STEP).collect();
        let crcs = (0..VARIANTS).map(|v| crc32fast::hash(&block[v * STEP..][..length])).collect();
        Self { block, crcs, length }
    }

    fn of(&self, stream: u32, sequence: u64) -> (&[u8], u32) {
        // 31 keeps the neighbours of a stream, which are sent next to each other, apart.
        let variant = (u64::from(stream) * 31 + sequence) as usize % VARIANTS;
        (&self.block[variant * STEP..][..self.length], self.crcs[variant])
    }
}

/// The CRC of what `hasher` has seen, followed by the header without its CRC field.
fn finish(mut hasher: Hasher, header: &[u8]) -> u32 {
    hasher.update(&header[..4]);
    hasher.update(&header[8..]);
    hasher.finalize()
}

/// The big-endian number of `length` bytes at `start`.
fn number(header: &[u8; HEADER], start: usize, length: usize) -> u64 {
    header[start..start + length].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

const MAGIC: [u8; 4] = *b"MCRG";
const VERSION: u32 = 1;
const VARIANTS: usize = 256;
const STEP: usize = 8;
