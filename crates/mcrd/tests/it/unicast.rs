//! From hosts and to hosts.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, socket};
use serde_json::Value;

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};

const GEN: &str = "--group 239.1.1.1 --port 5001";
const LOAD: &str = "--rate 1000 --count 300 --size 100";

/// Neighbours that the kernel is told to keep resolved on `veth2`.
fn managed(lab: &Lab) -> String {
    let mut ip = std::process::Command::new("ip");
    ip.args(["-n", &lab.namespace("relay"), "neigh", "show", "dev", "veth2"]);
    let shown = String::from_utf8(run(&mut ip).stdout).unwrap();
    shown.lines().filter(|line| line.contains("managed")).collect::<Vec<_>>().join("\n")
}

/// Lets the kernel look for neighbours that do not answer every half second, not every five.
fn impatient(lab: &Lab) {
    lab.sysctl("relay", "net/ipv4/neigh/veth2/interval_probe_time_ms", "500");
    lab.sysctl("relay", "net/ipv4/neigh/veth2/retrans_time_ms", "100");
}

pub(crate) fn a_stream_goes_to_a_host_on_the_network(plane: Plane) {
    let lab = Lab::chain(plane);
    let mut daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.0.1.2:6001@veth2", "--name", "four"]);
    daemon.ok(&["add", "[ff15::1]:5001@veth1", "[fd00:0:0:1::2]:6001", "--name", "six"]);
    for (from, to, rule) in [("239.1.1.1", "10.0.1.2", "four"), ("ff15::1", "fd00:0:0:1::2", "six")]
    {
        daemon.wait_state(rule, "idle");
        let flow = format!("--interface veth3 --group {to} --port 6001 --expect 300");
        let receiver = lab.receiver("sink", &flow);
        lab.send(&format!("--group {from} --port 5001 {LOAD}"));
        receiver.lossless(300);
        let stats = daemon.settled(rule, 300);
        sums(&stats, 0, 300);
        assert_eq!(stats["outputs"][0]["forwarded"]["bytes"], 30_000, "{stats}");
    }
    let kept = managed(&lab);
    assert!(kept.contains("10.0.1.2 ") && kept.contains("fd00:0:0:1::2 "), "{kept}");
    // The kernel keeps it for as long as a rule needs it.
    daemon.ok(&["remove", "four"]);
    wait_for("one neighbour less", || !managed(&lab).contains("10.0.1.2 "));
    assert!(managed(&lab).contains("fd00:0:0:1::2 "), "{}", managed(&lab));
    daemon.stop();
    assert_eq!(managed(&lab), "", "after a clean stop");
}

/// ```text
/// relay (veth4 10.0.2.1) -- (veth5 10.0.2.2) router (veth6 10.0.3.1) -- (veth7 10.0.3.2) sink
/// ```
pub(crate) fn a_stream_goes_to_a_host_behind_a_router(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.add("router");
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("router", "veth5", "10.0.2.2/24"));
    lab.veth(("router", "veth6", "10.0.3.1/24"), ("sink", "veth7", "10.0.3.2/24"));
    lab.sysctl("router", "net/ipv4/ip_forward", "1");
    lab.ip("relay", "route add 10.0.3.0/24 via 10.0.2.2");
    lab.ip("sink", "route add 10.0.2.0/24 via 10.0.3.1");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.0.3.2:6001", "--name", "a", "--ttl", "9"]);
    daemon.wait_state("a", "idle");
    let capture = lab.capture("sink", "veth7", 300, "udp");
    let flow = "--interface veth7 --group 10.0.3.2 --port 6001 --expect 300";
    let receiver = lab.receiver("sink", flow);
    lab.send(&format!("{GEN} {LOAD} --source 10.0.0.1:4444"));
    receiver.lossless(300);
    let stats = daemon.settled("a", 300);
    sums(&stats, 0, 300);
    assert_eq!(stats["outputs"][0]["to"], "10.0.3.2:6001", "{stats}");
    // The router takes one off.
    let text = capture.text();
    assert_eq!(text.matches("ttl 8,").count(), 300, "{text}");
    assert_eq!(text.matches("10.0.2.1.4444 > 10.0.3.2.6001:").count(), 300, "{text}");
}

