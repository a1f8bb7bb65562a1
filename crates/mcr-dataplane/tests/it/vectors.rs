//! The golden frames of `vectors/` through every plane: over a veth pair, and through the BPF
//! program also by `BPF_PROG_TEST_RUN`, all with a capture at every output.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use mcr_core::action::Counters;
use mcr_core::link::IfIndex;
use mcr_core::vectors::{Gso, INTERFACES, Vector, VectorFrame, bytes};
use mcr_core::verdict::Pass;
use mcr_dataplane::bpf::Attach;
use socket2::Socket;

use crate::namespace::{Namespace, frames_until, run, wait_for};
use crate::plane::{Kind, TestPlane};

const TCX_NEXT: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
/// Sent behind every frame, to every output: when it has come, all before it has.
const LAST: &str = r#"
input = "239.255.255.254:65000@in0"
outputs = ["out0", "out1", "out2", "in0"]
local = "yes"
"#;

/// The UDP checksum in a frame without IP options.
const CHECKSUM: std::ops::Range<usize> = 40..42;

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
        vector.rule.push(last_rule());
        done += one(namespace, way, kind, &vector, &path.display().to_string());
    }
    assert!(done > 20, "only {done} frames");
}

fn last_rule() -> mcr_core::api::RuleSpec {
    let mut rule = Vector::parse(&format!("about = ''\nframe = []\n[[rule]]{LAST}")).unwrap().rule;
    for output in &mut rule[0].outputs {
        // With the source kept no address of an output becomes the host's own.
        output.to = format!("keep@239.255.255.253:65000@{}", output.to);
    }
    rule.remove(0)
}

