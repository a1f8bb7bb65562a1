//! smcroute: a multicast router behind the relay, which takes one from the TTL.
//!
//! ```text
//! gen -- (veth1) relay (veth2) -- (veth3) sink (veth4 10.0.2.1) -- (veth5 10.0.2.2) far
//! ```

use std::fs::{self, File};

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};
use crate::peers::socat::{self, Catcher, DATAGRAMS};
use crate::peers::{foreign, start};

pub(crate) fn smcroute_routes_on_what_has_hops_left(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    lab.add("far");
    lab.veth(("sink", "veth4", "10.0.2.1/24"), ("far", "veth5", "10.0.2.2/24"));
    lab.ip("far", "route add default via 10.0.2.1");
    lab.file("smcroute.conf", CONFIGURATION);
    let line = "smcrouted -n -N -f smcroute.conf -i relayed -P smcroute.pid -u smcroute.sock";
    let mut command = foreign(&lab, "sink", line);
    let log = File::create(lab.folder.path().join("smcroute.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let _smcrouted = start(command);
    let routes = || {
        let output = run(lab.command("sink", "cat").arg("/proc/net/ip_mr_cache"));
        String::from_utf8(output.stdout).unwrap()
    };
    let log = || fs::read_to_string(lab.folder.path().join("smcroute.log")).unwrap();
    wait_for("two routes of smcroute", || {
        // Below the head of the table; one without an output lacks the last column.
        routes().lines().skip(1).filter(|route| route.split_whitespace().count() == 7).count() == 2
    });
    wait_for("smcroute", || log().contains("Ready"));

    let daemon = lab.daemon(&[]);
    let outputs = ["239.10.1.1:6000@veth2,ttl=2", "239.10.1.2:6000@veth2,ttl=1"];
    daemon.ok(&["add", "239.1.1.1:5000@veth1", outputs[0], outputs[1], "--name", "a"]);
    let last_hop = Catcher::start(&lab, "far", "239.10.1.1", Some("veth5"));
    let too_far = Catcher::start(&lab, "far", "239.10.1.2", Some("veth5"));
    socat::send(&lab, "10.0.0.1", "239.1.1.1");
    last_hop.has_all();
    let stats = daemon.settled("a", DATAGRAMS);
    sums(&stats, 0, DATAGRAMS);
    sums(&stats, 1, DATAGRAMS);
    // The router has seen both streams to their end, and let one go on.
    wait_for("the count of both routes", || {
        let routes = routes();
        let mut counts = routes.lines().skip(1).map(|route| route.split_whitespace().nth(3));
        counts.all(|count| count == Some(&DATAGRAMS.to_string()))
    });
    assert_eq!(lab.counter("sink", "IpForwDatagrams"), DATAGRAMS);
    assert!(too_far.caught().is_empty(), "a TTL of 1 has gone further than the link");
}

/// By the address that the relay sends from.
const CONFIGURATION: &str = "\
phyint veth3 enable ttl-threshold 1
phyint veth4 enable ttl-threshold 1
mgroup from veth3 group 239.10.1.1
mgroup from veth3 group 239.10.1.2
mroute from veth3 source 10.0.1.1 group 239.10.1.1 to veth4
mroute from veth3 source 10.0.1.1 group 239.10.1.2 to veth4
";
