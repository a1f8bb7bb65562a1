use super::*;

fn output(to: &str) -> Output {
    Output { to: to.parse().unwrap(), ttl: Ttl::default(), dscp: Dscp::Keep }
}

fn rule(input: &str, outputs: &[&str]) -> Rule {
    Rule {
        name: None,
        comment: None,
        input: input.parse().unwrap(),
        outputs: outputs.iter().map(|to| output(to)).collect(),
        enabled: true,
        local: Local::Auto,
        join: true,
        max_rate: None,
        silence: Silence::default(),
        inspect: None,
    }
}

fn good() -> Rule {
    rule("239.1.1.1:5000@eth0", &["239.10.1.1:6000@eth1"])
}

#[test]
fn names_are_64_letters_digits_and_dots() {
    let check = |name: &str| Rule { name: Some(name.into()), ..good() }.check();
    let long = "x".repeat(64);
    for name in ["a", "0", "camera-1", "a.b_c-d", "A..", &long] {
        assert!(check(name).is_ok(), "{name:?}");
    }
    let longer = "x".repeat(65);
    for name in ["", "-a", ".a", "_a", "a b", "a@b", "a/b", "kamera-ä", "a\n", &longer] {
        let refusal = check(name).expect_err(name);
        assert!(refusal.message.contains("is not a rule name"), "{refusal}");
        assert!(refusal.hint.contains("64 letters"), "{refusal}");
    }
}

#[test]
fn comments_are_one_short_line() {
    let check = |comment: String| Rule { comment: Some(comment), ..good() }.check().is_ok();
    assert!(check(String::new()) && check("Studio A, zur Bühne 🎥".into()));
    assert!(check("x".repeat(1024)) && !check("x".repeat(1025)));
    assert!(!check("a\nb".into()) && !check("a\tb".into()) && !check("\u{1b}[31m".into()));
}

#[test]
fn a_rule_has_1_to_64_outputs() {
    for (count, fine) in [(0, false), (1, true), (64, true), (65, false)] {
        let outputs: Vec<Output> =
            (0..count).map(|n| output(&format!("239.10.1.1:{}@eth1", 6000 + n))).collect();
        let checked = Rule { outputs, ..good() }.check();
        assert_eq!(checked.is_ok(), fine, "{count} outputs: {checked:?}");
    }
    assert!(Rule { outputs: vec![], ..good() }.check().unwrap_err().message.contains("no outputs"));
}

#[test]
fn rules_of_one_family_that_go_elsewhere_are_good() {
    let cases: &[(&str, &[&str])] = &[
        ("239.1.1.1:5000@eth0", &["239.1.1.1:5000@eth1"]),
        ("239.1.1.1:5000@eth0", &["239.1.1.1:5001@eth0"]),
        ("239.1.1.1:5000@eth0", &["239.1.1.2:5000@eth0", "239.1.1.2:5000@eth1"]),
        ("239.1.1.1:5000@eth0", &["239.10.1.1@eth1", "239.10.1.1:5001@eth1"]),
        ("224.0.1.0:5000@eth0", &["239.255.255.255:65535@eth1"]),
        ("10.0.0.1@232.1.1.1:5000@eth0", &["10.9.0.7:6000"]),
        ("10.9.0.1:5000@eth0", &["239.10.1.1:6000@eth1", "10.9.0.7:6000@eth1", "10.9.0.7:6000"]),
        ("[ff03::1]:5000@eth0", &["[ff1e::1]:6000@eth1", "[2001:db8::7]:6000"]),
        ("239.1.1.0/24:5000@eth0", &["239.10.1.0/24@eth1", "239.11.1.0/24:6000@eth1"]),
        ("239.0.0.0/18:5000@eth0", &["239.1.0.0/18@eth1"]),
        ("10.0.0.1,10.0.0.2@232.0.0.0/19:5@eth0", &["239.1.0.0/19:5@eth1"]),
        ("[ff3e::8000:0]/114:5000@eth0", &["[ff1e::]/114@eth1"]),
        ("10.9.0.1:5000-5255@eth0", &["239.1.1.1@eth1"]),
        ("[fe80::1]:5000@eth0", &["[ff1e::1]:6000@eth1", "[fe80::2]:6000@eth1"]),
        ("239.1.1.1:5000-5015@eth0", &["239.10.1.1:6000-6015@eth1", "239.10.1.2@eth1"]),
        ("239.1.1.0/24:5000-5015@eth0", &["239.10.1.0/24:6000-6015@eth1"]),
        ("239.1.1.1:5000@eth0", &["10.0.0.1:7@239.1.1.1:6000@eth0", "keep@239.1.1.2@eth0"]),
    ];
    for (input, outputs) in cases {
        if let Err(refusal) = rule(input, outputs).check() {
            panic!("{input} {outputs:?}: {refusal}");
        }
    }
}

