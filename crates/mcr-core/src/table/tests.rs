use proptest::prelude::*;

use super::*;
use crate::api::RuleSpec;
use crate::link::{IfIndex, Link, LinkKind};

fn rule(name: &str, input: &str, outputs: &[&str]) -> Entry {
    let rule = RuleSpec::plain(name, input, outputs).check().unwrap();
    Entry { rule, origin: Origin::Runtime }
}

/// From 239.1.1.`n` to 239.10.1.`n`.
fn plain(name: &str, n: u8) -> Entry {
    rule(name, &format!("239.1.1.{n}:5000@eth0"), &[&format!("239.10.1.{n}:6000@eth1")])
}

fn key(text: &str) -> RuleKey {
    RuleKey::from_user(text)
}

fn links(mtu_of_eth1: u32) -> Links {
    let link = |index: u32, address: &str, mtu: u32| Link {
        index: IfIndex(index),
        kind: LinkKind::Ethernet,
        up: true,
        carrier: true,
        no_arp: false,
        mac: [0; 6],
        mtu,
        addresses: vec![address.parse::<IpAddr>().unwrap().into()],
        shared: false,
        mc_forwarding: false,
    };
    let lo = Link { kind: LinkKind::Loopback, ..link(1, "127.0.0.1", 65536) };
    let links = [
        ("lo", lo),
        ("eth0", link(2, "10.0.0.9", 1500)),
        ("eth1", link(3, "10.1.0.9", mtu_of_eth1)),
    ];
    let interfaces = links.into_iter().map(|(name, link)| (name.parse().unwrap(), link)).collect();
    Links { interfaces, ..Links::default() }
}

fn table(entries: &[Entry]) -> RuleTable {
    let mut table = RuleTable::default();
    let edits = entries.iter().cloned().map(Edit::Add).collect();
    if let Err(refusal) = table.change(edits) {
        panic!("{refusal}");
    }
    table
}

const UNNAMED: &str = "239.1.1.3:5000@eth0";

/// Everything a table holds, indexes included.
fn whole(table: &RuleTable) -> String {
    format!("{table:#?}")
}

/// Made anew from the rules it holds.
fn rebuilt(table: &RuleTable) -> String {
    let mut fresh = RuleTable::default();
    table.iter().for_each(|(key, entry)| fresh.put(key.clone(), Arc::clone(entry)));
    whole(&fresh)
}

/// Applies `edits` to a table of a(1), b(2) and an unnamed rule(3).
fn change(edits: Vec<Edit>) -> Result<(RuleTable, Vec<Difference>), Refusal> {
    let mut table = table(&[plain("a", 1), plain("b", 2), plain("", 3)]);
    let before = whole(&table);
    match table.change(edits) {
        Ok(differences) => {
            assert_eq!(whole(&table), rebuilt(&table));
            Ok((table, differences))
        }
        Err(refusal) => {
            assert_eq!(whole(&table), before, "changed by a refusal: {refusal}");
            Err(refusal)
        }
    }
}

