//! The golden frames of `vectors/` through every plane: over a veth pair, and through the BPF
//! program also by `BPF_PROG_TEST_RUN`, all with a capture at every output.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use mcr_core::action::Counters;
use mcr_core::api::RuleSpec;
use mcr_core::flow::AddressBlock;
use mcr_core::link::IfIndex;
use mcr_core::vectors::{FreshIds, Gso, INTERFACES, Vector, VectorFrame, VectorOutput, bytes};
use mcr_core::verdict::Pass;
use mcr_dataplane::bpf::Attach;
use socket2::Socket;

use crate::namespace::{Namespace, frames_there, frames_until, run, wait_for};
use crate::plane::{Kind, TestPlane};

const TCX_NEXT: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
/// Sent behind every frame of its version of IP, to every output: when it has come, all before it
/// has.
const LAST: &str = r#"
about = ""
frame = []
[[rule]]
input = "239.255.255.254:65000@in0"
outputs = ["out0", "out1", "out2", "in0"]
local = "yes"
[[rule]]
input = "[ff1e::fffe]:65000@in0"
outputs = ["out0", "out1", "out2", "in0"]
local = "yes"
"#;
/// Where the outputs of [`LAST`] send to: one below.
const LAST_TO: [&str; 2] = ["239.255.255.253", "[ff1e::fffd]"];

/// A version of IP, as a place in what there is of both.
const V4: usize = 0;
const V6: usize = 1;

/// How a frame gets to the plane.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    TestRun,
    Veth,
}

#[test]
fn the_program_does_what_the_vectors_say_in_test_runs() {
    run(|namespace| all(namespace, Way::TestRun, Kind::Bpf(Attach::Tcx)));
}

#[test]
fn the_program_does_what_the_vectors_say_over_veth() {
    run(|namespace| all(namespace, Way::Veth, Kind::Bpf(Attach::Tcx)));
}

#[test]
fn the_program_does_what_the_vectors_say_on_clsact() {
    run(|namespace| all(namespace, Way::Veth, Kind::Bpf(Attach::Clsact)));
}

#[test]
fn the_worker_does_what_the_vectors_say() {
    run(|namespace| all(namespace, Way::Veth, Kind::Packet));
}

fn all(namespace: &Namespace, way: Way, kind: Kind) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    let mut done = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut vector = Vector::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        vector.rule.extend(last_rules());
        done += one(namespace, way, kind, &vector, &path.display().to_string());
    }
    assert!(done > 20, "only {done} frames");
}

fn last_rules() -> Vec<RuleSpec> {
    let mut rules = Vector::parse(LAST).unwrap().rule;
    for (rule, to) in rules.iter_mut().zip(LAST_TO) {
        for output in &mut rule.outputs {
            // With the source kept no address of an output becomes the host's own.
            output.to = format!("keep@{to}:65000@{}", output.to);
        }
    }
    rules
}

fn one(namespace: &Namespace, way: Way, kind: Kind, vector: &Vector, name: &str) -> usize {
    let mut plane = TestPlane::open(kind);
    let change = vector.change(&namespace.links()).unwrap();
    plane.apply(&change).unwrap();
    let taps = |name: &str| [namespace.tap(name), namespace.tap_v6(name)];
    let far = || [namespace.far_end("in0"), namespace.far_end_v6("in0")];
    let mut bench = Bench {
        far: far(),
        offload: far().map(|socket| namespace.with_offload(socket)),
        stack: taps("in0"),
        outputs: INTERFACES.map(|(name, ..)| (name, taps(&format!("{name}p")))).into(),
        input: namespace.indexes[0],
        taken: change.install.iter().map(|rule| rule.take.addresses).collect(),
        kind,
        plane,
        lasts: [0; 2],
        ids: FreshIds::default(),
    };
    let mut done = Vec::new();
    for frame in &vector.frame {
        if bench.check(way, frame, &format!("{name}, {}", frame.about)) {
            done.push(frame);
        }
    }
    bench.counters_agree(name, vector, &done);
    done.len()
}

