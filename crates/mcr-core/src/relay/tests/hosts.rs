//! Addresses, routes, neighbours and senders: what other hosts have to do with a rule.

use super::*;

#[test]
fn a_moved_source_address_is_followed_and_told() {
    let mut world = World::new();
    let outputs = ["225.1.1.1:6000@eth1", "10.1.0.9@225.1.1.2:6000@eth1", "keep@225.1.1.3@eth1"];
    world.add(rule("a", "239.1.1.1:5000@eth0", &outputs));
    world.add(rule("b", "[ff3e::1]:5000@eth0", &["[ff1e::1]:6000@eth1"]));
    assert_eq!(world.sources(), [""; 0]);
    let eth1 = "eth1".parse().unwrap();
    world.link(|links| links.get_mut(&eth1).unwrap().addresses[0] = address("10.1.0.77"));
    let note = "rule a: what goes to 225.1.1.1 is sent from 10.1.0.77, and no more from 10.1.0.9";
    assert_eq!(world.sources(), [note]);
    world.link(|links| links.get_mut(&eth1).unwrap().addresses[1] = address("fd00:0:0:1::77"));
    let note = "rule b: what goes to [ff1e::1] is sent from fd00:0:0:1::77, and no more from fd00:0:0:1::9";
    assert_eq!(world.sources(), [note]);
    world.link(|links| links.get_mut(&eth1).unwrap().mtu = 9000);
    assert_eq!(world.sources(), [""; 0]);
    // An address that is deleted before the other is added is followed by it all the same.
    world.link(|links| {
        links.get_mut(&eth1).unwrap().addresses.remove(0);
    });
    assert_eq!(world.sources(), [""; 0]);
    world.link(|links| links.get_mut(&eth1).unwrap().addresses.push(address("10.1.0.9")));
    let note = "rule a: what goes to 225.1.1.1 is sent from 10.1.0.9, and no more from 10.1.0.77";
    assert_eq!(world.sources(), [note]);
}

#[test]
fn a_neighbour_that_answers_starts_an_output_and_touches_no_claim() {
    let mut world = World::new();
    by_router(&mut world, "10.1.0.1", "10.9.0.1");
    world.add(plain("other", 9));
    let change = world.add(to_host("a", 1));
    assert!(change.changed, "what is sought refuses nothing");
    assert!(
        world.state("a").starts_with("waiting: output 10.9.0.1:6000: neighbour 10.1.0.1 has not")
    );
    let hop = NextHop { interface: IfIndex(3), address: ip("10.1.0.1") };
    assert_eq!(world.sought, [hop].into());

    world.hosts.insert(ip("10.1.0.1"), [2, 7, 7, 7, 7, 7]);
    world.look();
    assert_eq!(world.state("a"), "idle");
    let [Action::Apply(change)] = &world.did[..] else { panic!("{:?}", world.did) };
    assert_eq!((change.install.len(), change.install[0].outputs[0].absent), (1, None));
    assert!(change.fresh_rules.is_empty() && change.fresh_outputs.is_empty());

    world.hosts.clear();
    world.look();
    assert!(world.state("a").contains("10.1.0.1 has not answered"));
    assert_eq!(world.changes()[0].install[0].outputs[0].absent, Some(OutputDrop::NoNeighbour));
    world.steps(vec![remove("a")]).unwrap();
    assert_eq!(world.sought, [].into(), "nobody needs it");
}

#[test]
fn a_route_is_followed_to_another_router() {
    let mut world = World::new();
    by_router(&mut world, "10.1.0.1", "10.9.0.1");
    for router in ["10.1.0.1", "10.1.0.2"] {
        world.hosts.insert(ip(router), [2, 7, 7, 7, 7, router.as_bytes()[7]]);
    }
    world.add(to_host("a", 1));
    world.look();
    assert_eq!(world.state("a"), "idle");
    by_router(&mut world, "10.1.0.2", "10.9.0.1");
    world.look();
    let hop = NextHop { interface: IfIndex(3), address: ip("10.1.0.2") };
    assert_eq!(world.sought, [hop].into());
    world.look();
    assert_eq!(world.state("a"), "idle");
    world.routes.clear();
    world.look();
    assert!(world.state("a").contains("no route to 10.9.0.1: Network is unreachable"));
    assert_eq!((world.sought.len(), world.joined.len()), (0, 1));
}

