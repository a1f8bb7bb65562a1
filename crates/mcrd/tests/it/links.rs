//! Kinds of interfaces: bridges, macvlan, loopback, VLANs, bonds, GRE, and sizes that differ.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use etherparse::PacketBuilder;

use crate::forwarding::sums;
use crate::lab::{Daemon, Lab, Plane, run, wait_for};

pub(crate) const GEN: &str = "--group 239.1.1.1 --port 5001";
pub(crate) const GEN6: &str = "--group ff15::5001 --port 5001";
pub(crate) const GROUP: &str = "--group 239.10.1.1 --port 6001";
pub(crate) const GROUP6: &str = "--group ff15::6001 --port 6001";

/// An IPv6 address, usable at once.
pub(crate) fn address6(lab: &Lab, role: &str, interface: &str, address: &str) {
    lab.ip(role, &format!("address add {address} dev {interface} nodad"));
}

/// IPv6 addresses on the whole chain.
pub(crate) fn chain6(lab: &Lab) {
    address6(lab, "gen", "veth0", "fd00:0::1/64");
    address6(lab, "relay", "veth1", "fd00:0::2/64");
    address6(lab, "relay", "veth2", "fd00:1::1/64");
    address6(lab, "sink", "veth3", "fd00:1::2/64");
}

/// Rules `a` and `b` between two interfaces: [`GEN`] to [`GROUP`], [`GEN6`] to [`GROUP6`].
pub(crate) fn both_families(daemon: &Daemon, from: &str, to: &str) {
    let rules = [("a", "239.1.1.1", "239.10.1.1"), ("b", "[ff15::5001]", "[ff15::6001]")];
    for (name, group, translated) in rules {
        let input = format!("{group}:5001@{from}");
        daemon.ok(&["add", &input, &format!("{translated}:6001@{to}"), "--name", name]);
    }
}

/// Where a stream is sent and where it comes out: role and interface.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a> {
    pub(crate) from: (&'a str, &'a str),
    pub(crate) to: (&'a str, &'a str),
}

pub(crate) const CHAIN: Ends<'_> = Ends { from: ("gen", "veth0"), to: ("sink", "veth3") };

impl Ends<'_> {
    /// 200 packets of `flow`, with these options of the sender, come out as `group`, none twice.
    pub(crate) fn carry(self, lab: &Lab, flow: &str, group: &str, options: &str) {
        let (role, interface) = self.to;
        let arguments = format!("--interface {interface} {group} --expect 200 --linger 200ms");
        let receiver = lab.receiver(role, &arguments);
        let (role, interface) = self.from;
        let flow = format!("--interface {interface} {flow} --rate 1000 --count 200 {options}");
        lab.send_from(role, &flow);
        receiver.lossless(200);
    }

    /// The same for the rules of [`both_families`].
    pub(crate) fn carry_both(self, lab: &Lab, daemon: &Daemon, options: &str) {
        let before = ["a", "b"].map(|name| daemon.stats(name)["received"]["packets"].as_u64());
        self.carry(lab, GEN, GROUP, options);
        self.carry(lab, GEN6, GROUP6, options);
        for (name, before) in ["a", "b"].into_iter().zip(before) {
            let all = before.unwrap() + 200;
            sums(&daemon.settled(name, all), 0, all);
        }
    }
}

/// Makes a device of the relay's namespace; if this kernel has no such devices, says so.
fn made(lab: &Lab, role: &str, link: &str, option: &str) -> bool {
    let mut ip = Command::new("ip");
    ip.args(["-n", &lab.namespace(role), "link", "add"]).args(link.split_whitespace());
    let output = ip.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return true;
    }
    assert!(
        error.contains("Unknown device type") || error.contains("not supported"),
        "{link}: {error}"
    );
    let _ = writeln!(io::stderr(), "SKIPPED: this kernel lacks {option}: `ip link add {link}`");
    false
}

/// Gives the addresses of a port to what stands on it.
fn move_addresses(lab: &Lab, port: &str, device: &str, addresses: [&str; 2]) {
    lab.ip("relay", &format!("address flush dev {port}"));
    lab.ip("relay", &format!("address add {} dev {device}", addresses[0]));
    address6(lab, "relay", device, addresses[1]);
    lab.ip("relay", &format!("link set {device} up"));
    wait_for(device, || lab.is_running("relay", device));
}

pub(crate) fn a_bridge_is_received_from_and_sent_to(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    for (bridge, port, addresses) in [
        ("br1", "veth1", ["10.0.0.2/24", "fd00:0::2/64"]),
        ("br2", "veth2", ["10.0.1.1/24", "fd00:1::1/64"]),
    ] {
        lab.ip("relay", &format!("link add {bridge} type bridge"));
        lab.ip("relay", &format!("link set {port} master {bridge}"));
        move_addresses(&lab, port, bridge, addresses);
    }
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "br1", "br2");
    CHAIN.carry_both(&lab, &daemon, "--size 1000");
    CHAIN.carry_both(&lab, &daemon, "--size 1000 --gso 10");
}