fn keys(table: &RuleTable) -> Vec<&str> {
    table.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn taken_names_and_inputs_are_refused() {
    let cases = [
        (vec![Edit::Add(plain("a", 9))], Code::Conflict, "rule a: the name is taken"),
        (vec![Edit::Add(plain("c", 1))], Code::Conflict, "239.1.1.1:5000@eth0 is taken by rule a"),
        (vec![Edit::Add(plain("", 1))], Code::Conflict, "is taken by rule a"),
        (vec![Edit::Add(plain("", 3))], Code::Conflict, "is taken by rule 239.1.1.3:5000@eth0"),
        (vec![Edit::Add(plain("c", 3))], Code::Conflict, "is taken by rule 239.1.1.3:5000@eth0"),
        (vec![Edit::Add(plain("c", 9)), Edit::Add(plain("c", 8))], Code::Conflict, "name is taken"),
        (vec![Edit::Add(plain("c", 9)), Edit::Add(plain("d", 9))], Code::Conflict, "is taken by"),
        (vec![Edit::Replace(key("a"), plain("b", 1))], Code::Conflict, "rule b: the name is taken"),
        (vec![Edit::Replace(key("a"), plain("a", 2))], Code::Conflict, "is taken by rule b"),
        (vec![Edit::Replace(key("x"), plain("x", 9))], Code::NotFound, "there is no rule x"),
        (vec![Edit::Remove(key("x"))], Code::NotFound, "there is no rule x"),
        (vec![Edit::Remove(key("a")), Edit::Remove(key("a"))], Code::NotFound, "no rule a"),
        (
            vec![Edit::Remove(key(UNNAMED)), Edit::Add(plain("c", 4)), Edit::Add(plain("d", 2))],
            Code::Conflict,
            "is taken by rule b",
        ),
    ];
    for (edits, code, message) in cases {
        let refusal = change(edits).expect_err(message);
        assert!(refusal.message.contains(message), "{refusal}");
        assert!(refusal.code == code && !refusal.hint.is_empty(), "{refusal}");
    }
}

#[test]
fn only_the_end_of_a_change_is_judged() {
    type Case = (&'static str, Vec<Edit>, &'static [&'static str], usize);
    let replace = |old: &str, entry: Entry| Edit::Replace(key(old), entry);
    let cases: Vec<Case> = vec![
        (
            "inputs swapped",
            vec![replace("a", plain("a", 2)), replace("b", plain("b", 1))],
            &[UNNAMED, "a", "b"],
            2,
        ),
        ("renamed", vec![replace("a", plain("c", 1))], &[UNNAMED, "b", "c"], 1),
        ("named", vec![replace(UNNAMED, plain("c", 3))], &["a", "b", "c"], 1),
        ("unnamed", vec![replace("a", plain("", 1))], &["239.1.1.1:5000@eth0", UNNAMED, "b"], 1),
        (
            "twice",
            vec![replace("a", plain("a", 7)), replace("a", plain("a", 8))],
            &[UNNAMED, "a", "b"],
            1,
        ),
        (
            "there and back",
            vec![replace("a", plain("c", 7)), replace("c", plain("a", 1))],
            &[UNNAMED, "a", "b"],
            0,
        ),
        (
            "added, removed",
            vec![Edit::Add(plain("c", 7)), Edit::Remove(key("c"))],
            &[UNNAMED, "a", "b"],
            0,
        ),
        (
            "added, renamed",
            vec![Edit::Add(plain("c", 7)), replace("c", plain("d", 8))],
            &[UNNAMED, "a", "b", "d"],
            1,
        ),
        (
            "renamed, removed",
            vec![replace("a", plain("c", 7)), Edit::Remove(key("c"))],
            &[UNNAMED, "b"],
            1,
        ),
        (
            "names swapped",
            vec![
                replace("a", plain("t", 1)),
                replace("b", plain("a", 2)),
                replace("t", plain("b", 1)),
            ],
            &[UNNAMED, "a", "b"],
            2,
        ),
        (
            "input handed on",
            vec![Edit::Add(plain("c", 1)), Edit::Remove(key("a"))],
            &[UNNAMED, "b", "c"],
            2,
        ),
        ("not changed", vec![replace("a", plain("a", 1))], &[UNNAMED, "a", "b"], 0),
        ("nothing", vec![], &[UNNAMED, "a", "b"], 0),
    ];
    for (what, edits, expected, count) in cases {
        let (table, differences) =
            change(edits).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
        assert_eq!(keys(&table), expected, "{what}");
        assert_eq!(differences.len(), count, "{what}: {differences:?}");
        let mut table = table;
        table.revert(differences);
        let original = self::table(&[plain("a", 1), plain("b", 2), plain("", 3)]);
        assert_eq!(whole(&table), whole(&original), "{what}, reverted");
    }
}

#[test]
fn ranges_and_sources_overlap_where_a_packet_would_have_two_takers() {
    let cases = [
        ("239.1.1.0/24:5000@eth0", "239.1.1.7:5000@eth0", false),
        ("239.1.1.0/24:5000@eth0", "239.1.1.0/30:5000@eth0", true),
        ("239.1.1.0/24:5000@eth0", "239.1.2.0/24:5000@eth0", false),
        ("239.1.1.0/24:5000@eth0", "239.1.1.0/24:5001@eth0", false),
        ("239.1.1.0/24:5000@eth0", "239.1.1.0/24:5000@eth1", false),
        ("239.1.1.0/24:5000@eth0", "239.1.1.7:4990-5000@eth0", true),
        ("239.1.1.7:5000-5010@eth0", "239.1.1.7:5010-5020@eth0", true),
        ("239.1.1.7:5000-5010@eth0", "239.1.1.7:5011-5020@eth0", false),
        ("10.0.0.1@232.1.1.1:5000@eth0", "10.0.0.2@232.1.1.1:5000@eth0", false),
        ("10.0.0.1@232.1.1.1:5000@eth0", "10.0.0.2,10.0.0.1@232.1.1.1:5000@eth0", true),
        ("10.0.0.1@232.1.1.1:5000@eth0", "232.1.1.1:5000@eth0", true),
        ("10.0.0.1@232.1.1.0/24:5@eth0", "10.0.0.2@232.1.0.0/20:5@eth0", false),
        ("10.0.0.1@232.1.1.0/24:5@eth0", "232.1.0.0/20:5@eth0", true),
        ("10.0.0.1@232.1.1.1:5@eth0", "232.1.1.0/24:5@eth0", false),
        ("10.0.0.1@232.1.1.1:5@eth0", "10.0.0.1@232.1.1.0/24:5@eth0", false),
        ("10.0.0.1@232.1.1.1:5-6@eth0", "10.0.0.1@232.1.1.0/24:6@eth0", true),
        ("10.9.0.1:5000@eth0", "10.9.0.1:5000@eth0", true),
        ("10.9.0.1:5000@eth0", "10.9.0.1:5000@eth1", false),
        ("10.9.0.1:5000-5003@eth0", "10.9.0.1:5003-5009@eth0", true),
        ("10.9.0.1:5000-5003@eth0", "10.9.0.1:5003@eth0", false),
        ("[ff3e::1]:5@eth0", "[ff3e::1]:5@eth0", true),
        ("[ff3e::]/120:5@eth0", "[ff3e::80]/121:5@eth0", true),
        ("[ff3e::]/120:5@eth0", "[ff3e::100]/120:5@eth0", false),
        ("[fd00::1]@[ff3e::1]:5@eth0", "[fd00::2]@[ff3e::1]:5@eth0", false),
        ("[fd00::1]@[ff3e::1]:5@eth0", "[ff3e::1]:5@eth0", true),
    ];
    for (one, other, overlap) in cases {
        for (first, second) in [(one, other), (other, one)] {
            let entry = |name: &str, input: &str, first_octet: u8| {
                let block = input.parse::<Input>().unwrap().addresses;
                let to = match block.first() {
                    IpAddr::V4(_) => format!("{first_octet}.0.0.0/{}@eth2", block.prefix()),
                    IpAddr::V6(_) => format!("[ff1e:{first_octet}::]/{}@eth2", block.prefix()),
                };
                rule(name, input, &[&to])
            };
            let mut table = table(&[entry("first", first, 225)]);
            let before = whole(&table);
            let added = table.change(vec![Edit::Add(entry("second", second, 226))]);
            assert_eq!(added.is_err(), overlap, "{first} and {second}: {added:?}");
            if added.is_err() {
                assert_eq!(whole(&table), before);
            }
        }
    }
}

#[test]
fn circles_are_refused_where_a_packet_would_not_be_known_as_our_own() {
    const THERE: &str = "239.1.1.1:1@eth0";
    const BACK: &str = "239.2.2.2:2@eth1";
    let cases: &[(&[(&str, &str)], bool)] = &[
        (&[(THERE, "239.2.2.2:2@eth1"), (BACK, "239.1.1.1:1@eth0")], false),
        (&[(THERE, "239.1.1.1:1@eth1"), ("239.1.1.1:1@eth1", "239.1.1.1:1@eth0")], false),
        (&[(THERE, "10.0.0.9@239.2.2.2:2@eth1"), (BACK, "10.1.0.9@239.1.1.1:1@eth0")], false),
        (&[(THERE, "keep@239.2.2.2:2@eth1"), (BACK, "239.1.1.1:1@eth0")], false),
        (&[(THERE, "keep@239.2.2.2:2@eth1"), (BACK, "keep@239.1.1.1:1@eth0")], true),
        (&[(THERE, "10.7.7.7@239.2.2.2:2@eth1"), (BACK, "keep@239.1.1.1:1@eth0")], true),
        (&[(THERE, "10.7.7.7:7@239.2.2.2:2@eth1"), (BACK, "10.7.7.8@239.1.1.1:1@eth0")], true),
        (
            &[
                ("239.1.1.1:1@lo", "keep@239.2.2.2:2@lo"),
                ("239.2.2.2:2@lo", "10.7.7.7@239.1.1.1:1@lo"),
            ],
            true,
        ),
        (
            &[("239.1.1.1:1@lo", "10.0.0.9@239.2.2.2:2@lo"), ("239.2.2.2:2@lo", "239.1.1.1:1@lo")],
            true,
        ),
        (
            &[("239.1.1.1:1@lo", "keep@239.2.2.2:2@lo"), ("239.2.2.2:2@lo", "239.1.1.1:1@eth1")],
            false,
        ),
        (
            &[
                (THERE, "keep@239.2.2.2:2@eth1"),
                (BACK, "keep@239.3.3.3:3@eth0"),
                ("239.3.3.3:3@eth0", "keep@239.1.1.1:1@eth0"),
            ],
            true,
        ),
        (
            &[
                (THERE, "keep@239.2.2.2:2@eth1"),
                (BACK, "239.3.3.3:3@eth0"),
                ("239.3.3.3:3@eth0", "keep@239.1.1.1:1@eth0"),
            ],
            false,
        ),
        (&[(THERE, "keep@239.2.2.2:2@eth1"), (BACK, "keep@239.1.1.1:2@eth0")], false),
        (&[(THERE, "keep@239.2.2.2:2@eth1"), (BACK, "keep@239.1.1.1:1@eth1")], false),
    ];
    for (rules, circle) in cases {
        refused_as_a_circle(rules, *circle, &["239.99.1.1:9@eth1"]);
    }
}

#[test]
fn circles_are_found_through_ranges_ipv6_and_unicast() {
    const RANGE: &str = "239.1.1.0/24:1@eth0";
    let cases: &[(&[(&str, &str)], bool)] = &[
        (
            &[
                (RANGE, "keep@239.2.2.0/24:2@eth1"),
                ("239.2.2.0/24:2@eth1", "keep@239.1.1.0/24:1@eth0"),
            ],
            true,
        ),
        (
            &[(RANGE, "239.2.2.0/24:2@eth1"), ("239.2.2.0/24:2@eth1", "keep@239.1.1.0/24:1@eth0")],
            false,
        ),
        (
            &[(RANGE, "keep@239.2.2.0/24:2@eth1"), ("239.2.2.7:2@eth1", "keep@239.1.1.7:1@eth0")],
            true,
        ),
        (
            &[(RANGE, "keep@239.2.2.0/24:2@eth1"), ("239.2.3.7:2@eth1", "keep@239.1.1.7:1@eth0")],
            false,
        ),
        (
            &[(RANGE, "keep@239.2.2.0/24:2@eth1"), ("239.2.2.7:2@eth1", "keep@239.1.2.7:1@eth0")],
            false,
        ),
        (
            &[
                ("239.1.1.1:1-8@eth0", "keep@239.2.2.2:11-18@eth1"),
                ("239.2.2.2:15@eth1", "keep@239.1.1.1:8@eth0"),
            ],
            true,
        ),
        (
            &[
                ("239.1.1.1:1-8@eth0", "keep@239.2.2.2:11-18@eth1"),
                ("239.2.2.2:15@eth1", "keep@239.1.1.1:9@eth0"),
            ],
            false,
        ),
        (
            &[
                ("[ff3e::1]:1@eth0", "keep@[ff1e::2]:2@eth1"),
                ("[ff1e::2]:2@eth1", "keep@[ff3e::1]:1@eth0"),
            ],
            true,
        ),
        (
            &[
                ("[ff3e::1]:1@eth0", "[ff1e::2]:2@eth1"),
                ("[ff1e::2]:2@eth1", "keep@[ff3e::1]:1@eth0"),
            ],
            false,
        ),
        (
            &[("10.0.0.9:1@lo", "keep@10.0.0.9:2@lo"), ("10.0.0.9:2@lo", "10.7.7.7@10.0.0.9:1@lo")],
            true,
        ),
        (&[("10.0.0.9:1@lo", "keep@10.0.0.9:1")], true),
        (&[("10.0.0.9:1@lo", "keep@10.0.0.9:2"), ("10.0.0.9:2@lo", "keep@10.0.0.9:1")], true),
        (&[("10.0.0.9:1@lo", "keep@10.0.0.9:1@eth0")], true),
        (&[("10.0.0.9:1@lo", "keep@10.9.9.9:1")], false),
        (&[("10.0.0.9:1@eth0", "keep@10.0.0.9:1")], false),
        (
            &[("10.0.0.9:1@eth0", "keep@10.9.9.9:1"), ("10.9.9.9:1@eth1", "keep@10.0.0.9:1@eth0")],
            false,
        ),
    ];
    for (rules, circle) in cases {
        refused_as_a_circle(rules, *circle, &[]);
    }
}

/// Whatever the order they come in: the last of them is refused, or none.
fn refused_as_a_circle(rules: &[(&str, &str)], circle: bool, more: &[&str]) {
    for turn in 0..rules.len() {
        let entries = (0..rules.len()).map(|n| {
            let (input, output) = rules[(n + turn) % rules.len()];
            rule(&format!("r{n}"), input, &[more, &[output]].concat())
        });
        let mut table = RuleTable::default();
        let added = entries.map(|entry| {
            let (key, rule) = (entry.rule.key(), entry.rule.clone());
            let differences = table.change(vec![Edit::Add(entry)])?;
            let judged = table.refuse_circle(&key, &rule, &links(1500));
            if judged.is_err() {
                table.revert(differences);
            }
            judged
        });
        let added: Vec<Result<(), Refusal>> = added.collect();
        let (last, others) = added.split_last().unwrap();
        assert!(others.iter().all(Result::is_ok), "{rules:?}: {added:?}");
        match last {
            Ok(()) => assert!(!circle, "{rules:?} was not refused"),
            Err(refusal) => {
                assert!(circle, "{rules:?}: {refusal}");
                assert!((0..rules.len()).all(|n| refusal.message.contains(&format!("r{n}"))));
                assert!(refusal.message.contains(" -> "), "{refusal}");
                assert_eq!(table.len(), rules.len() - 1);
            }
        }
    }
}

#[test]
fn warnings_name_what_may_not_be_meant() {
    let ssm = rule("ssm", "232.7.7.7:5000@eth0", &["239.10.9.1:6000@eth1"]);
    let ssm6 = rule("ssm6", "[ff3e::8000:1]:5000@eth0", &["[ff1e::1]:6000@eth1"]);
    let asm6 = rule("asm6", "[ff3e:1::8000:1]:5000@eth0", &["[ff1e::2]:6000@eth1"]);
    let sourced = rule("sourced", "10.0.0.1@232.7.7.7:5000@eth0", &["239.10.9.1:6000@eth1"]);
    let shared = rule("shared", "239.1.9.1:5000@eth0", &["239.10.1.1:6000@eth1"]);
    let mac_in = rule("mac", "239.129.1.1:5000@eth0", &["239.10.9.1:6000@eth1"]);
    let mac_out = rule("mac", "239.1.9.1:5000@eth0", &["225.138.1.1:7000@eth1"]);
    let other_place = rule("other", "239.129.1.1:5000@eth1", &["225.138.1.1:7000@eth0"]);
    let same_group = rule("same", "239.1.1.1:5001@eth0", &["239.10.1.1:6001@eth1"]);
    let sent_to_ssm = rule("to", "239.1.9.1:5000@eth0", &["232.7.7.7@eth1"]);
    let fixed =
        rule("fixed", "239.1.9.1:5000@eth0", &["10.1.0.9@232.7.7.7@eth1", "keep@232.7.7.8@eth1"]);
    let to_ssm6 = rule("to6", "[ff1e::9]:5000@eth0", &["[ff35::7]@eth1", "[ff35:1::8]@eth1"]);
    let range = rule("range", "232.7.0.0/24:5000@eth0", &["239.7.0.0/24@eth1"]);
    let mac6 =
        rule("mac6", "[ff1e::9]:5@eth0", &["[ff1e::1:2:3]:5@eth1", "[ff05::9:1:2:3]:5@eth1"]);
    let host = rule("host", "239.1.9.1:5000@eth0", &["10.9.0.7:6000"]);
    let hosts = rule("host", "239.1.9.1:5000@eth0", &["10.9.0.7:6000@eth1", "10.9.0.7:6000"]);
    let cases: [(Entry, u32, &[&str]); 17] = [
        (ssm, 1500, &["232.7.7.7 is source-specific"]),
        (ssm6, 1500, &["[ff3e::8000:1] is source-specific"]),
        (asm6, 1500, &[]),
        (sourced, 1500, &[]),
        (shared, 1500, &["another rule sends to 239.10.1.1:6000@eth1"]),
        (
            mac_in,
            1500,
            &["239.129.1.1 and 239.1.1.1 share the MAC address 01:00:5e:01:01:01 on eth0"],
        ),
        (
            mac_out,
            1500,
            &["225.138.1.1 and 239.10.1.1 share the MAC address 01:00:5e:0a:01:01 on eth1"],
        ),
        (other_place, 1500, &[]),
        (same_group, 1500, &[]),
        (sent_to_ssm, 1500, &["232.7.7.7@eth1 is source-specific (RFC 4607), and its receivers"]),
        (fixed, 1500, &[]),
        (to_ssm6, 1500, &["[ff35::7]@eth1 is source-specific (RFC 4607), and its receivers"]),
        (range, 1500, &["232.7.0.0/24 is source-specific"]),
        (
            mac6,
            1500,
            &[
                "ff05::9:1:2:3 and ff1e::1:2:3 share the MAC address 33:33:00:02:00:03 on eth1",
                "ff1e::1:2:3 and ff05::9:1:2:3 share the MAC address 33:33:00:02:00:03 on eth1",
            ],
        ),
        (host, 1500, &["another rule sends to 10.9.0.7:6000"]),
        (hosts, 1500, &["another rule sends to 10.9.0.7:6000"]),
        (plain("small", 9), 1400, &["the MTU of eth1 is 1400, that of eth0 is 1500"]),
    ];
    let to_host = rule("unicast", "239.1.8.1:5000@eth0", &["10.9.0.7:6000"]);
    for (entry, mtu, expected) in cases {
        let mut table = table(&[plain("a", 1), to_host.clone()]);
        let name = entry.rule.key();
        let differences = table.change(vec![Edit::Add(entry)]).unwrap();
        let warnings = table.warnings(&differences, &links(mtu));
        assert_eq!(warnings.len(), expected.len(), "{name}: {warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(&format!("{name}: ")), "{warning}");
            assert!(warning.contains(expected), "{warning} lacks {expected}");
        }
        let gone = table.change(vec![Edit::Remove(key("a"))]).unwrap();
        assert_eq!(table.warnings(&gone, &links(mtu)), Vec::<String>::new());
    }
}

const INPUTS: [&str; 8] = [
    "239.1.1.1:5000@eth0",
    "239.1.1.2:5000@eth0",
    "239.1.1.1:5000@eth1",
    "10.0.0.1@232.1.1.1:5000@eth0",
    "10.0.0.1,10.0.0.2@232.1.1.1:5000@eth0",
    "239.1.1.0/30:5000@eth0",
    "239.1.1.0/31:5000-5003@eth0",
    "239.1.1.2/31:5000@eth0",
];

fn random_entry() -> impl Strategy<Value = Entry> {
    (0..4usize, 0..INPUTS.len(), 0..3u8, any::<bool>()).prop_map(|(name, input, group, file)| {
        let host_bits = INPUTS[input].parse::<Input>().unwrap().addresses.host_bits();
        let to = format!("225.1.{group}.0/{}@eth2", 32 - host_bits);
        let origin = if file { Origin::File } else { Origin::Runtime };
        Entry { origin, ..rule(["", "a", "b", "c"][name], INPUTS[input], &[&to]) }
    })
}

fn random_key() -> impl Strategy<Value = RuleKey> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just(INPUTS[0]), Just(INPUTS[5])].prop_map(key)
}

fn random_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => random_entry().prop_map(Edit::Add),
        3 => (random_key(), random_entry()).prop_map(|(key, entry)| Edit::Replace(key, entry)),
        1 => random_key().prop_map(Edit::Remove),
    ]
}

