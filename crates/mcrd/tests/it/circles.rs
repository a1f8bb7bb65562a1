//! What comes back: our own packets through a switch, and circles through a second relay.

use crate::forwarding::sums;
use crate::lab::{Daemon, Lab, Plane, wait_for};

/// A switch, with a port for each of these: role, interface, address.
fn switch(lab: &Lab, ends: &[(&str, &str, &str)]) {
    lab.add("switch");
    lab.ip("switch", "link add br0 type bridge mcast_snooping 0");
    lab.ip("switch", "link set br0 up");
    for (n, (role, interface, address)) in ends.iter().enumerate() {
        // The port of a switch has no address; this one is of no network that is used.
        let port = format!("port{n}");
        lab.veth((role, interface, address), ("switch", &port, &format!("10.255.{n}.1/32")));
        lab.ip("switch", &format!("link set {port} master br0"));
        lab.ip("switch", &format!("address flush dev {port}"));
    }
    let forwards = |n| lab.bridge_port_forwards("switch", &format!("port{n}"));
    wait_for("the switch", || (0..ends.len()).all(forwards));
}

/// Two interfaces of the relay are on one switch.
pub(crate) fn what_comes_back_through_a_switch_is_own(plane: Plane) {
    let lab = Lab::chain(plane);
    switch(
        &lab,
        &[
            ("relay", "left", "10.0.5.1/24"),
            ("relay", "right", "10.0.5.2/24"),
            ("sink", "veth6", "10.0.5.3/24"),
        ],
    );
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.1.1.2:5002@left", "--name", "out"]);
    daemon.ok(&["add", "239.1.1.2:5002@right", "239.1.1.3:5003@veth2", "--name", "in"]);
    daemon.ok(&["add", "239.1.1.2:5002@left", "239.1.1.3:5003@veth2", "--name", "same"]);
    let there =
        lab.receiver("sink", "--interface veth6 --group 239.1.1.2 --port 5002 --expect 200");
    let back = lab.receiver("sink", "--interface veth3 --group 239.1.1.3 --port 5003 --idle 500ms");
    lab.send("--group 239.1.1.1 --port 5001 --rate 1000 --count 200 --size 100");
    there.lossless(200);
    sums(&daemon.settled("out", 200), 0, 200);
    let stats = daemon.settled("in", 200);
    sums(&stats, 0, 0);
    assert_eq!(stats["dropped"]["own"], 200, "{stats}");
    assert_eq!(daemon.stats("same")["received"]["packets"], 0, "a switch sends nothing back");
    assert_eq!(back.stop()["received"], 0);
}

/// Each relay sends what comes to one group to the other's: nobody sees its own packets, since the
/// other has sent them. Every turn takes one off, so they end.
pub(crate) fn a_circle_through_a_second_relay_ends_by_ttl(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.add("relay2");
    switch(
        &lab,
        &[
            ("relay", "left", "10.0.5.1/24"),
            ("relay2", "left", "10.0.5.2/24"),
            ("gen", "veth8", "10.0.5.9/24"),
        ],
    );
    let first = lab.daemon(&[]);
    let instance = format!("{}-second", lab.name);
    let mut command = lab.command("relay2", env!("CARGO_BIN_EXE_mcrd"));
    command.args(["--instance", &instance]).args(plane.arguments());
    let second = Daemon::start(command, &instance, lab.folder.path().join("second.log"));
    wait_for("the second daemon", || second.ctl(&["status"]).is_ok());
    let circle = |daemon: &Daemon, from: &str, to: &str| {
        daemon.ok(&["add", from, to, "--name", "turn", "--ttl", "decrement"]);
    };
    circle(&first, "239.1.1.1:5001@left", "239.1.1.2:5002@left");
    circle(&second, "239.1.1.2:5002@left", "239.1.1.1:5001@left");
    let load = "--group 239.1.1.1 --port 5001 --rate 200 --count 20 --size 100 --ttl 9";
    lab.send_from("gen", &format!("--interface veth8 {load}"));
    // 9, 7, 5, 3 and 1 come to the first, which ends it; 8, 6, 4 and 2 to the second.
    let stats = first.settled("turn", 100);
    sums(&stats, 0, 80);
    assert_eq!(stats["received"]["packets"], 100, "{stats}");
    assert_eq!(stats["outputs"][0]["dropped"]["ttl-expired"], 20, "{stats}");
    let stats = second.settled("turn", 80);
    sums(&stats, 0, 80);
    assert_eq!(stats["received"]["packets"], 80, "{stats}");
}
