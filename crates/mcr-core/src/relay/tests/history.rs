//! Random histories of requests, machine changes and refusals, against a plain model of the rules.

use proptest::prelude::*;

use super::super::*;
use super::world::{RefusePlane, World, ip, link};
use super::{put, rule};
use crate::flow::Input;
use crate::resolve::{Part, resolve};
use crate::rule::{Origin, Rule};

#[derive(Debug, Clone)]
enum Event {
    Request(Request, bool),
    Link(u32, u8),
    Host(u8),
    Refuse(Option<u8>, RefusePlane),
    Packets(RuleKey),
    Tick(u8),
    Time,
}

fn random_rule() -> impl Strategy<Value = Rule> {
    (0..4usize, 0..6u8, 1..8u8, 0..8u8).prop_map(|(name, input, outputs, options)| {
        let interface = input % 2;
        let input = match (input / 2, options) {
            (2, 6) => format!("10.{interface}.0.9:5000@eth{interface}"),
            (group, 5) => format!("10.0.0.1@239.1.1.{group}:5000@eth{interface}"),
            (group, _) => format!("239.1.1.{group}:5000@eth{interface}"),
        };
        let places = ["225.1.1.1@eth1", "10.2.0.9@225.1.1.2@eth2", "keep@225.1.1.3@eth0"];
        let hosts = ["10.9.0.7", "10.2.0.9@10.1.0.7@eth1", "10.2.0.7"];
        let places = if options == 7 { hosts } else { places };
        let outputs: Vec<&str> =
            (0..3).filter(|n| outputs & 1 << n != 0).map(|n| places[n]).collect();
        let rule = rule(["", "a", "b", "c"][name], &input, &outputs);
        let silence = Silence::After(Duration::from_secs(options.into()));
        let silence = if options == 0 { Silence::Never } else { silence };
        Rule { enabled: options != 0, join: options != 1, silence, ..rule }
    })
}

fn random_key() -> impl Strategy<Value = RuleKey> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("239.1.1.0:5000@eth0")]
        .prop_map(RuleKey::from_user)
}

fn random_event() -> impl Strategy<Value = Event> {
    let step = prop_oneof![
        3 => random_rule().prop_map(RuleStep::Add),
        2 => (random_key(), random_rule()).prop_map(|(key, rule)| RuleStep::Replace(key, rule)),
        2 => random_key().prop_map(RuleStep::Remove),
    ];
    let rules = || proptest::collection::vec(random_rule(), 0..4);
    let request = prop_oneof![
        4 => proptest::collection::vec(step, 1..4).prop_map(Request::Steps),
        2 => random_rule().prop_map(put),
        2 => (rules(), any::<bool>())
            .prop_map(|(rules, allow_empty)| Request::Apply { rules, allow_empty }),
        2 => rules().prop_map(Request::Reload),
    ];
    let plane = prop_oneof![
        4 => Just(RefusePlane::Nothing),
        1 => (2..4u32).prop_map(RefusePlane::Input),
        1 => Just(RefusePlane::Times(1)),
    ];
    prop_oneof![
        6 => (request, prop::bool::weighted(0.1)).prop_map(|(r, dry)| Event::Request(r, dry)),
        2 => (0..3u32, 0..5u8).prop_map(|(n, change)| Event::Link(n, change)),
        1 => (0..5u8).prop_map(Event::Host),
        1 => (proptest::option::of(0..3u8), plane).prop_map(|(join, plane)| Event::Refuse(join, plane)),
        2 => random_key().prop_map(Event::Packets),
        2 => (1..25u8).prop_map(Event::Tick),
        1 => Just(Event::Time),
    ]
}

type Model = BTreeMap<RuleKey, (Rule, Origin)>;

