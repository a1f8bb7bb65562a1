//! Random frames through every plane: what leaves, and what is counted, is what `mcr_core::forward`
//! says, byte by byte. Only the identifications that a plane makes anew are its own; those of one
//! datagram must be alike all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, VlanId, ip_number,
};
use mcr_core::action::{Counters, OutputCounters, PlaneChange, RuleCounters};
use mcr_core::flow::AddressBlock;
use mcr_core::forward::{
    ForwardTable, Fragments, Frame, HEADERS_MAX, PacketType, Shared, Verdict, forward,
};
use mcr_core::link::{IfIndex, Mac};
use mcr_core::senders::{SENDERS, Sender, Senders};
use mcr_core::vectors::{INTERFACES, Vector};
use mcr_core::verdict::{OutputDrop, Pass};
use mcr_core::wire::checksum;
use mcr_dataplane::bpf::Attach;
use socket2::Socket;

use crate::namespace::{Namespace, frames_there, frames_until, run, wait_for};
use crate::plane::{Kind, TestPlane};

const FRAMES: u32 = 800;
const SENDER_MAC: Mac = [2, 0, 0, 0, 0, 0x0a];
const OUTPUTS: [&str; 3] = ["out0", "out1", "out2"];
/// Exact ones and ranges, one in the other, with and without sources; groups and hosts.
const RULES: &str = r#"
about = ''
frame = []

[[rule]]
input = "239.1.1.1:5000@in0"
outputs = [
    "239.10.1.1:6000@out0",
    { to = "239.10.1.2@out1", ttl = "decrement", dscp = 46 },
    { to = "keep@239.10.1.3:6003@out2", ttl = "keep" },
    "10.0.1.9:6004",
    "10.99.0.1:6005",
]

[[rule]]
input = "239.2.0.0/24:5000-5003@in0"
outputs = ["239.20.0.0/24:7000-7003@out1", { to = "10.9.9.9:1234@239.21.0.0/24@out2", ttl = 255, dscp = 0 }]

[[rule]]
input = "10.0.0.1,10.0.0.3@239.2.0.7:5001@in0"
outputs = [{ to = "239.30.0.7:7777@out2", ttl = "decrement" }]

[[rule]]
input = "10.0.0.1@232.1.1.1:5000@in0"
outputs = ["10.0.1.1@239.40.1.1:6000@out0"]

[[rule]]
input = "10.0.0.3@232.1.1.1:5000@in0"
outputs = ["keep@239.40.1.2@out1", "239.40.1.2@out2"]

[[rule]]
input = "10.0.0.2:5000-5001@in0"
outputs = ["239.50.1.1:6000-6001@out0", { to = "10.0.1.9:6002-6003", ttl = "decrement" }]

[[rule]]
input = "[ff15::1]:5000@in0"
outputs = ["[ff15::a]:6000@out0", { to = "[ff15::b]@out1", ttl = "decrement", dscp = 63 }]

[[rule]]
input = "[ff15::1:0]/120:5000-5003@in0"
outputs = ["[ff15::2:0]/120@out2", { to = "keep@[ff15::3:0]/120:1-4@out0", ttl = "keep", dscp = 0 }]

[[rule]]
input = "[fd00::a1]@[ff15::1:7]:5001@in0"
outputs = ["[fd00:0:0:1::9]:6000"]

[[rule]]
input = "[fd00::2]:5000@in0"
outputs = ["[fd00::99]:99@[ff15::d]:6000@out1", "[fd00:0:0:1::9]:6001"]

[[rule]]
input = "239.255.255.254:65000@in0"
outputs = ["keep@239.255.255.253:65000@out0", "keep@239.255.255.253:65000@out1", "keep@239.255.255.253:65000@out2"]
"#;
/// Sent behind every frame, to every output: when it has come, all before it has.
const LAST: [[u8; 4]; 2] = [[239, 255, 255, 254], [239, 255, 255, 253]];

#[test]
fn the_program_does_what_the_specification_says() {
    run(|namespace| all(namespace, Kind::Bpf(Attach::Tcx), 1));
    run(|namespace| all(namespace, Kind::Bpf(Attach::Tcx), 2));
}