#[test]
fn what_the_text_shows_wrong_is_refused_with_the_thing_named() {
    let link_local = "link-local group, which is never relayed";
    let holds = "holds link-local groups, which are never relayed";
    let cases: &[(&str, &[&str], &str)] = &[
        ("224.0.0.251:5353@eth0", &["239.1.1.1:5000@eth1"], link_local),
        ("224.0.0.0:5000@eth0", &["239.1.1.1:5000@eth1"], link_local),
        ("224.0.0.0/25:5000@eth0", &["239.1.1.0/25:5000@eth1"], holds),
        ("224.0.0.128/25:5000@eth0", &["239.1.1.0/25:5000@eth1"], link_local),
        ("224.0.0.0/18:5000@eth0", &["239.1.0.0/18:5000@eth1"], holds),
        ("224.0.0.0/4:5000@eth0", &["224.0.0.0/4:5000@eth1"], holds),
        ("239.1.0.0/18:5000@eth0", &["224.0.0.0/18:5000@eth1"], holds),
        ("239.1.1.1:5000@eth0", &["224.0.0.255:5000@eth1"], link_local),
        ("[ff00::1]:5000@eth0", &["[ff1e::1]:5000@eth1"], link_local),
        ("[ff01::1]:5000@eth0", &["[ff1e::1]:5000@eth1"], link_local),
        ("[ff02::fb]:5000@eth0", &["[ff1e::1]:5000@eth1"], link_local),
        ("[ff32::1]:5000@eth0", &["[ff1e::1]:5000@eth1"], link_local),
        ("[ff02::]/16:5000@eth0", &["[ff05::]/16:5000@eth1"], holds),
        ("[ff32:7::]/120:5000@eth0", &["[ff05::]/120:5000@eth1"], holds),
        ("[ff10::]/12:5000@eth0", &["[ff30::]/12:5000@eth1"], holds),
        ("[ff00::]/8:5000@eth0", &["[ff00::]/8:5000@eth1"], holds),
        ("[ff1e::1]:5000@eth0", &["[ff12::1]:5000@eth1"], link_local),
        ("240.0.0.1:5000@eth0", &["239.1.1.1:5000@eth1"], "neither a multicast group"),
        ("239.1.1.1:5000@eth0", &["255.255.255.255:5000@eth1"], "neither a multicast group"),
        ("0.1.2.3:5000@eth0", &["239.1.1.1:5000@eth1"], "neither a multicast group"),
        ("[::ffff:10.0.0.1]:5000@eth0", &["[ff1e::1]:5@eth1"], "neither a multicast group"),
        ("[0::0.0.0.0]:5000@eth0", &["[ff1e::1]:5@eth1"], "neither a multicast group"),
        ("239.1.1.1:5000@eth0", &["[ff1e::1]:5000@eth1"], "different families"),
        ("[ff1e::1]:5000@eth0", &["239.1.1.1:5000@eth1"], "different families"),
        ("[2001:db8::1]@232.1.1.1:5000@eth0", &["239.1.1.1:5000@eth1"], "different families"),
        ("239.1.1.1:5000@eth0", &["[2001:db8::1]@239.1.1.1:5000@eth1"], "different families"),
        ("239.9.9.9@232.1.1.1:5000@eth0", &["239.1.1.1:5000@eth1"], "not the address of a sender"),
        ("239.1.1.1:5000@eth0", &["239.9.9.9@239.1.1.1:5000@eth1"], "cannot be sent from"),
        ("10.0.0.1@10.9.0.1:5000@eth0", &["239.1.1.1:5000@eth1"], "source list on a unicast"),
        ("10.9.0.0/24:5000@eth0", &["239.1.1.0/24:5000@eth1"], "range of unicast addresses"),
        ("239.1.1.0/24:5000@eth0", &["10.9.0.0/24:5000"], "range of unicast addresses"),
        ("[2001:db8::]/120:5@eth0", &["[ff1e::]/120:5@eth1"], "range of unicast addresses"),
        ("128.0.0.0/1:5000@eth0", &["239.1.1.1:5000@eth1"], "range of unicast addresses"),
        ("224.0.0.0/3:5000@eth0", &["224.0.0.0/3:5000@eth1"], "from 224.0.0.0 to 255.255.255.255"),
        ("239.1.1.0/24:5@eth0", &["224.0.0.0/3:5@eth1"], "from 224.0.0.0 to 255.255.255.255"),
        ("[fe00::]/7:5000@eth0", &["[ff1e::1]:5000@eth1"], "runs from fe00:: to ffff:"),
        ("239.0.0.0/17:5000@eth0", &["239.1.0.0/17:5000@eth1"], "would be 32768 joins"),
        ("232.0.0.0/5:5000@eth0", &["224.0.0.0/5:5000@eth1"], "would be 134217728 joins"),
        ("10.0.0.1,10.0.0.2@232.0.0.0/18:5@eth0", &["239.1.0.0/18:5@eth1"], "would be 32768 joins"),
        ("[ff3e::]/16:5@eth0", &["[ff1e::]/16:5@eth1"], "would be 18446744073709551615 joins"),
        ("10.9.0.1:5000-5256@eth0", &["239.1.1.1@eth1"], "257 ports of a unicast input"),
        ("239.1.1.1:5000@eth0", &["239.10.1.1:6000"], "names no interface"),
        ("239.1.1.0/24:5000@eth0", &["239.1.1.0/25:5000@eth1"], "different sizes"),
        ("239.1.1.0/24:5000@eth0", &["239.1.1.1:5000@eth1"], "different sizes"),
        ("239.1.1.1:5000@eth0", &["239.1.1.0/24:5000@eth1"], "different sizes"),
        ("239.1.1.1:5000-5015@eth0", &["239.1.1.1:5000-5014@eth1"], "different sizes"),
        ("239.1.1.1:5000@eth0", &["239.1.1.1:5000-5001@eth1"], "different sizes"),
        ("239.1.1.1:5000-5015@eth0", &["239.1.1.1:5000@eth1"], "different sizes"),
    ];
    for (input, outputs, message) in cases {
        let refusal = rule(input, outputs).check().expect_err(input);
        assert!(refusal.message.contains(message), "{input} {outputs:?}: {refusal}");
        assert!(!refusal.hint.is_empty(), "{refusal}");
        assert_eq!(refusal.code, Code::Invalid, "{refusal}");
        let named = refusal.message.contains(input) || refusal.message.contains(outputs[0]);
        let respelled = input.contains("0.0.0.0") || input.contains("::ffff:");
        assert!(named || respelled, "{refusal}");
    }
}

