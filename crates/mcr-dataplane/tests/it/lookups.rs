//! Random rules come and go, and the program finds for every packet the rule that `forward` finds:
//! exact ones before ranges, ranges within ranges, ports that sources share. Refused changes, which
//! the maps take back, leave no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use etherparse::PacketBuilder;
use mcr_core::action::{OutputId, PlaneChange, RuleId};
use mcr_core::api::RuleSpec;
use mcr_core::forward::{ForwardTable, Fragments, Frame, PacketType, Shared, Verdict, forward};
use mcr_core::link::{IfIndex, Links};
use mcr_core::resolve::resolve;
use mcr_core::rule::{Origin, RuleKey};
use mcr_core::table::{Edit, Entry, RuleTable};
use mcr_core::verdict::Pass;
use mcr_dataplane::bpf::Attach;

use crate::namespace::run;
use crate::plane::{Kind, TestPlane};
use crate::random::Random;

/// Names that rules can have, and so ids.
const RULES: u64 = 24;
const ROUNDS: u32 = 60;
const PACKETS: u32 = 60;

#[test]
fn the_program_finds_the_rule_that_the_specification_finds() {
    run(|namespace| {
        for seed in 1..=3 {
            let links = namespace.links();
            let mut world = World {
                random: Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)),
                input: namespace.indexes[0],
                plane: TestPlane::open(Kind::Bpf(Attach::Tcx)),
                specification: ForwardTable::default(),
                table: RuleTable::default(),
                links,
                expected: BTreeMap::new(),
            };
            let inputs = [world.input].into();
            world.plane.apply(&PlaneChange { inputs, ..PlaneChange::default() }).unwrap();
            for round in 0..ROUNDS {
                world.change();
                world.packets(&format!("seed {seed}, round {round}"));
            }
            let taken = world.expected.iter().filter(|(what, _)| what.is_ok());
            let taken: u64 = taken.map(|(_, count)| count).sum();
            let other = world.expected.get(&Err(Pass::OtherSource.name()));
            assert!(taken > 300 && other > Some(&20), "a weak seed: {taken} taken, {other:?}");
        }
    });
}

struct World {
    random: Random,
    input: IfIndex,
    plane: TestPlane,
    specification: ForwardTable,
    table: RuleTable,
    links: Links,
    /// Packets received by rule, or passed by reason.
    expected: BTreeMap<Result<RuleId, &'static str>, u64>,
}

impl World {
    /// One to three edits that fit together, or none.
    fn change(&mut self) {
        let mut edits = Vec::new();
        for _ in 0..=self.random.below(3) {
            let name = format!("r{}", self.random.below(RULES));
            let key = RuleKey::from_user(&name);
            let there = self.table.entry(&key).is_some();
            let rule = self.rule(&name).check();
            match (there, rule) {
                (true, _) if self.random.below(3) == 0 => edits.push(Edit::Remove(key)),
                (true, Ok(rule)) => {
                    edits.push(Edit::Replace(key, Entry { rule, origin: Origin::File }));
                }
                (false, Ok(rule)) => edits.push(Edit::Add(Entry { rule, origin: Origin::File })),
                (_, Err(_)) => {}
            }
        }
        let Ok(differences) = self.table.change(edits) else { return };
        let mut change = PlaneChange { inputs: BTreeSet::from([self.input]), ..Default::default() };
        for difference in &differences {
            let before = difference.before.as_ref().map(|(key, _)| id(key));
            let Some((key, entry)) = &difference.after else {
                change.remove.extend(before);
                continue;
            };
            let mut plane = resolve(&entry.rule, &self.links).plane.unwrap();
            plane.id = id(key);
            for (output, n) in plane.outputs.iter_mut().zip(0..) {
                output.id = OutputId(plane.id.0 * 2 + n);
            }
            if before.is_none() {
                change.fresh_rules.push(plane.id);
                change.fresh_outputs.extend(plane.outputs.iter().map(|output| output.id));
                self.expected.remove(&Ok(plane.id));
            }
            change.install.push(plane);
        }
        if self.random.below(3) == 0 {
            // An interface that is not there: the maps have been changed, and are changed back. The
            // counters of fresh ids are set to 0 before.
            let inputs = [self.input, IfIndex(9999)].into();
            let poisoned = PlaneChange { inputs, ..change.clone() };
            self.plane.apply(&poisoned).unwrap_err();
            self.packets("after a refusal");
        }
        self.plane.apply(&change).unwrap();
        self.specification.apply(change);
    }

