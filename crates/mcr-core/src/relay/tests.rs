mod history;
mod hosts;
mod interfaces;
mod states;
mod streams;
mod takers;
mod watch;
mod world;

use super::*;
use crate::action::PlaneChange;
use crate::api::{Change, RuleSpec};
use crate::refusal::Code;
use crate::rule::{Local, Origin, Rule};
use crate::verdict::OutputDrop;
use world::{RefusePlane, World, address, ip, link};

fn rule(name: &str, input: &str, outputs: &[&str]) -> Rule {
    RuleSpec::plain(name, input, outputs).check().unwrap()
}

/// From 239.1.1.`n` on eth0 to 225.1.1.`n` on eth1.
fn plain(name: &str, n: u8) -> Rule {
    rule(name, &format!("239.1.1.{n}:5000@eth0"), &[&format!("225.1.1.{n}:6000@eth1")])
}

fn replace(old: &str, rule: Rule) -> RuleStep {
    RuleStep::Replace(RuleKey::from_user(old), rule)
}

fn remove(old: &str) -> RuleStep {
    RuleStep::Remove(RuleKey::from_user(old))
}

fn put(rule: Rule) -> Request {
    Request::Put(rule.key(), rule)
}

#[test]
fn a_rule_is_joined_then_applied_then_answered_and_left_after_its_removal() {
    let mut world = World::new();
    let change = world.add(plain("a", 1));
    let (generation, changed, added) = (8, true, vec!["a".into()]);
    assert_eq!(change, Change { generation, changed, added, ..Change::default() });
    let kinds = |world: &World| -> Vec<char> {
        let name = |action: &Action| format!("{action:?}").chars().next().unwrap();
        world.did.iter().map(name).collect()
    };
    assert_eq!(kinds(&world), ['J', 'A', 'S', 'R']);
    let change = world.steps(vec![remove("a")]).unwrap();
    assert_eq!((change.generation, change.removed), (9, vec!["a".into()]));
    assert_eq!(kinds(&world), ['A', 'L', 'S', 'R']);
    assert_eq!(world.steps(vec![remove("a")]).unwrap_err().code, Code::NotFound);
    assert_eq!(world.relay.ids_in_use(), (0, 0));
}

#[test]
fn a_replaced_rule_keeps_the_ids_and_counters_of_what_stays() {
    let mut world = World::new();
    world.add(rule("a", "239.1.1.1:5000@eth0", &["225.1.1.1@eth1", "225.1.1.2@eth1"]));
    world.add(plain("b", 2));
    world.count("a", 10);
    let (id, outputs) = world.ids("a");
    let new = rule("a", "239.1.1.1:5000@eth0", &["225.1.1.3@eth2", "225.1.1.2@eth1,ttl=9"]);
    assert_eq!(world.request(put(new.clone())).unwrap().replaced, ["a"]);
    let (id_now, outputs_now) = world.ids("a");
    assert_eq!((id_now, outputs_now[1]), (id, outputs[1]));
    let [change] = world.changes()[..] else { panic!("{:?}", world.did) };
    assert_eq!((&change.fresh_rules, &change.fresh_outputs), (&vec![], &vec![outputs_now[0]]));
    assert_eq!((change.install.len(), change.remove.len()), (1, 0));
    world.count("b", 1);
    let packets: Vec<u64> = world.stats("a").outputs.iter().map(|o| o.offered.packets).collect();
    assert_eq!((world.stats("a").received.packets, packets), (10, vec![0, 10]));

    let again = world.request(put(new.clone())).unwrap();
    assert_eq!((again.changed, again.generation), (false, world.relay.generation()));
    assert_eq!(world.did.len(), 1, "a PUT of what is there only answers");

    let renamed = Rule { name: Some("z".into()), ..new };
    assert_eq!(world.steps(vec![replace("a", renamed)]).unwrap().replaced, ["z"]);
    assert_eq!(world.changes(), Vec::<&PlaneChange>::new(), "a new name is no business of a plane");
    assert_eq!((world.ids("z"), world.keys()), ((id, outputs_now), vec!["b", "z"]));
    assert_eq!(world.stats("z").received.packets, 10);
}

