mod fragments;
mod ipv6;
mod lookup;
mod random;

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Extensions, Ipv4Header, NetHeaders, PacketBuilder, PacketHeaders,
    TransportHeader, UdpHeader, VlanId,
};

use super::*;
use crate::action::{LinkHeader, OutputId, PlaneChange, PlaneOutput, RuleId, Take, ToStack};
use crate::flow::{AddressBlock, PortRange};
use crate::link::IfIndex;
use crate::rule::{Dscp, Ttl};
use crate::verdict::OutputDrop;
use crate::wire::checksum;

const SENDER: [u8; 4] = [10, 0, 0, 1];
const OUR: [u8; 4] = [10, 1, 0, 9];
const GROUP: [u8; 4] = [239, 1, 1, 1];
const SENDER_MAC: [u8; 6] = [2, 9, 9, 9, 9, 9];
const ETH0: IfIndex = IfIndex(2);
const LO: IfIndex = IfIndex(1);
const UDP_CHECKSUM: usize = 14 + 20 + udp::CHECKSUM;

fn single(address: impl Into<IpAddr>) -> AddressBlock {
    AddressBlock::single(address.into())
}

fn ports(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

/// To 239.10.1.1, 1000 ports up.
fn output() -> PlaneOutput {
    PlaneOutput {
        id: OutputId(0),
        absent: None,
        interface: IfIndex(3),
        mtu: 9000,
        carrier: true,
        header: LinkHeader::Ethernet { source: [2, 0, 0, 0, 0, 3], next_hop: None },
        source: Some(OUR.into()),
        source_port: None,
        destination: single([239, 10, 1, 1]),
        port_shift: 1000,
        ttl: Ttl::default(),
        dscp: Dscp::Keep,
    }
}

/// Takes 239.1.1.1:5000 on eth0.
fn rule() -> PlaneRule {
    PlaneRule {
        id: RuleId(2),
        take: Take {
            interface: ETH0,
            addresses: single(GROUP),
            ports: ports(5000, 5000),
            sources: Vec::new(),
        },
        to_stack: ToStack::IfSocket,
        max_rate: None,
        outputs: vec![output()],
    }
}

/// The same on lo.
fn rule_on_lo() -> PlaneRule {
    let take = Take { interface: LO, ..rule().take };
    PlaneRule { id: RuleId(1), take, ..rule() }
}

/// A relay: its rules, and what it remembers.
struct Bench {
    table: ForwardTable,
    fragments: Fragments,
    words: Vec<AtomicU64>,
    now: u64,
}

impl Bench {
    fn new(install: Vec<PlaneRule>) -> Self {
        let own = [OUR.into()].into();
        let mut table = ForwardTable::default();
        table.apply(PlaneChange { install, own, ..PlaneChange::default() });
        let words = (0..Shared::words(16)).map(|_| AtomicU64::new(0)).collect();
        Self { table, fragments: Fragments::default(), words, now: 1_000_000_000 }
    }

    fn to(output: PlaneOutput) -> Self {
        Self::new(vec![PlaneRule { outputs: vec![output], ..rule() }])
    }

    /// What is said of a frame, and what is sent for it.
    fn relay(&mut self, frame: &Frame<'_>) -> (String, Vec<Result<Vec<u8>, OutputDrop>>) {
        let shared = Shared::new(&self.words);
        let state = (&mut self.fragments, shared);
        match forward(&self.table, state, frame, self.now) {
            Verdict::Pass(pass) => (format!("pass {}", pass.name()), Vec::new()),
            Verdict::Drop(rule, drop, Volume { packets, bytes }, _) => {
                (format!("rule {} drop {} {packets}/{bytes}", rule.id.0, drop.name()), Vec::new())
            }
            Verdict::Match(found) => {
                let send = |output: &PlaneOutput| {
                    let mut headers = [0; HEADERS_MAX];
                    let length = found.rewrite(output, shared, frame.bytes, &mut headers)?;
                    assert!(found.udp_offset(output) <= length);
                    Ok([&headers[..length], &frame.bytes[found.headers_len()..]].concat())
                };
                let Volume { packets, bytes } = found.volume;
                let sent = found.rule.outputs.iter().map(send).collect();
                (format!("rule {} {packets}/{bytes}", found.rule.id.0), sent)
            }
        }
    }

    /// What the only output sends.
    fn sent(&mut self, frame: &Frame<'_>) -> Result<Vec<u8>, OutputDrop> {
        let (said, sent) = self.relay(frame);
        let [sent] = <[_; 1]>::try_from(sent).unwrap_or_else(|_| panic!("{said}"));
        sent
    }
}

fn header() -> Ipv4Header {
    Ipv4Header { source: SENDER, destination: GROUP, time_to_live: 5, ..Ipv4Header::default() }
}

/// A frame to port 5000 as etherparse makes it.
fn frame(ip: Ipv4Header, payload: &[u8]) -> Vec<u8> {
    let ip = IpHeaders::Ipv4(ip, Ipv4Extensions::default());
    let packet = PacketBuilder::ethernet2(SENDER_MAC, [1, 0, 0x5e, 1, 1, 1]);
    let mut bytes = Vec::new();
    packet.ip(ip).udp(4000, 5000).write(&mut bytes, payload).unwrap();
    bytes
}

fn here(bytes: &[u8]) -> Frame<'_> {
    Frame {
        bytes,
        bare: false,
        interface: ETH0,
        packet_type: PacketType::Here,
        tagged: false,
        segment_size: 0,
        partial_checksum: false,
    }
}

