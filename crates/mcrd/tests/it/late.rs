//! Rules that come before what they need.

use std::time::{Duration, Instant};

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, wait_for};

const LOAD: &str = "--group 239.1.1.1 --port 5001 --rate 1000 --count 200 --size 100";
const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001 --expect 200";

/// Rules with an interface, an address or a route that is not there: refused, taken with `--wait`,
/// and running once it is there.
pub(crate) fn add_with_wait_takes_what_comes_later(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.ip("relay", "address delete 10.0.1.1/24 dev veth2");
    let daemon = lab.daemon(&[]);
    let rules = [
        (["239.1.1.1:5001@veth7", "239.10.1.1:6001@veth1"], "no interface veth7"),
        (["239.1.1.2:5002@veth1", "239.10.1.2:6002@veth8"], "no interface veth8"),
        (["239.1.1.3:5003@veth1", "239.10.1.3:6003@veth2"], "veth2 has no IPv4 address"),
        (["239.1.1.4:5004@veth1", "10.99.0.1:6004"], "no route to 10.99.0.1"),
        (["10.0.0.77:5005@veth1", "239.10.1.5:6005@veth1"], "10.0.0.77 is no address of this host"),
    ];
    for (n, (flows, why)) in rules.iter().enumerate() {
        let name = format!("r{n}");
        let rule = [&["add"], &flows[..], &["--name", &name]].concat();
        let said = daemon.refused(&rule);
        assert!(said.contains(why), "{flows:?}: {said}");
        daemon.ok(&[&rule[..], &["--wait"]].concat());
        let (state, reason) = daemon.state(&name);
        assert!(state == "waiting" && reason.contains(why), "{name}: {state}, {reason}");
        assert!(daemon.ok(&["list"]).contains(why));
    }
    lab.veth(("gen", "veth6", "10.0.3.1/24"), ("relay", "veth7", "10.0.3.2/24"));
    lab.veth(("gen", "veth9", "10.0.4.1/24"), ("relay", "veth8", "10.0.4.2/24"));
    lab.ip("relay", "address add 10.0.1.1/24 dev veth2");
    lab.ip("relay", "route add 10.99.0.1 via 10.0.1.2");
    lab.ip("relay", "address add 10.0.0.77/24 dev veth1");
    for n in 0..rules.len() {
        daemon.wait_state(&format!("r{n}"), "idle");
    }
    let receiver =
        lab.receiver("gen", "--interface veth0 --group 239.10.1.1 --port 6001 --expect 200");
    lab.send_from("gen", &format!("--interface veth6 {LOAD}"));
    receiver.lossless(200);
    sums(&daemon.settled("r0", 200), 0, 200);
    let receiver =
        lab.receiver("gen", "--interface veth9 --group 239.10.1.2 --port 6002 --expect 200");
    lab.send("--group 239.1.1.2 --port 5002 --rate 1000 --count 200 --size 100");
    receiver.lossless(200);
    sums(&daemon.settled("r1", 200), 0, 200);
}

/// Forwarding begins within a second of the interface's coming.
pub(crate) fn an_interface_that_comes_is_used_within_a_second(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let rule = ["add", "239.1.1.1:5001@veth7", "239.10.1.1:6001@veth2", "--name", "a", "--wait"];
    daemon.ok(&rule);
    for round in 1..=3 {
        lab.veth(("gen", "veth6", "10.0.3.1/24"), ("relay", "veth7", "10.0.3.2/24"));
        let came = Instant::now();
        wait_for("the rule", || daemon.state("a").0 != "waiting");
        let took = came.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        let receiver = lab.receiver("sink", SINK);
        lab.send_from("gen", &format!("--interface veth6 {LOAD}"));
        receiver.lossless(200);
        sums(&daemon.settled("a", 200 * round), 0, 200 * round);
        lab.ip("relay", "link delete veth7");
        daemon.wait_state("a", "waiting");
    }
}

/// `--wait` is no licence for what can never be.
pub(crate) fn wait_does_not_take_what_the_text_shows_wrong(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    for (input, output, why) in [
        ("224.0.0.9:5001@veth1", "239.10.1.1:6001@veth2", "link-local"),
        ("239.1.1.1:5001@veth1", "239.1.1.1:5001@veth1", "is the input of the same rule"),
        ("239.1.1.1:5001@veth1", "[ff15::1]:5001@veth2", "different families"),
    ] {
        let said = daemon.refused(&["add", input, output, "--wait"]);
        assert!(said.contains(why), "{input}: {said}");
    }
    assert_eq!(daemon.list().as_array().unwrap().len(), 0);
}