#[test]
fn rules_swap_inputs_and_names_in_one_request() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.add(plain("b", 2));
    let (a, b) = (world.ids("a").0, world.ids("b").0);
    world.steps(vec![replace("a", plain("a", 2)), replace("b", plain("b", 1))]).unwrap();
    assert_eq!((world.ids("a").0, world.ids("b").0), (a, b));
    let via =
        vec![replace("a", plain("t", 2)), replace("b", plain("a", 1)), replace("t", plain("b", 2))];
    world.steps(via).unwrap();
    assert_eq!((world.ids("a").0, world.ids("b").0), (b, a));
    assert!(world.changes().is_empty(), "{:?}", world.did);
}

#[test]
fn a_rule_removed_and_added_again_in_one_request_runs() {
    for n in [1, 2] {
        let mut world = World::new();
        world.add(plain("a", 1));
        world.steps(vec![remove("a"), RuleStep::Add(plain("a", n))]).unwrap();
        assert_eq!(world.plane.len(), 1);
    }
}

#[test]
fn the_name_of_a_renamed_rule_is_free_for_another_in_the_same_request() {
    let mut world = World::new();
    world.add(plain("a", 1));
    let old = world.ids("a");
    world.steps(vec![replace("a", plain("b", 1)), RuleStep::Add(plain("a", 2))]).unwrap();
    assert_eq!(world.ids("b"), old);
    assert_ne!(world.ids("a"), old);
}

#[test]
fn apply_makes_the_rules_equal_and_an_empty_one_must_be_meant() {
    let mut world = World::new();
    world.request(Request::Reload(vec![plain("f", 1)])).unwrap();
    world.add(plain("a", 2));
    world.add(plain("b", 3));
    let kept = world.ids("a");
    let apply = |rules, allow_empty| Request::Apply { rules, allow_empty };
    let rules = vec![plain("a", 2), plain("c", 3), plain("f", 4)];
    let change = world.request(apply(rules.clone(), false)).unwrap();
    let lists = (change.added, change.replaced, change.removed);
    assert_eq!(lists, (vec!["c".into()], vec!["f".into()], vec!["b".into()]));
    assert_eq!((world.ids("a"), world.keys()), (kept, vec!["a", "c", "f"]));
    assert!(!world.request(apply(rules.clone(), false)).unwrap().changed);
    let origins: Vec<Origin> = world.relay.table.iter().map(|(_, entry)| entry.origin).collect();
    assert_eq!(origins, [Origin::Runtime, Origin::Runtime, Origin::File]);
    assert_eq!(
        world.request(apply(vec![plain("a", 1), plain("a", 2)], false)).unwrap_err().code,
        Code::Conflict
    );
    assert_eq!(world.request(apply(vec![], false)).unwrap_err().code, Code::Invalid);
    assert_eq!(world.request(apply(vec![], true)).unwrap().removed, ["a", "c", "f"]);
}

#[test]
fn reload_changes_file_rules_only_and_only_those_that_differ() {
    let mut world = World::new();
    let unnamed = plain("", 9);
    world.request(Request::Reload(vec![plain("a", 1), plain("b", 2), unnamed.clone()])).unwrap();
    world.add(plain("r", 3));
    world.request(put(plain("b", 4))).unwrap();
    let change =
        world.request(Request::Reload(vec![plain("b", 2), plain("c", 1), unnamed])).unwrap();
    assert_eq!(change.removed, ["a"]);
    assert_eq!((change.added, change.replaced), (vec!["c".into()], vec!["b".into()]));
    assert_eq!(world.keys(), ["239.1.1.9:5000@eth0", "b", "c", "r"]);
    assert!(!world.did.contains(&Action::SaveRuntime), "no runtime rule has changed");
    assert_eq!(world.relay.runtime_rules().count(), 1);
    world.request(Request::Reload(vec![plain("r", 5)])).expect_err("the name is a runtime rule's");
    world.request(Request::Reload(vec![plain("d", 3)])).expect_err("the input is a runtime rule's");
    assert_eq!(world.request(Request::Reload(vec![])).unwrap().removed.len(), 3);
    assert_eq!(world.keys(), ["r"]);
}

