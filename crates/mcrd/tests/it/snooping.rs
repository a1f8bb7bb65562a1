//! A switch that snoops on IGMP and MLD, between a sender and the relay: what the relay has joined
//! comes through, and nothing else.
//!
//! ```text
//! sink (cam0 10.0.0.3) --- swp0 \
//!                                br0 in gen -- veth0 --- (veth1 10.0.0.2) relay (veth2) --- (veth3) sink
//! sink (idle0) ----------- swp1 /
//! ```

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};
use crate::links::{Ends, GEN, GEN6, GROUP, GROUP6, address6, both_families};

const ENDS: Ends<'_> = Ends { from: ("sink", "cam0"), to: ("sink", "veth3") };

/// Everything that a switch does by default in minutes, in seconds. A membership lasts 5 s.
const SHORT: &str = "mcast_query_interval 200 mcast_query_response_interval 100 \
    mcast_membership_interval 500 mcast_querier_interval 500 mcast_startup_query_interval 100 \
    mcast_startup_query_count 2 mcast_last_member_interval 50 mcast_last_member_count 2";
const MEMBERSHIP: Duration = Duration::from_secs(5);

/// Versions of the membership protocols.
#[derive(Clone, Copy, Debug)]
struct Versions {
    igmp: u8,
    mld: u8,
}

const OLD: Versions = Versions { igmp: 2, mld: 1 };
const NEW: Versions = Versions { igmp: 3, mld: 2 };

/// The switch, with these intervals, which asks for members in these versions.
fn switch(plane: Plane, versions: Versions, intervals: &str) -> Lab {
    let lab = Lab::chain_ipv4(plane);
    for (role, known) in [("gen", "veth0"), ("relay", "veth1"), ("sink", "veth3")] {
        for which in ["all", "default", known] {
            // Reports come from a link-local address, which is to be usable at once.
            let setting = format!("net.ipv6.conf.{which}.accept_dad=0");
            run(lab.command(role, "sysctl").args(["-qw", &setting]));
        }
        lab.ip(role, &format!("link set {known} down"));
    }
    let peer = lab.namespace("sink");
    for (port, name) in [("swp0", "cam0"), ("swp1", "idle0")] {
        lab.ip("gen", &format!("link add {port} type veth peer name {name} netns {peer}"));
    }
    let Versions { igmp, mld } = versions;
    lab.ip(
        "gen",
        &format!(
            "link add br0 type bridge mcast_snooping 1 mcast_querier 0 mcast_igmp_version {igmp} \
             mcast_mld_version {mld} {intervals}"
        ),
    );
    lab.ip("gen", "address flush dev veth0");
    for port in ["veth0", "swp0", "swp1"] {
        lab.ip("gen", &format!("link set {port} master br0 up"));
    }
    lab.ip("gen", "link set br0 up");
    lab.ip("sink", "address add 10.0.0.3/24 dev cam0");
    lab.ip("sink", "address add 10.0.0.4/24 dev cam0");
    for (role, interface) in
        [("relay", "veth1"), ("sink", "veth3"), ("sink", "cam0"), ("sink", "idle0")]
    {
        lab.ip(role, &format!("link set {interface} up"));
        wait_for(interface, || lab.is_running(role, interface));
    }
    for port in ["veth0", "swp0", "swp1"] {
        wait_for(port, || lab.is_running("gen", port));
    }
    address6(&lab, "sink", "cam0", "fd00:0::3/64");
    address6(&lab, "sink", "cam0", "fd00:0::4/64");
    address6(&lab, "relay", "veth1", "fd00:0::2/64");
    address6(&lab, "relay", "veth2", "fd00:1::1/64");
    address6(&lab, "sink", "veth3", "fd00:1::2/64");
    // A switch that has just found a querier floods for the interval in force then: so the querier
    // comes last.
    lab.ip("gen", "link set br0 type bridge mcast_querier 1");
    lab
}