#[test]
fn outputs_that_meet_each_other_or_the_input_conflict() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("239.1.1.1:5000@eth0", &["239.2.1.1:6@eth1", "239.2.1.1:6@eth1"], "is there twice"),
        ("239.1.1.1:5000@eth0", &["239.2.1.1@eth1", "239.2.1.1:5000@eth1"], "is there twice"),
        ("239.1.1.1:5000@eth0", &["239.2.1.1@eth1", "keep@239.2.1.1@eth1"], "is there twice"),
        ("239.1.1.1:5000@eth0", &["10.9.0.7:6", "10.9.0.7:6"], "is there twice"),
        ("239.1.1.1:5000@eth0", &["239.1.1.1:5000@eth0"], "is the input of the same rule"),
        ("239.1.1.1:5000@eth0", &["239.1.1.1@eth0"], "is the input of the same rule"),
        ("239.1.1.1:5000@eth0", &["10.0.0.1@239.1.1.1:5000@eth0"], "is the input of the same rule"),
        ("239.1.1.0/24:5@eth0", &["239.1.1.0/24:5@eth0"], "is the input of the same rule"),
    ];
    for (input, outputs, message) in cases {
        let refusal = rule(input, outputs).check().expect_err(input);
        assert!(refusal.message.contains(message), "{input} {outputs:?}: {refusal}");
        assert_eq!(refusal.code, Code::Conflict, "{refusal}");
    }
}

#[test]
fn a_range_too_large_to_be_joined_may_be_taken_without() {
    for (input, output) in [
        ("232.0.0.0/5:5000@eth0", "232.0.0.0/5:5000@eth1"),
        ("239.0.0.0/8:5000@eth0", "238.0.0.0/8:5000@eth1"),
        ("[ff3e::]/16:5000@eth0", "[ff1e::]/16:5000@eth1"),
    ] {
        let refusal = rule(input, &[output]).check().expect_err(input);
        assert!(refusal.hint.contains("join = \"no\""), "{refusal}");
        let unjoined = Rule { join: false, ..rule(input, &[output]) };
        unjoined.check().unwrap_or_else(|refusal| panic!("{input}: {refusal}"));
    }
}

#[test]
fn a_source_is_the_address_of_one_host() {
    for source in ["255.255.255.255", "240.0.0.1", "0.1.2.3"] {
        let to = format!("{source}@239.10.1.1:6000@eth1");
        assert!(rule("239.1.1.1:5000@eth0", &[&to]).check().is_err(), "{to}");
    }
}

#[test]
fn a_code_point_has_six_bits() {
    for (dscp, fine) in [(Dscp::Keep, true), (Dscp::Set(63), true), (Dscp::Set(64), false)] {
        let outputs = vec![Output { dscp, ..output("239.10.1.1:6000@eth1") }];
        assert_eq!(Rule { outputs, ..good() }.check().is_ok(), fine, "{dscp:?}");
    }
    assert_eq!(Ttl::default(), Ttl::Set(NonZeroU8::new(32).unwrap()));
}

#[test]
fn a_rule_is_addressed_by_its_name_or_its_input_in_any_spelling() {
    assert_eq!(good().key().as_str(), "239.1.1.1:5000@eth0");
    assert_eq!(RuleKey::from_user("239.1.1.1/32:5000-5000@eth0"), good().key());
    let named = Rule { name: Some("camera-1".into()), ..good() };
    assert_eq!(RuleKey::from_user("camera-1"), named.key());
    assert_eq!(RuleKey::from_user("no such @ rule").as_str(), "no such @ rule");
}