/// The host is reached by another interface while packets move.
pub(crate) fn a_change_of_the_route_is_followed(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    lab.ip("sink", "address add 10.9.0.7/32 dev lo");
    lab.ip("relay", "route add 10.9.0.7 via 10.0.1.2");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.9.0.7:6001", "--name", "a"]);
    daemon.wait_state("a", "idle");
    let receiver = |interface: &str| {
        let flow = format!("--interface {interface} --group 10.9.0.7 --port 6001 --idle 1s");
        lab.receiver("sink", &flow)
    };
    let receivers = [receiver("veth3"), receiver("veth5")];
    let came =
        |interface: &str| lab.link("sink", interface)["stats64"]["rx"]["packets"].as_u64().unwrap();
    let sender = lab.sender(&format!("{GEN} --rate 500 --size 100"));
    daemon.ok(&["wait", "a", "--for", "forwarding"]);
    lab.ip("relay", "route replace 10.9.0.7 via 10.0.2.2");
    let before = came("veth5");
    wait_for("the other way", || came("veth5") > before + 100);
    lab.ip("relay", "route delete 10.9.0.7");
    wait_for("no way", || daemon.state("a").1.contains("no route to 10.9.0.7"));
    lab.ip("relay", "route add 10.9.0.7 via 10.0.2.2");
    wait_for("a way again", || daemon.state("a").0 == "forwarding");
    let before = came("veth5");
    wait_for("packets", || came("veth5") > before + 100);
    let sent: Value = serde_json::from_slice(&sender.stop().stdout).unwrap();
    let sent = sent["sent"].as_u64().unwrap();
    let reports = receivers.map(crate::traffic::Receiver::report);
    for fault in ["duplicated", "corrupt", "foreign"] {
        assert!(reports.iter().all(|report| report[fault] == 0), "{fault}: {reports:?}");
    }
    let received: u64 = reports.iter().map(|report| report["received"].as_u64().unwrap()).sum();
    let stats = daemon.settled("a", sent);
    sums(&stats, 0, received);
    assert_eq!(stats["received"]["packets"], sent, "{stats}");
    let dropped = &stats["outputs"][0]["dropped"];
    let reasons = ["no-route", "no-neighbour"].map(|reason| dropped[reason].as_u64().unwrap_or(0));
    assert!(reasons[0] > 0, "{stats}");
    assert_eq!(reasons[0] + reasons[1], sent - received, "{stats}");
}

pub(crate) fn an_unreachable_output_is_counted_and_delays_nobody(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let add =
        |output: &str| daemon.refused(&["add", "239.1.1.1:5001@veth1", output, "--name", "a"]);
    let said = add("10.99.0.1:6003");
    assert!(said.contains("no route to 10.99.0.1"), "{said}");
    // From here on the host that is there is known.
    daemon.ok(&["add", "239.1.1.9:5009@veth1", "10.0.1.2:6009", "--name", "before"]);
    daemon.wait_state("before", "idle");
    daemon.ok(&[
        "add",
        "239.1.1.1:5001@veth1",
        "239.10.1.1:6001@veth2",
        "10.0.1.77:6002@veth2",
        "10.99.0.1:6003",
        "10.0.1.2:6004",
        "--name",
        "a",
        "--wait",
    ]);
    assert_eq!(daemon.state("a").0, "waiting");
    let group = "--interface veth3 --group 239.10.1.1 --port 6001 --expect 6000";
    let host = "--interface veth3 --group 10.0.1.2 --port 6004 --expect 6000";
    let receivers = [lab.receiver("sink", group), lab.receiver("sink", host)];
    lab.send(&format!("{GEN} --rate 3000 --count 6000 --size 100"));
    for receiver in receivers {
        receiver.lossless(6000);
    }
    let stats = daemon.settled("a", 6000);
    for (n, forwarded) in [6000, 0, 0, 6000].into_iter().enumerate() {
        sums(&stats, n, forwarded);
    }
    assert_eq!(stats["outputs"][1]["dropped"]["no-neighbour"], 6000, "{stats}");
    assert_eq!(stats["outputs"][2]["dropped"]["no-route"], 6000, "{stats}");
    let said = daemon.ok(&["stats", "a"]);
    assert!(said.contains("no-neighbour: ") && said.contains("no-route: "), "{said}");
}