/// The rules after a request, if their text allows it.
fn after(model: &Model, request: &Request) -> Option<Model> {
    let mut rules = model.clone();
    let put = |rules: &mut Model, rule: &Rule, origin| {
        rules.insert(rule.key(), (rule.clone(), origin)).is_none().then_some(())
    };
    match request {
        Request::Steps(steps) => {
            for step in steps {
                match step {
                    RuleStep::Add(rule) => put(&mut rules, rule, Origin::Runtime)?,
                    RuleStep::Replace(key, rule) => {
                        let (_, origin) = rules.remove(key)?;
                        put(&mut rules, rule, origin)?;
                    }
                    RuleStep::Remove(key) => drop(rules.remove(key)?),
                }
            }
        }
        Request::Put(key, rule) => {
            let origin = rules.remove(key).map_or(Origin::Runtime, |(_, origin)| origin);
            put(&mut rules, rule, origin)?;
        }
        Request::Apply { rules: all, allow_empty } => {
            (!all.is_empty() || *allow_empty).then_some(())?;
            rules.clear();
            for rule in all {
                let origin = model.get(&rule.key()).map_or(Origin::Runtime, |(_, origin)| *origin);
                put(&mut rules, rule, origin)?;
            }
        }
        Request::Reload(all) => {
            // A runtime rule that the files repeat word for word is theirs from now on.
            rules.retain(|_, (rule, origin)| *origin == Origin::Runtime && !all.contains(rule));
            all.iter().try_for_each(|rule| put(&mut rules, rule, Origin::File))?;
        }
        Request::Start { .. } => return None,
    }
    let meet = |a: &Input, b: &Input| {
        (&a.interface, a.addresses, a.ports) == (&b.interface, b.addresses, b.ports)
            && (a.sources.is_empty() || b.sources.is_empty() || a.sources == b.sources)
    };
    let inputs: Vec<_> = rules.values().map(|(rule, _)| &rule.input).collect();
    let clash = inputs.iter().enumerate().any(|(n, a)| inputs[..n].iter().any(|b| meet(a, b)));
    (!clash).then_some(rules)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_the_world_as_the_rules_say(
        events in proptest::collection::vec(random_event(), 1..25),
    ) {
        let mut world = World::new();
        let mut model = Model::new();
        for event in events {
            match event {
                Event::Request(request, dry_run) => {
                    let wanted = after(&model, &request);
                    let calm = world.refuse_group.is_none() && world.refuse_plane == RefusePlane::Nothing;
                    let strict = request.is_strict();
                    let reply = world.guarded(request, Guard { dry_run, ..Guard::default() });
                    let known = |rule: &Rule| {
                        let routes = world.answers(route_queries(rule));
                        Links { routes, ..world.links.clone() }
                    };
                    let missing = |wanted: &Model| wanted.iter().any(|(key, now)| {
                        let changed = model.get(key) != Some(now);
                        changed && now.0.enabled && !resolve(&now.0, &known(&now.0)).missing.is_empty()
                    });
                    // What no rule had before, and the machine cannot serve.
                    let had = |now: &Rule, part: Part| model.values().any(|(before, _)| match part {
                        Part::Input => before.input == now.input,
                        Part::Output(n) => before.outputs.iter().any(|o| o.to == now.outputs[n].to),
                    });
                    let new = |wanted: &Model| wanted.values().any(|(now, _)| {
                        let mut missing = resolve(now, &known(now)).missing.into_iter();
                        now.enabled && missing.any(|m| !m.sought && !had(now, m.part))
                    });
                    match (reply, wanted) {
                        (Ok(change), Some(wanted)) => {
                            prop_assert_eq!(change.generation, world.relay.generation());
                            prop_assert!(!(strict && new(&wanted)), "{:?}", wanted);
                            model = if dry_run { model } else { wanted };
                        }
                        (Ok(change), None) => prop_assert!(false, "not refused: {:?}", change),
                        (Err(refusal), Some(wanted)) => prop_assert!(
                            strict && (missing(&wanted) || !calm), "{}", refusal),
                        (Err(_), None) => {}
                    }
                }
                Event::Link(n, change) => world.link(|links| {
                    let name = format!("eth{n}").parse().unwrap();
                    let new = link(n + 2, &format!("10.{n}.0.9"));
                    let there = links.entry(name).or_insert(new);
                    match change {
                        0 => drop(links.remove(&format!("eth{n}").parse().unwrap())),
                        1 => there.index.0 += 10,
                        2 => there.up = !there.up,
                        3 => there.addresses.clear(),
                        _ => there.addresses = vec![IpAddr::from([10, n as u8, 0, 9]).into()],
                    }
                }),
                Event::Host(change) => {
                    let interface = "eth1".parse().unwrap();
                    let next_hop = ip(if change == 0 { "10.1.0.1" } else { "10.1.0.7" });
                    let via = Route::Via { interface, next_hop, source: None };
                    match change {
                        0 | 1 => drop(world.routes.insert(ip("10.9.0.7"), via)),
                        2 => world.routes.clear(),
                        3 => world.hosts.clear(),
                        _ => drop(world.hosts.insert(ip("10.1.0.7"), [2, 7, 7, 7, 7, 7])),
                    }
                    world.look();
                }
                Event::Refuse(group, plane) => {
                    world.refuse_group = group.map(|n| [239, 1, 1, n].into());
                    world.refuse_plane = plane;
                }
                Event::Packets(key) => world.more_packets(&key),
                Event::Tick(times) => (0..times).for_each(|_| world.tick()),
                Event::Time => world.wait(RETRY),
            }
            let rules = world.relay.table.iter().map(|(k, e)| (k.clone(), (e.rule.clone(), e.origin)));
            prop_assert_eq!(&rules.collect::<Model>(), &model);
        }
    }
}