#[test]
fn an_output_without_a_route_refuses_an_add() {
    let mut world = World::new();
    let refusal = world.request(put(to_host("a", 1))).unwrap_err();
    assert_eq!(refusal.code, Code::Machine);
    assert!(
        refusal.message.contains("rule a: output 10.9.0.1:6000: no route to 10.9.0.1"),
        "{refusal}"
    );
    world.request(Request::Reload(vec![to_host("a", 1), plain("b", 2)])).unwrap();
    assert_eq!(world.state("b"), "idle");
    assert!(world.state("a").starts_with("waiting: "));
}

#[test]
fn a_request_that_waits_takes_what_is_not_there_yet() {
    let mut world = World::new();
    let absent = rule("a", "239.1.1.1:5000@eth7", &["225.1.1.1:6000@eth1"]);
    assert_eq!(world.request(put(absent.clone())).unwrap_err().code, Code::Machine);
    let wait = Guard { wait: true, ..Guard::default() };
    world.guarded(put(absent), wait).unwrap();
    assert!(world.state("a").starts_with("waiting: input 239.1.1.1:5000@eth7: no interface eth7"));
    let host = rule("h", "10.0.0.77:5000@eth0", &["10.9.0.1:6000"]);
    world.guarded(put(host), wait).unwrap();
    assert!(world.state("h").contains("10.0.0.77 is no address of this host"));
    assert_eq!(world.joined.len(), 0);
    let conflict = rule("b", "239.1.1.1:5000@eth7", &["225.1.1.2@eth1"]);
    assert_eq!(world.guarded(put(conflict), wait).unwrap_err().code, Code::Conflict);
    // What is refused by more than the machine's being unready is refused.
    world.refuse_group = Some([239, 1, 1, 5].into());
    assert_eq!(world.guarded(put(plain("j", 5)), wait).unwrap_err().code, Code::Join);

    let (eth7, eth0) = ("eth7".parse().unwrap(), "eth0".parse().unwrap());
    world.link(|links| drop(links.insert(eth7, link(7, "10.7.0.9"))));
    assert_eq!(world.state("a"), "idle");
    world.link(|links| links.get_mut(&eth0).unwrap().addresses.push(address("10.0.0.77")));
    assert!(world.joined.contains(&Claim::Port("10.0.0.77:5000".parse().unwrap())));
    assert!(world.state("h").contains("no route to 10.9.0.1"));
}

#[test]
fn sources_that_are_added_to_a_rule_touch_no_other_membership() {
    let from = |name: &str, sources: &str, group: &str| {
        rule(
            name,
            &format!("{sources}@{group}:5000@eth0"),
            &[&format!("239.2.1.1:{}@eth1", name.len() + 6000)],
        )
    };
    let mut world = World::new();
    world.add(from("a", "10.0.0.1", "232.1.1.1"));
    world.add(from("bb", "10.0.0.2", "232.1.1.1"));
    world.add(rule("ccc", "232.1.1.1:6000@eth0", &["239.2.1.9@eth1"]));
    assert_eq!(world.joined.len(), 3, "by source and for any");
    world.request(put(from("a", "10.0.0.1,10.0.0.3,10.0.0.4", "232.1.1.1"))).unwrap();
    assert_eq!((world.joins(), world.joined.len()), (2, 5));
    assert_eq!(world.leaves(), 0);
    // The source moves from one rule to the other.
    let moved = vec![
        replace("a", from("a", "10.0.0.1,10.0.0.2", "232.1.1.1")),
        replace("bb", from("bb", "10.0.0.3", "232.1.1.1")),
    ];
    world.steps(moved).unwrap();
    assert_eq!((world.joins(), world.joined.len()), (0, 4));
    assert_eq!(world.leaves(), 1, "10.0.0.4 alone");
}

#[test]
fn a_range_that_shrinks_leaves_what_nobody_takes() {
    let range = |prefix: u8| {
        rule("a", &format!("239.1.1.0/{prefix}:5000@eth0"), &[&format!("239.2.1.0/{prefix}@eth1")])
    };
    let mut world = World::new();
    world.add(range(28));
    world.add(plain("b", 9));
    assert_eq!(world.joined.len(), 16, "an exact rule in it joins nothing more");
    world.request(put(range(30))).unwrap();
    assert_eq!(world.joined.len(), 5);
    world.refuse_group = Some([239, 1, 1, 5].into());
    world.request(put(range(29))).expect_err("one of its groups is refused");
    assert_eq!(world.joined.len(), 5);
}