#[test]
fn a_dry_run_says_what_would_change_and_a_stale_request_is_refused() {
    let mut world = World::new();
    world.add(plain("a", 1));
    let dry = Guard { dry_run: true, ..Guard::default() };
    let steps = vec![remove("a"), RuleStep::Add(plain("b", 1))];
    let change = world.guarded(Request::Steps(steps), dry).unwrap();
    assert_eq!((change.changed, change.generation), (false, 8));
    assert_eq!((change.added, change.removed), (vec!["b".into()], vec!["a".into()]));
    assert_eq!(world.did.len(), 1);
    let missing = rule("c", "239.1.1.3:1@eth9", &["225.1.1.1@eth1"]);
    assert_eq!(world.guarded(put(missing), dry).unwrap_err().code, Code::Machine);

    let at = |generation| Guard { generation: Some(generation), ..Guard::default() };
    assert_eq!(world.guarded(put(plain("b", 2)), at(7)).unwrap_err().code, Code::Stale);
    assert_eq!(world.guarded(put(plain("b", 2)), at(8)).unwrap().generation, 9);
}

#[test]
fn requests_that_come_during_a_change_wait_for_their_turn() {
    let mut world = World::new();
    let stale = Guard { generation: Some(7), ..Guard::default() };
    let asked = [
        world.ask(put(plain("a", 1)), stale),
        world.ask(put(plain("b", 2)), stale),
        world.ask(put(plain("c", 1)), Guard::default()),
        world.ask(put(plain("d", 4)), Guard::default()),
    ];
    assert!(world.relay.actions.iter().all(|action| matches!(action, Action::Join(_))));
    world.settle();
    let codes = asked.map(|id| world.replies[&id].as_ref().err().map(|refusal| refusal.code));
    assert_eq!(codes, [None, Some(Code::Stale), Some(Code::Conflict), None]);
    assert_eq!(world.keys(), ["a", "d"]);
}

#[test]
fn a_refused_join_refuses_an_add_and_only_its_own_rule_of_a_reload() {
    let mut world = World::new();
    world.refuse_group = Some([239, 1, 1, 2].into());
    world.add(plain("a", 1));
    let refused = world.steps([3, 2, 4].map(|n| RuleStep::Add(plain("", n))).into());
    assert_eq!(refused.unwrap_err().message, "igmp_max_memberships");
    assert_eq!(world.joined.len(), 1);

    world.request(Request::Reload([2, 3].map(|n| plain(&format!("f{n}"), n)).into())).unwrap();
    assert_eq!(world.state("f2"), "failed: igmp_max_memberships (raise it)");
    assert_eq!(world.state("f3"), "idle");
    world.wait(RETRY - Duration::from_millis(1));
    assert_eq!(world.did, []);
    world.wait(Duration::from_millis(1));
    assert_eq!(
        world.changes().len() + world.did.len(),
        1,
        "one more refused join: {:?}",
        world.did
    );
    world.refuse_group = None;
    world.wait(RETRY);
    assert_eq!((world.state("f2"), world.relay.poll_timeout()), ("idle".into(), None));
}

#[test]
fn a_refusing_plane_refuses_an_add_and_fails_the_rules_of_a_reload_it_cannot_run() {
    let on_eth2 =
        |n: u8| rule(&format!("two{n}"), &format!("239.1.2.{n}:5@eth2"), &["225.1.1.9@eth1"]);
    let mut world = World::new();
    world.request(Request::Reload(vec![plain("a", 1)])).unwrap();
    world.refuse_plane = RefusePlane::Input(4);
    let refused = world.steps(vec![RuleStep::Add(plain("b", 2)), RuleStep::Add(on_eth2(1))]);
    assert_eq!(refused.unwrap_err().code, Code::Plane);
    world
        .request(Request::Reload(vec![plain("a", 1), plain("b", 2), on_eth2(1), on_eth2(2)]))
        .unwrap();
    let states = ["a", "b", "two1", "two2"].map(|name| world.state(name));
    let failed = "failed: the plane says no (try later)";
    assert_eq!(states, ["idle", "idle", failed, failed]);
    world.refuse_plane = RefusePlane::Times(1);
    world.wait(RETRY);
    assert_eq!(world.state("two2"), failed);
    world.wait(RETRY);
    assert_eq!((world.state("two2"), world.relay.poll_timeout()), ("idle".into(), None));

    world.refuse_plane = RefusePlane::Times(1);
    world.request(Request::Reload(vec![plain("a", 1), plain("b", 7), plain("c", 8)])).unwrap();
    assert_eq!(["a", "b", "c"].map(|name| world.state(name)), ["idle", failed, failed]);
    world.refuse_plane = RefusePlane::Times(2);
    world.request(Request::Reload(vec![])).expect_err("refused twice");
    world.wait(RETRY);
    assert_eq!(["a", "b", "c"].map(|name| world.state(name)), ["idle"; 3]);
}