pub(crate) fn a_macvlan_is_received_from_and_sent_to(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    for (device, port, addresses) in [
        ("mac1", "veth1", ["10.0.0.2/24", "fd00:0::2/64"]),
        ("mac2", "veth2", ["10.0.1.1/24", "fd00:1::1/64"]),
    ] {
        lab.ip("relay", &format!("link add {device} link {port} type macvlan mode bridge"));
        move_addresses(&lab, port, device, addresses);
    }
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "mac1", "mac2");
    CHAIN.carry_both(&lab, &daemon, "--size 1000");
    CHAIN.carry_both(&lab, &daemon, "--size 1000 --gso 10");
}

/// Without it the kernel neither sends nor takes IPv6 groups there.
fn groups_on_loopback(lab: &Lab) {
    lab.ip("relay", "-6 route add local ff15::/16 dev lo table local");
}

/// A program on the relay host that sends to its own loopback interface is relayed.
pub(crate) fn loopback_is_received_from(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    let daemon = lab.daemon(&[]);
    groups_on_loopback(&lab);
    both_families(&daemon, "lo", "veth2");
    daemon.ok(&["add", "127.0.0.1:5002@lo", "239.10.1.2:6002@veth2", "--name", "c"]);
    let ends = Ends { from: ("relay", "lo"), to: ("sink", "veth3") };
    ends.carry_both(&lab, &daemon, "--size 1000");
    let flow = "--group 127.0.0.1 --port 5002";
    ends.carry(&lab, flow, "--group 239.10.1.2 --port 6002", "--size 1000");
    sums(&daemon.settled("c", 200), 0, 200);
}

/// The kernel takes nothing there that comes from an address of its own.
pub(crate) fn loopback_is_sent_to_with_a_kept_source(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    let daemon = lab.daemon(&[]);
    let said = daemon.refused(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@lo"]);
    assert!(said.contains("lo") && said.contains("keep@"), "{said}");
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "keep@239.10.1.1:6001@lo", "--name", "a"]);
    daemon.ok(&["add", "[ff15::5001]:5001@veth1", "keep@[ff15::6001]:6001@lo", "--name", "b"]);
    groups_on_loopback(&lab);
    let ends = Ends { to: ("relay", "lo"), ..CHAIN };
    ends.carry_both(&lab, &daemon, "--size 1000");
}

/// `count` frames to [`GEN`] with this VLAN tag, as they go over the wire.
fn send_tagged(lab: &Lab, vlan: u16, count: usize) {
    let group = [0x01, 0x00, 0x5e, 1, 1, 1];
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 10], group)
        .single_vlan(vlan.try_into().unwrap())
        .ipv4([10, 0, 0, 1], [239, 1, 1, 1], 8)
        .udp(5001, 5001);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[b'x'; 100]).unwrap();
    let mut socat = lab.command("gen", "socat");
    socat.args(["-u", "-b", &frame.len().to_string()]);
    let path = lab.folder.path().join("tagged");
    std::fs::write(&path, frame.repeat(count)).unwrap();
    // One read of this size is one frame.
    run(socat.arg(format!("OPEN:{}", path.display())).arg("INTERFACE:veth0").stdin(Stdio::null()));
}

/// What has a tag is of the VLAN's interface, whether there is one or not; a priority tag is none.
pub(crate) fn tagged_frames_are_never_of_the_trunk(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    for vlan in [1, 10, 4094] {
        send_tagged(&lab, vlan, 50);
    }
    CHAIN.carry(&lab, GEN, GROUP, "--size 100");
    let stats = daemon.settled("a", 200);
    assert_eq!(stats["received"]["packets"], 200, "{stats}");
    sums(&stats, 0, 200);
    if plane != Plane::Packet {
        let status = daemon.json(&["status", "--json"]);
        assert_eq!(status["interfaces"][0]["passed"]["tagged"], 150, "{status}");
    }
    send_tagged(&lab, 0, 50);
    sums(&daemon.settled("a", 250), 0, 250);
}

