//! Interfaces, as they are told.

use super::super::*;
use super::world::{World, address, link};
use super::{by_router, plain, put, to_host};
use crate::event::Event;
use crate::link::{LinkAddress, Standing};

fn changes(world: &World) -> Vec<String> {
    let change = |event: &Event| {
        let Event::Interface { interface, change } = event else { return None };
        Some(format!("{interface} {change}"))
    };
    world.told.iter().filter_map(change).collect()
}

#[test]
fn changes_of_the_interfaces_that_rules_use_are_told() {
    let [eth0, eth1, eth2] = ["eth0", "eth1", "eth2"].map(|name| name.parse().unwrap());
    let mut world = World::new();
    assert_eq!(changes(&world), [""; 0], "what is there from the start is no change");
    world.add(plain("a", 1));
    world.link(|links| drop(links.remove(&eth2)));
    assert_eq!(changes(&world), [""; 0], "no rule uses it");
    world.link(|links| links.get_mut(&eth0).unwrap().up = false);
    assert_eq!(changes(&world), ["eth0 is down"]);
    world.link(|links| {
        let eth0 = links.get_mut(&eth0).unwrap();
        (eth0.up, eth0.carrier) = (true, false);
    });
    assert_eq!(changes(&world), ["eth0 has no carrier"]);
    world.link(|links| links.get_mut(&eth0).unwrap().carrier = true);
    assert_eq!(changes(&world), ["eth0 is up"]);
    world.link(|links| links.get_mut(&eth0).unwrap().mtu = 9000);
    assert_eq!(changes(&world), [""; 0]);
    world.link(|links| drop(links.remove(&eth1)));
    assert_eq!(changes(&world), ["eth1 is gone"]);
    // Told before what it means for the rule.
    assert!(matches!(world.told[1], Event::RuleState { .. }), "{:?}", world.told);
    world.link(|links| drop(links.insert(eth1.clone(), link(9, "10.1.0.9"))));
    assert_eq!(changes(&world), ["eth1 has appeared, and is up"]);
    world.link(|links| links.get_mut(&eth1).unwrap().index = IfIndex(10));
    let other = "eth1 is another one of that name: its index was 9, and is 10";
    assert_eq!(changes(&world), [other]);
    world.link(|links| {
        let tentative = LinkAddress { standing: Standing::Unusable, ..address("2001:db8::1") };
        links.get_mut(&eth1).unwrap().addresses.push(tentative);
    });
    assert_eq!(changes(&world), [""; 0], "it cannot be used yet");
    world.link(|links| {
        links.get_mut(&eth1).unwrap().addresses[1].standing = Standing::Stable;
    });
    assert_eq!(changes(&world), ["eth1 has the addresses 10.1.0.9, 2001:db8::1"]);
    world.link(|links| links.get_mut(&eth1).unwrap().addresses.clear());
    assert_eq!(changes(&world), ["eth1 has no address any more"]);
}

#[test]
fn the_way_to_a_host_is_an_interface_that_a_rule_uses() {
    let mut world = World::new();
    by_router(&mut world, "10.1.0.1", "10.9.0.1");
    world.request(put(to_host("a", 1))).unwrap();
    world.link(|links| links.get_mut(&"eth1".parse().unwrap()).unwrap().carrier = false);
    assert_eq!(changes(&world), ["eth1 has no carrier"]);
}