#[test]
fn the_program_on_clsact_does_what_the_specification_says() {
    run(|namespace| all(namespace, Kind::Bpf(Attach::Clsact), 3));
}

#[test]
fn the_worker_does_what_the_specification_says() {
    run(|namespace| all(namespace, Kind::Packet, 4));
    run(|namespace| all(namespace, Kind::Packet, 5));
}

fn all(namespace: &Namespace, kind: Kind, seed: u64) {
    let change = Vector::parse(RULES).unwrap().change(&namespace.links()).unwrap();
    let mut plane = TestPlane::open(kind);
    plane.apply(&change).unwrap();
    let far = namespace.far_end("in0");
    let taps = OUTPUTS.map(|name| {
        let name = format!("{name}p");
        (namespace.tap(&name), namespace.tap_v6(&name))
    });
    let mut maker = Maker { random: Random(seed), number: 0, begun: Vec::new() };
    let mut model = Model::new(namespace, &change);
    let mut kinds = BTreeMap::<&str, u32>::new();
    let last = last_frame();
    for number in 0..FRAMES {
        let sent = maker.frame();
        let (said, expected) = model.frame(&sent, kind);
        *kinds.entry(said).or_default() += 1;
        far.send(&sent).unwrap();
        far.send(&last).unwrap();
        model.frame(&last, kind);
        for ((taps, name), expected) in taps.iter().zip(OUTPUTS).zip(expected) {
            let about = format!("seed {seed}, frame {number}, {said}, {name}: {sent:02x?}");
            model.compare(&ours(taps), &expected, &about);
        }
    }
    // The generator makes something of everything.
    let counted = Pass::COUNTED.iter().map(|pass| pass.name());
    for name in counted.chain(["not-ours", "own", "forwarded"]) {
        assert!(kinds.contains_key(name), "no frame is {name}: {kinds:?}");
    }
    counters_agree(&mut plane, &model, kind);
    let different: BTreeSet<_> = model.identifications.values().collect();
    assert_eq!(different.len(), model.identifications.len(), "two datagrams have one number");
    for drop in [OutputDrop::Mtu, OutputDrop::TtlExpired, OutputDrop::NoRoute] {
        let dropped: u64 = model.outputs.iter().map(|output| output.dropped[drop as usize]).sum();
        assert!(dropped > 0, "nothing is {}", drop.name());
    }
}

fn counters_agree(plane: &mut TestPlane, model: &Model, kind: Kind) {
    let bounds = (model.rules.len() as u32, model.outputs.len() as u32);
    let mut counters = Counters::default();
    // A worker counts after it has sent.
    wait_for("the counters", || {
        counters = plane.counters(bounds);
        let mut last = counters.outputs.iter().rev().take(OUTPUTS.len());
        last.all(|output| output.offered.packets == u64::from(FRAMES))
    });
    for (n, (is, shall)) in counters.rules.iter().zip(&model.rules).enumerate() {
        let empty = BTreeMap::new();
        senders_agree(&is.senders, model.senders.get(&n).unwrap_or(&empty));
        let is = RuleCounters { senders: Senders::default(), ..*is };
        assert_eq!(is, *shall, "{kind:?}, rule {n}");
    }
    for (n, (is, shall)) in counters.outputs.iter().zip(&model.outputs).enumerate() {
        assert_eq!(is, shall, "{kind:?}, output {n}");
    }
    let (_, passed) = counters.passed.iter().find(|(index, _)| *index == model.input).unwrap();
    for pass in Pass::COUNTED {
        let n = pass as usize;
        assert_eq!(passed[n], model.passed[n], "{kind:?}: {}", pass.name());
    }
}

/// When there were more than a plane remembers, those that came back have begun anew.
fn senders_agree(is: &Senders, all: &BTreeMap<IpAddr, u64>) {
    assert_eq!(is.iter().count(), all.len().min(SENDERS), "{is:?}, {all:?}");
    for Sender { address, packets, .. } in is.iter() {
        let sent = all.get(address).copied().unwrap_or_default();
        assert!(*packets == sent || *packets < sent && all.len() > SENDERS, "{is:?}, {all:?}");
    }
}

