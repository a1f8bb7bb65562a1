use super::*;

/// An IPv4 packet with these flags and offset, and options.
fn v4(bits: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0; header];
    packet[0] = 0x40 | (header / 4) as u8;
    packet[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    packet[4..6].copy_from_slice(&0x1234_u16.to_be_bytes());
    packet[6..8].copy_from_slice(&bits.to_be_bytes());
    (packet[8], packet[9]) = (5, PROTOCOL_UDP);
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet[16..20].copy_from_slice(&[239, 1, 1, 1]);
    [&packet[..], payload].concat()
}

/// Of an extension, its number, and its bytes, of which the first gives way to the number of the next.
type Header = (u8, Vec<u8>);

/// An IPv6 packet with these headers.
fn v6(headers: &[Header], last: u8, payload: &[u8]) -> Vec<u8> {
    let length = headers.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + payload.len();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((length as u16).to_be_bytes());
    packet.extend([headers.first().map_or(last, |(number, _)| *number), 7]);
    packet.extend([0xfd; 16]);
    packet.extend([0xff; 16]);
    for (n, (_, bytes)) in headers.iter().enumerate() {
        let next = headers.get(n + 1).map_or(last, |(number, _)| *number);
        packet.push(next);
        packet.extend(&bytes[1..]);
    }
    packet.extend(payload);
    packet
}

/// A header of so many bytes.
fn options(number: u8, length: usize) -> Header {
    let mut bytes = vec![0; length];
    bytes[1] = (length / 8 - 1) as u8;
    (number, bytes)
}

