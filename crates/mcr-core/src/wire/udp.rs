//! UDP headers (RFC 768).
//!
//! ```text
//!  0             2                  4        6          8
//! | source port | destination port | length | checksum | payload
//! ```

use super::be16;

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;
/// Offset of the source port.
pub const SOURCE_PORT: usize = 0;
/// Offset of the destination port.
pub const DESTINATION_PORT: usize = 2;
/// Offset of the checksum; 0 there means that the sender made none.
pub const CHECKSUM: usize = 6;

/// A header whose length field may still claim more than this packet holds, as in a first
/// fragment.
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a>(&'a [u8]);

impl<'a> Udp<'a> {
    /// `None` when the header is cut short or claims less than itself.
    pub fn parse(segment: &'a [u8]) -> Option<Self> {
        let udp = Self(segment);
        (segment.len() >= HEADER_LEN && udp.length() >= HEADER_LEN).then_some(udp)
    }

    /// Whether all that the length field claims is there.
    pub fn is_whole(&self) -> bool {
        self.0.len() >= self.length()
    }

    /// Payload bytes that are here: by the length field, or fewer in a first fragment.
    pub fn payload_len(&self) -> usize {
        self.length().min(self.0.len()) - HEADER_LEN
    }

    /// Source port.
    pub fn source_port(&self) -> u16 {
        be16(self.0, SOURCE_PORT)
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        be16(self.0, DESTINATION_PORT)
    }

    /// The checksum; of a packet that this host sends it may be unfinished.
    pub fn checksum(&self) -> u16 {
        be16(self.0, CHECKSUM)
    }

    /// What the length field claims, the header included: at least [`HEADER_LEN`].
    pub fn length(&self) -> usize {
        usize::from(be16(self.0, 4))
    }
}
