//! The daemon over its life: reloads, stops, logs, and what its rules become in files.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::{Daemon, Lab, Plane, sibling, wait_for};
use crate::traffic::{Background, Receiver};

/// A rule of a file: group and port k in, group and port k out.
fn rule(name: &str, k: u32) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\ninput = \"239.1.1.{k}:{}@veth1\"\noutputs = \
         [\"239.10.1.{k}:{}@veth2\"]\n",
        5000 + k,
        6000 + k
    )
}

/// A stream through the rule of group and port 1, all of which must come out.
struct Stream(Background, Receiver);

impl Stream {
    fn start(lab: &Lab, daemon: &Daemon, name: &str) -> Self {
        let sink = "--interface veth3 --group 239.10.1.1 --port 6001 --idle 1s";
        let receiver = lab.receiver("sink", sink);
        let sender = lab.sender("--group 239.1.1.1 --port 5001 --rate 2000 --size 100");
        daemon.ok(&["wait", name, "--for", "forwarding"]);
        Self(sender, receiver)
    }

    /// Ends it; how many packets there were.
    fn lossless(self) -> u64 {
        let sent: Value = serde_json::from_slice(&self.0.stop().stdout).unwrap();
        let sent = sent["sent"].as_u64().unwrap();
        self.1.lossless(sent);
        sent
    }
}

/// Names of the rules, in their order, with where they come from.
fn names(daemon: &Daemon) -> Vec<String> {
    let list = daemon.list();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name = |rule: &Value| format!("{} {}", text(&rule["name"]), text(&rule["origin"]));
    list.as_array().unwrap().iter().map(name).collect()
}