#[test]
fn a_rule_waits_for_its_interfaces_and_follows_them() {
    let mut world = World::new();
    let outputs = ["225.1.1.1:6000@eth1", "225.1.1.1:6000@eth2"];
    let absent = rule("a", "239.1.1.1:5000@eth7", &outputs);
    assert_eq!(world.request(put(absent.clone())).unwrap_err().code, Code::Machine);
    world.request(Request::Reload(vec![absent, plain("b", 2)])).unwrap();
    assert!(world.state("a").starts_with("waiting: input 239.1.1.1:5000@eth7: no interface eth7"));
    let ids = world.ids("a");

    let eth7 = "eth7".parse().unwrap();
    let eth2 = "eth2".parse().unwrap();
    world.link(|links| drop(links.insert(eth7, link(7, "10.7.0.9"))));
    assert_eq!((world.state("a"), world.ids("a")), ("idle".into(), ids.clone()));
    assert_eq!(world.changes()[0].install.len(), 1);
    let eth7 = "eth7".parse().unwrap();
    world.link(|links| links.get_mut(&eth7).unwrap().index = IfIndex(17));
    world.link(|links| drop(links.remove(&eth2)));
    assert!(world.state("a").contains("output 225.1.1.1:6000@eth2: no interface eth2"));
    let absent: Vec<_> = world.plane[&ids.0].outputs.iter().map(|o| o.absent).collect();
    assert_eq!(absent, [None, Some(OutputDrop::InterfaceGone)]);
    world.link(|links| drop(links.remove(&eth7)));
    assert_eq!((world.joined.len(), world.plane.len()), (1, 1));
    world.link(|links| {
        drop((links.insert(eth7, link(27, "10.7.0.9")), links.insert(eth2, link(28, "10.2.0.8"))))
    });
    assert_eq!((world.state("a"), world.ids("a")), ("idle".into(), ids));

    let eth1 = "eth1".parse().unwrap();
    world.link(|links| links.get_mut(&eth1).unwrap().addresses = vec![address("10.1.0.77")]);
    assert!(world.own.contains(&ip("10.1.0.77")) && !world.own.contains(&ip("10.1.0.9")));
    assert_eq!(world.changes()[0].install.len(), 2);
    world.link(|links| links.get_mut(&eth1).unwrap().mtu = 9000);
    let [Action::Apply(change)] = &world.did[..] else { panic!("{:?}", world.did) };
    let mtus: Vec<_> = change.install.iter().map(|rule| rule.outputs[0].mtu).collect();
    assert_eq!(mtus, [9000, 9000]);
    world.link(|_| ());
    assert_eq!(world.did, []);
}

#[test]
fn a_disabled_rule_keeps_its_ids_and_counters() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.count("a", 5);
    let ids = world.ids("a");
    world.request(put(Rule { enabled: false, ..plain("a", 1) })).unwrap();
    assert_eq!(
        (world.state("a"), world.plane.len(), world.joined.len()),
        ("disabled".into(), 0, 0)
    );
    world.request(put(plain("a", 1))).unwrap();
    assert_eq!(world.ids("a"), ids);
    let [change] = world.changes()[..] else { panic!("{:?}", world.did) };
    assert!(change.fresh_rules.is_empty() && change.fresh_outputs.is_empty());
    assert_eq!(world.stats("a").received.packets, 5);
    let absent = Rule { enabled: false, ..rule("c", "239.1.1.3:1@eth9", &["225.1.1.1@eth9"]) };
    world.request(put(absent)).expect("a disabled rule needs no machine");
}

#[test]
fn a_new_rule_starts_at_zero_when_it_takes_the_ids_of_an_old_one() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.count("a", 10);
    let ids = world.ids("a");
    world.steps(vec![remove("a")]).unwrap();
    world.add(plain("b", 2));
    assert_eq!(world.ids("b"), ids);
    let [change] = world.changes()[..] else { panic!("{:?}", world.did) };
    assert_eq!((&change.fresh_rules, &change.fresh_outputs), (&vec![ids.0], &ids.1));
    let stats = world.stats("b");
    assert_eq!((stats.received.packets, stats.outputs[0].offered.packets), (0, 0));
}