struct Bench {
    plane: TestPlane,
    kind: Kind,
    input: IfIndex,
    /// Each of a pair for one version of IP.
    far: [Socket; 2],
    /// Sends super-packets.
    offload: [Socket; 2],
    stack: [Socket; 2],
    outputs: Vec<(&'static str, [Socket; 2])>,
    /// What the rules take.
    taken: Vec<AddressBlock>,
    /// How often [`LAST`] was sent.
    lasts: [u64; 2],
    ids: FreshIds,
}

impl Bench {
    /// Whether the frame could go this way.
    fn check(&mut self, way: Way, expected: &VectorFrame, about: &str) -> bool {
        let mut frame = bytes(&expected.hex).unwrap();
        let version = version_of(&frame);
        match (way, expected.gso) {
            // The kernel takes no shorter ones (net/bpf/test_run.c).
            (Way::TestRun, _) if frame.len() < [34, 54][version] => return false,
            (Way::TestRun, gso) => {
                let (code, after) = self.plane.bpf().test_run(self.input, &frame, gso).unwrap();
                let next = if expected.stack { TCX_NEXT } else { TC_ACT_SHOT };
                assert_eq!(code, next, "{about}");
                assert!(!expected.stack || after == frame, "{about}: the stack gets {after:02x?}");
                if let Some(gso) = gso {
                    // A test run cannot say what kind of super-packet it is, so nothing can be
                    // sent; that is shown over veth. But it is counted.
                    let counted = self.plane.counters((1, 0)).rules[0].received.packets;
                    assert_eq!(counted, u64::from(gso.segments), "{about}");
                    return true;
                }
            }
            (Way::Veth, Some(gso)) => {
                leave_checksum_to_the_device(&mut frame);
                let whole = [&super_packet_header(gso, version)[..], &frame].concat();
                let sent = self.offload[version].send(&whole).expect(about);
                assert_eq!(sent, whole.len(), "{about}");
            }
            (Way::Veth, None) => {
                let sent = self.far[version].send(&frame).expect(about);
                assert_eq!(sent, frame.len(), "{about}");
            }
        }
        self.send_last(version);
        self.check_outputs(&frame, expected, about);
        self.check_stack(way, &frame, expected, about);
        true
    }

    fn check_outputs(&mut self, frame: &[u8], expected: &VectorFrame, about: &str) {
        for (name, taps) in &self.outputs {
            let came = frames(taps, version_of(frame), 0xfd);
            let here = expected.out.iter().filter(|out| out.on == *name && out.hex.is_some());
            let here: Vec<&VectorOutput> = here.collect();
            let mut wanted: Vec<Vec<u8>> =
                here.iter().map(|out| bytes(out.hex.as_deref().unwrap()).unwrap()).collect();
            if expected.gso.is_some() {
                wanted.iter_mut().for_each(|frame| leave_checksum_to_the_device(frame));
            }
            for ((out, sent), wanted) in here.iter().zip(&came).zip(&mut wanted) {
                if out.fresh_id {
                    let made = self.ids.expected(frame, sent, wanted.clone());
                    *wanted = made.unwrap_or_else(|e| panic!("{about}, {name}: {e}"));
                }
            }
            // A raw socket on the far end of in0 sees its own frames too, except what it sent.
            assert_eq!(came, wanted, "{about}, {name}\n{came:02x?}\n{wanted:02x?}");
        }
    }

    fn check_stack(&self, way: Way, frame: &[u8], expected: &VectorFrame, about: &str) {
        let came = frames(&self.stack, version_of(frame), 0xfe);
        let is_ip = frame.len() >= 14 && matches!(frame[12..14], [8, 0] | [0x86, 0xdd]);
        if way == Way::Veth && is_ip {
            // A ring has copies, so nobody loses anything by it.
            let gets = expected.stack || self.kind == Kind::Packet;
            let wanted = if gets { vec![frame.to_vec()] } else { Vec::new() };
            assert_eq!(came, wanted, "{about}: the stack");
        }
    }

