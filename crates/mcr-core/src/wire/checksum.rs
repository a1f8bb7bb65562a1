//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use super::be16;

/// The checksum field for `data`, in which the field itself is zero.
pub fn checksum(data: &[u8]) -> u16 {
    !fold(sum(data))
}

/// The one's complement sum of `data`, not yet folded; an odd last byte is padded with zero.
pub fn sum(data: &[u8]) -> u32 {
    let words = data.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |byte| u32::from(*byte) << 8);
    words.map(|word| u32::from(be16(word, 0))).sum::<u32>() + odd
}

/// Adds the carries back in.
pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// HC' = ~(~HC + ~m + m') of RFC 1624 §3: the checksum field after the words `old` became `new`.
/// Both have the same, even length.
pub fn update(field: u16, old: &[u8], new: &[u8]) -> u16 {
    let mut total = u32::from(!field);
    for (old, new) in old.chunks_exact(2).zip(new.chunks_exact(2)) {
        total += u32::from(!be16(old, 0)) + u32::from(be16(new, 0));
    }
    !fold(total)
}

/// A UDP checksum that came out as 0 is sent as 0xffff, since 0 means none (RFC 768).
pub fn mangle_zero(field: u16) -> u16 {
    if field == 0 { 0xffff } else { field }
}
