//! What is the same for all rules: the plane, and limits of the kernel.

use super::{Checks, Evidence, Known, PlaneFacts, Topic, counted, some_of};
use crate::refusal::Code;

/// Of one group with one source (`struct ip_mc_socklist`, `struct ip_sf_socklist`).
const OPTMEM_LEAST: u64 = 512;

pub(super) fn judge(evidence: &Evidence, checks: &mut Checks) {
    plane(&evidence.plane, checks);
    join_limits(evidence, checks);
    match &evidence.host.backlog_drops {
        Ok(0) => checks.ok(Topic::Backlog, HOST, "the queues of the CPUs dropped nothing"),
        Ok(drops) => checks.warning(
            Topic::Backlog,
            HOST,
            (
                format!(
                    "the kernel dropped {} before anybody saw them, in {} (of all network \
                     namespaces): the queue of a CPU was full",
                    counted(*drops, "frame"),
                    super::span(evidence.duration)
                ),
                "raise net.core.netdev_max_backlog, and let more CPUs receive (docs/tuning.md)"
                    .into(),
            ),
        ),
        Err(why) => checks.unread(Topic::Backlog, HOST, why),
    }
}

fn plane(plane: &PlaneFacts, checks: &mut Checks) {
    let PlaneFacts { name, attach, why } = plane;
    let runs = format!("{name} ({attach})");
    match why {
        Some(why) if *name != "ebpf" => checks.warning(
            Topic::Plane,
            HOST,
            (
                format!("{runs}: {why}"),
                "the packet plane relays the same at a higher cost a packet; for the eBPF plane \
                 mcrd needs Linux 5.15, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and a writable \
                 /sys/fs/bpf"
                    .into(),
            ),
        ),
        Some(why) => checks.ok(Topic::Plane, HOST, format!("{runs}: {why}")),
        None => checks.ok(Topic::Plane, HOST, format!("{runs}, named by the operator")),
    }
}

/// The limits are of each socket, and MCR opens another when one is full: only a limit that not even
/// one group, or one source, fits into stops a join.
fn join_limits(evidence: &Evidence, checks: &mut Checks) {
    let host = &evidence.host;
    let joins = evidence.rules.iter().filter(|rule| {
        let rule = &rule.facts.rule;
        rule.join && rule.input.addresses.first().is_multicast()
    });
    let (mut four, mut four_sources, mut six_sources) = (false, false, false);
    for input in joins.map(|rule| &rule.facts.rule.input) {
        let (ipv4, sources) = (input.addresses.first().is_ipv4(), !input.sources.is_empty());
        four |= ipv4;
        four_sources |= ipv4 && sources;
        six_sources |= !ipv4 && sources;
    }
    let failed: Vec<_> = evidence
        .rules
        .iter()
        .filter_map(|rule| Some((&rule.facts.key, rule.facts.problem.as_ref()?)))
        .filter(|(_, refusal)| refusal.code == Code::Join)
        .collect();
    if let Some((_, refusal)) = failed.first() {
        let rules = some_of(failed.iter().map(|(key, _)| key));
        let found = format!("{}: {}", rules, refusal.message);
        return checks.problem(Topic::JoinLimits, HOST, (found, refusal.hint.clone()));
    }
    let limits = [
        ("net.ipv4.igmp_max_memberships", &host.igmp_max_memberships, 1, four),
        ("net.ipv4.igmp_max_msf", &host.igmp_max_msf, 1, four_sources),
        ("net.ipv6.mld_max_msf", &host.mld_max_msf, 1, six_sources),
        ("net.core.optmem_max", &host.optmem_max, OPTMEM_LEAST, true),
    ];
    let needed = || limits.iter().filter(|(.., needed)| *needed);
    let low =
        |limit: &&(&str, &Known<u64>, u64, bool)| limit.1.as_ref().is_ok_and(|v| *v < limit.2);
    if let Some((name, Ok(value), least, _)) = needed().find(low) {
        let found = format!("{name} = {value}: no group can be joined by a new socket");
        return checks.problem(
            Topic::JoinLimits,
            HOST,
            (found, format!("raise it to at least {least}: sysctl {name}={least}")),
        );
    }
    if let Some((_, Err(why), ..)) = needed().find(|limit| limit.1.is_err()) {
        return checks.unread(Topic::JoinLimits, HOST, why);
    }
    let value = |(name, value, ..): &(&str, &Known<u64>, u64, bool)| {
        let name = name.rsplit('.').next().unwrap_or(name);
        value.as_ref().map(|value| format!("{name} {value}")).unwrap_or_default()
    };
    let values: Vec<String> = needed().map(value).collect();
    let sockets = counted(host.membership_sockets as u64, "socket");
    let found = format!("{} hold in {sockets}; a full one is no limit", values.join(", "));
    checks.ok(Topic::JoinLimits, HOST, found);
}

/// The subject of what is not of one rule or interface.
const HOST: &str = "host";
