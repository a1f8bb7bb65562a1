//! What MCR promises about everything that is not a relayed packet.

use std::fs::{self, File};
use std::process::Command;

use crate::lab::{Daemon, Lab, Plane, run, wait_for};
use crate::traffic::Background;

const GEN: &str = "--group 239.1.1.1 --port 5001";
const SINK: &str = "--interface veth3 --group 239.10.1.1 --port 6001";

pub(crate) fn one_rule(daemon: &Daemon, local: &str) {
    let rule = ["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a", "--local"];
    daemon.ok(&[&rule[..], &[local]].concat());
}

/// What the first interface has passed on for this reason, once it is this much.
pub(crate) fn passed(daemon: &Daemon, reason: &str, packets: u64) -> u64 {
    let mut passed = 0;
    wait_for(&format!("{packets} packets passed on, {reason}"), || {
        let status = daemon.json(&["status", "--json"]);
        passed = status["interfaces"][0]["passed"][reason].as_u64().unwrap_or_default();
        passed >= packets
    });
    passed
}

pub(crate) fn a_listener_on_the_relay_host_is_still_served(plane: Plane) {
    for local in ["auto", "yes"] {
        let lab = Lab::chain(plane);
        let daemon = lab.daemon(&[]);
        one_rule(&daemon, local);
        let sink = lab.receiver("sink", &format!("{SINK} --expect 300"));
        let here = lab.receiver("relay", &format!("--interface veth1 {GEN} --expect 300"));
        lab.send(&format!("{GEN} --rate 1000 --count 300 --size 100"));
        sink.lossless(300);
        here.lossless(300);
    }
}