/// What the specification makes of the frames, and counts.
struct Model {
    input: IfIndex,
    output_indexes: [IfIndex; 3],
    table: ForwardTable,
    /// What the filter of a ring lets in.
    blocks: BTreeSet<AddressBlock>,
    fragments: Fragments,
    words: Vec<AtomicU64>,
    rules: Vec<RuleCounters>,
    /// Packets of each sender, by rule.
    senders: BTreeMap<usize, BTreeMap<IpAddr, u64>>,
    outputs: Vec<OutputCounters>,
    passed: [u64; Pass::COUNTED.len()],
    /// From the identification that the specification gave a fragmented datagram to the plane's.
    identifications: BTreeMap<u32, u32>,
}

impl Model {
    fn new(namespace: &Namespace, change: &PlaneChange) -> Self {
        let [input, out0, out1, out2] = namespace.indexes;
        let mut table = ForwardTable::default();
        table.apply(change.clone());
        Self {
            input,
            output_indexes: [out0, out1, out2],
            table,
            blocks: change.install.iter().map(|rule| rule.take.addresses).collect(),
            fragments: Fragments::default(),
            words: (0..Shared::words(64)).map(|_| AtomicU64::new(0)).collect(),
            rules: vec![RuleCounters::default(); change.fresh_rules.len()],
            outputs: vec![OutputCounters::default(); change.fresh_outputs.len()],
            senders: BTreeMap::new(),
            passed: Default::default(),
            identifications: BTreeMap::new(),
        }
    }

    /// The verdict, and what leaves by each output interface.
    fn frame(&mut self, sent: &[u8], kind: Kind) -> (&'static str, [Vec<Vec<u8>>; 3]) {
        let (tagged, bytes) = untagged(sent);
        let mac = &sent[..6];
        let here = mac[0] & 1 == 1 || mac == INTERFACES[0].1;
        let frame = Frame {
            bytes: &bytes,
            bare: false,
            interface: self.input,
            packet_type: if here { PacketType::Here } else { PacketType::OtherHost },
            tagged,
            segment_size: 0,
            partial_checksum: false,
        };
        let shared = Shared::new(&self.words);
        let mut leaves: [Vec<Vec<u8>>; 3] = Default::default();
        let found = match forward(&self.table, (&mut self.fragments, shared), &frame, 1) {
            Verdict::Match(found) => found,
            Verdict::Drop(rule, reason, volume, _) => {
                let counters = &mut self.rules[rule.id.0 as usize];
                counters.received += volume;
                counters.dropped[reason as usize] += volume.packets;
                return (reason.name(), leaves);
            }
            Verdict::Pass(reason) => {
                let counted = kind != Kind::Packet || is_seen(&self.blocks, tagged, &bytes);
                if let Some(count) = self.passed.get_mut(reason as usize).filter(|_| counted) {
                    *count += 1;
                }
                return (reason.name(), leaves);
            }
        };
        let counters = &mut self.rules[found.rule.id.0 as usize];
        counters.received += found.volume;
        counters.matched += found.volume;
        let senders = self.senders.entry(found.rule.id.0 as usize).or_default();
        *senders.entry(found.source).or_default() += found.volume.packets;
        for output in &found.rule.outputs {
            let counters = &mut self.outputs[output.id.0 as usize];
            counters.offered += found.volume;
            let mut headers = [0; HEADERS_MAX];
            match found.rewrite(output, shared, &bytes, &mut headers) {
                Ok(length) => {
                    counters.forwarded += found.volume;
                    let whole = [&headers[..length], &bytes[found.headers_len()..]].concat();
                    let on = |index: &IfIndex| *index == output.interface;
                    leaves[self.output_indexes.iter().position(on).unwrap()].push(whole);
                }
                Err(reason) => counters.dropped[reason as usize] += found.volume.packets,
            }
        }
        ("forwarded", leaves)
    }

