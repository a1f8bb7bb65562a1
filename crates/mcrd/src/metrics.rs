//! `GET /metrics`: the counters and the status for Prometheus.
//!
//! A text is made for each scrape from the same figures that `/v1/stats` and `/v1/status` show, so the
//! three cannot disagree and nothing is kept twice. A series of a rule that is gone is gone with it.
//!
//! A new figure is a line in [`catalogue`], and a line in the function here that has what it is of.

mod catalogue;
mod inspect;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use mcr_core::api::{OutputStats, RingStatus, RuleStats, SendBuffer, Stats, Status, WorkerStatus};
use mcr_core::loss::Loss;
use mcr_core::relay::State;

pub(crate) use process::Process;
use process::cpu_seconds;
pub(crate) use text::Format;
use text::{Metric, Text};

/// Everything that one text is made from, all of one moment.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) stats: Stats,
    pub(crate) status: Status,
    /// How long the stream of each rule of `stats` may pause; `None` for ever.
    pub(crate) silences: Vec<Option<Duration>>,
    /// What each interface of the host has itself dropped on sending.
    pub(crate) transmit_drops: BTreeMap<String, u64>,
}

/// The text of one scrape.
pub(crate) fn render(figures: &Figures, process: Process, format: Format) -> String {
    let Figures { stats, status, silences, .. } = figures;
    let mut text = Text::new(format);
    write_rules(&mut text, &stats.rules, silences);
    write_outputs(&mut text, &stats.rules);
    inspect::write(&mut text, &stats.rules);
    write_interfaces(&mut text, figures);
    write_workers(&mut text, &status.workers);
    write_rings(&mut text, &status.workers);
    write_status(&mut text, status);
    write_process(&mut text, process);
    text.finish()
}

fn write_rules(text: &mut Text, rules: &[RuleStats], silences: &[Option<Duration>]) {
    use catalogue::*;

    let mut each = |metric: Metric, value: fn(&RuleStats) -> Option<f64>| {
        let mut family = text.family(metric);
        for rule in rules {
            if let Some(value) = value(rule) {
                family.put(&[("rule", &rule.name)], value);
            }
        }
    };
    each(RULE_START, |rule| unix_time(&rule.since));
    each(RULE_LAST_PACKET, |rule| unix_time(rule.last_packet.as_ref()?));

    let mut each = |metric: Metric, value: fn(&RuleStats) -> u64| {
        let mut family = text.family(metric);
        rules.iter().for_each(|rule| family.put(&[("rule", &rule.name)], value(rule)));
    };
    each(RULE_RECEIVED_PACKETS, |rule| rule.received.packets);
    each(RULE_RECEIVED_BYTES, |rule| rule.received.bytes);
    each(RULE_MATCHED_PACKETS, |rule| rule.matched.packets);
    each(RULE_MATCHED_BYTES, |rule| rule.matched.bytes);

    let mut dropped = text.family(RULE_DROPPED_PACKETS);
    for rule in rules {
        for (reason, packets) in &rule.dropped {
            dropped.put(&[("rule", &rule.name), ("reason", reason)], packets);
        }
    }
    let mut states = text.family(RULE_STATE);
    for rule in rules {
        for state in State::ALL.map(State::name) {
            let here = u8::from(rule.state == state);
            states.put(&[("rule", &rule.name), ("state", state)], here);
        }
    }
    let mut pauses = text.family(RULE_SILENCE);
    for (rule, silence) in rules.iter().zip(silences) {
        if let Some(silence) = silence {
            pauses.put(&[("rule", &rule.name)], silence.as_secs_f64());
        }
    }
}

fn write_outputs(text: &mut Text, rules: &[RuleStats]) {
    use catalogue::*;

    let outputs =
        || rules.iter().flat_map(|rule| rule.outputs.iter().map(move |output| (rule, output)));
    let mut each = |metric: Metric, value: fn(&OutputStats) -> u64| {
        let mut family = text.family(metric);
        for (rule, output) in outputs() {
            family.put(&[("rule", &rule.name), ("output", &output.to)], value(output));
        }
    };
    each(OUTPUT_OFFERED_PACKETS, |output| output.offered.packets);
    each(OUTPUT_OFFERED_BYTES, |output| output.offered.bytes);
    each(OUTPUT_FORWARDED_PACKETS, |output| output.forwarded.packets);
    each(OUTPUT_FORWARDED_BYTES, |output| output.forwarded.bytes);

    let mut dropped = text.family(OUTPUT_DROPPED_PACKETS);
    for (rule, output) in outputs() {
        for (reason, packets) in &output.dropped {
            let labels = [("rule", &*rule.name), ("output", &output.to), ("reason", reason)];
            dropped.put(&labels, packets);
        }
    }
}