/// Packets that an interface has received.
fn received(lab: &Lab, (role, interface): (&str, &str)) -> u64 {
    let mut ip = Command::new("ip");
    ip.args(["-n", &lab.namespace(role), "-j", "-s", "link", "show", "dev", interface]);
    let link: Value = serde_json::from_slice(&run(&mut ip).stdout).unwrap();
    link[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// How many packets the relay and an idle host get of 100 that are sent, and reports and queries.
fn let_through(lab: &Lab, flow: &str) -> [u64; 2] {
    let hosts = [("relay", "veth1"), ("sink", "idle0")];
    let before = hosts.map(|host| received(lab, host));
    lab.send_from("sink", &format!("--interface cam0 {flow} --rate 2000 --count 100 --size 50"));
    let after = hosts.map(|host| received(lab, host));
    [after[0] - before[0], after[1] - before[1]]
}

/// Waits until the switch floods groups of neither family that nobody has joined.
fn wait_until_it_filters(lab: &Lab) {
    for flow in ["--group 239.9.9.9 --port 5009", "--group ff15::9999 --port 5009"] {
        wait_for("the switch", || let_through(lab, flow).iter().all(|count| *count < 50));
    }
}

/// What the switch knows of the relay's memberships: group and source.
fn members(lab: &Lab) -> BTreeSet<(String, String)> {
    let mut bridge = lab.command("gen", "bridge");
    let output = run(bridge.args(["-j", "mdb", "show", "dev", "br0"]));
    let tables: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = tables[0]["mdb"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let of_relay = entries.iter().filter(|entry| entry["port"] == "veth0");
    of_relay.map(|entry| (text(entry, "grp"), text(entry, "src"))).collect()
}

fn knows(lab: &Lab, group: &str, source: &str) -> bool {
    members(lab).contains(&(group.to_owned(), source.to_owned()))
}

/// The relay's host speaks the versions that the switch asks for.
fn speaks(lab: &Lab, versions: Versions) {
    let read =
        |path: &str| String::from_utf8(run(lab.command("relay", "cat").arg(path)).stdout).unwrap();
    let version = format!("V{}", versions.igmp);
    wait_for(&version, || {
        let igmp = read("/proc/net/igmp");
        igmp.lines().any(|line| line.contains("\tveth1 ") && line.ends_with(&version))
    });
    let reports = if versions.mld == 1 { "Icmp6OutType131 " } else { "Icmp6OutType143 " };
    wait_for(reports, || {
        let counters = read("/proc/net/dev_snmp6/veth1").replace('\t', " ");
        counters.lines().any(|line| line.starts_with(reports))
    });
}

/// For longer than a membership lasts without an answer to a query, and no longer than the rule.
fn a_stream_holds(plane: Plane, versions: Versions) {
    let lab = switch(plane, versions, SHORT);
    wait_until_it_filters(&lab);
    for flow in [GEN, GEN6] {
        let [relay, _] = let_through(&lab, flow);
        assert!(relay < 50, "{flow}: the switch let {relay} packets through to the relay unjoined");
    }
    let daemon = lab.daemon(&[]);
    both_families(&daemon, "veth1", "veth2");
    let joined = Instant::now();
    let groups = ["239.1.1.1", "ff15::5001"];
    for group in groups {
        wait_for(group, || knows(&lab, group, ""));
    }
    let taken = joined.elapsed();
    let idle = ("sink", "idle0");
    let before = received(&lab, idle);
    let receivers = [GROUP, GROUP6].map(|group| {
        lab.receiver("sink", &format!("--interface veth3 {group} --expect 1300 --idle 5s"))
    });
    std::thread::scope(|scope| {
        for flow in [GEN, GEN6] {
            let load = format!("--interface cam0 {flow} --rate 200 --count 1300 --size 100");
            let lab = &lab;
            scope.spawn(move || lab.send_from("sink", &load));
        }
    });
    assert!(joined.elapsed() > MEMBERSHIP + Duration::from_secs(1));
    for receiver in receivers {
        receiver.lossless(1300);
    }
    let flooded = received(&lab, idle) - before;
    assert!(flooded < 200, "{flooded} packets of 2600 came to a host that has joined nothing");
    for group in groups {
        assert!(knows(&lab, group, ""), "{group}: {:?}", members(&lab));
    }
    speaks(&lab, versions);

    daemon.ok(&["remove", "a", "b"]);
    let left = Instant::now();
    for group in groups {
        wait_for(group, || !knows(&lab, group, ""));
    }
    let gone = left.elapsed();
    for flow in [GEN, GEN6] {
        let [relay, _] = let_through(&lab, flow);
        assert!(relay < 50, "{flow}: {relay} packets came after the rule");
    }
    let _ = writeln!(
        io::stderr(),
        "{plane:?}, {versions:?}: joined in {taken:?}, {flooded} packets elsewhere, left in {gone:?}"
    );
}

pub(crate) fn a_stream_comes_as_long_as_it_is_joined_by_igmp_2_and_mld_1(plane: Plane) {
    a_stream_holds(plane, OLD);
}

pub(crate) fn a_stream_comes_as_long_as_it_is_joined_by_igmp_3_and_mld_2(plane: Plane) {
    a_stream_holds(plane, NEW);
}

/// A switch that knows the senders lets nobody else through; more than ten are no limit.
pub(crate) fn sources_that_are_joined_come_and_others_do_not(plane: Plane) {
    let lab = switch(plane, NEW, SHORT);
    wait_until_it_filters(&lab);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "10.0.0.3@232.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let six = "fd00::3@[ff35::5001]:5001@veth1";
    daemon.ok(&["add", six, "[ff15::6001]:6001@veth2", "--name", "b"]);
    let many: Vec<String> = (101..=112).map(|host| format!("10.0.0.{host}")).collect();
    let input = format!("{}@232.1.1.2:5001@veth1", many.join(","));
    daemon.ok(&["add", &input, "239.10.1.2:6001@veth2", "--name", "many"]);
    let all_known = || {
        knows(&lab, "232.1.1.1", "10.0.0.3")
            && knows(&lab, "ff35::5001", "fd00::3")
            && many.iter().all(|source| knows(&lab, "232.1.1.2", source))
    };
    wait_for("the switch", all_known);
    let flows = [
        ("a", "--group 232.1.1.1 --port 5001", GROUP, ["10.0.0.3", "10.0.0.4"]),
        ("b", "--group ff35::5001 --port 5001", GROUP6, ["fd00::3", "fd00::4"]),
    ];
    for (rule, flow, group, [right, wrong]) in flows {
        ENDS.carry(&lab, flow, group, &format!("--size 100 --source {right}"));
        sums(&daemon.settled(rule, 200), 0, 200);
        let [relay, _] = let_through(&lab, &format!("{flow} --source {wrong}"));
        assert!(relay < 50, "{flow}: {relay} packets of {wrong} came");
    }
    // The kernel forgets sources, not groups, when an interface goes down.
    lab.ip("relay", "link set veth1 down");
    wait_for("the port to go down", || members(&lab).is_empty());
    lab.ip("relay", "link set veth1 up");
    wait_for("the switch after the interface was down", all_known);
    daemon.ok(&["remove", "a", "b", "many"]);
    wait_for("leaves", || members(&lab).iter().all(|(_, source)| source.is_empty()));
}

const MANY: usize = 1000;

/// Rules with a thousand groups of a family, as lines that `line` makes of input and output.
fn a_thousand(line: impl Fn(usize, &str, &str) -> String, six: bool) -> String {
    let one = |k: usize| {
        let (high, low) = (k / 250 + 1, k % 250 + 1);
        if six {
            let input = format!("[ff15::5:{k:x}]:5000@veth1");
            line(k, &input, &format!("[ff15::6:{k:x}]:6000@veth2"))
        } else {
            let input = format!("239.1.{high}.{low}:5000@veth1");
            line(k, &input, &format!("239.10.{high}.{low}:6000@veth2"))
        }
    };
    (0..MANY).map(one).collect()
}

/// Nothing but what is sent because of the joins tells the switch of them: its next query is far.
fn a_thousand_arrive(plane: Plane, versions: Versions) {
    let lab = switch(plane, versions, "");
    for setting in [
        format!("net.ipv4.conf.all.force_igmp_version={}", versions.igmp),
        format!("net.ipv6.conf.all.force_mld_version={}", versions.mld),
    ] {
        run(lab.command("relay", "sysctl").args(["-qw", &setting]));
    }
    let daemon = lab.daemon(&[]);
    let file = |k: usize, input: &str, output: &str| {
        format!("[[rule]]\nname = \"s{k}\"\ninput = \"{input}\"\noutputs = [\"{output}\"]\n")
    };
    let batch = |k: usize, input: &str, output: &str| format!("add {input} {output} --name t{k}\n");
    let four = lab.file("four.toml", &a_thousand(file, false));
    let six = lab.file("six", &a_thousand(batch, true));
    for (command, path, prefix) in [("apply", four, "239.1."), ("batch", six, "ff15::5:")] {
        let begin = Instant::now();
        daemon.ok(&[command, path.to_str().unwrap()]);
        let answered = begin.elapsed();
        let known = || members(&lab).iter().filter(|(group, _)| group.starts_with(prefix)).count();
        let mut at_first = None;
        wait_for("all joins at the switch", || {
            let known = known();
            at_first.get_or_insert(known);
            known == MANY
        });
        let taken = begin.elapsed() - answered;
        let _ = writeln!(
            io::stderr(),
            "{plane:?}, {versions:?}: {command} of {MANY} answered after {answered:?}; {} known at \
             first, all after {taken:?} more",
            at_first.unwrap()
        );
        assert!(taken < Duration::from_secs(2), "joins were lost on their way: {taken:?}");
    }
}

pub(crate) fn a_thousand_joins_at_once_all_arrive_by_igmp_2_and_mld_1(plane: Plane) {
    a_thousand_arrive(plane, OLD);
}

pub(crate) fn a_thousand_joins_at_once_all_arrive_by_igmp_3_and_mld_2(plane: Plane) {
    a_thousand_arrive(plane, NEW);
}