pub(crate) fn a_neighbour_that_appears_later_is_used(plane: Plane) {
    let lab = Lab::chain(plane);
    impatient(&lab);
    let daemon = lab.daemon(&[]);
    // Nobody there is no reason to refuse it.
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "10.0.1.77:6001@veth2", "--name", "a"]);
    assert_eq!(daemon.state("a").0, "waiting");
    assert!(daemon.state("a").1.contains("10.0.1.77"), "{:?}", daemon.state("a"));
    lab.send(&format!("{GEN} {LOAD}"));
    let stats = daemon.settled("a", 300);
    assert_eq!(stats["outputs"][0]["dropped"]["no-neighbour"], 300, "{stats}");
    lab.ip("sink", "address add 10.0.1.77/24 dev veth3");
    daemon.wait_state("a", "idle");
    let flow = "--interface veth3 --group 10.0.1.77 --port 6001 --expect 300";
    let receiver = lab.receiver("sink", flow);
    lab.send(&format!("{GEN} {LOAD}"));
    receiver.lossless(300);
    sums(&daemon.settled("a", 600), 0, 300);
    // It gets another MAC address, and shows it as soon as it asks for somebody.
    let sink = lab.inside("sink", || UdpSocket::bind("10.0.1.77:6001").unwrap());
    sink.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    lab.ip("sink", "link set veth3 address 02:00:00:00:00:77");
    lab.ip("sink", "neigh flush dev veth3");
    sink.send_to(b"here", "10.0.1.1:9").unwrap();
    wait_for("a packet to the new MAC address", || {
        lab.send(&format!("{GEN} --count 1 --size 100"));
        sink.recv(&mut [0; 100]).is_ok()
    });
}

/// What a host on the sender's side is told: whether its datagrams were refused.
fn refused(socket: &UdpSocket) -> bool {
    match socket.send(b"one more") {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => true,
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

pub(crate) fn nobody_tells_the_sender_that_the_port_is_closed(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "10.0.0.2:5001@veth1", "239.10.1.1:6001@veth2", "--name", "four"]);
    daemon.ok(&["add", "[fd00::2]:5001@veth1", "[ff15::a]:6001@veth2", "--name", "six"]);
    for (local, here, rule) in
        [("10.0.0.1:0", "10.0.0.2", "four"), ("[fd00::1]:0", "[fd00::2]", "six")]
    {
        let connect = |port: u16| {
            let socket = lab.inside("gen", || UdpSocket::bind(local).unwrap());
            socket.connect(format!("{here}:{port}")).unwrap();
            socket
        };
        let (held, closed) = (connect(5001), connect(5999));
        let capture = lab.capture("gen", "veth0", 1, "icmp or (icmp6 and ip6[40] == 1)");
        for n in 1..=50 {
            assert!(!refused(&held), "datagram {n} to a port that is held");
        }
        sums(&daemon.settled(rule, 50), 0, 50);
        // The kernel does say so of another port, and that is the first that is captured.
        wait_for("a port that is closed", || refused(&closed));
        let text = capture.text();
        assert!(text.contains("5999 unreachable") || text.contains("port 5999"), "{text}");
    }
    // No user of it.
    let held = lab.read("relay", "/proc/net/udp");
    let held = held.lines().find(|line| line.contains(":1389 ")).unwrap().to_owned();
    let drops: u64 = held.split_whitespace().last().unwrap().parse().unwrap();
    if plane != Plane::Packet {
        assert_eq!(drops, 0, "the stack has got what nobody wants: {held}");
    }
    daemon.ok(&["remove", "four"]);
    assert!(!lab.read("relay", "/proc/net/udp").contains(":1389 "));
}

