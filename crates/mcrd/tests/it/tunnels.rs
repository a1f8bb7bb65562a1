//! Interfaces without Ethernet headers, by the example of tun: as input and as output, towards each
//! other and towards Ethernet.
//!
//! ```text
//! gen (tun0 10.0.5.1) == socat == socat == (tun1 10.0.5.2) relay (tun2 10.0.6.1) == ... == (tun3 10.0.6.2) sink
//! ```

use std::path::PathBuf;
use std::process::Stdio;

use crate::lab::{Lab, Plane, run, wait_for};
use crate::links::{CHAIN, Ends, GEN, GEN6, both_families, chain6};
use crate::traffic::Background;

const TUNNELS: Ends<'_> = Ends { from: ("gen", "tun0"), to: ("sink", "tun3") };

/// One end: role, interface, IPv4 and IPv6 address.
type End<'a> = (&'a str, &'a str, &'a str, &'a str);

/// Two tun interfaces, and for each a program that carries packets between it and the other one.
fn tunnel(lab: &Lab, ends: [End<'_>; 2]) -> [Background; 2] {
    let socket = |(_, interface, _, _): End<'_>| -> PathBuf { lab.folder.path().join(interface) };
    let programs = [0, 1].map(|n| {
        let (role, interface, _, _) = ends[n];
        lab.ip(role, &format!("tuntap add {interface} mode tun"));
        // Or the kernel sends something before the other end is there.
        lab.ip(role, &format!("link set {interface} addrgenmode none"));
        let (this, other) = (socket(ends[n]), socket(ends[1 - n]));
        let mut socat = lab.command(role, "socat");
        socat.arg(format!("TUN,tun-name={interface},iff-no-pi"));
        socat.arg(format!("UNIX-SENDTO:{},bind={}", other.display(), this.display()));
        Background(Some(socat.stdin(Stdio::null()).spawn().unwrap()))
    });
    for end in ends {
        wait_for("socat", || socket(end).exists());
    }
    for (role, interface, address, address6) in ends {
        lab.ip(role, &format!("address add {address} dev {interface}"));
        lab.ip(role, &format!("address add {address6} dev {interface} nodad"));
        lab.ip(role, &format!("link set {interface} up"));
        wait_for(interface, || lab.is_running(role, interface));
    }
    programs
}

fn from_gen(lab: &Lab) -> [Background; 2] {
    let end = ("relay", "tun1", "10.0.5.2/24", "fd00:5::2/64");
    tunnel(lab, [("gen", "tun0", "10.0.5.1/24", "fd00:5::1/64"), end])
}

fn to_sink(lab: &Lab) -> [Background; 2] {
    let end = ("relay", "tun2", "10.0.6.1/24", "fd00:6::1/64");
    tunnel(lab, [end, ("sink", "tun3", "10.0.6.2/24", "fd00:6::2/64")])
}

/// What still had an Ethernet header would be no IP packet to the other end, and what had a wrong
/// checksum none for its receiver.
pub(crate) fn from_ethernet_into_a_tun(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    let _programs = to_sink(&lab);
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "veth1", "tun2");
    let ends = Ends { to: TUNNELS.to, ..CHAIN };
    ends.carry_both(&lab, &daemon, "--size 101");
    ends.carry_both(&lab, &daemon, "--size 1000 --gso 5");
    // A sender that makes its checksums itself.
    run(lab.command("gen", "ethtool").args(["-K", "veth0", "tx", "off"]));
    ends.carry_both(&lab, &daemon, "--size 101");
}

pub(crate) fn from_a_tun_to_ethernet(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    let _programs = from_gen(&lab);
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "tun1", "veth2");
    let ends = Ends { from: TUNNELS.from, ..CHAIN };
    ends.carry_both(&lab, &daemon, "--size 101");
    ends.carry_both(&lab, &daemon, "--size 1452");
}

pub(crate) fn from_a_tun_into_a_tun(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    let _programs = (from_gen(&lab), to_sink(&lab));
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "tun1", "tun2");
    TUNNELS.carry_both(&lab, &daemon, "--size 101");
}

/// The packet is rewritten for an Ethernet output and a tun output, and the host's own stack gets it
/// as it came.
pub(crate) fn the_host_gets_what_came_by_a_tun_untouched(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    let _programs = (from_gen(&lab), to_sink(&lab));
    let daemon = lab.daemon(&[]);
    for (name, group, outputs, flow) in [
        ("a", "239.1.1.1", ["239.10.1.1:6001@veth2", "239.10.1.1:6001@tun2"], GEN),
        ("b", "[ff15::5001]", ["[ff15::6001]:6001@veth2", "[ff15::6001]:6001@tun2"], GEN6),
    ] {
        let input = format!("{group}:5001@tun1");
        let rule = ["add", &input, outputs[0], outputs[1], "--name", name, "--local", "yes"];
        daemon.ok(&rule);
        let translated = flow.replace("239.1.", "239.10.").replace("::5", "::6");
        let translated = translated.replace("--port 5", "--port 6");
        let receivers = [
            ("relay", format!("--interface tun1 {flow}")),
            ("sink", format!("--interface veth3 {translated}")),
            ("sink", format!("--interface tun3 {translated}")),
        ]
        .map(|(role, group)| lab.receiver(role, &format!("{group} --expect 200 --linger 200ms")));
        let load = format!("--interface tun0 {flow} --rate 1000 --count 200 --size 333");
        lab.send_from("gen", &load);
        for receiver in receivers {
            receiver.lossless(200);
        }
    }
}
