//! Interfaces, addresses, routes and neighbours that come late, go, and come back: rules wait for
//! them and go on by themselves, and another rule's stream notices nothing of it.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::lab::{Daemon, Lab, Plane, run, sibling, wait_for};
use crate::links::{CHAIN, Ends, GEN, GEN6, GROUP6, address6, both_families, chain6};
use crate::traffic::{Background, Receiver};

/// A rule's stream by links of its own, which runs as long as a test, and must not notice it.
struct Steady {
    receiver: Receiver,
    sender: Background,
}

/// The links of [`Steady`], which must be there before the daemon is.
fn steady_links(lab: &Lab) {
    lab.veth(("gen", "veth10", "10.0.10.1/24"), ("relay", "veth11", "10.0.10.2/24"));
    lab.veth(("relay", "veth12", "10.0.11.1/24"), ("sink", "veth13", "10.0.11.2/24"));
}

impl Steady {
    /// Adds the rule, and waits until its stream is through.
    fn begin(lab: &Lab, daemon: &Daemon) -> Self {
        daemon.ok(&["add", "239.1.9.9:5009@veth11", "239.10.9.9:6009@veth12", "--name", "steady"]);
        let flow = "--interface veth13 --group 239.10.9.9 --port 6009 --idle 1s";
        let receiver = lab.receiver("sink", flow);
        let sender = sender(lab, "veth10", "--group 239.1.9.9 --port 5009 --rate 200 --size 100");
        daemon.ok(&["wait", "steady", "--for", "forwarding"]);
        Self { receiver, sender }
    }

    /// Everything that was sent has come, once.
    fn end(self) {
        let sent: Value = serde_json::from_slice(&self.sender.stop().stdout).unwrap();
        self.receiver.lossless(sent["sent"].as_u64().unwrap());
    }
}

/// A sender in the generator's namespace that goes on until it is ended.
fn sender(lab: &Lab, interface: &str, flow: &str) -> Background {
    let mut command = lab.command("gen", sibling("mcrgen"));
    command.args(["send", "--json", "--interface", interface]).args(flow.split_whitespace());
    Background(Some(command.stdout(Stdio::piped()).spawn().unwrap()))
}

/// A capture of the next packet of a kind.
struct Next(Background);

impl Next {
    fn packet(lab: &Lab, role: &str, interface: &str, filter: &str) -> Self {
        let mut tcpdump = lab.command(role, "timeout");
        // Ends by itself when it has one.
        tcpdump.args(["30", "tcpdump", "-i", interface, "-n", "-tt", "--immediate-mode"]);
        tcpdump.args(["-c", "1"]).args(filter.split(' ')).stdout(Stdio::piped());
        Self(Background::capture(&mut tcpdump))
    }