/// An application's own socket has the port: bound before the rule, or beside MCR's.
pub(crate) fn an_application_on_the_port_is_still_served(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let to = "--group 10.0.0.2 --port 5001";
    let before = lab.receiver("relay", &format!("--interface veth1 {to} --expect 300"));
    daemon.ok(&["add", "10.0.0.2:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let sink = "--interface veth3 --group 239.10.1.1 --port 6001 --expect 300";
    let receiver = lab.receiver("sink", sink);
    lab.send(&format!("{to} {LOAD}"));
    receiver.lossless(300);
    before.lossless(300);
    sums(&daemon.settled("a", 300), 0, 300);
    daemon.ok(&["remove", "a"]);
    daemon.ok(&["add", "10.0.0.2:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let beside = lab.inside("relay", || {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 5001)).unwrap();
        UdpSocket::from(socket)
    });
    beside.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // No more than its buffer holds.
    lab.send(&format!("{to} --rate 1000 --count 100 --size 100"));
    let mut buffer = [0; 2000];
    for n in 0..100 {
        assert_eq!(beside.recv(&mut buffer).unwrap(), 100, "datagram {n}");
    }
    sums(&daemon.settled("a", 100), 0, 100);
}

pub(crate) fn from_unicast_to_a_group_and_back(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "10.0.0.2:5001@veth1", "239.10.1.1:6001@veth2", "--name", "there"]);
    daemon.ok(&["add", "239.10.1.2:6002@veth2", "10.0.0.1:5002@veth1", "--name", "back"]);
    daemon.ok(&["add", "10.0.0.2:5003@veth1", "10.0.1.2:6003", "--name", "through"]);
    for rule in ["back", "through"] {
        daemon.wait_state(rule, "idle");
    }
    let group = "--interface veth3 --group 239.10.1.1 --port 6001 --expect 300";
    let host = "--interface veth3 --group 10.0.1.2 --port 6003 --expect 300";
    let back = "--interface veth0 --group 10.0.0.1 --port 5002 --expect 300";
    let receivers =
        [lab.receiver("sink", group), lab.receiver("sink", host), lab.receiver("gen", back)];
    lab.send(&format!("--group 10.0.0.2 --port 5001 {LOAD}"));
    lab.send(&format!("--group 10.0.0.2 --port 5003 {LOAD}"));
    lab.send_from("sink", &format!("--interface veth3 --group 239.10.1.2 --port 6002 {LOAD}"));
    receivers.into_iter().for_each(|receiver| receiver.lossless(300));
    for rule in ["there", "back", "through"] {
        sums(&daemon.settled(rule, 300), 0, 300);
    }
}

pub(crate) fn super_packets_go_from_host_to_host(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "10.0.0.2:5001@veth1", "10.0.1.2:6001", "--name", "four"]);
    daemon.ok(&["add", "[fd00::2]:5001@veth1", "[fd00:0:0:1::2]:6001", "--name", "six"]);
    for (from, to, rule) in [("10.0.0.2", "10.0.1.2", "four"), ("fd00::2", "fd00:0:0:1::2", "six")]
    {
        daemon.wait_state(rule, "idle");
        let flow = format!("--interface veth3 --group {to} --port 6001 --expect 1000");
        let receiver = lab.receiver("sink", &flow);
        let load = "--rate 2000 --count 1000 --size 1000 --gso 10";
        lab.send(&format!("--group {from} --port 5001 {load}"));
        receiver.lossless(1000);
        let stats = daemon.settled(rule, 1000);
        sums(&stats, 0, 1000);
        assert_eq!(stats["matched"]["bytes"], 1_000_000, "{stats}");
    }
}

/// Ports of a host are mapped like those of a group.
pub(crate) fn a_range_of_ports_goes_to_a_host(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "10.0.0.2:5000-5007@veth1", "10.0.1.2:6000-6007", "--name", "a"]);
    daemon.wait_state("a", "idle");
    let streams = "--streams 8 --same-group";
    let flow = format!("--group 10.0.1.2 --port 6000 {streams} --expect 50");
    let receiver = lab.receiver("sink", &format!("--interface veth3 {flow}"));
    lab.send(&format!("--group 10.0.0.2 --port 5000 {streams} --rate 100 --count 50 --size 100"));
    receiver.lossless(400);
    sums(&daemon.settled("a", 400), 0, 400);
}
