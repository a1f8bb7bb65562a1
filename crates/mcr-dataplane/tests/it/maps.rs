//! Changes of the maps: whole or not at all, and nothing lost in space.

use mcr_core::action::{OutputId, PlaneChange, RuleId};
use mcr_core::vectors::Vector;
use mcr_dataplane::bpf::Attach;

use crate::namespace::{Namespace, run};
use crate::plane::{Kind, TestPlane};

/// Rules `first` to `last` with two outputs each, ids as given.
fn change(namespace: &Namespace, numbers: std::ops::Range<u32>, ids: u32) -> PlaneChange {
    let rules: String = numbers
        .clone()
        .map(|n| {
            let (high, low) = (n / 250, n % 250 + 1);
            format!(
                "[[rule]]\ninput = \"239.1.{high}.{low}:5000@in0\"\noutputs = \
                 [\"239.2.{high}.{low}:1@out0\", \"239.3.{high}.{low}:1@out1\"]\n"
            )
        })
        .collect();
    let vector = Vector::parse(&format!("about = ''\nframe = []\n{rules}")).unwrap();
    let mut change = vector.change(&namespace.links()).unwrap();
    for rule in &mut change.install {
        rule.id = RuleId(rule.id.0 + ids);
        for output in &mut rule.outputs {
            output.id = OutputId(output.id.0 + 2 * ids);
        }
    }
    change.fresh_rules.iter_mut().for_each(|id| id.0 += ids);
    change.fresh_outputs.iter_mut().for_each(|id| id.0 += 2 * ids);
    change
}

#[test]
fn space_is_used_again() {
    run(|namespace| {
        let mut plane = TestPlane::open(Kind::Bpf(Attach::Tcx));
        // 500 of 512 rules with 2 of 1024 outputs each, all replaced again and again.
        for round in 0..6 {
            let ids = 500 * (round % 2);
            let mut change = change(namespace, round * 500..(round + 1) * 500, ids);
            change.remove =
                if round == 0 { Vec::new() } else { (500 - ids..1000 - ids).map(RuleId).collect() };
            plane.apply(&change).unwrap_or_else(|e| panic!("round {round}: {e:?}"));
        }
    });
}

#[test]
fn a_change_that_does_not_fit_changes_nothing() {
    run(|namespace| {
        let mut plane = TestPlane::open(Kind::Bpf(Attach::Tcx));
        plane.apply(&change(namespace, 0..10, 0)).unwrap();
        let frame = mcr_core::vectors::bytes(
            "01005e010001 02000000000a 0800 4500001c00000000201100000a000001ef010001 \
             0fa0138800080000",
        )
        .unwrap();
        let taken = |plane: &mut TestPlane| {
            plane.bpf().test_run(namespace.indexes[0], &frame, None).unwrap();
            plane.counters((1, 0)).rules[0].matched.packets
        };
        assert_eq!(taken(&mut plane), 1);
        // 2048 outputs are there, 1100 rules would take 2200.
        let refused = plane.apply(&change(namespace, 10..1110, 10)).unwrap_err();
        assert_eq!(refused.refusal.code, mcr_core::refusal::Code::Capacity);
        assert_eq!(taken(&mut plane), 2);
        // All that was taken for it is free again.
        plane.apply(&change(namespace, 10..510, 10)).unwrap();
        assert_eq!(taken(&mut plane), 3);
    });
}