pub(crate) fn a_thousand_groups_are_joined_with_the_default_limit_of_twenty(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    let read = |path: &str| {
        let output = run(lab.command("relay", "cat").arg(path));
        String::from_utf8(output.stdout).unwrap()
    };
    let limit = "/proc/sys/net/ipv4/igmp_max_memberships";
    let before = read(limit);
    assert_eq!(before.trim(), "20", "the kernel's default");
    let rules: String = (0..1000)
        .map(|k| {
            let group = format!("{}.{}", k / 250 + 1, k % 250 + 1);
            format!(
                "[[rule]]\nname = \"s{k}\"\ninput = \"239.1.{group}:5000@veth1\"\noutputs = \
                 [\"239.10.{group}:6000@veth2\"]\n"
            )
        })
        .collect();
    daemon.ok(&["apply", lab.file("rules.toml", &rules).to_str().unwrap()]);
    // Group addresses of /proc/net/igmp are hexadecimal, in the byte order of the machine.
    let joined = || {
        let igmp = read("/proc/net/igmp");
        let group = |line: &str| {
            let address = u32::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
            let octets = address.to_ne_bytes();
            (line.starts_with('\t') && octets[..2] == [239, 1]).then_some(octets)
        };
        igmp.lines().filter_map(group).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(joined(), 1000);
    assert_eq!(read(limit), before, "no sysctl is touched");
    let status = daemon.json(&["status", "--json"]);
    assert_eq!(status["interfaces"][0]["groups"], 1000, "{status}");
    assert_eq!(status["membership_sockets"], 50, "{status}");
    // The last one works like the first.
    let sink = "--interface veth3 --group 239.10.4.250 --port 6000 --expect 100";
    let receiver = lab.receiver("sink", sink);
    lab.send("--group 239.1.4.250 --port 5000 --rate 1000 --count 100 --size 100");
    let stats = daemon.settled("s999", 100);
    assert_eq!(stats["outputs"][0]["forwarded"]["packets"], 100, "{stats}\n{}", daemon.log());
    receiver.lossless(100);
    daemon.ok(&["apply", lab.file("none.toml", "").to_str().unwrap(), "--allow-empty"]);
    assert_eq!(joined(), 0, "all are left");
}

pub(crate) fn what_has_an_address_that_an_output_sends_from_is_own(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    lab.ip("gen", "address add 10.0.1.1/32 dev lo");
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 50"));
    lab.send(&format!("{GEN} --rate 1000 --count 100 --size 100 --source 10.0.1.1"));
    lab.send(&format!("{GEN} --rate 1000 --count 50 --size 100"));
    receiver.lossless(50);
    let stats = daemon.settled("a", 150);
    assert_eq!(stats["dropped"]["own"], 100, "{stats}");
    assert_eq!(stats["received"]["packets"], 150, "{stats}");
}

pub(crate) fn a_sender_on_the_relay_host_is_counted_and_left_alone(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    let here = lab.receiver("relay", &format!("--interface veth1 {GEN} --expect 100"));
    let load = format!("--interface veth1 {GEN} --rate 1000 --count 100 --size 100 --loop");
    lab.send_from("relay", &load);
    here.lossless(100);
    let stats = daemon.stats("a");
    assert_eq!(stats["outputs"][0]["offered"]["packets"], 0, "{stats}");
    match plane {
        Plane::Tcx | Plane::Clsact => {
            assert_eq!(stats["dropped"]["local-sender"], 100, "{stats}");
            assert!(daemon.ok(&["stats", "a"]).contains("run the sender elsewhere"));
        }
        // A tap does not see what the kernel loops back to its own host.
        Plane::Packet => assert_eq!(stats["received"]["packets"], 0, "{stats}"),
    }
}

pub(crate) fn what_no_rule_takes_is_counted_on_the_interface(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    lab.send("--group 239.1.1.1 --port 5002 --rate 1000 --count 70 --size 100");
    lab.send("--group 239.1.1.2 --port 5001 --rate 1000 --count 30 --size 100");
    let no_rule = match plane {
        Plane::Tcx | Plane::Clsact => 100,
        // What is for no rule's group does not get as far as a worker.
        Plane::Packet => 70,
    };
    assert_eq!(passed(&daemon, "no-rule", no_rule), no_rule);
    assert_eq!(daemon.stats("a")["received"]["packets"], 0);
}

/// An interface comes back under another index, and its rule runs again; the other never stopped.
pub(crate) fn an_interface_that_comes_back_is_used_again(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("gen", "veth6", "10.0.3.1/24"), ("relay", "veth7", "10.0.3.2/24"));
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    daemon.ok(&["add", "239.1.1.2:5002@veth7", "239.10.1.2:6002@veth2", "--name", "b"]);
    let sink = "--interface veth3 --group 239.10.1.2 --port 6002 --expect 100";
    let flow = "--interface veth6 --group 239.1.1.2 --port 5002 --rate 1000 --count 100 --size 99";
    let steady = lab.receiver("sink", &format!("{SINK} --expect 1000 --idle 5s"));
    std::thread::scope(|scope| {
        scope.spawn(|| lab.send(&format!("{GEN} --rate 300 --count 1000 --size 100")));
        lab.ip("relay", "link delete veth7");
        wait_for("waiting", || daemon.state("b").0 == "waiting");
        assert!(daemon.state("b").1.contains("no interface veth7"), "{:?}", daemon.state("b"));
        lab.veth(("gen", "veth6", "10.0.3.1/24"), ("relay", "veth7", "10.0.3.2/24"));
        wait_for("idle", || daemon.state("b").0 == "idle");
        let receiver = lab.receiver("sink", sink);
        lab.send_from("gen", flow);
        receiver.lossless(100);
    });
    steady.lossless(1000);
}

/// A rule change leaves no group that stays, by the word of the wire.
pub(crate) fn memberships_of_unchanged_rules_are_not_touched(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    let mut tcpdump = lab.command("gen", "tcpdump");
    let filter = ["-i", "veth0", "-n", "-l", "-v", "--immediate-mode", "igmp"];
    let path = lab.folder.path().join("igmp");
    let file = File::create(&path).unwrap();
    let _tcpdump = Background::capture(tcpdump.args(filter).stdout(file));
    for n in 1..=20 {
        let input = format!("239.1.2.{n}:5001@veth1");
        daemon.ok(&["add", &input, "239.10.2.1:6001@veth2", "--name", "other"]);
        daemon.ok(&["remove", "other"]);
    }
    // A leave is a change to include mode with no sources (RFC 3376 §5.1), and may take a second to
    // be sent.
    let mut reports = String::new();
    wait_for("a report of the last leave", || {
        reports = fs::read_to_string(&path).unwrap();
        reports.contains("gaddr 239.1.2.20 to_in")
    });
    assert!(!reports.contains("gaddr 239.1.1.1 to_in"), "{reports}");
}