fn fragment(offset_and_flags: u16) -> Header {
    let [a, b] = offset_and_flags.to_be_bytes();
    // The second byte is reserved, not a length.
    (44, vec![0, 0xff, a, b, 0xde, 0xad, 0xbe, 0xef])
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

#[test]
fn a_packet_says_what_its_headers_say() {
    let bytes = v4(0x4000, 8, b"payload");
    let ip = Ip::parse(&bytes).unwrap();
    assert_eq!((ip.version(), ip.header_len(), ip.payload()), (Version::V4, 28, &b"payload"[..]));
    assert_eq!((ip.protocol(), ip.ttl(), ip.fragment()), (PROTOCOL_UDP, 5, None));
    assert_eq!((ip.source(), ip.destination()), ([10, 0, 0, 1].into(), [239, 1, 1, 1].into()));
    let bytes = v6(&[], PROTOCOL_UDP, b"payload");
    let ip = Ip::parse(&bytes).unwrap();
    assert_eq!((ip.version(), ip.header_len(), ip.payload()), (Version::V6, 40, &b"payload"[..]));
    assert_eq!((ip.protocol(), ip.ttl(), ip.fragment()), (PROTOCOL_UDP, 7, None));
    assert_eq!((ip.source(), ip.destination()), ([0xfd; 16].into(), [0xff; 16].into()));
    let padded = [&bytes[..], &[0xee; 9]].concat();
    assert_eq!(Ip::parse(&padded).unwrap().payload(), b"payload");
}

#[test]
fn extension_headers_are_walked_up_to_the_payload() {
    let eight = |number| options(number, 8);
    let cases = [
        (vec![eight(HOP_BY_HOP)], 17, Some((48, 17))),
        (vec![eight(ROUTING)], 17, Some((48, 17))),
        (vec![eight(DESTINATION)], 17, Some((48, 17))),
        (vec![eight(HOP_BY_HOP)], 58, Some((48, 58))),
        (vec![options(HOP_BY_HOP, 24), options(ROUTING, 24)], 17, Some((88, 17))),
        (vec![fragment(0)], 17, Some((48, 17))),
        (vec![eight(0), eight(43), eight(60), eight(60)], 17, Some((72, 17))),
        // One more is not looked behind.
        (vec![eight(0), eight(60), eight(43), eight(60), eight(60)], 17, Some((72, 60))),
        // What is encrypted, authenticated or of no interest ends the walk.
        (vec![eight(HOP_BY_HOP), (51, vec![0; 8])], 17, Some((48, 51))),
        (vec![], 59, Some((40, 59))),
        (vec![options(DESTINATION, 64)], 17, Some((104, 17))),
        (vec![options(DESTINATION, 72)], 17, None),
        (vec![options(DESTINATION, 32), options(DESTINATION, 40)], 17, None),
    ];
    for (headers, last, expected) in cases {
        let packet = v6(&headers, last, b"payload");
        let found = Ip::parse(&packet).map(|ip| (ip.header_len(), ip.protocol()));
        assert_eq!(found, expected, "{headers:?}");
        if let Some((header_len, protocol)) = found.filter(|(_, protocol)| *protocol == 17) {
            let ip = Ip::parse(&packet).unwrap();
            assert_eq!((ip.payload(), protocol), (&b"payload"[..], 17), "{header_len}");
        }
    }
    assert_eq!(HEADER_MAX, 104);
}

#[test]
fn fragments_are_first_or_later() {
    let part = |first, id, id_at| Some(Fragment { first, id, id_at });
    for (bits, expected) in [
        (0, None),
        (0x4000, None),
        (0x8000, None),
        (0x2000, part(true, 0x1234, 4)),
        (0x2001, part(false, 0x1234, 4)),
        (0x1fff, part(false, 0x1234, 4)),
        (1, part(false, 0x1234, 4)),
    ] {
        assert_eq!(Ip::parse(&v4(bits, 0, b"payload")).unwrap().fragment(), expected, "{bits:#x}");
    }
    let id = 0xdead_beef;
    for (bits, expected) in [
        // Whole (RFC 6946); the reserved bits say nothing.
        (0, None),
        (6, None),
        (1, part(true, id, 44)),
        (7, part(true, id, 44)),
        (8, part(false, id, 44)),
        (9, part(false, id, 44)),
        (0xfff8, part(false, id, 44)),
    ] {
        let packet = v6(&[fragment(bits)], 17, b"payload");
        let ip = Ip::parse(&packet).unwrap();
        assert_eq!((ip.fragment(), ip.header_len()), (expected, 48), "{bits:#x}");
    }
    // Behind a later one stands no header but what the first has there.
    let headers = [options(HOP_BY_HOP, 8), fragment(8), options(DESTINATION, 8)];
    let packet = v6(&headers, 17, b"payload");
    let ip = Ip::parse(&packet).unwrap();
    assert_eq!((ip.fragment(), ip.protocol()), (part(false, id, 52), DESTINATION));
    assert_eq!(ip.header_len(), 56);
    let headers = [options(HOP_BY_HOP, 8), fragment(1), options(DESTINATION, 8)];
    let packet = v6(&headers, 17, b"payload");
    let ip = Ip::parse(&packet).unwrap();
    assert_eq!((ip.fragment(), ip.protocol()), (part(true, id, 52), PROTOCOL_UDP));
}

#[test]
fn an_identification_is_needed_where_somebody_may_cut() {
    for (bits, needed) in [(0, true), (0x8000, true), (0x4000, false), (0x2000, false), (1, false)]
    {
        let packet = v4(bits, 0, b"payload");
        assert_eq!(Ip::parse(&packet).unwrap().needs_id(), needed.then_some(4), "{bits:#x}");
    }
    assert_eq!(Ip::parse(&v6(&[], 17, b"payload")).unwrap().needs_id(), None);
}

#[test]
fn what_is_cut_short_anywhere_is_no_packet() {
    let packets = [
        v4(0, 0, b"payload"),
        v4(0x2000, 40, b"payload"),
        v6(&[], 17, b"payload"),
        v6(&[options(0, 8), options(43, 24), fragment(1), options(60, 16)], 17, b"payload"),
        v6(&[fragment(8)], 17, b"payload"),
    ];
    for packet in packets {
        assert!(Ip::parse(&packet).is_some());
        for end in 0..packet.len() {
            assert!(Ip::parse(&packet[..end]).is_none(), "{end} of {packet:02x?}");
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_no_packet() {
    let patched = |mut packet: Vec<u8>, at: usize, byte: u8| {
        packet[at] = byte;
        packet
    };
    let plain4 = || v4(0, 0, b"payload");
    let with_options = || v6(&[options(HOP_BY_HOP, 8)], 17, b"payload");
    let cases = [
        patched(plain4(), 0, 0x44),
        patched(plain4(), 0, 0x4f),
        patched(plain4(), 0, 0x55),
        patched(plain4(), 3, 19),
        patched(plain4(), 3, 28),
        // The extension header says more than there is.
        patched(with_options(), 41, 1),
        patched(with_options(), 41, 255),
        // The packet ends within it, and within the fixed header of it.
        patched(with_options(), 5, 7),
        patched(with_options(), 5, 0),
        patched(with_options(), 0, 0x50),
    ];
    for packet in cases {
        assert!(Ip::parse(&packet).is_none(), "{packet:02x?}");
    }
    assert!(Ip::parse(&[]).is_none());
}

#[test]
fn the_start_of_a_packet_is_enough_when_its_headers_are_there() {
    for bytes in [v4(0x4000, 8, &[7; 100]), v6(&[options(HOP_BY_HOP, 16)], 17, &[7; 100])] {
        let whole = Ip::parse(&bytes).unwrap();
        let header_len = whole.header_len();
        for kept in 0..bytes.len() {
            let ip = Ip::parse_start(&bytes[..kept], bytes.len());
            assert_eq!(ip.is_some(), kept >= header_len, "{kept}");
            let Some(ip) = ip else { continue };
            assert_eq!((ip.payload().len(), ip.payload_len()), (kept - header_len, 100));
            assert_eq!((ip.source(), ip.destination()), (whole.source(), whole.destination()));
        }
        assert!(Ip::parse_start(&bytes, bytes.len() - 1).is_none(), "more than came");
        // Padding of the link is no payload.
        let padded = [&bytes[..], &[0; 9]].concat();
        assert_eq!(Ip::parse_start(&padded, padded.len()).unwrap().payload(), [7; 100]);
    }
}
