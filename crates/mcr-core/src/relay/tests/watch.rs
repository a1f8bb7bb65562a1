use super::*;
use crate::inspect::WatchList;
use crate::watch::Inspect;

#[test]
fn what_is_watched_is_what_asks_and_what_is_beside_it() {
    let mut world = World::new();
    world.add(plain("a", 1));
    assert_eq!(world.relay.watch_list(), WatchList::default(), "nobody asks");
    world.add(Rule { inspect: Some(Inspect::Rtp), ..plain("b", 2) });
    world.add(rule("elsewhere", "239.1.1.3:5000@eth1", &["225.1.1.3:6000@eth0"]));
    let list = world.relay.watch_list();
    let keys: Vec<&str> = list.rules.iter().map(|rule| rule.key.as_str()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(list.own.contains(&ip("10.1.0.9")), "eth1 is sent from");
    world.steps(vec![remove("b")]).unwrap();
    assert_eq!(world.relay.watch_list(), WatchList::default());
}