    fn send_last(&mut self, version: usize) {
        let mac: [u8; 6] =
            [[1, 0, 0x5e, 0x7f, 0xff, 0xfe], [0x33, 0x33, 0, 0, 0xff, 0xfe]][version];
        let mut frame = [&mac[..], &[2, 0, 0, 0, 0, 0xa]].concat();
        if version == V4 {
            frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 32, 17, 0, 0, 10, 0, 0, 1]);
            frame.extend([239, 255, 255, 254]);
            let checksum = mcr_core::wire::checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let [from, to] = ["fd00::1", "ff1e::fffe"].map(|a| a.parse::<Ipv6Addr>().unwrap());
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 32]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        frame.extend([0x10, 0, 0xfd, 0xe8, 0, 8, 0, 0]);
        self.far[version].send(&frame).unwrap();
        self.lasts[version] += 1;
    }

    /// The sums of the control API hold, and every frame was counted somewhere.
    fn counters_agree(&mut self, name: &str, vector: &Vector, done: &[&VectorFrame]) {
        let counters = self.settled(vector);
        let (_, passed) = counters.passed.iter().find(|(index, _)| *index == self.input).unwrap();
        for (pass, count) in Pass::COUNTED.iter().zip(passed) {
            let expected =
                |frame: &&&VectorFrame| frame.verdict == pass.name() && self.is_seen(frame);
            let expected = done.iter().filter(expected).count() as u64;
            assert_eq!(*count, expected, "{name}: {}", pass.name());
        }
        for rule in &counters.rules {
            let dropped: u64 = rule.dropped.iter().sum();
            assert_eq!(rule.received.packets, rule.matched.packets + dropped, "{name}");
        }
        for output in &counters.outputs {
            let dropped: u64 = output.dropped.iter().sum();
            assert_eq!(output.offered.packets, output.forwarded.packets + dropped, "{name}");
        }
        let forwarded = |frame: &&&VectorFrame| frame.verdict == "forwarded";
        let datagrams = |frame: &&VectorFrame| frame.gso.map_or(1, |gso| u64::from(gso.segments));
        let forwarded = done.iter().filter(forwarded).map(datagrams).sum::<u64>();
        let matched: u64 = counters.rules.iter().map(|rule| rule.matched.packets).sum();
        assert_eq!(matched, forwarded + self.lasts.iter().sum::<u64>(), "{name}");
    }

    /// The counters, once they have all that was sent: a worker counts after it has sent.
    fn settled(&mut self, vector: &Vector) -> Counters {
        let outputs = vector.rule.iter().map(|rule| rule.outputs.len()).sum::<usize>();
        let bounds = (vector.rule.len() as u32, outputs as u32);
        let mut counters = self.plane.counters(bounds);
        wait_for("the counters", || {
            counters = self.plane.counters(bounds);
            let (_, of_last) = counters.outputs.split_at(outputs - 2 * INTERFACES.len());
            of_last.chunks(INTERFACES.len()).zip(self.lasts).all(|(outputs, lasts)| {
                outputs.iter().all(|output| output.offered.packets == lasts)
            })
        });
        counters
    }

    /// Whether a frame gets through the socket filter of a ring; a program sees all.
    fn is_seen(&self, frame: &VectorFrame) -> bool {
        let frame = bytes(&frame.hex).unwrap();
        let taken = |address: IpAddr| self.taken.iter().any(|block| block.contains(address));
        self.kind != Kind::Packet
            || match frame.get(12..14) {
                Some([8, 0]) => frame.get(30..34).is_some_and(|octets| {
                    let octets = <[u8; 4]>::try_from(octets).unwrap();
                    frame[23] == 17 && taken(octets.into())
                }),
                Some([0x86, 0xdd]) => frame.get(38..54).is_some_and(|octets| {
                    // UDP, or extension headers that it may stand behind; and of the address the last
                    // 32 bits alone.
                    matches!(frame[20], 17 | 44 | 0 | 43 | 60)
                        && self.taken.iter().any(|block| match block.first() {
                            IpAddr::V4(_) => false,
                            IpAddr::V6(first) => {
                                let like = [&first.octets()[..12], &octets[12..]].concat();
                                let like = <[u8; 16]>::try_from(like).unwrap();
                                block.contains(like.into())
                            }
                        })
                }),
                Some(_) | None => false,
            }
    }
}

/// The version of IP of a frame, the first where there is none.
fn version_of(frame: &[u8]) -> usize {
    if frame.get(12..14) == Some(&[0x86, 0xdd]) { V6 } else { V4 }
}

/// What has come before [`LAST`] to the group that ends so, without what the kernel itself says on a
/// fresh interface (IGMP, ICMPv6).
fn frames([v4, v6]: &[Socket; 2], version: usize, host: u8) -> Vec<Vec<u8>> {
    let (of_last, other) = if version == V4 { (v4, v6) } else { (v6, v4) };
    let mut frames = frames_until(of_last, |frame| is_last(frame, host));
    frames.extend(frames_there(other));
    let icmp = |frame: &[u8]| match version_of(frame) {
        V4 => frame.get(23) == Some(&2),
        _ => match frame.get(20) {
            Some(0) => frame.get(54) == Some(&58),
            next_header => next_header == Some(&58),
        },
    };
    frames.retain(|frame| !icmp(frame));
    frames
}

fn is_last(frame: &[u8], host: u8) -> bool {
    match version_of(frame) {
        V4 => frame.get(30..34) == Some(&[239, 255, 255, host]),
        _ => {
            let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 0xff00 | u16::from(host));
            frame.get(38..54) == Some(&group.octets())
        }
    }
}

/// `struct virtio_net_hdr`: a super-packet of UDP datagrams whose checksum is still to be made.
fn super_packet_header(gso: Gso, version: usize) -> [u8; 10] {
    const NEEDS_CSUM: u8 = 1;
    const GSO_UDP_L4: u8 = 5;
    let mut header = [0; 10];
    header[..2].copy_from_slice(&[NEEDS_CSUM, GSO_UDP_L4]);
    let udp: u16 = [34, 54][version];
    for (at, value) in [(2, udp + 8), (4, gso.size), (6, udp), (8, 6)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

/// Sets the UDP checksum to the sum of the pseudo header, as for a device that makes the rest; in a
/// frame without options or extension headers.
fn leave_checksum_to_the_device(frame: &mut [u8]) {
    let (addresses, udp) = [(26..34, 34), (22..54, 54)][version_of(frame)].clone();
    let pseudo = [&frame[addresses], &[0, 17], &frame[udp + 4..udp + 6]].concat();
    let sum = !mcr_core::wire::checksum::checksum(&pseudo);
    frame[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
}