    fn compare(&mut self, came: &[Vec<u8>], expected: &[Vec<u8>], about: &str) {
        assert_eq!(came.len(), expected.len(), "{about}\n{came:02x?}\n{expected:02x?}");
        for (came, expected) in came.iter().zip(expected) {
            let ((came, is), (expected, shall)) = (anonymous(came), anonymous(expected));
            assert!(came == expected, "{about}\n{came:02x?}\n{expected:02x?}");
            match (is, shall) {
                (Id::None, Id::None) => {}
                // Whole datagrams have the lower half of the numbers.
                (Id::Whole(is), Id::Whole(shall)) => assert_eq!(is & 0x8000, shall & 0x8000),
                (Id::Part(is), Id::Part(shall)) => {
                    let known = *self.identifications.entry(shall).or_insert(is);
                    assert_eq!(is, known, "{about}: the parts of a datagram");
                }
                (is, shall) => panic!("{about}: {is:?}, {shall:?}"),
            }
        }
    }
}

/// As the kernel hands it over: it takes one tag off.
fn untagged(frame: &[u8]) -> (bool, Vec<u8>) {
    if !matches!(frame[12..14], [0x81, 0] | [0x88, 0xa8]) {
        return (false, frame.to_vec());
    }
    let vid = u16::from_be_bytes([frame[14], frame[15]]) & 0xfff;
    (vid != 0, [&frame[..12], &frame[16..]].concat())
}

/// Whether a frame gets through the socket filter of a ring; a program sees all.
fn is_seen(blocks: &BTreeSet<AddressBlock>, tagged: bool, frame: &[u8]) -> bool {
    let word = |at: usize| Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let end = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => address.to_bits() as u32,
    };
    let taken = |v4: bool, word: Option<u32>| {
        let mut blocks = blocks.iter().filter(|block| block.first().is_ipv4() == v4);
        word.is_some_and(|word| blocks.any(|b| (end(b.first())..=end(b.last())).contains(&word)))
    };
    let (v4, v6) = (frame[12..14] == [8, 0], frame[12..14] == [0x86, 0xdd]);
    let next = matches!(frame.get(20), Some(17 | 44 | 0 | 43 | 60));
    let ours = v4 && frame.get(23) == Some(&17) && taken(true, word(30))
        || v6 && next && taken(false, word(50));
    ours && !tagged
}

/// The identification of a frame.
#[derive(Debug)]
enum Id {
    None,
    Whole(u32),
    Part(u32),
}

/// A frame with an identification of 0, and what it had. A checksum of all ones is one of zeros.
fn anonymous(frame: &[u8]) -> (Vec<u8>, Id) {
    let mut frame = frame.to_vec();
    if frame[12..14] == [8, 0] {
        let before = frame[14..34].to_vec();
        let id = u32::from(u16::from_be_bytes([frame[18], frame[19]]));
        let bits = u16::from_be_bytes([frame[20], frame[21]]);
        if bits & 0x3fff == 0 && bits & 0x4000 != 0 {
            // It stays as it came.
            return (frame, Id::None);
        }
        frame[18..20].fill(0);
        let field = u16::from_be_bytes([frame[24], frame[25]]);
        let field = checksum::update(field, &before, &frame[14..34]);
        let field = if field == 0xffff { 0 } else { field };
        frame[24..26].copy_from_slice(&field.to_be_bytes());
        let id = if bits & 0x3fff == 0 { Id::Whole(id) } else { Id::Part(id) };
        return (frame, id);
    }
    let (mut at, mut next) = (54, frame[20]);
    while matches!(next, 0 | 43 | 60) {
        next = frame[at];
        at += (usize::from(frame[at + 1]) + 1) * 8;
    }
    let cut = |frame: &[u8]| u16::from_be_bytes([frame[at + 2], frame[at + 3]]) & 0xfff9 != 0;
    if next != 44 || !cut(&frame) {
        return (frame, Id::None);
    }
    let id = u32::from_be_bytes(*frame[at + 4..].first_chunk().unwrap());
    frame[at + 4..at + 8].fill(0);
    (frame, Id::Part(id))
}

/// What has come by an output, without what the kernel itself says there (IGMP, MLD, discovery).
fn ours((v4, v6): &(Socket, Socket)) -> Vec<Vec<u8>> {
    let last = |frame: &[u8]| frame.len() >= 34 && frame[30..34] == LAST[1];
    let mut frames = frames_until(v4, last);
    frames.retain(|frame| frame[23] != 2);
    let is_icmp = |frame: &Vec<u8>| frame[20] == 58 || frame[20] == 0 && frame[54] == 58;
    frames.extend(frames_there(v6).into_iter().filter(|frame| !is_icmp(frame)));
    frames
}