#[test]
fn limits_hold_for_rules_and_outputs_together() {
    let mut world = World::with_limits(Limits { rules: 2, outputs: 3 });
    world.add(plain("a", 1));
    let many = |count: u8| {
        let outputs: Vec<String> = (0..count).map(|n| format!("225.9.1.{n}@eth1")).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        rule("b", "239.1.1.2:5000@eth0", &outputs)
    };
    assert_eq!(world.request(put(many(3))).unwrap_err().code, Code::Capacity);
    world.request(put(many(2))).unwrap();
    assert_eq!(world.request(put(plain("c", 3))).unwrap_err().code, Code::Capacity);
    assert_eq!(
        world.request(Request::Reload(vec![plain("c", 3)])).unwrap_err().code,
        Code::Capacity
    );
    world.steps(vec![RuleStep::Add(plain("c", 3)), remove("a")]).unwrap();
}

#[test]
fn own_addresses_are_those_of_this_host_that_an_output_sends_from() {
    let mut world = World::new();
    let sources = ["", "10.0.0.9@", "10.77.0.1@", "keep@"];
    for (n, source) in sources.iter().enumerate() {
        let output = format!("{source}225.1.1.{n}@eth1");
        world.add(rule(&format!("r{n}"), &format!("239.1.1.{n}:5@eth0"), &[&output]));
    }
    let own = |world: &World| world.own.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(own(&world), ["10.0.0.9", "10.1.0.9"]);
    world.steps(vec![remove("r1")]).unwrap();
    assert_eq!(own(&world), ["10.1.0.9"]);
    let eth2 = "eth2".parse().unwrap();
    let foreign = address("10.77.0.1");
    world.link(|links| links.get_mut(&eth2).unwrap().addresses.push(foreign));
    assert_eq!(own(&world), ["10.1.0.9", "10.77.0.1"]);
    assert!(world.changes()[0].is_empty());
}

#[test]
fn a_circle_stays_broken_when_the_address_that_broke_it_leaves_the_host() {
    let mut world = World::new();
    world.add(rule("there", "239.1.1.1:5@eth0", &["10.2.0.9@239.1.1.1:5@eth1"]));
    world.add(rule("back", "239.1.1.1:5@eth1", &["10.2.0.9@239.1.1.1:5@eth0"]));
    let eth2 = "eth2".parse().unwrap();
    world.link(|links| drop(links.remove(&eth2)));
    let sent = world.plane.values().flat_map(|rule| &rule.outputs).filter_map(|o| o.source);
    let known: Vec<bool> = sent.map(|source| world.own.contains(&source)).collect();
    assert!(known.len() < 2 || known.contains(&true), "packets go round for ever");
}

#[test]
fn a_circle_for_want_of_an_address_leaves_the_other_rules_of_a_reload_running() {
    let mut world = World::new();
    let there = rule("there", "239.1.1.1:5@eth0", &["10.77.0.1@239.1.1.1:5@eth1"]);
    let back = rule("back", "239.1.1.1:5@eth1", &["10.77.0.1@239.1.1.1:5@eth0"]);
    world.request(Request::Reload(vec![there, back, plain("a", 2)])).unwrap();
    assert_eq!(world.state("a"), "idle");
    assert!(world.plane.len() < 3, "the circle runs");
}

#[test]
fn a_start_takes_the_rules_of_files_and_those_kept_from_before() {
    let mut world = World::new();
    let absent = rule("absent", "239.1.1.7:5000@eth7", &["225.1.1.7@eth1"]);
    let (file, runtime) = (vec![plain("f", 1), absent], vec![plain("r", 2)]);
    world.request(Request::Start { file, runtime }).unwrap();
    let origins = world.relay.table.iter().map(|(key, entry)| (key.as_str(), entry.origin));
    let expected = [("absent", Origin::File), ("f", Origin::File), ("r", Origin::Runtime)];
    assert_eq!(origins.collect::<Vec<_>>(), expected);
    assert!(world.state("absent").starts_with("waiting: "));
    assert_eq!(world.relay.runtime_rules().count(), 1);
}

#[test]
fn links_that_a_refused_change_has_missed_are_followed_at_the_retry() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.refuse_plane = RefusePlane::Times(2);
    let eth1 = "eth1".parse().unwrap();
    world.links.interfaces.get_mut(&eth1).unwrap().index = IfIndex(33);
    world.relay.handle_links(world.links.clone(), world.now);
    while let Some(action) = world.relay.poll_action() {
        let Action::Apply(change) = action else { continue };
        let result = world.apply(change);
        world.relay.handle_applied(result.map(|()| Vec::new()));
    }
    world.wait(RETRY);
    assert_eq!(world.plane[&world.ids("a").0].outputs[0].interface, IfIndex(33));
}

