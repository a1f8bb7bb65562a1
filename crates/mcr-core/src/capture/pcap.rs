//! Capture files in the classic format, with nanoseconds
//! (<https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html>).
//!
//! ```text
//!  0       4     6     8      16     20     24
//! | magic | 2   | 4   | 0    | snap | link | records        file
//!  0         4             8      12       16
//! | seconds | nanoseconds | kept | length | kept bytes      record
//! ```
//!
//! Everything is in little-endian order.

use crate::refusal::{Code, Refusal};

/// Bytes before the first record.
pub const HEADER_LEN: usize = 24;
/// Bytes before those of a frame.
pub const RECORD_LEN: usize = 16;
/// The most bytes of a frame that a record keeps, as tcpdump has it.
pub const SNAP_MAX: u32 = 262_144;

const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: u32 = 4 << 16 | 2;
const NANOSECONDS: u64 = 1_000_000_000;

/// What the frames of a file begin with: `LINKTYPE_*` (<https://www.tcpdump.org/linktypes.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkType {
    /// An Ethernet header: `LINKTYPE_ETHERNET`.
    Ethernet,
    /// IPv4 or IPv6: `LINKTYPE_RAW`.
    Raw,
}

impl LinkType {
    fn number(self) -> u32 {
        match self {
            Self::Ethernet => 1,
            Self::Raw => 101,
        }
    }
}

/// How a file begins.
pub fn header(link: LinkType, snap: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    for (at, word) in [(0, MAGIC), (4, VERSION), (16, snap), (20, link.number())] {
        header[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// Adds a frame that was seen `time` nanoseconds after 1970 began and had `length` bytes.
pub fn add_record(file: &mut Vec<u8>, time: u64, length: usize, kept: &[u8]) {
    let words = [time / NANOSECONDS, time % NANOSECONDS, kept.len() as u64, length as u64];
    file.extend(words.into_iter().flat_map(|word| (word as u32).to_le_bytes()));
    file.extend_from_slice(kept);
}

/// A frame of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'r> {
    /// The whole record as it stands in the file.
    pub raw: &'r [u8],
    /// In nanoseconds since 1970.
    pub time: u64,
    /// Bytes of the frame.
    pub length: usize,
    /// What of it was kept.
    pub kept: &'r [u8],
}

/// Reads a file as it comes, in pieces of any size.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
    /// Up to where `pending` has been read.
    read: usize,
    link: Option<LinkType>,
}

impl Reader {
    /// The next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.pending.drain(..self.read);
        self.read = 0;
        self.pending.extend_from_slice(piece);
    }

    /// What the frames begin with, and the header of the file, when it has just come.
    pub fn begin(&mut self) -> Result<Option<(LinkType, &[u8])>, Refusal> {
        if self.link.is_some() || self.pending.len() < HEADER_LEN {
            return Ok(None);
        }
        if self.word(0) != MAGIC {
            return Err(malformed("it does not begin as a capture does"));
        }
        let types = [LinkType::Ethernet, LinkType::Raw];
        let link = types.into_iter().find(|link| link.number() == self.word(20));
        let link = link.ok_or_else(|| malformed("its link type is unknown"))?;
        self.link = Some(link);
        self.read = HEADER_LEN;
        Ok(Some((link, &self.pending[..HEADER_LEN])))
    }

    /// The next frame that is there whole.
    pub fn record(&mut self) -> Result<Option<Record<'_>>, Refusal> {
        let at = self.read;
        if self.link.is_none() || self.pending.len() < at + RECORD_LEN {
            return Ok(None);
        }
        let kept = self.word(at + 8);
        if kept > SNAP_MAX {
            return Err(malformed("a record is longer than any frame"));
        }
        let end = at + RECORD_LEN + kept as usize;
        let Some(raw) = self.pending.get(at..end) else { return Ok(None) };
        self.read = end;
        Ok(Some(Record {
            raw,
            time: u64::from(self.word(at)) * NANOSECONDS + u64::from(self.word(at + 4)),
            length: self.word(at + 12) as usize,
            kept: &raw[RECORD_LEN..],
        }))
    }

    fn word(&self, at: usize) -> u32 {
        self.pending[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

fn malformed(why: &str) -> Refusal {
    let message = format!("what mcrd sends is no capture: {why}");
    Refusal::new(Code::Malformed, message, "use the mcrctl that came with that mcrd")
}