/// `mcrctl` with its exit code and what it says on standard error.
pub(crate) fn ctl(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(sibling("mcrctl"));
    let command = command.args(["--instance", &daemon.instance]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn generation(daemon: &Daemon) -> u64 {
    daemon.json(&["status", "--json"])["generation"].as_u64().unwrap()
}

pub(crate) fn a_broken_link_keeps_its_own_rule_down(plane: Plane) {
    let lab = Lab::chain(plane);
    let broken = rule("broken", 1).replace("veth1", "veth8");
    let config = lab.file("mcr.toml", &format!("{}{broken}", rule("good", 1)));
    let daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    assert_eq!(daemon.state("good").0, "idle");
    let (state, reason) = daemon.state("broken");
    assert!(state == "waiting" && reason.contains("no interface veth8"), "{state}: {reason}");
    assert!(daemon.log().contains("no interface veth8"), "{}", daemon.log());
    Stream::start(&lab, &daemon, "good").lossless();
    lab.veth(("gen", "veth9", "10.0.4.1/24"), ("relay", "veth8", "10.0.4.2/24"));
    wait_for("the interface is found", || daemon.state("broken").0 == "idle");
    let sink = "--interface veth3 --group 239.10.1.1 --port 6001 --expect 200";
    let receiver = lab.receiver("sink", sink);
    lab.send_from("gen", "--interface veth9 --group 239.1.1.1 --port 5001 --count 200");
    receiver.lossless(200);
}

pub(crate) fn a_reload_reconciles_the_files_and_nothing_else(plane: Plane) {
    let lab = Lab::chain(plane);
    let config = lab.file("mcr.toml", &format!("{}{}", rule("live", 1), rule("goes", 2)));
    lab.file("mcr.d/10.toml", &rule("ten", 10));
    lab.file("mcr.d/20.toml.off", &rule("off", 20));
    let mut daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    daemon.ok(&["add", "239.1.1.9:5009@veth1", "239.10.1.9:6009@veth2", "--name", "mine"]);
    assert_eq!(names(&daemon), ["goes file", "live file", "mine runtime", "ten file"]);
    let stream = Stream::start(&lab, &daemon, "live");
    let since = daemon.stats("live")["since"].clone();

    // Removed, changed and added, by the client and by the signal in turn.
    lab.file("mcr.toml", &rule("live", 1));
    lab.file("mcr.d/20.toml", &rule("twenty", 20));
    let change = daemon.json(&["reload", "--json"]);
    assert_eq!((&change["added"], &change["removed"]), (&json!(["twenty"]), &json!(["goes"])));
    assert_eq!(change["replaced"], json!([]));
    for turn in 0..10_u32 {
        lab.file("mcr.d/10.toml", &rule("ten", 100 + turn));
        lab.file("mcr.d/20.toml", &rule(&format!("twenty-{turn}"), 20));
        let before = generation(&daemon);
        if turn % 2 == 0 {
            daemon.ok(&["reload"]);
        } else {
            daemon.signal(Signal::HUP);
            wait_for("the reload", || generation(&daemon) > before);
        }
        assert_eq!(generation(&daemon), before + 1);
        let twenty = format!("twenty-{turn} file");
        assert_eq!(names(&daemon), ["live file", "mine runtime", "ten file", &twenty]);
        let input = daemon.json(&["list", "ten", "--json"])["rules"][0]["rule"]["input"].clone();
        assert_eq!(input, format!("239.1.1.{0}:{1}@veth1", 100 + turn, 5100 + turn));
    }
    assert_eq!(daemon.json(&["reload", "--json"])["changed"], false);
    // What depends on the machine keeps one rule down, not the reload.
    lab.file("mcr.d/30.toml", &rule("down", 30).replace("veth1", "eth9"));
    assert_eq!(daemon.json(&["reload", "--json"])["added"], json!(["down"]));
    assert_eq!(daemon.state("down").0, "waiting");

    let packets = stream.lossless();
    let stats = daemon.settled("live", packets);
    assert_eq!((&stats["since"], &stats["matched"]["packets"]), (&since, &packets.into()));
    daemon.stop();
}

pub(crate) fn a_reload_of_a_broken_file_is_refused_whole(plane: Plane) {
    let lab = Lab::chain(plane);
    let config = lab.file("mcr.toml", &rule("live", 1));
    let daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    let stream = Stream::start(&lab, &daemon, "live");
    let list = daemon.json(&["list", "--json"]);
    // A good change beside the mistake must not be made either; the first file that is wrong is
    // named.
    lab.file("mcr.toml", &rule("other", 2));
    let bad = rule("bad", 3).replace("239.1", "224.0.0");
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[("10.toml", "colour = 1\n")], "mcr.d/10.toml:1:1: "),
        (&[("20.toml", &bad), ("10.toml", "[[rule]\n")], "mcr.d/10.toml:1:"),
        (&[("10.toml", ""), ("20.toml", &bad)], "mcr.d/20.toml:1:1: "),
    ];
    for (files, place) in cases {
        for (name, text) in files {
            lab.file(&format!("mcr.d/{name}"), text);
        }
        let said = daemon.refused(&["reload"]);
        assert!(said.contains(place), "lacks {place}: {said}");
        let before = daemon.log().matches("reload refused").count();
        daemon.signal(Signal::HUP);
        wait_for("the refusal", || daemon.log().matches("reload refused").count() > before);
        assert!(daemon.log().lines().last().unwrap().contains(place), "{}", daemon.log());
        assert_eq!(daemon.json(&["list", "--json"]), list);
    }
    stream.lossless();
}

pub(crate) fn rules_of_the_files_that_do_not_fit_together_are_refused_with_their_place(
    plane: Plane,
) {
    let lab = Lab::chain(plane);
    let config = lab.file("mcr.toml", &rule("live", 1));
    let daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    for (name, text, place) in [
        ("mcr.d/10.toml", rule("live", 2), "mcr.d/10.toml:1:1: "),
        ("mcr.d/10.toml", rule("other", 1), "mcr.d/10.toml:1:1: "),
        ("mcr.toml", format!("{0}{0}", rule("live", 1)), "mcr.toml:5:1: "),
    ] {
        let file = lab.file(name, &text);
        let said = daemon.refused(&["reload"]);
        assert!(said.contains("taken") && said.contains(place), "lacks {place}: {said}");
        assert_eq!(names(&daemon), ["live file"]);
        std::fs::write(file, "").unwrap();
    }
}

