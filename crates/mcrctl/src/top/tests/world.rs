//! Replies for the tests, as `mcrd` sends them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::model::Model;
use super::super::reply::Look;
use crate::client::Reply;

/// Replies to one look.
#[derive(Clone)]
pub(super) struct World {
    pub(super) stats: Value,
    pub(super) status: Value,
    pub(super) rules: Value,
}

impl World {
    /// One rule of each kind.
    pub(super) fn of_all_kinds() -> Self {
        let mut rules = vec![
            forwarding("camera-1", "239.1.1.1:5000@eth0", &["239.10.1.1:6000@eth1"], 2000),
            forwarding(
                "market-data-of-the-exchange-in-frankfurt-feed-a-line-one-primary",
                "10.0.0.1@232.1.1.1:5000@eth0",
                &["239.10.1.2:6000@eth1", "10.9.0.7:6000"],
                150_000,
            ),
            forwarding(
                "six",
                "[ff3e::8000:1]:5000@eth0.10",
                &["[2001:db8::1]@[ff3e::8000:2]:6000@wg0"],
                1,
            ),
            idle("239.1.1.4:5000@eth0", "239.1.1.4:5000@eth0", "239.10.1.4:6000@eth1"),
            idle("later", "239.1.1.5:5000@eth9", "239.10.1.5:6000@eth1"),
            idle("off", "239.1.1.6:5000@eth0", "239.10.1.6:6000@eth1"),
            idle("refused", "239.1.1.7:5000@eth0", "239.10.1.7:6000@eth1"),
        ];
        let reason = "input 239.1.1.5:5000@eth9: no interface eth9 (`ip link` shows the interfaces \
                      of this network namespace; `mcrctl add --wait` takes what comes later)";
        rules[4].0["state"] = json!("waiting");
        rules[4].0["reason"] = json!(reason);
        rules[5].0["state"] = json!("disabled");
        rules[6].0["state"] = json!("failed");
        rules[6].0["reason"] = json!("no more memberships: raise net.ipv4.igmp_max_msf");
        rules[1].0["dropped"] = json!({"own": 3});
        rules[1].0["outputs"][0]["dropped"] = json!({"mtu": 1_234_567, "queue-full": 2});
        rules[0].1["rule"]["comment"] = json!("Studio Süd, \u{1b}[31mred");
        rules[0].1["warnings"] = json!(["local = \"no\" has no effect: use the ebpf plane"]);
        Self::of(rules)
    }

    /// Rules `r00001` and so on, each with one packet a second more than the one before.
    pub(super) fn of_many(count: u64) -> Self {
        let rule = |n: u64| {
            let (name, input) = (format!("r{n:05}"), format!("239.1.1.1:{n}@eth0"));
            forwarding(&name, &input, &["239.10.1.1:6000@eth1"], n)
        };
        Self::of((1..=count).map(rule).collect())
    }

    pub(super) fn of(rules: Vec<(Value, Value)>) -> Self {
        let mut states = json!({});
        for (stats, _) in &rules {
            let state = stats["state"].as_str().unwrap();
            states[state] = json!(states[state].as_u64().unwrap_or_default() + 1);
        }
        let (stats, views): (Vec<Value>, Vec<Value>) = rules.into_iter().unzip();
        Self {
            stats: json!({"time": "2026-01-01T12:00:09Z", "boot_id": "1-2", "rules": stats}),
            status: json!({"version": "0.1.0", "instance": "mcr", "pid": 4242,
                "since": "2026-01-01T00:00:00Z", "boot_id": "1-2", "plane": "ebpf",
                "attach": "tcx", "generation": 17, "states": states, "rules_in_no_file": 2,
                "rules_max": 4096, "outputs_max": 16384, "membership_sockets": 1, "interfaces": [
                    {"name": "eth0", "index": 2, "groups": 3, "passed": {}},
                    {"name": "eth0.10", "index": 12, "groups": 1, "passed": {}}]}),
            rules: json!({"generation": 17, "rules": views}),
        }
    }

    pub(super) fn rule(&mut self, place: usize) -> &mut Value {
        &mut self.stats["rules"][place]
    }

    /// So many more packets have come for a rule, all of them forwarded.
    pub(super) fn more(&mut self, place: usize, packets: u64) {
        let rule = self.rule(place);
        let add = |counts: &mut Value| {
            for (field, more) in [("packets", packets), ("bytes", packets * 1000)] {
                counts[field] = json!(counts[field].as_u64().unwrap() + more);
            }
        };
        ["received", "matched"].into_iter().for_each(|field| add(&mut rule[field]));
        for output in rule["outputs"].as_array_mut().unwrap() {
            ["offered", "forwarded"].into_iter().for_each(|field| add(&mut output[field]));
        }
    }

    pub(super) fn look(&self) -> Look {
        let reply = |value: &Value| Reply { text: value.to_string() };
        let rules = reply(&self.rules);
        Look::read(&reply(&self.stats), &reply(&self.status), Some(&rules)).unwrap()
    }
}

/// A model that has been fed with replies, and the time at it.
pub(super) struct Fed {
    pub(super) world: World,
    pub(super) model: Model,
    pub(super) now: Instant,
}

impl Fed {
    pub(super) fn new(world: World) -> Self {
        let now = Instant::now();
        Self { model: Model::new(world.look(), now), world, now }
    }

    /// One more look, a second later.
    pub(super) fn look(&mut self) {
        self.wait(1);
        self.model.handle_look(self.world.look(), self.now);
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.model.handle_time(self.now);
    }
}

fn forwarding(name: &str, input: &str, outputs: &[&str], packets: u64) -> (Value, Value) {
    let (mut stats, view) = both(name, input, outputs, packets);
    stats["state"] = json!("forwarding");
    stats["last_packet"] = json!("2026-01-01T12:00:09Z");
    stats["rate"] = json!({"packets": packets, "bits": packets * 8000});
    (stats, view)
}

fn idle(name: &str, input: &str, output: &str) -> (Value, Value) {
    both(name, input, &[output], 0)
}

fn both(name: &str, input: &str, outputs: &[&str], packets: u64) -> (Value, Value) {
    let count = json!({"packets": packets * 60, "bytes": packets * 60_000});
    let each = |to: &&str| {
        json!({"to": to, "since": "2026-01-01T11:59:00Z", "offered": count, "forwarded": count,
            "dropped": {}, "interface_dropped": 0})
    };
    let stats = json!({"name": name, "state": "idle", "since": "2026-01-01T11:59:00Z",
        "received": count, "matched": count, "dropped": {}, "rate": {"packets": 0, "bits": 0},
        "outputs": outputs.iter().map(each).collect::<Vec<_>>()});
    let view = json!({"name": name, "named": name != input, "origin": "file", "state": "idle",
        "rule": {"input": input, "outputs": outputs}});
    (stats, view)
}