fn one(namespace: &Namespace, way: Way, kind: Kind, vector: &Vector, name: &str) -> usize {
    let mut plane = TestPlane::open(kind);
    let change = vector.change(&namespace.links()).unwrap();
    plane.apply(&change).unwrap();
    let mut bench = Bench {
        far: namespace.far_end("in0"),
        offload: namespace.far_end_with_offload("in0"),
        stack: namespace.tap("in0"),
        outputs: INTERFACES.map(|(name, ..)| (name, namespace.tap(&format!("{name}p")))).into(),
        input: namespace.indexes[0],
        groups: change.install.iter().map(|rule| rule.key.address).collect(),
        kind,
        plane,
        lasts: 0,
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
    far: Socket,
    /// Sends super-packets.
    offload: Socket,
    stack: Socket,
    outputs: Vec<(&'static str, Socket)>,
    /// Of the rules.
    groups: BTreeSet<Ipv4Addr>,
    /// How often [`LAST`] was sent.
    lasts: u64,
}

impl Bench {
    /// Whether the frame could go this way.
    fn check(&mut self, way: Way, expected: &VectorFrame, about: &str) -> bool {
        let mut frame = bytes(&expected.hex).unwrap();
        match (way, expected.gso) {
            // The kernel takes no shorter ones (net/bpf/test_run.c), and nothing above its MTU.
            (Way::TestRun, _) if frame.len() < 34 => return false,
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
                let whole = [&super_packet_header(gso)[..], &frame].concat();
                assert_eq!(self.offload.send(&whole).expect(about), whole.len(), "{about}");
            }
            (Way::Veth, None) => {
                assert_eq!(self.far.send(&frame).expect(about), frame.len(), "{about}");
            }
        }
        self.send_last();
        self.check_outputs(expected, about);
        self.check_stack(way, &frame, expected, about);
        true
    }

    fn check_outputs(&self, expected: &VectorFrame, about: &str) {
        for (name, tap) in &self.outputs {
            let came = ours(frames_until(tap, |frame| is_last(frame, 253)));
            let here = expected.out.iter().filter(|out| out.on == *name);
            let mut wanted: Vec<_> =
                here.filter_map(|out| Some(bytes(out.hex.as_ref()?).unwrap())).collect();
            if expected.gso.is_some() {
                wanted.iter_mut().for_each(|frame| leave_checksum_to_the_device(frame));
            }
            // A raw socket on the far end of in0 sees its own frames too, except what it sent.
            assert_eq!(came, wanted, "{about}, {name}\n{came:02x?}\n{wanted:02x?}");
        }
    }

    fn check_stack(&self, way: Way, frame: &[u8], expected: &VectorFrame, about: &str) {
        let came = frames_until(&self.stack, |frame| is_last(frame, 254));
        let is_ip = frame.len() >= 14 && frame[12..14] == [8, 0];
        if way == Way::Veth && is_ip {
            // A ring has copies, so nobody loses anything by it.
            let gets = expected.stack || self.kind == Kind::Packet;
            let wanted = if gets { vec![frame.to_vec()] } else { Vec::new() };
            assert_eq!(ours(came), wanted, "{about}: the stack");
        }
    }

    fn send_last(&mut self) {
        let mut frame = vec![1, 0, 0x5e, 0x7f, 0xff, 0xfe, 2, 0, 0, 0, 0, 0xa, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 32, 17, 0, 0, 10, 0, 0, 1, 239, 255, 255, 254]);
        let checksum = mcr_core::wire::checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame.extend([0x10, 0, 0xfd, 0xe8, 0, 8, 0, 0]);
        self.far.send(&frame).unwrap();
        self.lasts += 1;
    }

    /// The sums of the control API hold, and every frame was counted somewhere.
    fn counters_agree(&mut self, name: &str, vector: &Vector, done: &[&VectorFrame]) {
        let counters = self.settled(vector);
        let (_, passed) = counters.passed.iter().find(|(index, _)| *index == self.input).unwrap();
        for (pass, count) in Pass::COUNTED.iter().zip(passed) {
            let expected = |frame: &&&VectorFrame| {
                frame.verdict == pass.name() && is_passed(frame) && self.is_seen(frame)
            };
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
        assert_eq!(matched, forwarded + self.lasts, "{name}");
    }

    /// The counters, once they have all that was sent: a worker counts after it has sent.
    fn settled(&mut self, vector: &Vector) -> Counters {
        let outputs = vector.rule.iter().map(|rule| rule.outputs.len()).sum::<usize>();
        let bounds = (vector.rule.len() as u32, outputs as u32);
        let last = outputs - vector.rule.last().unwrap().outputs.len();
        let mut counters = self.plane.counters(bounds);
        wait_for("the counters", || {
            counters = self.plane.counters(bounds);
            counters.outputs[last..].iter().all(|output| output.offered.packets == self.lasts)
        });
        counters
    }

    /// Whether a frame gets through the socket filter of a ring; a program sees all.
    fn is_seen(&self, frame: &VectorFrame) -> bool {
        let frame = bytes(&frame.hex).unwrap();
        let (Some([8, 0]), Some(17), Some(group)) =
            (frame.get(12..14), frame.get(23), frame.get(30..34))
        else {
            return self.kind != Kind::Packet;
        };
        let group = Ipv4Addr::from(<[u8; 4]>::try_from(group).unwrap());
        self.kind != Kind::Packet || self.groups.contains(&group)
    }
}

/// A first fragment is its rule's; only a later one passes.
fn is_passed(frame: &VectorFrame) -> bool {
    let bytes = bytes(&frame.hex).unwrap();
    frame.verdict != "fragment" || bytes[20] & 0x1f != 0 || bytes[21] != 0
}

fn is_last(frame: &[u8], host: u8) -> bool {
    frame.len() >= 34 && frame[30..34] == [239, 255, 255, host]
}

/// Without what the kernel itself says on a fresh interface (IGMP).
fn ours(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.into_iter().filter(|frame| frame.get(23) != Some(&2)).collect()
}

/// `struct virtio_net_hdr`: a super-packet of UDP datagrams whose checksum is still to be made.
fn super_packet_header(gso: Gso) -> [u8; 10] {
    const NEEDS_CSUM: u8 = 1;
    const GSO_UDP_L4: u8 = 5;
    let mut header = [0; 10];
    header[..2].copy_from_slice(&[NEEDS_CSUM, GSO_UDP_L4]);
    for (at, value) in [(2, 42_u16), (4, gso.size), (6, 34), (8, 6)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

/// Sets the UDP checksum to the sum of the pseudo header, as for a device that makes the rest.
fn leave_checksum_to_the_device(frame: &mut [u8]) {
    let pseudo = [&frame[26..34], &[0, 17], &frame[38..40]].concat();
    let sum = !mcr_core::wire::checksum::checksum(&pseudo);
    frame[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}