fn last_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SENDER_MAC, [1, 0, 0x5e, 0x7f, 0xff, 0xfe])
        .ipv4([10, 0, 0, 1], LAST[0], 32)
        .udp(4000, 65000)
        .write(&mut frame, &[])
        .unwrap();
    frame
}

/// Makes frames, most of them for a rule.
struct Maker {
    random: Random,
    number: u16,
    /// The number, the version and the addresses of datagrams whose first fragment was sent of late.
    begun: Vec<(u16, Ip)>,
}

#[derive(Clone, Copy)]
enum Ip {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

/// Which part of a datagram.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Whole,
    First,
    Later,
}

impl Maker {
    fn frame(&mut self) -> Vec<u8> {
        self.number += 1;
        let part =
            *self.random.of(&[Part::Whole, Part::Whole, Part::Whole, Part::First, Part::Later]);
        let mut ip = self.addresses();
        let mut id = self.number;
        match (part, self.begun.last().copied()) {
            (Part::First, _) => self.begun.push((id, ip)),
            // Of the last one, of one before, or of one that never was.
            (Part::Later, Some((begun, of))) if self.random.one_in(3) => (id, ip) = (begun, of),
            (Part::Later, Some(_)) if self.random.one_in(2) => {
                (id, ip) = *self.random.of(&self.begun);
            }
            (Part::Later | Part::Whole, _) => {}
        }
        if self.begun.len() > 4 {
            self.begun.remove(0);
        }
        let random = &mut self.random;
        let length = match random.below(12) {
            0 => 0,
            // About the MTU of the outputs.
            1 => 1400 + random.below(110),
            _ => random.below(100),
        };
        let payload: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let group_mac = match ip {
            Ip::V4(_, [224..=239, b, c, d]) => [1, 0, 0x5e, b & 0x7f, c, d],
            Ip::V6(_, [0xff, .., a, b, c, d]) => [0x33, 0x33, a, b, c, d],
            Ip::V4(..) | Ip::V6(..) => INTERFACES[0].1,
        };
        let other_host = random.one_in(40);
        let mac = if other_host { [2, 0, 0, 0, 0, 0x77] } else { group_mac };
        let headers = match ip {
            Ip::V4(source, destination) => ipv4(random, part, (source, destination), id),
            Ip::V6(source, destination) => ipv6(random, part, (source, destination), id),
        };
        let builder = PacketBuilder::ethernet2(SENDER_MAC, mac);
        let builder = match random.below(20) {
            0 => builder.single_vlan(VlanId::ZERO).ip(headers),
            1 => builder.single_vlan(VlanId::try_new(10).unwrap()).ip(headers),
            2 => builder.double_vlan(VlanId::ZERO, VlanId::try_new(10).unwrap()).ip(headers),
            _ => builder.ip(headers),
        };
        let mut frame = Vec::new();
        let port = if random.one_in(3) { 4999 + random.below(6) as u16 } else { 5000 };
        match random.below(20) {
            0 => builder.tcp(4000, port, 1, 1).write(&mut frame, &payload).unwrap(),
            1 => builder.icmpv4_echo_request(1, 1).write(&mut frame, &payload).unwrap(),
            _ => builder.udp(4000, port).write(&mut frame, &payload).unwrap(),
        }
        self.spoil(&mut frame, payload.len());
        frame
    }

    fn addresses(&mut self) -> Ip {
        let random = &mut self.random;
        if random.one_in(3) {
            let host = *random.of(&["fd00::a1", "fd00::a2", "fd00:0:0:1::1"]);
            let group = *random.of(&[
                "ff15::1",
                "ff15::1",
                "ff15::1:7",
                "ff15::1:7",
                "ff15::1:0",
                "ff15::1:ff",
                "fd00::2",
                "ff15::9:9",
                "fd00::77",
            ]);
            return Ip::V6(octets(host), octets(group));
        }
        let host = *random.of(&[[10, 0, 0, 1], [10, 0, 0, 3], [10, 0, 0, 4], [10, 0, 1, 1]]);
        let group = *random.of(&[
            [239, 1, 1, 1],
            [239, 1, 1, 1],
            [239, 2, 0, 0],
            [239, 2, 0, 7],
            [239, 2, 0, 7],
            [239, 2, 0, 255],
            [232, 1, 1, 1],
            [10, 0, 0, 2],
            [239, 9, 9, 9],
            [10, 0, 0, 77],
        ]);
        Ip::V4(host, group)
    }

