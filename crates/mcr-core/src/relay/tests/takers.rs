use super::*;
use crate::flow::InterfaceName;
use crate::forward::FlowKey;
use crate::verdict::Pass;

/// Whose it is, and in which state that rule is; or why nobody's.
fn taker(world: &World, group: &str, port: u16, source: &str) -> Result<String, Pass> {
    let takers = world.relay.takers(world.clocks());
    let flow = FlowKey { interface: IfIndex(2), address: ip(group), port };
    let id = takers.table.taker(&flow, ip(source))?;
    let (key, state) = &takers.rules[&id];
    Ok(format!("{key} {}", state.name()))
}

#[test]
fn takers_are_all_rules_whether_they_run_or_not() {
    let mut world = World::new();
    world.add(plain("a", 1));
    world.add(Rule { enabled: false, ..plain("off", 2) });
    world.add(rule("some", "10.0.0.1@239.1.1.3:5000@eth0", &["225.1.1.3:6000@eth1"]));
    world.add(rule("range", "239.1.1.0/24:5000-5001@eth0", &["225.1.1.0/24@eth1"]));
    let absent = rule("absent", "239.1.1.1:5000@eth7", &["225.1.1.9:6000@eth1"]);
    world.guarded(put(absent), Guard { wait: true, ..Guard::default() }).unwrap();
    let takers = world.relay.takers(world.clocks());
    assert!(takers.table.is_own(ip("10.1.0.9"), IfIndex(2)), "eth1 is sent from");
    world.link(|links| {
        links.get_mut(&"eth1".parse().unwrap()).unwrap().addresses.clear();
    });
    let any = "10.0.0.9";
    assert_eq!(taker(&world, "239.1.1.1", 5000, any), Ok("a waiting".into()));
    assert_eq!(taker(&world, "239.1.1.2", 5000, any), Ok("off disabled".into()));
    assert_eq!(taker(&world, "239.1.1.3", 5000, "10.0.0.1"), Ok("some waiting".into()));
    assert_eq!(taker(&world, "239.1.1.3", 5001, any), Ok("range waiting".into()));
    assert_eq!(taker(&world, "239.1.1.4", 5001, any), Ok("range waiting".into()));
    assert_eq!(taker(&world, "239.1.1.4", 5002, any), Err(Pass::NoRule));
    world.steps(vec![remove("range")]).unwrap();
    assert_eq!(taker(&world, "239.1.1.3", 5000, any), Err(Pass::OtherSource));

    let takers = world.relay.takers(world.clocks());
    assert_eq!(takers.name(IfIndex(2)).map(InterfaceName::as_str), Some("eth0"));
    assert_eq!(takers.name(IfIndex(9)), None);
}
