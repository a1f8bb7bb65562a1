//! States of rules, as they are told.

use super::super::*;
use super::world::{World, link};
use super::{plain, put, remove, replace, to_host};
use crate::event::{Event, Level, NAMES};
use crate::rule::Rule;

const TICK: Duration = Duration::from_millis(500);

/// From where to where, in the last step.
fn states(world: &World) -> Vec<(&str, Option<State>, State)> {
    let state = |event| {
        let &Event::RuleState { ref rule, from, to, .. } = event else { return None };
        Some((rule.as_str(), from, to))
    };
    world.told.iter().filter_map(state).collect()
}

#[test]
fn states_are_told_when_they_change() {
    use State::{Disabled, Failed, Forwarding, Idle, Waiting};
    let mut world = World::new();
    world.add(plain("a", 1));
    assert_eq!(states(&world), [], "told by the change of the rules");
    world.now += TICK;
    world.count("a", 1);
    assert_eq!(states(&world), [("a", Some(Idle), Forwarding)]);
    assert!(world.told[0].is_flip());
    for _ in 0..4 {
        world.tick();
        assert_eq!(states(&world), []);
    }
    world.tick();
    assert_eq!(states(&world), [("a", Some(Forwarding), Idle)]);
    world.request(put(Rule { enabled: false, ..plain("a", 1) })).unwrap();
    assert_eq!(states(&world), [("a", Some(Idle), Disabled)]);
    assert!(!world.told[1].is_flip());
    world.request(put(plain("a", 1))).unwrap();
    assert_eq!(states(&world), [("a", Some(Disabled), Idle)]);

    let eth1 = "eth1".parse().unwrap();
    world.link(|links| links.get_mut(&eth1).unwrap().up = false);
    assert_eq!(states(&world), [("a", Some(Idle), Waiting)]);
    world.link(|links| drop(links.remove(&eth1)));
    assert_eq!(states(&world), [("a", Some(Waiting), Waiting)], "for another reason");
    world.link(|links| links.get_mut(&"eth2".parse().unwrap()).unwrap().mtu = 1400);
    assert_eq!(states(&world), [], "the same reason");
    world.link(|links| drop(links.insert(eth1, link(9, "10.1.0.9"))));
    assert_eq!(states(&world), [("a", Some(Waiting), Idle)]);
    world.refuse_group = Some([239, 1, 1, 1].into());
    let eth0 = "eth0".parse().unwrap();
    world.link(|links| links.get_mut(&eth0).unwrap().index = IfIndex(22));
    assert_eq!(states(&world), [("a", Some(Idle), Failed)]);
    assert_eq!(world.told.last().unwrap().level(), Level::Error);
    world.wait(RETRY);
    assert_eq!(states(&world), [], "tried again, for nothing");
    world.refuse_group = None;
    world.wait(RETRY);
    assert_eq!(states(&world), [("a", Some(Failed), Idle)]);
    world.steps(vec![remove("a")]).unwrap();
    assert_eq!(states(&world), []);
}

#[test]
fn a_rule_that_is_new_is_told_unless_it_runs() {
    use State::{Disabled, Waiting};
    let mut world = World::new();
    let absent = super::rule("w", "239.1.1.1:5000@eth7", &["225.1.1.1:6000@eth1"]);
    let disabled = Rule { enabled: false, ..plain("d", 2) };
    world.request(Request::Reload(vec![absent, disabled, plain("a", 3)])).unwrap();
    assert_eq!(states(&world), [("d", None, Disabled), ("w", None, Waiting)]);
    let Event::RulesChanged { added: 3, replaced: 0, removed: 0, rules, generation } =
        &world.told[0]
    else {
        panic!("{:?}", world.told)
    };
    assert_eq!((rules.join(" "), *generation), ("w d a".into(), world.relay.generation()));
}

#[test]
fn what_may_pass_in_a_moment_is_told_when_it_lasts() {
    let mut world = World::new();
    let ask = |world: &mut World, name: &str, n| {
        world.request(put(to_host(name, n))).unwrap();
        assert_eq!((world.state(name).split(':').next(), states(world)), (Some("waiting"), vec![]));
    };
    super::by_router(&mut world, "10.1.0.1", "10.9.0.1");
    ask(&mut world, "a", 1);
    world.tick();
    assert_eq!(states(&world), []);
    // A change meanwhile is no reason to tell it.
    world.add(plain("b", 5));
    assert_eq!(states(&world), []);
    world.hosts.insert(super::ip("10.1.0.1"), [2, 7, 7, 7, 7, 7]);
    world.look();
    world.tick();
    assert_eq!((world.state("a"), states(&world)), ("idle".into(), vec![]), "it has passed");

    world.hosts.clear();
    world.look();
    assert_eq!(states(&world), []);
    world.tick();
    assert_eq!(states(&world), []);
    world.tick();
    assert_eq!(states(&world), [("a", Some(State::Idle), State::Waiting)]);
    world.tick();
    assert_eq!(states(&world), []);
}

#[test]
fn a_renamed_rule_goes_on_and_a_change_of_many_names_none() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.count("a", 1);
    world.steps(vec![replace("a", plain("b", 1))]).unwrap();
    assert_eq!(states(&world), []);
    for _ in 0..6 {
        world.tick();
    }
    world.count("b", 2);
    assert_eq!(states(&world), [("b", Some(State::Idle), State::Forwarding)]);

    for count in [NAMES, NAMES + 1] {
        let rules: Vec<Rule> = (0..count).map(|n| plain(&format!("r{n}"), n as u8)).collect();
        world.request(Request::Apply { rules: vec![], allow_empty: true }).unwrap();
        world.request(Request::Apply { rules, allow_empty: true }).unwrap();
        let Event::RulesChanged { added, rules, .. } = &world.told[0] else { panic!() };
        assert_eq!((*added, rules.len()), (count, if count > NAMES { 0 } else { count }));
    }
}
