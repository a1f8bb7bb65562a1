use proptest::prelude::*;

use super::*;

const SAMPLE: Header = Header { run: 7, stream: 3, sequence: 41, sent: 1_700_000_000_123_456_789 };

fn written(header: Header, size: usize) -> Vec<u8> {
    let mut payload = vec![0xAA; size];
    header.write(&Bodies::new(size), &mut payload);
    payload
}

#[test]
fn the_layout_is_as_drawn() {
    let payload = written(SAMPLE, 48);
    assert_eq!(payload[..4], *b"MCRG");
    assert_eq!(payload[8..16], 7_u64.to_be_bytes());
    assert_eq!(payload[16..20], 3_u32.to_be_bytes());
    assert_eq!(payload[20..24], 1_u32.to_be_bytes());
    assert_eq!(payload[24..32], 41_u64.to_be_bytes());
    assert_eq!(payload[32..40], 1_700_000_000_123_456_789_u64.to_be_bytes());
    let mut covered = payload[40..].to_vec();
    covered.extend_from_slice(&payload[..4]);
    covered.extend_from_slice(&payload[8..40]);
    assert_eq!(payload[4..8], crc32fast::hash(&covered).to_be_bytes());
}

#[test]
fn what_is_not_ours_is_foreign() {
    assert_eq!(Header::read(b""), Err(Fault::Foreign));
    assert_eq!(Header::read(&[0; HEADER]), Err(Fault::Foreign));
    assert_eq!(Header::read(&written(SAMPLE, 64)[..39]), Err(Fault::Foreign));
}

#[test]
fn a_cut_payload_is_corrupt() {
    assert_eq!(Header::read(&written(SAMPLE, 64)[..63]), Err(Fault::Corrupt));
    assert_eq!(Header::read(&written(SAMPLE, 64)[..40]), Err(Fault::Corrupt));
}

#[test]
fn a_head_joined_to_the_tail_of_its_neighbours_is_corrupt() {
    let head = written(SAMPLE, 1024);
    let neighbours = [
        Header { sequence: SAMPLE.sequence + 1, ..SAMPLE },
        Header { sequence: SAMPLE.sequence - 1, ..SAMPLE },
        Header { stream: SAMPLE.stream + 1, ..SAMPLE },
    ];
    for neighbour in neighbours {
        let mut joined = head.clone();
        joined[600..].copy_from_slice(&written(neighbour, 1024)[600..]);
        assert_eq!(Header::read(&joined), Err(Fault::Corrupt), "{neighbour:?}");
    }
}

proptest! {
    #[test]
    fn round_trip(run: u64, stream: u32, sequence: u64, sent: u64, size in HEADER..3000_usize) {
        let header = Header { run, stream, sequence, sent };
        prop_assert_eq!(Header::read(&written(header, size)), Ok(header));
    }

    #[test]
    fn any_flipped_bit_is_noticed(size in HEADER..1500_usize, bit: prop::sample::Index) {
        let mut payload = written(SAMPLE, size);
        let bit = bit.index(size * 8);
        payload[bit / 8] ^= 1 << (bit % 8);
        let fault = if bit < 32 { Fault::Foreign } else { Fault::Corrupt };
        prop_assert_eq!(Header::read(&payload), Err(fault));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(payload: Vec<u8>) {
        prop_assert!(Header::read(&payload).is_err());
    }
}