    /// Checksums that are not there or wrong, bytes behind the packet, bytes that are missing or
    /// others.
    fn spoil(&mut self, frame: &mut Vec<u8>, payload: usize) {
        let random = &mut self.random;
        let least = if matches!(frame[12..14], [8, 0] | [0x86, 0xdd]) { 14 } else { 22 };
        let checksum = frame.len() - payload - 2;
        match random.below(16) {
            0 => frame[checksum..checksum + 2].fill(0),
            1 => frame[checksum] ^= 0x10,
            // Only what is short is padded; a device drops a frame that its padding makes too long.
            2 if payload < 1000 => frame.extend((0..=random.below(20)).map(|n| n as u8)),
            3 => frame.truncate(least + random.below((frame.len() - least) as u64) as usize),
            4 => {
                let at = 14 + random.below(42) as usize;
                let byte = random.below(256) as u8;
                // A tag stays.
                if let Some(place) = frame.get_mut(at).filter(|_| least == 14) {
                    *place = byte;
                }
            }
            _ => {}
        }
    }
}

fn octets(address: &str) -> [u8; 16] {
    address.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn ipv4(
    random: &mut Random,
    part: Part,
    (source, destination): ([u8; 4], [u8; 4]),
    id: u16,
) -> IpHeaders {
    let options: Vec<u8> = match random.below(5) {
        0 => (0..=random.below(10)).flat_map(|n| [1, 1, 1, n as u8]).collect(),
        _ => Vec::new(),
    };
    let offset = if part == Part::Later { 1 + random.below(200) as u16 } else { 0 };
    let header = Ipv4Header {
        dscp: (random.below(64) as u8).try_into().unwrap(),
        ecn: (random.below(4) as u8).try_into().unwrap(),
        identification: id,
        dont_fragment: random.one_in(2),
        more_fragments: part == Part::First || part == Part::Later && random.one_in(2),
        fragment_offset: IpFragOffset::try_new(offset).unwrap(),
        time_to_live: *random.of(&[0, 1, 2, 64, 255]),
        protocol: ip_number::UDP,
        source,
        destination,
        options: Ipv4Options::try_from(&options[..]).unwrap(),
        ..Ipv4Header::default()
    };
    IpHeaders::Ipv4(header, Ipv4Extensions::default())
}

fn ipv6(
    random: &mut Random,
    part: Part,
    (source, destination): ([u8; 16], [u8; 16]),
    id: u16,
) -> IpHeaders {
    let mut extension = |odds| {
        let words = 6 + 8 * random.below(3) as usize;
        let bytes: Vec<u8> = (0..words).map(|n| n as u8).collect();
        let raw = || Ipv6RawExtHeader::new_raw(ip_number::UDP, &bytes).unwrap();
        random.one_in(odds).then(raw)
    };
    let (hop_by_hop_options, destination_options) = (extension(6), extension(6));
    let offset = if part == Part::Later { 1 + random.below(200) as u16 } else { 0 };
    let more = part == Part::First || part == Part::Later && random.one_in(2);
    // An atomic fragment is a whole datagram (RFC 6946).
    let has_fragment = part != Part::Whole || random.one_in(8);
    let fragment = has_fragment.then(|| {
        let offset = IpFragOffset::try_new(offset).unwrap();
        Ipv6FragmentHeader::new(ip_number::UDP, offset, more, u32::from(id) | 0xab_0000)
    });
    let header = Ipv6Header {
        traffic_class: random.below(256) as u8,
        flow_label: (random.below(1 << 20) as u32).try_into().unwrap(),
        hop_limit: *random.of(&[0, 1, 2, 64, 255]),
        source,
        destination,
        ..Ipv6Header::default()
    };
    let extensions = Ipv6Extensions {
        hop_by_hop_options,
        destination_options,
        fragment,
        ..Ipv6Extensions::default()
    };
    IpHeaders::Ipv6(header, extensions)
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len() as u64) as usize]
    }
}