#[test]
fn the_ports_of_a_unicast_input_are_bound_while_it_runs() {
    let mut world = World::new();
    world.add(rule("a", "10.0.0.9:5000-5001@eth0", &["225.1.1.1:6000-6001@eth1"]));
    let port = |port: u16| Claim::Port(format!("10.0.0.9:{port}").parse().unwrap());
    assert_eq!(world.joined, [port(5000), port(5001)].into());
    let eth0 = "eth0".parse().unwrap();
    world.link(|links| links.get_mut(&eth0).unwrap().addresses.clear());
    assert!(world.state("a").contains("10.0.0.9 is no address of this host"));
    assert_eq!((world.joined.len(), world.plane.len()), (0, 0));
    world.link(|links| links.get_mut(&eth0).unwrap().addresses.push(address("10.0.0.9")));
    assert_eq!((world.state("a"), world.joined.len()), ("idle".into(), 2));
}

#[test]
fn routes_of_a_rule_that_waited_for_its_turn_are_not_forgotten() {
    let mut world = World::new();
    let host = rule("b", "239.1.1.2:5000@eth0", &["10.1.0.7:6000"]);
    world.ask(Request::Steps(vec![RuleStep::Add(plain("a", 1))]), Guard::default());
    world.ask(Request::Steps(vec![RuleStep::Add(host)]), Guard::default());
    // Read before the second change had its turn, and so without its route.
    let links = Links { routes: BTreeMap::new(), ..world.links.clone() };
    world.relay.handle_links(links, world.now);
    world.settle();
    assert!(!world.state("b").contains("route"), "{}", world.state("b"));
}

#[test]
fn senders_that_become_one_stream_are_told_of_where_that_is_so() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.add(rule("named", "10.0.0.1,10.0.0.3@232.1.1.2:5000@eth0", &["225.1.1.2@eth1"]));
    world.add(rule("kept", "239.1.1.3:5000@eth0", &["keep@225.1.1.3@eth1"]));
    world.add(rule("half", "239.1.1.4:5000@eth0", &["keep@225.1.1.4@eth1", "225.1.1.5@eth1"]));
    world.add(rule("range", "239.1.2.0/24:5000@eth0", &["225.1.2.0/24@eth1"]));
    let both = [("10.0.0.1", 100), ("10.0.0.3", 99)];
    for name in ["named", "kept", "range"] {
        assert_eq!(world.seen(name, &both), [], "{name}");
    }
    let [told] = &world.seen("half", &both)[..] else { panic!() };
    assert_eq!(told.0, RuleKey::from_user("half"));
    let [told] = &world.seen("a", &both)[..] else { panic!() };
    assert_eq!(told.1, ["10.0.0.1", "10.0.0.3"].map(ip));
    assert_eq!(
        told.2,
        "10.0.0.1 and 10.0.0.3 send to 239.1.1.1:5000@eth0 at once, and behind its outputs nobody \
         can tell their packets apart: name the sender that is meant in the input (as in \
         10.0.0.3@239.1.1.1:5000@eth0), make a rule for each, or let the outputs keep the source"
    );
    assert_eq!(world.seen("a", &[("10.0.0.1", 102), ("10.0.0.3", 101)]), [], "once");
    world.add(plain("b", 7));
    world.now += Duration::from_secs(3);
    assert_eq!(world.seen("a", &[("10.0.0.1", 102), ("10.0.0.3", 103)]), []);
    world.now += Duration::from_secs(2);
    let shown = world.stats("a").senders;
    let shown: Vec<_> = shown.iter().map(|s| (&*s.address, s.packets, &*s.last_seen)).collect();
    let expected =
        [("10.0.0.3", 1, "1970-01-01T23:59:58Z"), ("10.0.0.1", 1, "1970-01-01T23:59:55Z")];
    assert_eq!(shown, expected);
    world.steps(vec![remove("a")]).unwrap();
    world.add(plain("c", 1));
    assert_eq!(world.stats("c").senders, [], "its id is used again");
}