/// Input interfaces as the status shows them, then those that outputs name.
fn write_interfaces(text: &mut Text, figures: &Figures) {
    use catalogue::*;

    let Figures { stats, status, transmit_drops, .. } = figures;
    let interfaces = &status.interfaces;
    let mut groups = text.family(MEMBERSHIP_GROUPS);
    for interface in interfaces {
        groups.put(&[("interface", &interface.name)], interface.groups);
    }
    let mut passed = text.family(INTERFACE_PASSED_PACKETS);
    for interface in interfaces {
        for (reason, packets) in &interface.passed {
            passed.put(&[("interface", &interface.name), ("reason", reason)], packets);
        }
    }
    let mut lost = text.family(INTERFACE_LOST);
    for interface in interfaces {
        // From 0 on, so that the first step is seen.
        for reason in Loss::ALL.map(Loss::name) {
            let packets = interface.lost_before.get(reason).copied().unwrap_or_default();
            lost.put(&[("interface", &*interface.name), ("reason", reason)], packets);
        }
    }
    let outputs = stats.rules.iter().flat_map(|rule| &rule.outputs);
    let named: BTreeMap<&str, u64> = outputs
        .filter_map(|output| interface_of(&output.to))
        .filter_map(|name| Some((name, *transmit_drops.get(name)?)))
        .collect();
    let mut dropped = text.family(INTERFACE_TRANSMIT_DROPPED);
    for (name, packets) in named {
        dropped.put(&[("interface", name)], packets);
    }
}

fn write_workers(text: &mut Text, workers: &[WorkerStatus]) {
    use catalogue::*;

    let mut each = |metric: Metric, value: fn(&WorkerStatus) -> Option<f64>| {
        let mut family = text.family(metric);
        for worker in workers {
            if let Some(value) = value(worker) {
                family.put(&[("worker", &worker.worker.to_string())], value);
            }
        }
    };
    each(WORKER_RUNNING, |worker| Some(f64::from(u8::from(worker.state == "running"))));
    each(WORKER_RESTARTS, |worker| Some(worker.restarts as f64));
    each(WORKER_CPU, |worker| cpu_seconds(worker.pid?));
}

fn write_rings(text: &mut Text, workers: &[WorkerStatus]) {
    use catalogue::*;

    let mut each = |metric: Metric, value: fn(&RingStatus) -> u64| {
        let mut family = text.family(metric);
        for worker in workers {
            let number = worker.worker.to_string();
            for ring in &worker.rings {
                let labels = [("worker", &*number), ("interface", &ring.interface)];
                family.put(&labels, value(ring));
            }
        }
    };
    each(RING_SIZE, |ring| ring.bytes);
    each(RING_SLOTS, |ring| ring.slots.into());
    each(RING_USED_SLOTS, |ring| ring.used_slots.into());
    each(RING_WAITING, |ring| ring.waiting);
    each(RING_DROPPED, |ring| ring.dropped);
    each(RING_UNUSABLE, |ring| ring.unusable);
    each(RING_COPY_BUFFER, |ring| ring.copy_buffer);
    each(RING_COPY_USED, |ring| ring.copy_used);

    let mut each = |metric: Metric, value: fn(&SendBuffer) -> u64| {
        let mut family = text.family(metric);
        for worker in workers {
            let number = worker.worker.to_string();
            for buffer in &worker.send_buffers {
                let labels = [("worker", &*number), ("interface", &buffer.interface)];
                family.put(&labels, value(buffer));
            }
        }
    };
    each(SEND_BUFFER, |buffer| buffer.granted);
    each(SEND_USED, |buffer| buffer.used);
}

fn write_status(text: &mut Text, status: &Status) {
    use catalogue::*;

    text.family(BUILD).put(&[("version", &status.version)], 1);
    text.family(PLANE).put(&[("plane", &status.plane), ("attach", &status.attach)], 1);
    let mut rules = text.family(RULES);
    for (state, count) in &status.states {
        rules.put(&[("state", state)], count);
    }
    text.single(RULES_LIMIT, status.rules_max);
    text.single(OUTPUTS_LIMIT, status.outputs_max);
    text.single(RULES_IN_NO_FILE, status.rules_in_no_file);
    text.single(GENERATION, status.generation);
    if let Some(packets) = status.softnet_dropped {
        text.single(SOFTNET_DROPPED, packets);
    }
    text.single(MEMBERSHIP_SOCKETS, status.membership_sockets);
    if let Some(cost) = &status.program {
        text.single(PROGRAM_RUNS, cost.runs);
        text.single(PROGRAM_TIME, Duration::from_nanos(cost.nanoseconds).as_secs_f64());
    }
}

fn write_process(text: &mut Text, process: Process) {
    use catalogue::*;

    let all = [
        (PROCESS_CPU, process.cpu_seconds),
        (PROCESS_RESIDENT, process.resident_bytes),
        (PROCESS_VIRTUAL, process.virtual_bytes),
        (PROCESS_OPEN_FILES, process.open_files),
        (PROCESS_MAX_FILES, process.max_files),
        (PROCESS_START, process.start_seconds),
    ];
    for (metric, value) in all {
        if let Some(value) = value {
            text.single(metric, value);
        }
    }
}

/// The interface that the text of an output names.
fn interface_of(to: &str) -> Option<&str> {
    let (_, name) = to.rsplit_once('@')?;
    // `SOURCE@ADDRESS[:PORT]`: the route decides.
    let host = name.contains(':') || name.parse::<IpAddr>().is_ok();
    (!host).then_some(name)
}

/// RFC 3339 as a number.
fn unix_time(text: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64())
}
