//! What one payload looks like, by its first bytes. A look is a hint: a few bytes may look like
//! anything, so whoever shows it waits until several packets of a stream agree.

/// Bytes of an MPEG transport stream packet (ISO/IEC 13818-1 §2.4.3.2).
pub const TS_PACKET: usize = 188;
/// The first byte of each.
const SYNC: u8 = 0x47;
/// Bytes of an RTP header without contributing sources.
const RTP_HEADER: usize = 12;

/// Whether it looks like an MPEG transport stream: the sync byte at 0, and every 188 bytes within
/// what there is.
pub fn ts(payload: &[u8]) -> bool {
    !payload.is_empty() && payload.iter().step_by(TS_PACKET).all(|byte| *byte == SYNC)
}

/// What an RTP header says (RFC 3550 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpLook {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// The synchronisation source.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Bytes of the header, with contributing sources and extension.
    pub header_len: usize,
}

/// Whether it looks like RTP: version 2, not what RTCP has in place of marker and payload type
/// (192 to 223, RFC 5761 §4), and a header that is there whole.
pub fn rtp(payload: &[u8]) -> Option<RtpLook> {
    let [first, second, s0, s1, _, _, _, _, ssrc @ ..] = *payload.first_chunk::<RTP_HEADER>()?;
    if first >> 6 != 2 || (192..=223).contains(&second) {
        return None;
    }
    let mut header_len = RTP_HEADER + 4 * usize::from(first & 0xf);
    if first & 0x10 != 0 {
        let [_, _, a, b] = *payload.get(header_len..)?.first_chunk::<4>()?;
        header_len += 4 + 4 * usize::from(u16::from_be_bytes([a, b]));
    }
    (header_len <= payload.len()).then(|| RtpLook {
        payload_type: second & 0x7f,
        ssrc: u32::from_be_bytes(ssrc),
        sequence: u16::from_be_bytes([s0, s1]),
        header_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
        [&[first, second, 0x12, 0x34, 0, 0, 0, 1, 0xca, 0xfe, 0xba, 0xbe][..], rest].concat()
    }

    #[test]
    fn a_transport_stream_has_its_sync_bytes() {
        let mut payload = [0_u8; 3 * TS_PACKET];
        assert!(!ts(&payload));
        [0, 188, 376].map(|at| payload[at] = SYNC);
        assert!(ts(&payload));
        assert!(ts(&payload[..200]), "what there is of it");
        payload[188] = 0;
        assert!(!ts(&payload));
        assert!(ts(&payload[..188]));
        assert!(!ts(&[]));
    }

    #[test]
    fn rtp_has_its_header() {
        let look = |header_len| RtpLook {
            payload_type: 33,
            ssrc: 0xcafe_babe,
            sequence: 0x1234,
            header_len,
        };
        assert_eq!(rtp(&header(0x80, 33, b"payload")), Some(look(12)));
        assert_eq!(rtp(&header(0x80, 33 | 0x80, &[])), Some(look(12)), "marked");
        assert_eq!(rtp(&header(0x82, 33, &[0; 8])), Some(look(20)), "two contributing sources");
        assert_eq!(rtp(&header(0x91, 33, &[0, 0, 0, 0, 9, 9, 0, 1, 1, 2, 3, 4])), Some(look(24)));
        for (payload, why) in [
            (header(0x40, 33, &[]), "version 1"),
            (header(0x82, 33, &[0; 7]), "a contributing source is cut"),
            (header(0x90, 33, &[0, 0, 0]), "the extension is cut"),
            (header(0x90, 33, &[0, 0, 0, 1]), "so are its words"),
            (header(0x80, 200, &[0; 16]), "a sender report of RTCP"),
            (header(0x80, 33, &[])[..11].to_vec(), "cut"),
            (Vec::new(), "nothing"),
        ] {
            assert_eq!(rtp(&payload), None, "{why}");
        }
    }
}
