//! What stops a stream is named, with its evidence and what to do. What depends on the plane is asked
//! of two of them; the rest of one.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::{Daemon, Lab, Plane, can_run, run, sibling, wait_for};
use crate::links::{GEN, GROUP};
use crate::traffic::Background;

/// An examination.
struct Examined {
    code: Option<i32>,
    report: Value,
}

impl Examined {
    fn checks(&self) -> impl Iterator<Item = &Value> {
        self.report["checks"].as_array().unwrap().iter()
    }

    /// The results of a check, each with its subject and evidence.
    fn said(&self, check: &str) -> Vec<(&str, String)> {
        let made = self.checks().filter(|made| made["check"] == check);
        let text = |made: &Value, key: &str| made[key].as_str().unwrap_or_default().to_owned();
        let said = |made: &Value| {
            let [subject, evidence, remedy] =
                ["subject", "evidence", "remedy"].map(|key| text(made, key));
            format!("{subject}: {evidence} → {remedy}")
        };
        made.map(|made| (made["result"].as_str().unwrap(), said(made))).collect()
    }

    /// Whether a check has ended so, and has said all of this at once.
    fn has(&self, result: &str, check: &str, words: &[&str]) -> bool {
        let fits = |said: &str| words.iter().all(|word| said.contains(word));
        self.said(check).iter().any(|(ended, said)| *ended == result && fits(said))
    }

    #[track_caller]
    fn expect(&self, result: &str, check: &str, words: &[&str]) {
        let said = self.said(check);
        assert!(
            self.has(result, check, words),
            "{check} is not {result} with {words:?}: {said:#?}"
        );
    }
}