#[test]
fn steady_changes_do_not_put_off_the_retry_of_a_failed_rule() {
    let mut world = World::new();
    world.refuse_group = Some([239, 1, 1, 1].into());
    world.request(Request::Reload(vec![plain("a", 1)])).unwrap();
    world.refuse_group = None;
    for n in 0..10 {
        world.request(put(plain("b", 100 + n))).unwrap();
        world.wait(RETRY / 2);
    }
    assert_eq!(world.state("a"), "idle");
}

#[test]
fn a_rule_is_forwarding_for_two_seconds_after_its_last_packet() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.add(plain("b", 2));
    let second = Duration::from_secs(1);
    world.count("a", 0);
    assert_eq!((world.state("a"), world.stats("a").last_packet), ("idle".into(), None));
    world.now += second;
    world.count("a", 2000);
    assert_eq!(world.state("a"), "forwarding");
    let stats = world.stats("a");
    assert_eq!((stats.rate.packets, stats.rate.bits), (2000, 2000 * 800));
    assert_eq!(stats.last_packet.as_deref(), Some("1970-01-02T00:00:00.000Z"));
    assert_eq!(stats.since, "1970-01-01T23:59:59Z");
    world.now += second / 2;
    world.count("a", 2500);
    assert_eq!(world.stats("a").rate.packets, 2000, "half a second is too short for a rate");
    world.now += second / 2;
    world.count("a", 3000);
    assert_eq!(world.stats("a").rate.packets, 1000);
    for (wait, state) in [(second, "forwarding"), (second, "forwarding"), (second, "idle")] {
        world.now += wait;
        world.count("a", 3000);
        assert_eq!(world.state("a"), state);
    }
    assert_eq!((world.stats("a").rate.packets, world.state("b")), (0, "idle".into()));
    let states = world.relay.states(world.clocks());
    assert_eq!((states["idle"], states["forwarding"], states.len()), (2, 0, 5));
    assert_eq!(world.relay.counter_bounds(), (2, 2));
}

#[test]
fn local_no_on_a_tap_is_a_warning_of_the_change_and_of_the_list() {
    let hidden = |name: &str, n| Rule { local: Local::No, ..plain(name, n) };
    let views = |world: &World| world.relay.list(None, world.clocks()).unwrap().rules;
    let mut world = World::new();
    assert_eq!(world.add(hidden("a", 1)).warnings, Vec::<String>::new());
    assert_eq!(views(&world)[0].warnings, Vec::<String>::new());

    let limits = Limits { rules: 100, outputs: 100 };
    let mut world = World::with_relay(Relay::new(limits, 7, true));
    let warning = "local = \"no\" has no effect: the packet plane always leaves the input to the \
                   host's stack; use the ebpf plane";
    assert_eq!(world.add(hidden("a", 1)).warnings, [format!("a: {warning}")]);
    let silent = [plain("b", 2), Rule { enabled: false, ..hidden("c", 3) }];
    for rule in silent.clone() {
        assert_eq!(world.add(rule).warnings, Vec::<String>::new());
    }
    let all: Vec<Vec<String>> = views(&world).into_iter().map(|view| view.warnings).collect();
    assert_eq!(all, [vec![warning.to_owned()], vec![], vec![]]);

    let change = world.request(put(hidden("b", 2))).unwrap();
    assert_eq!(change.warnings, [format!("b: {warning}")]);
    let change = world.request(Request::Reload(vec![hidden("d", 4)])).unwrap();
    assert_eq!(change.warnings, [format!("d: {warning}")], "of the changed rules only");
    let change = world.request(put(plain("a", 1))).unwrap();
    assert_eq!((change.replaced, change.warnings), (vec!["a".into()], vec![]));
    assert_eq!(views(&world)[0].warnings, Vec::<String>::new());
}

/// From 239.1.1.`n` on eth0 to the host 10.9.0.`n`, by the route.
fn to_host(name: &str, n: u8) -> Rule {
    rule(name, &format!("239.1.1.{n}:5000@eth0"), &[&format!("10.9.0.{n}:6000")])
}

fn by_router(world: &mut World, router: &str, destination: &str) {
    let interface = "eth1".parse().unwrap();
    let route = Route::Via { interface, next_hop: ip(router), source: None };
    world.routes.insert(ip(destination), route);
}
