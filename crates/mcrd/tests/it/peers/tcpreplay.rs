//! tcpreplay: frames that were captured are sent again as they are.

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};
use crate::peers::socat::{self, Catcher, DATAGRAMS};
use crate::peers::{foreign, rule};
use crate::traffic::Background;

pub(crate) fn tcpreplay_repeats_a_capture(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    // Otherwise a veth leaves the checksum to a receiver that never comes.
    run(lab.command("gen", "ethtool").args(["-K", "veth0", "tx", "off"]));
    // The filter of a capture is one argument. Without a length each frame takes 256 KiB of room.
    let line = format!("tcpdump -Z root --immediate-mode -s 2000 -n -i veth0 -w it -c {DATAGRAMS}");
    let tcpdump = Background::capture(foreign(&lab, "gen", &line).arg("udp dst port 5000"));
    socat::send(&lab, "10.0.0.1", "239.1.1.1");
    tcpdump.finish();

    let daemon = lab.daemon(&[]);
    rule(&daemon, "239.1.1.1:5000@veth1", "239.10.1.1:6000@veth2");
    let catcher = Catcher::start(&lab, "sink", "239.10.1.1", Some("veth3"));
    run(&mut foreign(&lab, "gen", "tcpreplay -q -i veth0 --pps=2000 it"));
    catcher.has_all();
    run(&mut foreign(&lab, "gen", "tcpreplay -q -i veth0 --topspeed --loop=9 it"));
    catcher.has_times(10);

    let all = 10 * DATAGRAMS;
    wait_for("the kernel's count", || lab.counter("sink", "UdpInDatagrams") >= all);
    assert_eq!(lab.counter("sink", "UdpInDatagrams"), all);
    for fault in ["UdpInErrors", "UdpInCsumErrors", "UdpRcvbufErrors"] {
        assert_eq!(lab.counter("sink", fault), 0, "{fault}");
    }
    sums(&daemon.settled("a", all), 0, all);
}
