//! The golden frames of `vectors/` through the BPF program: once by `BPF_PROG_TEST_RUN`, once over
//! a veth pair, both with a capture at every output.

use std::fs;
use std::path::Path;

use mcr_core::link::IfIndex;
use mcr_core::vectors::{INTERFACES, Vector, VectorFrame, bytes};
use mcr_core::verdict::Pass;
use mcr_dataplane::DataPlane;
use mcr_dataplane::bpf::Attach;
use socket2::Socket;

use crate::namespace::{Namespace, TestPlane, frames_until, run};

const TCX_NEXT: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
/// Sent behind every frame, to every output: when it has come, all before it has.
const LAST: &str = r#"
input = "239.255.255.254:65000@in0"
outputs = ["out0", "out1", "out2", "in0"]
local = "yes"
"#;

/// How a frame gets to the program.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    TestRun,
    Veth,
}

#[test]
fn the_program_does_what_the_vectors_say_in_test_runs() {
    run(|namespace| all(namespace, Way::TestRun, Attach::Tcx));
}

#[test]
fn the_program_does_what_the_vectors_say_over_veth() {
    run(|namespace| all(namespace, Way::Veth, Attach::Tcx));
}

#[test]
fn the_program_does_what_the_vectors_say_on_clsact() {
    run(|namespace| all(namespace, Way::Veth, Attach::Clsact));
}

fn all(namespace: &Namespace, way: Way, attach: Attach) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    let mut done = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut vector = Vector::parse(&fs::read_to_string(&path).unwrap()).unwrap();
        vector.rule.push(last_rule());
        done += one(namespace, way, attach, &vector, &path.display().to_string());
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

fn one(namespace: &Namespace, way: Way, attach: Attach, vector: &Vector, name: &str) -> usize {
    let mut plane = TestPlane::open(attach);
    plane.0.apply(&vector.change(&namespace.links()).unwrap()).unwrap();
    let mut bench = Bench {
        far: namespace.far_end("in0"),
        stack: namespace.tap("in0"),
        outputs: INTERFACES.map(|(name, ..)| (name, namespace.tap(&format!("{name}p")))).into(),
        input: namespace.indexes[0],
        plane,
    };
    let mut done = Vec::new();
    for frame in &vector.frame {
        if bench.check(way, frame, &format!("{name}, {}", frame.about)) {
            done.push(frame);
        }
    }
    bench.counters_agree(name, &done);
    done.len()
}

struct Bench {
    plane: TestPlane,
    input: IfIndex,
    far: Socket,
    stack: Socket,
    outputs: Vec<(&'static str, Socket)>,
}

impl Bench {
    /// Whether the frame could go this way.
    fn check(&mut self, way: Way, expected: &VectorFrame, about: &str) -> bool {
        let frame = bytes(&expected.hex).unwrap();
        match way {
            // The kernel takes no shorter ones (net/bpf/test_run.c), and nothing above its MTU.
            Way::TestRun if frame.len() < 34 => return false,
            Way::TestRun => {
                let gso = expected.gso;
                let (code, after) = self.plane.0.test_run(self.input, &frame, gso).unwrap();
                let next = if expected.stack { TCX_NEXT } else { TC_ACT_SHOT };
                assert_eq!(code, next, "{about}");
                assert!(!expected.stack || after == frame, "{about}: the stack gets {after:02x?}");
            }
            // A raw socket cannot say that its frame is a super-packet.
            Way::Veth if expected.gso.is_some() => return false,
            Way::Veth => {
                assert_eq!(self.far.send(&frame).expect(about), frame.len(), "{about}");
            }
        }
        if let Some(gso) = expected.gso {
            // A test run cannot say what kind of super-packet it is, so nothing can be sent; that
            // is shown with a real sender. But it is counted.
            let counted = self.plane.0.counters((1, 0)).unwrap().rules[0].received.packets;
            assert_eq!(counted, u64::from(gso.segments), "{about}");
            return true;
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
            let wanted: Vec<_> =
                here.filter_map(|out| Some(bytes(out.hex.as_ref()?).unwrap())).collect();
            // A raw socket on the far end of in0 sees its own frames too, except what it sent.
            assert_eq!(came, wanted, "{about}, {name}\n{came:02x?}\n{wanted:02x?}");
        }
    }

    fn check_stack(&self, way: Way, frame: &[u8], expected: &VectorFrame, about: &str) {
        let came = frames_until(&self.stack, |frame| is_last(frame, 254));
        let is_ip = frame.len() >= 14 && frame[12..14] == [8, 0];
        if way == Way::Veth && is_ip {
            let wanted = if expected.stack { vec![frame.to_vec()] } else { Vec::new() };
            assert_eq!(ours(came), wanted, "{about}: the stack");
        }
    }

    fn send_last(&self) {
        let mut frame = vec![1, 0, 0x5e, 0x7f, 0xff, 0xfe, 2, 0, 0, 0, 0, 0xa, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 32, 17, 0, 0, 10, 0, 0, 1, 239, 255, 255, 254]);
        let checksum = mcr_core::wire::checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame.extend([0x10, 0, 0xfd, 0xe8, 0, 8, 0, 0]);
        self.far.send(&frame).unwrap();
    }

    /// The sums of the control API hold, and every frame was counted somewhere.
    fn counters_agree(&mut self, name: &str, done: &[&VectorFrame]) {
        let counters = self.plane.0.counters((4, 16)).unwrap();
        let (_, passed) = counters.passed.iter().find(|(index, _)| *index == self.input).unwrap();
        for (pass, count) in Pass::COUNTED.iter().zip(passed) {
            let expected = |frame: &&&VectorFrame| frame.verdict == pass.name() && is_passed(frame);
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