    /// When it came, since the epoch.
    fn arrival(mut self) -> Duration {
        let output = self.0.0.take().unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let time = text.split(' ').next().unwrap().parse();
        Duration::from_secs_f64(time.unwrap_or_else(|_| panic!("no packet: {text}")))
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn print(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A table of the kernel, in the relay's namespace.
fn table(lab: &Lab, name: &str) -> String {
    let output = run(lab.command("relay", "cat").arg(format!("/proc/net/{name}")));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether 239.1.1.2, 232.1.1.3 from 10.0.3.1, and ff15::5004 are joined on `veth7`, by the word of
/// the kernel.
fn all_joined(lab: &Lab) -> bool {
    let (igmp, sources, igmp6) = (table(lab, "igmp"), table(lab, "mcfilter"), table(lab, "igmp6"));
    // The groups of an interface follow its line, as hexadecimal in the byte order of the machine.
    let below = igmp.lines().skip_while(|line| !line.contains("\tveth7 ")).skip(1);
    let own = below.take_while(|line| line.starts_with('\t'));
    let group = |octets| format!("{:08X}", u32::from_ne_bytes(octets));
    own.clone().any(|line| line.contains(&group([239, 1, 1, 2])))
        && own.clone().any(|line| line.contains(&group([232, 1, 1, 3])))
        && sources.lines().any(|line| {
            line.contains("veth7") && line.contains("0xe8010103") && line.contains("0x0a000301")
        })
        && igmp6.lines().any(|line| {
            line.contains(" veth7 ") && line.contains("ff150000000000000000000000005004")
        })
}

const LATE: &str = r#"
[[rule]]
name = "late"
input = "239.1.1.2:5002@veth7"
outputs = ["239.10.1.2:6002@veth2"]

[[rule]]
name = "late-ssm"
input = "10.0.3.1@232.1.1.3:5003@veth7"
outputs = ["239.10.1.3:6003@veth2"]

[[rule]]
name = "late6"
input = "[ff15::5004]:5004@veth7"
outputs = ["[ff15::6004]:6004@veth2"]
"#;

/// `veth7` with this index, and a stream that has been waiting for it; how long that took after the
/// interface came up, until the packet was at the receiver.
fn arrive(lab: &Lab, index: u32) -> (Background, Duration) {
    lab.ip("gen", &format!("link add veth7 index {index} type veth peer name veth6"));
    lab.ip("gen", "address add 10.0.3.1/24 dev veth6");
    address6(lab, "gen", "veth6", "fd00:3::1/64");
    lab.ip("gen", "link set veth6 up");
    let flow = "--group 239.1.1.2 --port 5002 --rate 1000 --size 100";
    let sender = sender(lab, "veth6", flow);
    lab.ip("gen", &format!("link set veth7 netns {}", lab.namespace("relay")));
    lab.ip("relay", "address add 10.0.3.2/24 dev veth7");
    let at_relay = Next::packet(lab, "relay", "any", "udp port 5002");
    let at_sink = Next::packet(lab, "sink", "veth3", "udp port 6002");
    let begin = now();
    lab.ip("relay", "link set veth7 up");
    let (at_relay, at_sink) = (at_relay.arrival(), at_sink.arrival());
    let wire = at_relay.saturating_sub(begin).as_millis();
    let taken = at_sink.saturating_sub(begin);
    print(format_args!(
        "{:?}: link up to the first packet: at the relay {wire} ms, at the receiver {} ms",
        lab.plane,
        taken.as_millis()
    ));
    (sender, taken)
}

/// Waits until nothing of a rule's stream is on its way any more: a worker may be late with it.
fn is_at_rest(daemon: &Daemon, rule: &str) {
    let (mut last, mut same) = (None, 0);
    wait_for("the stream to come to rest", || {
        let received = daemon.stats(rule)["received"]["packets"].as_u64();
        same = if received == last { same + 1 } else { 0 };
        last = received;
        same == 20
    });
}

pub(crate) fn rules_of_a_file_wait_for_their_interface_whenever_it_comes(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    steady_links(&lab);
    let config = lab.file("mcr.toml", LATE);
    let daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    let steady = Steady::begin(&lab, &daemon);
    let rules = ["late", "late-ssm", "late6"];
    // Another one, and the same once more.
    for index in [100, 101, 101] {
        for rule in rules {
            wait_for("waiting", || daemon.state(rule).0 == "waiting");
            let (_, reason) = daemon.state(rule);
            assert!(reason.contains("no interface veth7"), "{rule}: {reason}");
        }
        let (sender, taken) = arrive(&lab, index);
        assert!(taken < Duration::from_secs(3), "{taken:?}");
        wait_for("joins", || all_joined(&lab));
        for rule in ["late-ssm", "late6"] {
            wait_for("idle", || daemon.state(rule).0 == "idle");
        }
        drop(sender);
        is_at_rest(&daemon, "late");
        for (flow, group) in [
            ("239.1.1.2 --port 5002", "239.10.1.2 --port 6002"),
            ("232.1.1.3 --port 5003", "239.10.1.3 --port 6003"),
            ("ff15::5004 --port 5004", "ff15::6004 --port 6004"),
        ] {
            let ends = Ends { from: ("gen", "veth6"), ..CHAIN };
            let (flow, group) = (format!("--group {flow}"), format!("--group {group}"));
            ends.carry(&lab, &flow, &group, "--size 100");
        }
        lab.ip("relay", "link delete veth7");
    }
    steady.end();
}

/// A name that is not there is a mistake, unless the user says that it comes.
pub(crate) fn what_is_added_with_wait_may_come_before_its_interfaces(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    steady_links(&lab);
    let daemon = lab.daemon(&[]);
    let steady = Steady::begin(&lab, &daemon);
    let input = ["add", "239.1.1.2:5002@veth7", "239.10.1.2:6002@veth5", "--name", "late"];
    let refused = daemon.refused(&input);
    assert!(refused.contains("no interface veth") && refused.contains("--wait"), "{refused}");
    assert_eq!(daemon.list().as_array().unwrap().len(), 1);
    daemon.ok(&[&input[..], &["--wait"]].concat());
    let waits_for = |interface: &str| {
        wait_for("waiting", || {
            let (state, reason) = daemon.state("late");
            state == "waiting" && reason.contains(&format!("no interface {interface}"))
        });
    };
    waits_for("veth7");
    lab.veth(("gen", "veth6", "10.0.3.1/24"), ("relay", "veth7", "10.0.3.2/24"));
    waits_for("veth5");
    lab.veth(("relay", "veth5", "10.0.2.1/24"), ("sink", "veth4", "10.0.2.2/24"));
    wait_for("idle", || daemon.state("late").0 == "idle");
    let ends = Ends { from: ("gen", "veth6"), to: ("sink", "veth4") };
    let (flow, group) = ("--group 239.1.1.2 --port 5002", "--group 239.10.1.2 --port 6002");
    // New devices have no carrier for a moment, and what comes then is counted as `interface-down`.
    let first = Next::packet(&lab, "sink", "veth4", "udp port 6002");
    let until_then = sender(&lab, "veth6", &format!("{flow} --rate 200 --size 100"));
    first.arrival();
    drop(until_then);
    ends.carry(&lab, flow, group, "--size 100");
    // One that is refused while the rule runs harms nothing.
    let output = ["output", "add", "late", "239.10.1.3:6003@veth15"];
    let refused = daemon.refused(&output);
    assert!(refused.contains("no interface veth15"), "{refused}");
    daemon.ok(&[&output[..], &["--wait"]].concat());
    waits_for("veth15");
    ends.carry(&lab, flow, group, "--size 100");
    steady.end();
}

/// Receivers see the new address, and the log has both.
pub(crate) fn a_changed_address_is_sent_from_and_logged(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    steady_links(&lab);
    let daemon = lab.daemon(&[]);
    let steady = Steady::begin(&lab, &daemon);
    both_families(&daemon, "veth1", "veth2");
    let source = |address: &str, port: u16| {
        Next::packet(&lab, "sink", "veth3", &format!("udp port {port} and src host {address}"))
    };
    let _senders = [GEN, GEN6].map(|flow| lab.sender(&format!("{flow} --rate 500 --size 100")));
    source("10.0.1.1", 6001).arrival();
    source("fd00:1::1", 6001).arrival();
    for (old, new, nodad) in [("10.0.1.1", "10.0.1.7", ""), ("fd00:1::1", "fd00:1::7", "nodad")] {
        let width = if nodad.is_empty() { 24 } else { 64 };
        let next = source(new, 6001);
        lab.ip("relay", &format!("address delete {old}/{width} dev veth2"));
        let begin = now();
        lab.ip("relay", &format!("address add {new}/{width} dev veth2 {nodad}"));
        let taken = next.arrival().saturating_sub(begin);
        print(format_args!("{plane:?}: {new} sent from after {} ms", taken.as_millis()));
        // In between it may have been sent from a third address: that of the link.
        wait_for("the log", || {
            let log = daemon.log();
            let (to, from) = (format!("sent from {new},"), format!("no more from {old} "));
            log.lines().any(|line| line.contains(&to))
                && log.lines().any(|line| line.contains(&from))
        });
    }
    for rule in ["a", "b"] {
        wait_for("forwarding", || daemon.state(rule).0 == "forwarding");
    }
    steady.end();
}

/// An address is not sent from before the kernel has made sure that nobody else has it.
pub(crate) fn an_ipv6_address_that_comes_late_is_waited_for(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    address6(&lab, "gen", "veth0", "fd00:0::1/64");
    // No address of the family at all.
    lab.ip("relay", "link set veth2 addrgenmode none");
    lab.ip("relay", "-6 address flush dev veth2");
    for setting in ["accept_dad=1", "dad_transmits=1"] {
        let setting = format!("net.ipv6.conf.veth2.{setting}");
        run(lab.command("relay", "sysctl").args(["-qw", &setting]));
    }
    steady_links(&lab);
    let daemon = lab.daemon(&[]);
    let steady = Steady::begin(&lab, &daemon);
    let rule = ["add", "[ff15::5001]:5001@veth1", "[ff15::6001]:6001@veth2", "--name", "b"];
    let refused = daemon.refused(&rule);
    assert!(refused.contains("no IPv6 address"), "{refused}");
    daemon.ok(&[&rule[..], &["--wait"]].concat());
    let waits = || {
        let (state, reason) = daemon.state("b");
        state == "waiting" && reason.contains("no IPv6 address")
    };
    wait_for("waiting", waits);
    let tentative = || {
        let mut ip = Command::new("ip");
        ip.args(["-n", &lab.namespace("relay"), "-6", "address", "show", "dev", "veth2"]);
        String::from_utf8_lossy(&run(&mut ip).stdout).contains("tentative")
    };
    lab.ip("relay", "address add fd00:1::1/64 dev veth2");
    let mut seen = 0;
    loop {
        let waited = waits();
        if !tentative() {
            break;
        }
        assert!(waited, "{:?}: sent from a tentative address", daemon.state("b"));
        seen += 1;
    }
    assert!(seen > 0, "the address was usable at once");
    let begin = Instant::now();
    wait_for("idle", || daemon.state("b").0 == "idle");
    print(format_args!("{plane:?}: usable address followed in {:?}", begin.elapsed()));
    let next = Next::packet(&lab, "sink", "veth3", "udp port 6001 and src host fd00:1::1");
    CHAIN.carry(&lab, GEN6, GROUP6, "--size 100");
    next.arrival();
    steady.end();
}

/// What goes and comes back is used again, and an input that is switched off and on stays joined.
pub(crate) fn interfaces_that_go_down_and_up_or_away_and_back_are_used_again(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    chain6(&lab);
    steady_links(&lab);
    let daemon = lab.daemon(&[]);
    let steady = Steady::begin(&lab, &daemon);
    both_families(&daemon, "veth1", "veth2");
    let joined = || {
        let group = format!("{:08X}", u32::from_ne_bytes([239, 1, 1, 1]));
        table(&lab, "igmp").contains(&group)
            && table(&lab, "igmp6").contains("ff150000000000000000000000005001")
    };
    let both = |state: &str, reason: &str| {
        for rule in ["a", "b"] {
            wait_for(state, || {
                let now = daemon.state(rule);
                now.0 == state && now.1.contains(reason)
            });
        }
    };
    assert!(joined());
    both("idle", "");

    lab.ip("relay", "link set veth1 down");
    both("waiting", "veth1 is down");
    lab.ip("relay", "link set veth1 up");
    both("idle", "");
    wait_for("veth0", || lab.is_running("gen", "veth0"));
    wait_for("joins", joined);
    CHAIN.carry_both(&lab, &daemon, "--size 100");

    lab.ip("relay", "link delete veth2");
    both("waiting", "no interface veth2");
    assert!(joined());
    lab.veth(("relay", "veth2", "10.0.1.1/24"), ("sink", "veth3", "10.0.1.2/24"));
    address6(&lab, "relay", "veth2", "fd00:1::1/64");
    for rule in ["a", "b"] {
        wait_for("forwarding or idle", || daemon.state(rule).0 != "waiting");
    }
    assert!(joined());
    CHAIN.carry_both(&lab, &daemon, "--size 100");
    steady.end();
}

/// Unicast outputs whose route or neighbour is not there yet.
pub(crate) fn routes_and_neighbours_that_come_later_are_used(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    steady_links(&lab);
    // How often the kernel looks for a neighbour that does not answer; 5 s by default.
    let often = "net.ipv4.neigh.veth2.interval_probe_time_ms=500";
    run(lab.command("relay", "sysctl").args(["-qw", often]));
    let daemon = lab.daemon(&[]);
    let steady = Steady::begin(&lab, &daemon);
    let state = |rule: &str, reason: &str| {
        wait_for(&format!("{rule}: {reason}"), || {
            let (state, now) = daemon.state(rule);
            state == "waiting" && now.contains(reason)
        });
    };
    let sends = |flow: &str, rule: &str, reason: &str| {
        lab.send(&format!("{flow} --rate 1000 --count 50 --size 100"));
        let stats = daemon.settled(rule, 50);
        assert_eq!(stats["outputs"][0]["dropped"][reason], 50, "{stats}");
    };

    let routed = ["add", "239.1.1.1:5001@veth1", "10.9.0.7:6001", "--name", "a"];
    let refused = daemon.refused(&routed);
    assert!(refused.contains("no route to 10.9.0.7"), "{refused}");
    daemon.ok(&[&routed[..], &["--wait"]].concat());
    state("a", "10.9.0.7");
    sends(GEN, "a", "no-route");
    let next = ["add", "239.1.1.2:5002@veth1", "10.0.1.77:6002", "--name", "n"];
    // The kernel is still looking: no reason to refuse it.
    daemon.ok(&next);
    state("n", "10.0.1.77");
    sends("--group 239.1.1.2 --port 5002", "n", "no-neighbour");

    lab.ip("sink", "address add 10.9.0.7/32 dev veth3");
    lab.ip("sink", "address add 10.0.1.77/32 dev veth3");
    let begin = Instant::now();
    lab.ip("relay", "route add 10.9.0.0/24 via 10.0.1.2");
    for rule in ["a", "n"] {
        wait_for(rule, || daemon.state(rule).0 != "waiting");
        print(format_args!("{plane:?}: {rule} runs after {:?}", begin.elapsed()));
    }
    CHAIN.carry(&lab, GEN, "--group 10.9.0.7 --port 6001", "--size 100");
    let flow = "--group 239.1.1.2 --port 5002";
    CHAIN.carry(&lab, flow, "--group 10.0.1.77 --port 6002", "--size 100");

    // A route that goes, and another way.
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    lab.ip("relay", "route delete 10.9.0.0/24");
    state("a", "10.9.0.7");
    lab.ip("relay", "route add 10.9.0.0/24 via 10.0.2.2");
    wait_for("another way", || daemon.state("a").0 != "waiting");
    let ends = Ends { to: ("sink", "veth5"), ..CHAIN };
    ends.carry(&lab, GEN, "--group 10.9.0.7 --port 6001", "--size 100");
    steady.end();
}