    fn rule(&mut self, name: &str) -> RuleSpec {
        let random = &mut self.random;
        let v6 = random.below(3) == 0;
        let address = match (v6, random.below(5)) {
            (false, 0) => "239.1.0.0/16",
            (false, 1) => "239.1.1.0/24",
            (false, 2) => "239.1.1.4/30",
            (false, _) => ["239.1.1.5", "239.1.1.9", "239.1.2.1"][random.below(3) as usize],
            (true, 0) => "[ff3e::8000:0]/112",
            (true, 1) => "[ff3e::8000:100]/120",
            (true, _) => ["[ff3e::8000:101]", "[ff3e::8000:201]"][random.below(2) as usize],
        };
        let ports = ["5000", "5001", "5000-5003", "5002-5009", "5008"][random.below(5) as usize];
        let mut from: Vec<String> = Vec::new();
        if random.below(2) == 0 {
            from.extend((0..=random.below(2)).map(|_| source(v6, random).to_string()));
            from.sort();
            from.dedup();
        }
        let to = if address.contains('/') {
            address.replace("239.1", "239.99").replace("ff3e", "ff1e")
        } else if v6 {
            "[ff1e::7]".into()
        } else {
            "239.99.1.1".into()
        };
        let mut spec: RuleSpec = serde_json::from_value(serde_json::json!({
            "input": format!("{address}:{ports}@in0"),
            "outputs": [format!("{to}@out0"), format!("{to}@out1")],
            "join": "no",
        }))
        .unwrap();
        (spec.name, spec.sources) = (Some(name.into()), from);
        if self.random.below(4) == 0 {
            spec.max_rate = Some("1gbit".into());
        }
        spec
    }

    /// Packets of all kinds, each of which the specification and the program judge alike.
    fn packets(&mut self, about: &str) {
        let words: Vec<AtomicU64> = (0..Shared::words(64)).map(|_| AtomicU64::new(0)).collect();
        let mut fragments = Fragments::default();
        for _ in 0..PACKETS {
            let bytes = self.packet();
            let frame = Frame {
                bytes: &bytes,
                bare: false,
                interface: self.input,
                packet_type: PacketType::Here,
                tagged: false,
                segment_size: 0,
                partial_checksum: false,
            };
            let state = (&mut fragments, Shared::new(&words));
            let said = match forward(&self.specification, state, &frame, 1) {
                Verdict::Match(found) => Ok(found.rule.id),
                Verdict::Drop(rule, ..) => Ok(rule.id),
                Verdict::Pass(reason) => Err(reason.name()),
            };
            *self.expected.entry(said).or_default() += 1;
            self.plane.bpf().test_run(self.input, &bytes, None).unwrap();
        }
        let counters = self.plane.counters((RULES as u32, 2 * RULES as u32));
        let (_, passed) = counters.passed.iter().find(|(index, _)| *index == self.input).unwrap();
        let rules = self.specification.rules().map(|rule| {
            let received = counters.rules[rule.id.0 as usize].received.packets;
            (Ok(rule.id), received)
        });
        let reasons = Pass::COUNTED.iter().zip(passed).map(|(pass, n)| (Err(pass.name()), *n));
        for (what, count) in rules.chain(reasons) {
            let expected = self.expected.get(&what).copied().unwrap_or(0);
            let rules: Vec<_> = self.table.iter().map(|(_, entry)| &entry.rule.input).collect();
            assert_eq!(count, expected, "{about}: {what:?} with {rules:#?}");
        }
    }

    fn packet(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let v6 = random.below(3) == 0;
        let port = 4999 + random.below(12) as u16;
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 10], [1, 0, 0x5e, 1, 1, 1]);
        let mut bytes = Vec::new();
        match (source(v6, random), v6) {
            (IpAddr::V4(source), _) => {
                let group = [[1, 5], [1, 9], [1, 6], [1, 200], [2, 1], [7, 7]];
                let [c, d] = group[random.below(6) as usize];
                let udp = ethernet.ipv4(source.octets(), [239, 1, c, d], 5).udp(4000, port);
                udp.write(&mut bytes, b"payload").unwrap();
            }
            (IpAddr::V6(source), _) => {
                let low = [0x101, 0x102, 0x201, 0x9001_u16][random.below(4) as usize];
                let group = [0xff3e, 0, 0, 0, 0, 0, 0x8000, low];
                let group = std::net::Ipv6Addr::from(group).octets();
                let udp = ethernet.ipv6(source.octets(), group, 5).udp(4000, port);
                udp.write(&mut bytes, b"payload").unwrap();
            }
        }
        bytes
    }
}

fn id(key: &RuleKey) -> RuleId {
    RuleId(key.as_str().trim_start_matches('r').parse().unwrap())
}

fn source(v6: bool, random: &mut Random) -> IpAddr {
    let host = 1 + random.below(3) as u16;
    if v6 {
        std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host + 10).into()
    } else {
        std::net::Ipv4Addr::new(10, 0, 0, host as u8 + 10).into()
    }
}
