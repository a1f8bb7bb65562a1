//! Wire formats: checked views of headers, and the arithmetic of their checksums.
//!
//! A view is made by `parse`, which checks every length once; its accessors cannot fail. Nothing
//! here knows a rule.

pub mod checksum;
pub mod ethernet;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod membership;
pub mod udp;

/// Big-endian 16 bits at `at`; the caller has checked the length.
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