pub(crate) fn settings_of_the_start_stand_in_the_main_file_and_a_reload_warns_of_their_change(
    plane: Plane,
) {
    let lab = Lab::chain(plane);
    let packet = "[packet]\nring_mib = 8\n";
    let config = lab.file("mcr.toml", &format!("{packet}{}", rule("live", 1)));
    let daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    daemon.ok(&["reload"]);
    assert!(!daemon.log().contains("takes effect at the next start"), "{}", daemon.log());
    for (text, what) in [
        ("[packet]\nring_mib = 9\n".to_owned(), "[packet] or [interface] has changed"),
        (format!("{packet}[limits]\nmax_rules = 9\n"), "[limits] has changed"),
        (format!("{packet}[metrics]\nlisten = \"[::1]:9464\"\n"), "[metrics] has changed"),
    ] {
        lab.file("mcr.toml", &format!("{text}{}", rule("live", 1)));
        daemon.ok(&["reload"]);
        assert_eq!(daemon.log().matches(what).count(), 1, "{what}: {}", daemon.log());
    }
    for (text, what) in [
        ("[limits]\n", "[limits] belongs into the main file"),
        ("[metrics]\n", "[metrics] belongs into the main file"),
        ("[packet]\n", "[packet] and [interface.NAME] belong into the main file"),
        ("[interface.eth0]\n", "[packet] and [interface.NAME] belong into the main file"),
    ] {
        lab.file("mcr.d/10.toml", text);
        let said = daemon.refused(&["reload"]);
        assert!(said.contains("mcr.d/10.toml: ") && said.contains(what), "lacks {what}: {said}");
    }
}

pub(crate) fn a_reload_without_a_configuration_is_refused(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.9:5009@veth1", "239.10.1.9:6009@veth2", "--name", "mine"]);
    let said = daemon.refused(&["reload"]);
    assert!(said.contains("nothing to reload") && said.contains("--config FILE"), "{said}");
    daemon.signal(Signal::HUP);
    wait_for("the refusal", || daemon.log().contains("reload refused"));
    assert_eq!(names(&daemon), ["mine runtime"]);
}

pub(crate) fn both_signals_stop_it_cleanly(plane: Plane) {
    let lab = Lab::chain(plane);
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let mut daemon = lab.daemon(&[]);
        daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2"]);
        let socket = daemon.socket();
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
        assert!(daemon.log().contains(name), "{}", daemon.log());
        for suffix in ["sock", "rules", "rules.new", "lock"] {
            let file = socket.with_extension(suffix);
            assert!(!file.exists(), "{} is left", file.display());
        }
        assert_eq!(ctl(&daemon, &["status"]).0, Some(3));
    }
    // What no file has is gone with a clean stop.
    assert_eq!(names(&lab.daemon(&[])), Vec::<String>::new());
}

pub(crate) fn logs_are_lines_of_text_or_of_json_and_none_is_of_a_packet(plane: Plane) {
    for format in ["text", "json"] {
        let lab = Lab::chain(plane);
        let mut daemon = lab.daemon(&["--log-format", format, "--log-level", "debug"]);
        daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
        daemon.refused(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "b"]);
        let before = daemon.log().lines().count();
        let receiver = "--interface veth3 --group 239.10.1.1 --port 6001 --expect 10000";
        let receiver = lab.receiver("sink", receiver);
        lab.send("--group 239.1.1.1 --port 5001 --rate 10000 --count 10000 --size 100");
        // Nobody wants these.
        lab.send("--group 239.1.1.1 --port 5002 --rate 10000 --count 1000 --size 100");
        receiver.lossless(10_000);
        let lines = daemon.log().lines().count() - before;
        assert!(lines < 20, "{lines} lines: {}", daemon.log());
        daemon.stop();
        let log = daemon.log();
        if format == "json" {
            for line in log.lines() {
                let object: Value =
                    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                assert!(object["level"].is_string() && object["message"].is_string(), "{line}");
            }
        }
        for message in ["mcrd starts", "ready", "rules changed", "change refused", "mcrd stops"] {
            assert!(log.contains(message), "lacks {message:?}: {log}");
        }
        assert!(!log.contains('\u{1b}'), "colours in a file: {log}");
    }
}