/// What happens to the output is no business of the input: the group stays joined, and every
/// packet has a counter with a name.
pub(crate) fn an_output_that_is_lost_leaves_no_group_and_no_packet_uncounted(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    let joined = || {
        let output = run(lab.command("relay", "cat").arg("/proc/net/igmp"));
        let group = format!("{:08X}", u32::from_ne_bytes([239, 1, 1, 1]));
        String::from_utf8(output.stdout).unwrap().contains(&group)
    };
    assert!(joined());
    let send = || lab.send(&format!("{GEN} --rate 1000 --count 100 --size 100"));
    let lost = [
        ("link set veth2 down", "interface-down"),
        ("address flush dev veth2", "no-address"),
        ("link delete veth2", "interface-gone"),
    ];
    for (position, (change, reason)) in lost.into_iter().enumerate() {
        lab.ip("relay", change);
        let state = || daemon.state("a");
        let words = ["is down", "no IPv4 address", "no interface"];
        wait_for(words[position], || state().1.contains(words[position]));
        send();
        assert!(joined(), "{reason}");
        let sent = 100 * (position as u64 + 1);
        let stats = daemon.settled("a", sent);
        assert_eq!(stats["matched"]["packets"], sent, "{stats}");
        assert_eq!(stats["outputs"][0]["dropped"][reason], 100, "{stats}");
        if position == 0 {
            lab.ip("relay", "link set veth2 up");
        }
    }
}

/// The metrics are the same figures as the counters.
pub(crate) fn metrics_say_what_the_counters_say(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    daemon.ok(&["output", "add", "a", "239.10.1.2:6002@veth2,ttl=decrement"]);
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 100"));
    lab.send(&format!("{GEN} --rate 1000 --count 100 --size 50 --ttl 1"));
    lab.send("--group 239.1.1.1 --port 5002 --rate 1000 --count 7 --size 50");
    receiver.lossless(100);
    daemon.settled("a", 100);
    assert_eq!(passed(&daemon, "no-rule", 7), 7);
    let mut curl = Command::new("curl");
    let socket = daemon.socket();
    curl.args(["-sf", "--unix-socket", socket.to_str().unwrap(), "http://mcrd/metrics"]);
    let text = String::from_utf8(run(&mut curl).stdout).unwrap();
    for line in [
        "mcr_rule_received_packets_total{rule=\"a\"} 100",
        "mcr_rule_matched_bytes_total{rule=\"a\"} 5000",
        "mcr_output_forwarded_packets_total{rule=\"a\",output=\"239.10.1.1:6001@veth2\"} 100",
        "mcr_output_dropped_packets_total{rule=\"a\",output=\"239.10.1.2:6002@veth2\",\
         reason=\"ttl-expired\"} 100",
        "mcr_interface_passed_packets_total{interface=\"veth1\",reason=\"no-rule\"} 7",
        "mcr_membership_groups{interface=\"veth1\"} 1",
        "mcr_rules{state=\"forwarding\"} 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

/// Interfaces that come and go by the hundred, and more notifications than netlink can hold: the
/// stream goes on, and the daemon answers.
pub(crate) fn a_storm_of_interface_changes_harms_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    one_rule(&daemon, "auto");
    let batch = |verb: &str, rest: &str| {
        let lines: String = (0..200)
            .map(|n| format!("link {verb} storm{n} {}\n", rest.replace('#', &n.to_string())))
            .collect();
        lab.file(verb, &lines)
    };
    let add = batch("add", "type veth peer name peer#");
    let delete = batch("delete", "");
    let storm = |file: &std::path::Path| {
        run(Command::new("ip").args(["-n", &lab.namespace("relay"), "-batch"]).arg(file));
    };
    let forwarding = |value: &str| {
        let set = format!("echo {value} > /proc/sys/net/ipv4/conf/all/forwarding");
        run(lab.command("relay", "sh").args(["-c", &set]));
    };
    let receiver = lab.receiver("sink", &format!("{SINK} --expect 2000 --idle 10s"));
    std::thread::scope(|scope| {
        scope.spawn(|| lab.send(&format!("{GEN} --rate 500 --count 2000 --size 100")));
        storm(&add);
        for _ in 0..5 {
            forwarding("1");
            forwarding("0");
            daemon.ok(&["status"]);
        }
        storm(&delete);
        daemon.ok(&["add", "239.1.1.2:5002@veth1", "239.10.1.2:6002@veth2"]);
    });
    receiver.lossless(2000);
    // What the storm left to be noticed is noticed.
    lab.ip("relay", "link set veth2 down");
    wait_for("waiting", || daemon.state("a").0 == "waiting");
}
