//! The golden frames of `vectors/` through `forward`.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use etherparse::{NetSlice, SlicedPacket, TransportSlice, UdpSlice};
use mcr_core::forward::{
    ForwardTable, Fragments, Frame, HEADERS_MAX, PacketType, Shared, Verdict, forward,
};
use mcr_core::link::IfIndex;
use mcr_core::vectors::{FreshIds, Vector, VectorFrame, bytes, links};

const INDEXES: [IfIndex; 4] = [IfIndex(2), IfIndex(3), IfIndex(4), IfIndex(5)];
const NAMES: [&str; 4] = ["in0", "out0", "out1", "out2"];

fn vectors() -> Vec<(String, Vector)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    let mut vectors = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let vector = Vector::parse(&fs::read_to_string(&path).unwrap());
            vectors.push((name.clone(), vector.unwrap_or_else(|e| panic!("{name}: {e}"))));
        }
    }
    assert!(vectors.len() >= 10, "only {} vectors", vectors.len());
    vectors
}

#[test]
fn forward_does_what_the_vectors_say() {
    for (name, vector) in vectors() {
        let change = vector.change(&links(INDEXES)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut bench = Bench::default();
        bench.table.apply(change);
        let words = Shared::words(vector.rule.len() as u32);
        bench.words = (0..words).map(|_| AtomicU64::new(0)).collect();
        for frame in &vector.frame {
            bench.check(frame, &format!("{name}, {}", frame.about));
        }
    }
}

/// A data plane for the frames of one file.
#[derive(Default)]
struct Bench {
    table: ForwardTable,
    fragments: Fragments,
    words: Vec<AtomicU64>,
    ids: FreshIds,
}

impl Bench {
    fn check(&mut self, expected: &VectorFrame, about: &str) {
        let came = bytes(&expected.hex).unwrap();
        let frame = Frame {
            bytes: &came,
            bare: false,
            interface: INDEXES[0],
            packet_type: PacketType::Here,
            tagged: false,
            segment_size: expected.gso.map_or(0, |gso| gso.size),
            partial_checksum: false,
        };
        let shared = Shared::new(&self.words);
        let matched = match forward(&self.table, (&mut self.fragments, shared), &frame, 1) {
            Verdict::Pass(pass) => return assert_eq!(pass.name(), expected.verdict, "{about}"),
            Verdict::Drop(_, reason, ..) => {
                return assert_eq!(reason.name(), expected.verdict, "{about}");
            }
            Verdict::Match(matched) => matched,
        };
        assert_eq!("forwarded", expected.verdict, "{about}");
        assert_eq!(matched.rule.outputs.len(), expected.out.len(), "{about}");
        for (output, expected) in matched.rule.outputs.iter().zip(&expected.out) {
            let mut headers = [0; HEADERS_MAX];
            let result = matched.rewrite(output, shared, &came, &mut headers);
            let result = result.map_err(|reason| reason.name().to_owned());
            let sent =
                result.map(|length| [&headers[..length], &came[matched.headers_len()..]].concat());
            if output.absent.is_none() {
                let position = INDEXES.iter().position(|index| *index == output.interface);
                assert_eq!(NAMES[position.unwrap()], expected.on, "{about}");
            }
            let wanted = match (&expected.hex, &expected.dropped, &sent) {
                (Some(hex), None, Ok(sent)) if expected.fresh_id => {
                    let wanted = bytes(hex).unwrap();
                    let wanted = self.ids.expected(&came, sent, wanted);
                    Ok(wanted.unwrap_or_else(|e| panic!("{about}: {e}")))
                }
                (Some(hex), None, _) => Ok(bytes(hex).unwrap()),
                (None, Some(reason), _) => Err(reason.clone()),
                (Some(_), Some(_), _) | (None, None, _) => {
                    panic!("{about}: hex or dropped, one of them")
                }
            };
            assert_eq!(sent, wanted, "{about}, {}", output.destination);
        }
    }
}

/// The frames that leave are right by the word of somebody who does not know MCR.
#[test]
fn frames_that_leave_have_right_checksums() {
    for (name, vector) in vectors() {
        let outputs = vector.frame.iter().flat_map(|f| f.out.iter().map(move |o| (&f.about, o)));
        for (about, hex) in outputs.filter_map(|(about, o)| Some((about, o.hex.as_ref()?))) {
            let frame = bytes(hex).unwrap();
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let (made, udp, cut) = match (&packet.net, &packet.transport) {
                (Some(NetSlice::Ipv4(ip)), transport) => {
                    let header = ip.header().to_header();
                    let made = header.calc_header_checksum();
                    assert_eq!(made, header.header_checksum, "{name}, {about}");
                    let made = |udp: &UdpSlice<'_>| {
                        udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap()
                    };
                    (
                        transport.as_ref().map(udp_of).map(made),
                        transport,
                        ip.is_payload_fragmented(),
                    )
                }
                (Some(NetSlice::Ipv6(ip)), transport) => {
                    let header = ip.header().to_header();
                    let made = |udp: &UdpSlice<'_>| {
                        udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap()
                    };
                    (
                        transport.as_ref().map(udp_of).map(made),
                        transport,
                        ip.is_payload_fragmented(),
                    )
                }
                (Some(NetSlice::Arp(_)) | None, _) => panic!("{name}, {about}"),
            };
            let there = udp.as_ref().map(|udp| udp_of(udp).checksum());
            let deliberate = about.contains("checksum");
            assert!(cut || there.is_some(), "{name}, {about}: no UDP");
            assert!(deliberate || cut || there == made, "{name}, {about}");
        }
    }
}

fn udp_of<'a>(transport: &'a TransportSlice<'a>) -> &'a UdpSlice<'a> {
    let TransportSlice::Udp(udp) = transport else { panic!("not UDP") };
    udp
}

#[test]
fn fresh_identifications_that_do_not_fit_are_refused() {
    // Two fragments of IPv4, of `sender`; the last bits of the identification are `id`.
    let fragment = |sender: u8, place: u8, id: u8| {
        let hex = format!(
            "0100 5e01 0101 0200 0000 000a 0800 4500 001c 80{id:02x} 20{place:02x} 2011 0000 \
             0a00 00{sender:02x} ef01 0101 0000 0000 0000 0000"
        );
        bytes(&hex).unwrap()
    };
    let mut ids = FreshIds::default();
    let mut sent = |sender, place, id| {
        let sent = fragment(1, place, id);
        ids.expected(&fragment(sender, place, 7), &sent, fragment(1, place, 0))
            .map(|frame| frame[19])
    };
    assert_eq!(sent(1, 0, 0x11), Ok(0x11));
    assert_eq!(sent(1, 1, 0x11), Ok(0x11));
    assert!(sent(1, 2, 0x12).is_err(), "fragments of one datagram");
    assert!(sent(2, 0, 0x11).is_err(), "two datagrams");
    assert_eq!(sent(2, 0, 0x12), Ok(0x12));
}