pub(crate) fn what_is_saved_can_be_applied_and_changes_nothing(plane: Plane) {
    let lab = Lab::chain(plane);
    let config = lab.file("mcr.toml", &format!("[defaults]\nttl = 16\n{}", rule("live", 1)));
    let mut daemon = lab.daemon(&["--config", config.to_str().unwrap()]);
    let unsaved = |daemon: &Daemon| daemon.json(&["status", "--json"])["rules_in_no_file"].clone();
    assert_eq!(unsaved(&daemon), 0);
    let full = "add 239.1.1.2:5002@veth1 239.10.1.2:6002@veth2,ttl=keep,dscp=46 \
                10.0.1.1:7000@239.10.1.3:6003@veth2,ttl=decrement keep@239.10.1.4:6004@veth2 \
                --name full --local yes --join no --disabled --comment";
    daemon
        .ok(&[&full.split_whitespace().collect::<Vec<_>>()[..], &["a \"quoted\" remark"]].concat());
    daemon.ok(&["add", "239.1.1.3:5003@veth1", "239.10.1.5:6005@veth2"]);
    assert_eq!(unsaved(&daemon), 2);
    assert!(daemon.ok(&["status"]).contains('2'));

    let saved = lab.folder.path().join("saved.toml");
    let text = saved.to_str().unwrap();
    daemon.ok(&["save", "--to", text]);
    let list = daemon.json(&["list", "--json"]);
    assert!(daemon.ok(&["check", text]).contains("3 rules, no mistakes"));
    assert_eq!(daemon.ok(&["apply", text]), "nothing to change\n");
    assert_eq!(daemon.json(&["list", "--json"]), list);
    assert_eq!(daemon.ok(&["save"]), std::fs::read_to_string(&saved).unwrap());

    // And as the configuration of the next start they are the same rules.
    daemon.stop();
    let next = lab.daemon(&["--config", text]);
    let rules = |list: &Value| -> Vec<Value> {
        list["rules"].as_array().unwrap().iter().map(|view| view["rule"].clone()).collect()
    };
    assert_eq!(rules(&next.json(&["list", "--json"])), rules(&list));
    assert_eq!(unsaved(&next), 0);
}

pub(crate) fn a_rule_keeps_its_counters_while_it_is_disabled(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let send = |count: u64, expect: u64| {
        let sink = "--interface veth3 --group 239.10.1.1 --port 6001 --wait-first 500ms";
        let receiver = lab.receiver("sink", &format!("{sink} --expect {count}"));
        lab.send(&format!("--group 239.1.1.1 --port 5001 --rate 1000 --count {count} --size 100"));
        assert_eq!(receiver.report()["received"], expect);
    };
    let counted = |packets: u64| {
        let stats = daemon.settled("a", packets);
        let packets = |value: &Value| value["packets"].as_u64().unwrap();
        (packets(&stats["matched"]), packets(&stats["outputs"][0]["forwarded"]))
    };
    send(300, 300);
    daemon.settled("a", 300);
    daemon.ok(&["disable", "a"]);
    assert_eq!(daemon.state("a").0, "disabled");
    let since = daemon.stats("a")["since"].clone();
    send(100, 0);
    assert_eq!(counted(300), (300, 300));
    daemon.ok(&["enable", "a"]);
    send(200, 200);
    assert_eq!(counted(500), (500, 500));
    assert_eq!(daemon.stats("a")["since"], since);
}

pub(crate) fn wait_ends_when_the_rule_is_there_or_when_time_is_up(plane: Plane) {
    let lab = Lab::chain(plane);
    let daemon = lab.daemon(&[]);
    daemon.ok(&["add", "239.1.1.1:5001@veth1", "239.10.1.1:6001@veth2", "--name", "a"]);
    let (code, said) = ctl(&daemon, &["wait", "a", "--for", "forwarding", "--timeout", "300ms"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("a is idle, not forwarding"), "{said}");
    assert_eq!(ctl(&daemon, &["wait", "b", "--timeout", "300ms"]).0, Some(1));
    let stream = Stream::start(&lab, &daemon, "a");
    assert_eq!(ctl(&daemon, &["wait", "a", "--for", "forwarding"]).0, Some(0));
    stream.lossless();
    assert_eq!(ctl(&daemon, &["wait", "a", "--for", "idle", "--timeout", "10s"]).0, Some(0));
}