pub(crate) fn a_vlan_interface_is_received_from_and_sent_to(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let vlan = |role, trunk: &str, address| {
        let device = format!("link {trunk} name {trunk}.10 type vlan id 10");
        let made = made(&lab, role, &device, "CONFIG_VLAN_8021Q");
        if made {
            lab.ip(role, &format!("address add {address} dev {trunk}.10"));
            lab.ip(role, &format!("link set {trunk}.10 up"));
            wait_for(trunk, || lab.is_running(role, &format!("{trunk}.10")));
        }
        made
    };
    if !vlan("gen", "veth0", "10.1.0.1/24") {
        return;
    }
    vlan("relay", "veth1", "10.1.0.2/24");
    vlan("relay", "veth2", "10.1.1.1/24");
    vlan("sink", "veth3", "10.1.1.2/24");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1.10", "239.10.1.1:6001@veth2.10", "--name", "a"]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.2:6002@veth2", "--name", "trunk"]);
    let ends = Ends { from: ("gen", "veth0.10"), to: ("sink", "veth3.10") };
    ends.carry(&lab, GEN, GROUP, "--size 100");
    sums(&daemon.settled("a", 200), 0, 200);
    assert_eq!(daemon.stats("trunk")["received"]["packets"], 0);
}

pub(crate) fn a_bond_is_received_from_and_sent_to(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    for (bond, port, addresses) in [
        ("bond1", "veth1", ["10.0.0.2/24", "fd00:0::2/64"]),
        ("bond2", "veth2", ["10.0.1.1/24", "fd00:1::1/64"]),
    ] {
        let device = format!("name {bond} type bond mode active-backup");
        if !made(&lab, "relay", &device, "CONFIG_BONDING") {
            return;
        }
        lab.ip("relay", &format!("link set {port} down"));
        lab.ip("relay", &format!("link set {port} master {bond}"));
        move_addresses(&lab, port, bond, addresses);
    }
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "bond1", "bond2");
    CHAIN.carry_both(&lab, &daemon, "--size 1000");
}

pub(crate) fn a_gre_tunnel_is_received_from_and_sent_to(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    for (role, name, local, remote, address) in [
        ("gen", "tun0", "10.0.0.1", "10.0.0.2", "10.1.0.1/24"),
        ("relay", "tun1", "10.0.0.2", "10.0.0.1", "10.1.0.2/24"),
        ("relay", "tun2", "10.0.1.1", "10.0.1.2", "10.1.1.1/24"),
        ("sink", "tun3", "10.0.1.2", "10.0.1.1", "10.1.1.2/24"),
    ] {
        let device = format!("name {name} type gre local {local} remote {remote} ttl 64");
        if !made(&lab, role, &device, "CONFIG_NET_IPGRE") {
            return;
        }
        lab.ip(role, &format!("address add {address} dev {name}"));
        lab.ip(role, &format!("link set {name} up multicast on"));
    }
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@tun1", "239.10.1.1:6001@tun2", "--name", "a"]);
    let ends = Ends { from: ("gen", "tun0"), to: ("sink", "tun3") };
    ends.carry(&lab, GEN, GROUP, "--size 1000");
    sums(&daemon.settled("a", 200), 0, 200);
}

pub(crate) fn jumbo_frames_of_ipv6_go_through(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    for (role, interface) in
        [("gen", "veth0"), ("relay", "veth1"), ("relay", "veth2"), ("sink", "veth3")]
    {
        lab.ip(role, &format!("link set {interface} mtu 9000"));
    }
    chain6(&lab);
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "veth1", "veth2");
    CHAIN.carry_both(&lab, &daemon, "--size 8900");
    let stats = daemon.stats("b");
    assert_eq!(stats["outputs"][0]["forwarded"]["bytes"], 200 * 8900, "{stats}");
}

/// What fits goes out; what does not is counted; and `add` has warned of it.
pub(crate) fn a_smaller_mtu_on_the_way_out_is_warned_of_and_counted(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    lab.ip("relay", "link set veth2 mtu 1300");
    let daemon = lab.daemon(&[]);
    for (name, group, translated) in
        [("a", "239.1.1.1", "239.10.1.1"), ("b", "[ff15::5001]", "[ff15::6001]")]
    {
        let flows = [format!("{group}:5001@veth1"), format!("{translated}:6001@veth2")];
        let said = daemon.json(&["add", &flows[0], &flows[1], "--name", name, "--json"]);
        let warning = said["warnings"][0].as_str().unwrap_or_default();
        assert!(warning.contains("the MTU of veth2 is 1300, that of veth1 is 1500"), "{said}");
    }
    for (name, flow, group, headers) in [("a", GEN, GROUP, 28), ("b", GEN6, GROUP6, 48)] {
        CHAIN.carry(&lab, flow, group, &format!("--size {}", 1300 - headers));
        lab.send(&format!("{flow} --rate 1000 --count 50 --size {}", 1301 - headers));
        let stats = daemon.settled(name, 250);
        sums(&stats, 0, 200);
        assert_eq!(stats["outputs"][0]["dropped"]["mtu"], 50, "{stats}");
    }
}