fn said(frame: &Frame<'_>) -> String {
    Bench::new(vec![rule(), rule_on_lo()]).relay(frame).0
}

fn rewritten(bytes: &[u8], output: &PlaneOutput) -> Result<Vec<u8>, OutputDrop> {
    Bench::to(output.clone()).sent(&here(bytes))
}

/// Headers as etherparse reads them, both checksums found right.
fn judged(bytes: &[u8]) -> (Ipv4Header, UdpHeader, Vec<u8>) {
    let packet = PacketHeaders::from_ethernet_slice(bytes).unwrap();
    judged_packet(packet)
}

fn judged_packet(packet: PacketHeaders<'_>) -> (Ipv4Header, UdpHeader, Vec<u8>) {
    let Some(NetHeaders::Ipv4(ip, _)) = packet.net else { panic!("not IPv4") };
    let Some(TransportHeader::Udp(udp)) = packet.transport else { panic!("not UDP") };
    let payload = packet.payload.slice().to_vec();
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    if udp.checksum != 0 {
        let right = udp.calc_checksum_ipv4(&ip, &payload).unwrap();
        assert_eq!(udp.checksum, if right == 0 { 0xffff } else { right });
    }
    (ip, udp, payload)
}

#[test]
fn a_rewritten_frame_is_a_new_datagram_to_the_output() {
    let port = PlaneOutput { source_port: Some(7000), ..output() };
    let keep = PlaneOutput { source: None, ..output() };
    let same = PlaneOutput {
        source: None,
        destination: single(GROUP),
        port_shift: 0,
        ttl: Ttl::Keep,
        ..output()
    };
    for payload in [&b""[..], b"x", b"even", b"odd payload", &[0xff; 1472]] {
        for (output, source, source_port) in [
            (&output(), OUR, 4000),
            (&port, OUR, 7000),
            (&keep, SENDER, 4000),
            (&same, SENDER, 4000),
        ] {
            let (old, _, _) = judged(&frame(header(), payload));
            let bytes = rewritten(&frame(header(), payload), output).unwrap();
            let IpAddr::V4(destination) = output.destination.first() else { panic!("IPv4") };
            assert_eq!(bytes[..6], ethernet::group_mac(destination.into()));
            assert_eq!(bytes[6..12], [2, 0, 0, 0, 0, 3]);
            let (ip, udp, body) = judged(&bytes);
            assert_eq!((ip.source, ip.destination), (source, destination.octets()));
            assert_eq!(
                (udp.source_port, udp.destination_port),
                (source_port, 5000 + output.port_shift)
            );
            assert_eq!(
                (body, ip.total_len, ip.identification),
                (payload.to_vec(), old.total_len, old.identification)
            );
        }
    }
}