fn doctor(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(sibling("mcrctl"))
        .args(["--instance", &daemon.instance, "doctor"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn examine(daemon: &Daemon, arguments: &[&str]) -> Examined {
    let (code, said, complaint) = doctor(daemon, &[arguments, &["--json"]].concat());
    let report = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{complaint}"));
    Examined { code, report }
}

/// Examines until it is so.
fn until(daemon: &Daemon, (result, check): (&str, &str), words: &[&str]) -> Examined {
    let mut last = String::new();
    let mut found = None;
    wait_for(&format!("{check} {result} {words:?}"), || {
        let examined = examine(daemon, &["--duration", "200ms"]);
        let has = examined.has(result, check, words);
        last = format!("{:#?}", examined.said(check));
        found = Some(examined).filter(|_| has);
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("{last}"))
}

/// What a check is to end with: its result, the check, and words of what it says.
type Expected<'e> = (&'e str, &'e str, &'e [&'e str]);

/// Examines until all of it is said in one examination, which ends with this code.
fn until_all(daemon: &Daemon, code: i32, all: &[Expected<'_>]) -> Examined {
    let mut examined = None;
    let what = format!("code {code} and {all:#?}");
    let so = |made: &Examined| {
        made.code == Some(code)
            && all.iter().all(|(result, check, words)| made.has(result, check, words))
    };
    wait_for(&what, || {
        examined = Some(examine(daemon, &["--duration", "200ms"])).filter(so);
        examined.is_some()
    });
    examined.unwrap()
}

/// A sender of another namespace that goes on until it is ended.
fn sender(lab: &Lab, role: &str, arguments: &str) -> Background {
    let mut command = lab.command(role, sibling("mcrgen"));
    command.args(["send", "--json", "--rate", "100", "--size", "100"]);
    command.args(arguments.split_whitespace()).stdout(Stdio::piped());
    Background(Some(command.spawn().unwrap()))
}

pub(crate) fn a_stream_that_flows_is_well(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "well"]);
    daemon.ok(&["add", "239.1.9.9:5001@veth9", "239.10.9.9:6001@veth2", "--name", "off", "--wait"]);
    daemon.ok(&["disable", "off"]);
    let receiver = lab.receiver("sink", &format!("--interface veth3 {GROUP}"));
    let sender = lab.sender(&format!("{GEN} --rate 200 --size 100"));
    daemon.wait_state("well", "forwarding");
    // The sink's report may still be on its way, and no packet come in so short a look.
    let all: [Expected<'_>; 3] = [
        ("ok", "downstream", &["veth2", "239.10.1.1", "10.0.1.2"]),
        ("ok", "sender", &["well", "10.0.0.1"]),
        ("ok", "ttl", &["TTL 8"]),
    ];
    let examined = until_all(&daemon, 0, &all);
    assert_eq!(examined.report["rules"], 1);
    assert_eq!(examined.report["duration"], "200ms");
    let problems: Vec<&Value> =
        examined.checks().filter(|check| check["result"] == "problem").collect();
    assert!(problems.is_empty(), "{problems:#?}");
    examined.expect("ok", "interface-state", &["veth1: up, carrier, MTU 1500"]);
    examined.expect("ok", "multicast-flag", &["veth1"]);
    examined.expect("ok", "membership", &["veth1: 1 group of IGMP joined"]);
    examined.expect("ok", "plane", &[plane.name()]);
    examined.expect("ok", "offloads", &["veth1"]);
    examined.expect("ok", "receive-queues", &["veth1"]);
    examined.expect("ok", "join-limits", &["igmp_max_memberships 20"]);
    examined.expect("unknown", "querier", &["veth1: no IGMP query heard", "since mcrd started"]);

    let (code, text, _) = doctor(&daemon, &["well", "--duration", "0s"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" well, 1 rule watched for 0s\n") && !text.contains("\nok"), "{text}");
    let (_, text, _) = doctor(&daemon, &["well", "--duration", "0s", "--all"]);
    assert!(text.contains("\nok       plane             host: "), "{text}");
    let (code, text, _) = doctor(&daemon, &["off", "--duration", "0s"]);
    assert!(text.contains("off: is disabled\n  → mcrctl enable off\n"), "{text}");
    assert_eq!(code, Some(1), "its interface is missing: {text}");

    for (arguments, fragments) in [
        (&["nobody"][..], &["there is no rule nobody", "mcrctl list"][..]),
        (&["--duration", "1h"], &["duration=1h", "20s"]),
    ] {
        let (code, _, complaint) = doctor(&daemon, arguments);
        assert_eq!(code, Some(1), "{complaint}");
        assert!(fragments.iter().all(|fragment| complaint.contains(fragment)), "{complaint}");
    }
    sender.stop();
    receiver.stop();
}

pub(crate) fn what_stops_a_stream_is_named(plane: Plane) {
    let lab = Lab::chain(plane);
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    lab.ip("gen", "address add 10.0.0.7/24 dev veth0");
    let daemon = lab.daemon(&[]);
    for (name, input, output) in [
        ("port", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2"),
        ("source", "10.0.0.9@239.1.1.2:5001@veth1", "239.10.1.2:6001@veth2"),
        ("ttl", "239.1.1.3:5001@veth1", "239.10.1.3:6001@veth2,ttl=decrement"),
        ("elsewhere", "239.1.1.4:5001@veth2", "239.10.1.4:6001@veth1"),
        ("nobody", "239.1.1.5:5001@veth1", "239.10.1.5:6001@veth2"),
        ("down", "239.1.1.6:5001@veth1", "239.10.1.6:6001@veth4"),
        ("mixed", "239.1.1.7:5001@veth1", "239.10.1.7:6001@veth2"),
    ] {
        daemon.ok(&["add", input, output, "--name", name]);
    }
    lab.ip("relay", "link set veth4 down");
    let from_gen = |arguments| sender(&lab, "gen", &format!("--interface veth0 {arguments}"));
    let senders = [
        from_gen("--group 239.1.1.1 --port 5009"),
        from_gen("--group 239.1.1.2 --port 5001 --source 10.0.0.1"),
        from_gen("--group 239.1.1.3 --port 5001 --ttl 1"),
        from_gen("--group 239.1.1.4 --port 5001"),
        from_gen("--group 239.1.1.7 --port 5001 --source 10.0.0.1"),
        from_gen("--group 239.1.1.7 --port 5001 --source 10.0.0.7"),
        sender(&lab, "sink", "--interface veth3 --group 239.10.1.7 --port 6001"),
    ];
    daemon.wait_state("ttl", "forwarding");
    daemon.wait_state("mixed", "forwarding");
    daemon.wait_state("down", "waiting");
    let faults = [
        (
            "problem",
            "sender",
            &["port: 239.1.1.1 comes to port 5009", "--input 239.1.1.1:5009@veth1"][..],
        ),
        ("problem", "source", &["source: 10.0.0.1 sends to it", "from 10.0.0.9 alone"]),
        ("problem", "ttl", &["ttl: packets of 10.0.0.1 arrive with TTL 1", "decrement"]),
        ("problem", "drops", &["ttl: ", "as ttl-expired", "raise the sender's TTL"]),
        ("problem", "sender", &["elsewhere: it comes on veth1 from 10.0.0.1", "listens on veth2"]),
        ("problem", "sender", &["nobody: no packet to 239.1.1.5", "none has come yet"]),
        ("problem", "interface-state", &["veth4: is down", "1 rule: down", "ip link set veth4 up"]),
        ("warning", "second-sender", &["mixed: 10.0.0.1, 10.0.0.7"]),
        ("warning", "second-relay", &["mixed to 239.10.1.7:6001@veth2: 10.0.1.2 sends to it too"]),
    ];
    // A sender may be held up.
    let mut examined = examine(&daemon, &["--duration", "500ms"]);
    wait_for("all faults", || {
        let all = faults.iter().all(|(result, check, words)| examined.has(result, check, words));
        if !all {
            examined = examine(&daemon, &["--duration", "500ms"]);
        }
        all
    });
    assert_eq!(examined.code, Some(1));
    let named = |check| {
        let problems = examined.said(check).into_iter().filter(|(result, _)| *result == "problem");
        problems
            .map(|(_, said)| said.split(':').next().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let expected = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(named("sender"), expected(&["port", "elsewhere", "nobody", "down"]));
    assert_eq!(named("source"), expected(&["source"]));
    assert_eq!(named("ttl"), expected(&["ttl"]));
    assert_eq!(named("drops"), expected(&["ttl"]));
    assert_eq!(named("interface-state"), expected(&["veth4"]));
    // Of one rule only what concerns it.
    let one = examine(&daemon, &["ttl", "--duration", "300ms"]);
    assert!(!one.checks().any(|check| check["subject"] == "veth4"), "{:#}", one.report);
    assert_eq!((one.code, &one.report["rules"]), (Some(1), &Value::from(1)));
    drop(senders);
}

/// A bridge with a port that snoops, with its intervals at their least.
fn bridge(lab: &Lab, role: &str, (name, port): (&str, &str), options: &str) {
    lab.ip(role, &format!("link add {name} type bridge mcast_snooping 1 {options}"));
    lab.ip(role, &format!("address flush dev {port}"));
    lab.ip(role, &format!("link set {port} master {name} up"));
    lab.ip(role, &format!("link set {name} up"));
    wait_for(name, || lab.is_running(role, name));
}

const ASKS: &str = "mcast_querier 1 mcast_query_interval 100 mcast_query_response_interval 50 \
                    mcast_startup_query_interval 100 mcast_querier_interval 500";

fn what_is_wrong_with_memberships_is_named(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    bridge(&lab, "gen", ("br0", "veth0"), ASKS);
    lab.ip("gen", "address add 10.0.0.1/24 dev br0");
    // Behind the relay a bridge of its own, and before it one that asks nobody.
    bridge(&lab, "relay", ("br1", "veth2"), ASKS);
    lab.ip("relay", "address add 10.0.1.1/24 dev br1");
    lab.veth(("relay", "veth4", "10.0.2.1/24"), ("sink", "veth5", "10.0.2.2/24"));
    bridge(&lab, "relay", ("br2", "veth4"), "mcast_querier 0");
    lab.ip("relay", "address add 10.0.2.1/24 dev br2");
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@br1", "--name", "a"]);
    daemon.ok(&["add", "239.1.1.2:5001@br2", "239.10.1.1:6001@veth1", "--name", "b"]);

    let examined = until(&daemon, ("ok", "querier"), &["veth1: IGMPv2 queries come from "]);
    examined.expect("warning", "downstream", &["br1 knows no member of 239.10.1.1", "bridge mdb"]);
    examined.expect("warning", "querier", &["br2: bridge br2 snoops", "mcast_querier 1"]);
    let answered = ("ok", "queries-answered");
    until(&daemon, answered, &["veth1"]);

    let receiver = lab.receiver("sink", "--interface veth3 --group 239.10.1.1 --port 6001");
    until(&daemon, ("ok", "downstream"), &["br1", "members of all"]);
    receiver.stop();

    let nft = |arguments: &str| {
        run(lab.command("relay", "nft").args(arguments.split_whitespace()));
    };
    nft("add table inet filter");
    nft("add chain inet filter input { type filter hook input priority 0 ; }");
    nft("add rule inet filter input ip protocol igmp drop");
    let words = [
        "veth1: IGMPv2 queries come from ",
        "nft insert rule inet filter input ip protocol igmp accept",
    ];
    let examined = until(&daemon, ("problem", "queries-answered"), &words);
    assert_eq!(examined.code, Some(1));
    // What it says to do helps.
    nft("insert rule inet filter input ip protocol igmp accept");
    until(&daemon, answered, &["veth1"]);
}

/// No plane has a part in it.
#[test]
fn what_is_wrong_with_memberships() {
    if can_run() {
        what_is_wrong_with_memberships_is_named(Plane::Tcx);
    }
}
