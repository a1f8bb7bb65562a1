//! A daemon that was killed, and the next one.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::lab::Plane;
use crate::start::{
    RECEIVED, RULE, SENT, attached, has_clsact, lab, nothing_is_left, nothing_is_relayed, pins,
};

/// Killed and started again under a stream, then stopped: nothing is lost or doubled, and nothing
/// left.
fn crash_and_restart(attach: &str, older: bool) {
    let Some((lab, _traces)) = lab() else { return };
    let config = lab.file("mcr.toml", RULE);
    let arguments = ["--config", config.to_str().unwrap()];
    let mut daemon = attached(&lab, attach, &arguments);
    daemon.ok(&["add", "239.1.2.1:5002@veth1", "239.10.2.1:6002@veth2", "--name", "r"]);
    let receiver = lab.receiver("sink", &format!("{RECEIVED} --idle 1s"));
    let sender = lab.sender(&format!("{SENT} --rate 2000"));
    daemon.ok(&["wait", "a", "--for", "forwarding"]);

    daemon.signal(Signal::KILL);
    assert!(!daemon.wait().success());
    assert!(pins(&lab.name).exists());
    // Starts that are refused in between harm nothing.
    let plain = lab.file("plain.sock", "");
    for wrong in [["--workers", "0"], ["--socket", plain.to_str().unwrap()]] {
        assert!(!lab.mcrd(&wrong).output().unwrap().status.success());
    }
    let other = "--interface veth3 --group 239.10.2.1 --port 6002 --expect 500";
    let orphan = lab.receiver("sink", other);
    lab.send("--group 239.1.2.1 --port 5002 --rate 1000 --count 500 --size 100");
    orphan.lossless(500);

    if older {
        // As if a version with another layout had left them.
        let layout = fs::read_dir(pins(&lab.name)).unwrap().next().unwrap().unwrap().path();
        fs::rename(&layout, layout.with_file_name("0")).unwrap();
    }
    let mut daemon = attached(&lab, attach, &arguments);
    daemon.ok(&["wait", "a", "--for", "forwarding"]);
    let origins = daemon.list();
    let origin = |n: usize| [origins[n]["name"].clone(), origins[n]["origin"].clone()];
    assert_eq!(
        (origin(0), origin(1)),
        (["a".into(), "file".into()], ["r".into(), "runtime".into()])
    );
    let adopted = lab.receiver("sink", other);
    lab.send("--group 239.1.2.1 --port 5002 --rate 1000 --count 500 --size 100");
    adopted.lossless(500);
    let sent: Value = serde_json::from_slice(&sender.stop().stdout).unwrap();
    receiver.lossless(sent["sent"].as_u64().unwrap());

    daemon.stop();
    nothing_is_left(&lab.name);
    assert!(!has_clsact(&lab, "veth1"));
    nothing_is_relayed(&lab);
}

#[test]
fn forwarding_outlives_the_daemon_and_the_next_takes_over() {
    crash_and_restart("auto", false);
}

#[test]
fn an_upgrade_to_another_layout_of_the_maps_takes_over_too() {
    crash_and_restart("auto", true);
    crash_and_restart("clsact", true);
}

#[test]
fn with_clsact_too_forwarding_outlives_the_daemon() {
    crash_and_restart("clsact", false);
}

/// The packet plane after an eBPF plane that was killed: its program goes.
fn the_packet_plane_takes_over(attach: &str) {
    let Some((lab, _traces)) = lab() else { return };
    let config = lab.file("mcr.toml", RULE);
    let arguments = ["--config", config.to_str().unwrap()];
    let mut daemon = attached(&lab, attach, &arguments);
    let add = ["add", "239.1.2.1:5002@veth1", "239.10.2.1:6002@veth2", "--name", "r"];
    daemon.ok(&add);
    daemon.signal(Signal::KILL);
    assert!(!daemon.wait().success());
    assert!(pins(&lab.name).exists());

    let mut daemon = lab.daemon_as(&[Plane::Packet.arguments(), &arguments].concat());
    assert!(!pins(&lab.name).exists(), "{}", daemon.log());
    assert!(!has_clsact(&lab, "veth1"));
    let origins: Vec<_> =
        daemon.list().as_array().unwrap().iter().map(|rule| rule["origin"].clone()).collect();
    assert_eq!(origins, ["file", "runtime"]);
    for (sink, sent) in [
        (RECEIVED, SENT),
        (
            "--interface veth3 --group 239.10.2.1 --port 6002",
            "--group 239.1.2.1 --port 5002 --size 100",
        ),
    ] {
        let receiver = lab.receiver("sink", &format!("{sink} --expect 500 --linger 300ms"));
        lab.send(&format!("{sent} --rate 2000 --count 500"));
        receiver.lossless(500);
    }
    daemon.stop();
    nothing_is_left(&lab.name);
    assert_eq!(lab.packet_sockets("relay"), 0);
    nothing_is_relayed(&lab);
}

#[test]
fn the_packet_plane_ends_what_a_killed_ebpf_plane_has_left() {
    the_packet_plane_takes_over("tcx");
}

#[test]
fn with_clsact_too_the_packet_plane_ends_what_is_left() {
    the_packet_plane_takes_over("clsact");
}

#[test]
fn what_the_next_start_does_not_want_is_ended() {
    for attach in ["auto", "clsact"] {
        let Some((lab, _traces)) = lab() else { return };
        let config = lab.file("mcr.toml", RULE);
        let arguments = ["--config", config.to_str().unwrap()];
        let mut daemon = attached(&lab, attach, &arguments);
        daemon.signal(Signal::KILL);
        daemon.wait();
        lab.file("mcr.toml", "");
        let mut daemon = attached(&lab, attach, &arguments);
        nothing_is_relayed(&lab);
        assert!(!has_clsact(&lab, "veth1"));
        daemon.stop();
        nothing_is_left(&lab.name);
    }
}