#[test]
fn ttl_is_set_kept_or_decremented_until_it_expires() {
    let cases = [
        (Ttl::default(), 1, Ok(32)),
        (Ttl::Set(std::num::NonZeroU8::MAX), 64, Ok(255)),
        (Ttl::Keep, 1, Ok(1)),
        (Ttl::Keep, 255, Ok(255)),
        (Ttl::Decrement, 255, Ok(254)),
        (Ttl::Decrement, 2, Ok(1)),
        (Ttl::Decrement, 1, Err(OutputDrop::TtlExpired)),
        (Ttl::Decrement, 0, Err(OutputDrop::TtlExpired)),
    ];
    for (ttl, time_to_live, expected) in cases {
        let bytes = frame(Ipv4Header { time_to_live, ..header() }, b"payload");
        let sent = rewritten(&bytes, &PlaneOutput { ttl, ..output() });
        assert_eq!(sent.map(|bytes| judged(&bytes).0.time_to_live), expected, "{ttl:?}");
    }
}

#[test]
fn dscp_is_set_or_kept_and_ecn_always_kept() {
    for (dscp, tos, expected) in [
        (Dscp::Keep, 0xb8, 0xb8),
        (Dscp::Keep, 0xff, 0xff),
        (Dscp::Set(46), 0, 0xb8),
        (Dscp::Set(46), 3, 0xbb),
        (Dscp::Set(0), 0xfd, 1),
        (Dscp::Set(63), 2, 0xfe),
    ] {
        let mut ip = header();
        ip.dscp = (tos >> 2).try_into().unwrap();
        ip.ecn = (tos & 3).try_into().unwrap();
        let bytes = rewritten(&frame(ip, b"p"), &PlaneOutput { dscp, ..output() }).unwrap();
        judged(&bytes);
        assert_eq!(bytes[15], expected, "{dscp:?} of {tos:#x}");
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_and_one_that_comes_out_as_zero_is_ffff() {
    let mut none = frame(header(), b"payload");
    none[UDP_CHECKSUM..][..2].fill(0);
    let bytes = rewritten(&none, &output()).unwrap();
    assert_eq!(judged(&bytes).1.checksum, 0);

    let (mut out_zero, mut in_zero) = (0, 0);
    for filler in 0..=u16::MAX {
        let bytes = frame(header(), &filler.to_be_bytes());
        let sent = rewritten(&bytes, &output()).unwrap();
        in_zero += usize::from(judged(&bytes).1.checksum == 0xffff);
        out_zero += usize::from(judged(&sent).1.checksum == 0xffff);
        assert_ne!(judged(&sent).1.checksum, 0);
    }
    assert!(out_zero > 0 && in_zero > 0);
}

/// What the kernel or the network card does with a checksum that is left to it.
#[test]
fn an_unfinished_checksum_comes_out_right_when_it_is_finished() {
    let plain = frame(header(), b"payload");
    let pseudo = |bytes: &[u8]| {
        let length = (bytes.len() - 34) as u16;
        let rest = [&[0, 17][..], &length.to_be_bytes()].concat();
        checksum::fold(checksum::sum(&bytes[26..34]) + checksum::sum(&rest))
    };
    let mut bytes = plain.clone();
    bytes[UDP_CHECKSUM..][..2].copy_from_slice(&pseudo(&plain).to_be_bytes());
    let received = Frame { partial_checksum: true, ..here(&bytes) };
    let output = PlaneOutput { source_port: Some(7000), ..output() };
    let mut sent = Bench::to(output).sent(&received).unwrap();
    assert_eq!(sent[UDP_CHECKSUM..][..2], pseudo(&sent).to_be_bytes());
    let finished = checksum::mangle_zero(checksum::checksum(&sent[34..]));
    sent[UDP_CHECKSUM..][..2].copy_from_slice(&finished.to_be_bytes());
    assert_eq!(judged(&sent).1.source_port, 7000);
}

#[test]
fn what_is_larger_than_the_mtu_is_not_sent_and_a_super_packet_counts_by_its_datagrams() {
    let bytes = frame(header(), &[7; 1000]);
    for (segment_size, mtu, fits) in
        [(0, 1028, true), (0, 1027, false), (100, 128, true), (100, 127, false), (2000, 1028, true)]
    {
        let received = Frame { segment_size, ..here(&bytes) };
        let sent = Bench::to(PlaneOutput { mtu, ..output() }).sent(&received);
        let expected = if fits { Ok(bytes.len()) } else { Err(OutputDrop::Mtu) };
        assert_eq!(sent.map(|sent| sent.len()), expected, "{segment_size} {mtu}");
    }
}

#[test]
fn damage_done_before_the_relay_stays_visible() {
    let mut bytes = frame(header(), b"payload");
    bytes[UDP_CHECKSUM] ^= 0x40;
    let sent = rewritten(&bytes, &output()).unwrap();
    let PacketHeaders { net, transport, .. } = PacketHeaders::from_ethernet_slice(&sent).unwrap();
    let Some(NetHeaders::Ipv4(ip, _)) = net else { panic!("not IPv4") };
    let Some(TransportHeader::Udp(udp)) = transport else { panic!("not UDP") };
    assert_ne!(udp.checksum, udp.calc_checksum_ipv4(&ip, b"payload").unwrap());
}

#[test]
fn ip_options_and_padding_are_carried_along() {
    let options = etherparse::Ipv4Options::from([148, 4, 0, 0, 1, 1, 1, 0]);
    let mut bytes = frame(Ipv4Header { options: options.clone(), ..header() }, b"payload");
    bytes.extend([0xee; 9]);
    assert_eq!(said(&here(&bytes)), "rule 2 1/7");
    let sent = rewritten(&bytes, &PlaneOutput { dscp: Dscp::Set(1), ..output() }).unwrap();
    let (ip, udp, payload) = judged(&sent);
    assert_eq!((ip.options, udp.destination_port), (options, 6000));
    assert_eq!((&payload[..7], sent.len()), (&b"payload"[..], bytes.len()));
}

#[test]
fn what_is_cut_short_anywhere_is_malformed() {
    for options in [[].into(), [1; 40].into()] {
        let bytes = frame(Ipv4Header { options, ..header() }, b"payload");
        assert_eq!(said(&here(&bytes)), "rule 2 1/7");
        for end in 0..bytes.len() {
            assert_eq!(said(&here(&bytes[..end])), "pass malformed", "{end} bytes");
            let packet_type = PacketType::Loopback;
            let looped =
                Frame { bytes: &bytes[14..][..end.saturating_sub(14)], packet_type, ..here(&[]) };
            let nothing = if end <= 14 { "pass not-ours" } else { "pass malformed" };
            assert_eq!(said(&looped), nothing, "{end} bytes");
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let cases: [(usize, &[u8], &str); 9] = [
        (14, &[0x44], "pass malformed"),
        (14, &[0x65], "pass malformed"),
        (14, &[0x4f], "pass malformed"),
        (16, &[0, 19], "pass malformed"),
        (16, &[0, 27], "pass malformed"),
        (16, &[0xff, 0xff], "pass malformed"),
        (38, &[0, 7], "pass malformed"),
        (38, &[0, 16], "pass malformed"),
        (38, &[0, 10], "rule 2 1/2"),
    ];
    for (at, patch, expected) in cases {
        let mut bytes = frame(header(), b"payload");
        bytes[at..at + patch.len()].copy_from_slice(patch);
        assert_eq!(said(&here(&bytes)), expected, "{patch:?} at {at}");
    }
}

#[test]
fn every_frame_has_the_verdict_of_its_kind() {
    let ip = |change: fn(&mut Ipv4Header)| {
        let mut ip = header();
        change(&mut ip);
        frame(ip, b"payload")
    };
    let plain = ip(|_| ());
    let own = ip(|ip| ip.source = OUR);
    let [group, mdns, unicast, broadcast] = [
        ip(|ip| ip.destination[3] = 2),
        ip(|ip| ip.destination = [224, 0, 0, 251]),
        ip(|ip| ip.destination = OUR),
        ip(|ip| ip.destination = [255; 4]),
    ];
    let arp = [8u8, 6].repeat(20);
    let loopback = PacketType::Loopback;
    let mut tagged = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [1; 6]).single_vlan(VlanId::ZERO);
    builder.ipv4(SENDER, GROUP, 5).udp(1, 5000).write(&mut tagged, b"p").unwrap();
    let mut ipv6 = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [1; 6]).ipv6([0xfe; 16], [0xff; 16], 5);
    builder.udp(1, 5000).write(&mut ipv6, b"p").unwrap();
    let mut other_port = plain.clone();
    other_port[36..38].copy_from_slice(&5001u16.to_be_bytes());
    let mut qinq = plain.clone();
    qinq[12..14].copy_from_slice(&TYPE_QINQ.to_be_bytes());
    let mut tcp = plain.clone();
    tcp[23] = 6;
    let first = ip(|ip| ip.more_fragments = true);
    let mut first_of_more = first.clone();
    first_of_more[38..40].copy_from_slice(&4000u16.to_be_bytes());
    let later = ip(|ip| ip.fragment_offset = IpFragOffset::try_new(100).unwrap());
    let cases = [
        ("plain", here(&plain), "rule 2 1/7"),
        ("super-packet", Frame { segment_size: 1, ..here(&plain) }, "rule 2 7/7"),
        ("other interface", Frame { interface: IfIndex(9), ..here(&plain) }, "pass no-rule"),
        ("other group", here(&group), "pass no-rule"),
        ("other port", here(&other_port), "pass no-rule"),
        ("mDNS", here(&mdns), "pass no-rule"),
        ("unicast", here(&unicast), "pass not-ours"),
        ("broadcast", here(&broadcast), "pass not-ours"),
        ("TCP", here(&tcp), "pass not-ours"),
        ("IPv6", here(&ipv6), "pass no-rule"),
        ("ARP", here(&arp), "pass not-ours"),
        (
            "other host",
            Frame { packet_type: PacketType::OtherHost, ..here(&plain) },
            "pass not-ours",
        ),
        ("tag in the frame", here(&tagged), "pass tagged"),
        ("two tags", here(&qinq), "pass tagged"),
        ("tag taken off", Frame { tagged: true, ..here(&plain) }, "pass tagged"),
        ("first fragment", here(&first), "rule 2 1/7"),
        ("first of a larger datagram", here(&first_of_more), "rule 2 1/7"),
        ("later fragment", here(&later), "pass fragment"),
        ("own", here(&own), "rule 2 drop own 1/7"),
        ("own on lo", Frame { interface: LO, ..here(&own) }, "rule 1 1/7"),
        (
            "sent here",
            Frame { packet_type: loopback, ..here(&plain[14..]) },
            "rule 2 drop local-sender 1/7",
        ),
        (
            "own copy",
            Frame { packet_type: loopback, ..here(&own[14..]) },
            "rule 2 drop local-sender 1/7",
        ),
        (
            "sent here, no rule",
            Frame { packet_type: loopback, ..here(&other_port[14..]) },
            "pass no-rule",
        ),
    ];
    for (what, frame, expected) in cases {
        assert_eq!(said(&frame), expected, "{what}");
    }
}
