//! Tagged frames on a trunk: another VLAN's are left alone, priority-tagged ones are the trunk's own.

use mcr_core::vectors::{Vector, bytes};
use mcr_core::verdict::Pass;

use crate::namespace::{frames_until, run, wait_for};
use crate::plane::{KINDS, Kind, TestPlane};

const RULE: &str = "about = ''\nframe = []\n[[rule]]\ninput = \"239.1.1.1:5000@in0\"\n\
                    outputs = [\"239.10.1.1:6000@out0\"]\nlocal = \"yes\"\n";
/// 239.1.1.1:5000 without payload, behind a tag for VLAN 0.
const PRIORITY: &str = "01005e010101 02000000000a 8100 a000 0800 4500001c000040002011608e0a000001\
                        ef010101 0fa0138800080000";

#[test]
fn only_a_priority_tag_is_taken_and_it_does_not_travel_on() {
    for kind in KINDS {
        run(move |namespace| {
            let mut plane = TestPlane::open(kind);
            let vector = Vector::parse(RULE).unwrap();
            plane.apply(&vector.change(&namespace.links()).unwrap()).unwrap();
            let (far, out) = (namespace.far_end("in0"), namespace.tap("out0p"));
            let priority = bytes(PRIORITY).unwrap();
            let mut tagged = priority.clone();
            tagged[15] = 10;
            for frame in [&tagged, &tagged, &priority] {
                assert_eq!(far.send(frame).unwrap(), frame.len());
            }
            // The priority-tagged frame comes last, untagged and rewritten; nothing before it.
            let relayed = |frame: &[u8]| frame.len() >= 38 && frame[30..34] == [239, 10, 1, 1];
            let before = frames_until(&out, relayed);
            assert!(before.iter().all(|frame| frame[23] == 2), "only IGMP: {before:02x?}");
            wait_for("the counter", || plane.counters((1, 1)).outputs[0].forwarded.packets > 0);
            let counters = plane.counters((1, 1));
            assert_eq!(counters.rules[0].received.packets, 1, "{kind:?}");
            assert_eq!(counters.rules[0].matched.packets, 1, "{kind:?}");
            assert_eq!(counters.outputs[0].forwarded.packets, 1, "{kind:?}");
            // The filter of a ring lets no tagged frame in.
            let counted = if kind == Kind::Packet { 0 } else { 2 };
            assert_eq!(counters.passed[0].1[Pass::Tagged as usize], counted, "{kind:?}");
        });
    }
}
