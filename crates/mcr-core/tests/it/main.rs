//! The golden frames of `vectors/` through `forward`.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mcr_core::forward::{ForwardTable, Frame, PacketType, Verdict, forward};
use mcr_core::link::IfIndex;
use mcr_core::vectors::{Vector, VectorFrame, bytes, links};

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
        let mut table = ForwardTable::default();
        table.apply(change);
        for frame in &vector.frame {
            check(&table, frame, &format!("{name}, {}", frame.about));
        }
    }
}

fn check(table: &ForwardTable, expected: &VectorFrame, about: &str) {
    let came = bytes(&expected.hex).unwrap();
    let frame = Frame {
        bytes: &came,
        interface: INDEXES[0],
        packet_type: PacketType::Here,
        tagged: false,
        segment_size: expected.gso.map_or(0, |gso| gso.size),
        partial_checksum: false,
    };
    let matched = match forward(table, &frame) {
        Verdict::Pass(pass) => return assert_eq!(pass.name(), expected.verdict, "{about}"),
        Verdict::Drop(_, reason, _) => {
            return assert_eq!(reason.name(), expected.verdict, "{about}");
        }
        Verdict::Match(matched) => matched,
    };
    assert_eq!("forwarded", expected.verdict, "{about}");
    assert_eq!(matched.rule.outputs.len(), expected.out.len(), "{about}");
    for (output, expected) in matched.rule.outputs.iter().zip(&expected.out) {
        let position = INDEXES.iter().position(|index| *index == output.interface).unwrap();
        assert_eq!(NAMES[position], expected.on, "{about}");
        let mut copy = came.clone();
        let result = matched.rewrite(output, &mut copy).map_err(|reason| reason.name().to_owned());
        let expected = match (&expected.hex, &expected.dropped) {
            (Some(hex), None) => Ok(bytes(hex).unwrap()),
            (None, Some(reason)) => Err(reason.clone()),
            (Some(_), Some(_)) | (None, None) => panic!("{about}: hex or dropped, one of them"),
        };
        assert_eq!(result.map(|()| copy), expected, "{about}, {}", output.destination);
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
            let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("{name}, {about}") };
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "{name}, {about}");
            let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("{name}") };
            let made = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap();
            let deliberate = about.contains("checksum");
            assert!(deliberate || udp.checksum() == made, "{name}, {about}");
        }
    }
}
