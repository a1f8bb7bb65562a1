//! `GET /metrics`: the counters and the status in the OpenMetrics text format.
//!
//! The registry is made for each scrape from the same figures that `/v1/stats` and `/v1/status`
//! show, so the three cannot disagree and nothing is kept twice. A series of a rule that is gone is
//! gone with it.

mod inspect;

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mcr_core::api::{Count, Dropped, OutputStats, RuleStats, Stats, Status, WorkerStatus};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// What [`render`] makes (RFC 9110 media type).
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter<u64, AtomicU64>>;
type Gauges = Family<Labels, Gauge<i64, AtomicI64>>;

/// The text of one scrape.
pub(crate) fn render(stats: &Stats, status: &Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("mcr");
    add_rules(&mut registry, &stats.rules);
    add_outputs(&mut registry, &stats.rules);
    inspect::add(&mut registry, &stats.rules);
    add_status(&mut registry, status);
    add_workers(&mut registry, &status.workers);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn add_rules(registry: &mut Registry, rules: &[RuleStats]) {
    let received = Volumes::register(registry, "rule_received", "Arrived for the rule");
    let matched = Volumes::register(registry, "rule_matched", "Offered to the rule's outputs");
    let dropped = counters(registry, "rule_dropped_packets", "Not offered to the outputs");
    for rule in rules {
        let labels = vec![("rule", rule.name.clone())];
        received.set(&labels, rule.received);
        matched.set(&labels, rule.matched);
        set_dropped(&dropped, &labels, &rule.dropped);
    }
}

fn add_outputs(registry: &mut Registry, rules: &[RuleStats]) {
    let offered = Volumes::register(registry, "output_offered", "Meant for the output");
    let forwarded = Volumes::register(registry, "output_forwarded", "Handed to the interface");
    let dropped = counters(registry, "output_dropped_packets", "Not handed to the interface");
    let each = rules.iter().flat_map(|rule| rule.outputs.iter().map(move |output| (rule, output)));
    for (rule, output) in each {
        let OutputStats { to, .. } = output;
        let labels = vec![("rule", rule.name.clone()), ("output", to.clone())];
        offered.set(&labels, output.offered);
        forwarded.set(&labels, output.forwarded);
        set_dropped(&dropped, &labels, &output.dropped);
    }
}

fn add_status(registry: &mut Registry, status: &Status) {
    let Status { version, plane, attach, .. } = status.clone();
    let build = Info::new(vec![("version", version), ("plane", plane), ("attach", attach)]);
    registry.register("build", "What runs", build);

    let rules = gauges(registry, "rules", "Rules by state");
    for (state, count) in &status.states {
        set(&rules, vec![("state", state.clone())], *count);
    }
    let sockets = gauges(registry, "membership_sockets", "Sockets that hold memberships");
    set(&sockets, Vec::new(), status.membership_sockets);
    let groups = gauges(registry, "membership_groups", "Groups joined on the interface");
    let passed = counters(registry, "interface_passed_packets", "Taken by no rule");
    for interface in &status.interfaces {
        let labels = vec![("interface", interface.name.clone())];
        set(&groups, labels.clone(), interface.groups);
        set_dropped(&passed, &labels, &interface.passed);
    }
}

fn add_workers(registry: &mut Registry, workers: &[WorkerStatus]) {
    if workers.is_empty() {
        return;
    }
    let running = gauges(registry, "worker_running", "Whether the worker forwards");
    let restarts = counters(registry, "worker_restarts", "Times the worker was started again");
    let size = gauges(registry, "ring_size_bytes", "Receive ring as granted");
    let dropped = counters(registry, "ring_dropped_packets", "No room in the receive ring");
    let unusable = counters(registry, "ring_unusable_packets", "Handed over only in part");
    let granted = gauges(registry, "send_buffer_bytes", "Send buffer as granted");
    for worker in workers {
        let labels = vec![("worker", worker.worker.to_string())];
        set(&running, labels.clone(), usize::from(worker.state == "running"));
        restarts.get_or_create(&labels).inc_by(worker.restarts);
        let at = |interface: &str| [labels.clone(), vec![("interface", interface.into())]].concat();
        for ring in &worker.rings {
            set(&size, at(&ring.interface), usize::try_from(ring.bytes).unwrap_or(usize::MAX));
            dropped.get_or_create(&at(&ring.interface)).inc_by(ring.dropped);
            unusable.get_or_create(&at(&ring.interface)).inc_by(ring.unusable);
        }
        for buffer in &worker.send_buffers {
            let bytes = usize::try_from(buffer.granted).unwrap_or(usize::MAX);
            set(&granted, at(&buffer.interface), bytes);
        }
    }
}

/// Packets and payload bytes of one thing.
struct Volumes {
    packets: Counters,
    bytes: Counters,
}

impl Volumes {
    fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let packets = counters(registry, &format!("{name}_packets"), help);
        let bytes = Counters::default();
        let help = format!("{help}, UDP payload");
        registry.register_with_unit(name, help, Unit::Bytes, bytes.clone());
        Self { packets, bytes }
    }

    fn set(&self, labels: &Labels, count: Count) {
        self.packets.get_or_create(labels).inc_by(count.packets);
        self.bytes.get_or_create(labels).inc_by(count.bytes);
    }
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn set(gauges: &Gauges, labels: Labels, value: usize) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    gauges.get_or_create(&labels).inner().store(value, Ordering::Relaxed);
}

fn set_dropped(counters: &Counters, labels: &Labels, dropped: &Dropped) {
    for (reason, packets) in dropped {
        let mut labels = labels.clone();
        labels.push(("reason", reason.clone()));
        counters.get_or_create(&labels).inc_by(*packets);
    }
}