type Model = BTreeMap<RuleKey, Entry>;

/// What a table is to do, written down as plainly as it can be; `None` is a refusal.
fn expected(mut model: Model, edits: &[Edit]) -> Option<Model> {
    for edit in edits {
        if let Edit::Replace(key, _) | Edit::Remove(key) = edit {
            model.remove(key)?;
        }
        if let Edit::Add(entry) | Edit::Replace(_, entry) = edit
            && model.insert(entry.rule.key(), entry.clone()).is_some()
        {
            return None;
        }
    }
    let clash = |a: &Input, b: &Input| a.is_range() == b.is_range() && overlaps(a, b);
    let rules: Vec<&Rule> = model.values().map(|entry| &entry.rule).collect();
    let pairs = rules.iter().enumerate().flat_map(|(n, a)| rules[..n].iter().map(move |b| (a, b)));
    let good = pairs.into_iter().all(|(a, b)| !clash(&a.input, &b.input));
    good.then_some(model)
}

fn entries(table: &RuleTable) -> Model {
    table.iter().map(|(key, entry)| (key.clone(), Entry::clone(entry))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_follows_the_model_through_any_changes(
        changes in proptest::collection::vec(
            (proptest::collection::vec(random_edit(), 0..4), any::<bool>()), 1..12),
    ) {
        let mut table = RuleTable::default();
        for (edits, revert) in changes {
            let (before, indexes) = (entries(&table), whole(&table));
            let wanted = expected(before.clone(), &edits);
            match table.change(edits) {
                Ok(differences) => {
                    prop_assert_eq!(Some(entries(&table)), wanted);
                    prop_assert_eq!(whole(&table), rebuilt(&table));
                    for difference in &differences {
                        let sides = [(&difference.before, &before), (&difference.after, &entries(&table))];
                        for (side, rules) in sides {
                            let Some((key, entry)) = side else { continue };
                            prop_assert_eq!(rules.get(key), Some(&**entry));
                        }
                    }
                    if revert {
                        table.revert(differences);
                        prop_assert_eq!(whole(&table), indexes);
                    }
                }
                Err(refusal) => {
                    prop_assert_eq!(wanted, None, "{}", refusal);
                    prop_assert_eq!(whole(&table), indexes);
                }
            }
        }
    }
}
