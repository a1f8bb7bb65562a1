//! What limits how much an interface can take, and what the kernel takes away from others on the
//! same host.

use super::interfaces::Used;
use super::{Checks, Evidence, InterfaceFacts, Queues, RuleEvidence, Topic};
use crate::flow::InterfaceName;
use crate::link::{LinkKind, Route};
use crate::rule::Local;

/// From this many packets a second on one CPU may be too few to receive, relay and deliver. A CPU
/// carries some 500,000 (docs/scaling.md); other work and bursts need their part.
const MANY: u64 = 100_000;

pub(super) fn receiving(
    evidence: &Evidence,
    name: &InterfaceName,
    used: &Used<'_>,
    checks: &mut Checks,
) {
    let Some(facts) = evidence.interfaces.get(name) else { return };
    if used.inputs.is_empty() {
        return;
    }
    queues(evidence, name, (facts, used), checks);
    offloads(name, facts, checks);
    rp_filter(evidence, name, (facts, used), checks);
}

fn queues(
    evidence: &Evidence,
    name: &InterfaceName,
    (facts, used): (&InterfaceFacts, &Used<'_>),
    checks: &mut Checks,
) {
    let Queues { count, spread } = match &facts.queues {
        Ok(queues) => *queues,
        Err(why) => return checks.unread(Topic::ReceiveQueues, name, why),
    };
    let rate: u64 = used.inputs.iter().map(|rule| rule.facts.rate.packets).sum();
    let cpus = evidence.host.cpus;
    if count == 1 && !spread && cpus > 1 && rate >= MANY {
        let mask = mask(cpus);
        let found = format!(
            "one receive queue, RPS off, {rate} packets/s: one CPU of {cpus} receives all of it"
        );
        let remedy = format!(
            "let all CPUs take part: echo {mask} > /sys/class/net/{name}/queues/rx-0/rps_cpus \
             (docs/tuning.md)"
        );
        return checks.warning(Topic::ReceiveQueues, name, (found, remedy));
    }
    let rps = if spread { "RPS on" } else { "RPS off" };
    let queues = super::counted(count as u64, "receive queue");
    checks.ok(Topic::ReceiveQueues, name, format!("{queues}, {rps}, {rate} packets/s"));
}

/// All of that many CPUs, as sysfs reads it: hexadecimal, a comma between words of 32 bits.
fn mask(cpus: usize) -> String {
    let rest = cpus % 32;
    let first = (rest > 0).then(|| format!("{:x}", (1_u32 << rest) - 1));
    let whole = std::iter::repeat_n("ffffffff".to_owned(), cpus / 32);
    first.into_iter().chain(whole).collect::<Vec<_>>().join(",")
}

/// Super-packets of UDP GRO stay whole in both planes, and unfinished checksums are finished by the
/// kernel or the card. What a card merges by LRO cannot be taken apart again.
fn offloads(name: &InterfaceName, facts: &InterfaceFacts, checks: &mut Checks) {
    match &facts.lro {
        Ok(false) => checks.ok(Topic::Offloads, name, "LRO is off; others do no harm"),
        Ok(true) => checks.warning(
            Topic::Offloads,
            name,
            (
                "LRO is on: what the card merges cannot be sent on as the datagrams that came"
                    .into(),
                format!("switch it off: ethtool -K {name} lro off"),
            ),
        ),
        Err(why) => checks.unread(Topic::Offloads, name, why),
    }
}

/// Both planes take a packet before the kernel looks at the route to its source. What the kernel
/// itself takes is held to it: streams that programs of this host want too, and the queries that
/// memberships depend on (`ip_mc_validate_source` of net/ipv4/route.c).
fn rp_filter(
    evidence: &Evidence,
    name: &InterfaceName,
    (facts, used): (&InterfaceFacts, &Used<'_>),
    checks: &mut Checks,
) {
    let four = |rule: &&&RuleEvidence| {
        let address = rule.facts.rule.input.addresses.first();
        address.is_ipv4() && address.is_multicast()
    };
    let rules: Vec<_> = used.inputs.iter().filter(four).collect();
    let link = evidence.links.by_name(name).filter(|link| link.kind != LinkKind::Loopback);
    let (Some(link), false) = (link, rules.is_empty()) else { return };
    let value = match (&evidence.host.rp_filter, &facts.rp_filter) {
        (Ok(all), Ok(own)) => *all.max(own),
        (Err(why), _) | (_, Err(why)) => return checks.unread(Topic::RpFilter, name, why),
    };
    let refused = |source| match (value, evidence.routes_back.get(&source)) {
        (0, _) | (_, None | Some(Route::Local)) => None,
        (_, Some(Route::None(_))) => Some("no route leads to it".to_owned()),
        (1, Some(Route::Via { interface, .. })) if interface != name => {
            Some(format!("the route to it is by {interface}"))
        }
        (_, Some(Route::Via { .. })) => None,
    };
    let remedy = format!(
        "add a route to it by {name}, or loosen the filter: sysctl net.ipv4.conf.all.rp_filter=0 \
         net.ipv4.conf.{name}.rp_filter=0 (the larger of both counts)"
    );
    let mut bad = false;
    let querier =
        evidence.heard.as_ref().ok().and_then(|heard| {
            heard.on(link.index, super::heard::Protocol::Igmp)?.querier(heard.now)
        });
    if let Some((by, why)) = querier.and_then(|asked| Some((asked.by, refused(asked.by)?))) {
        bad = true;
        let found = format!(
            "rp_filter {value} drops the IGMP queries of {by} ({why}): they are not answered, and a \
             switch ends the stream after 260 s"
        );
        checks.warning(Topic::RpFilter, name, (found, remedy.clone()));
    }
    for rule in rules {
        let (key, input) = (&rule.facts.key, &rule.facts.rule.input);
        if !wanted_here(evidence, rule.facts.rule.local, input.ports) {
            continue;
        }
        let seen =
            evidence.seen.iter().flat_map(|seen| seen.to(input.addresses, Some(input.ports)));
        let arriving = seen.filter(|(flow, _)| flow.interface == link.index && !flow.outgoing);
        let lost = arriving.filter_map(|(flow, _)| Some((flow.source, refused(flow.source)?)));
        if let Some((source, why)) = lost.into_iter().next() {
            bad = true;
            let found = format!(
                "rp_filter {value} keeps the packets of {source} ({why}) from the program of this host \
                 that listens to port {}, rule {key}; MCR itself takes them before",
                input.ports
            );
            checks.warning(Topic::RpFilter, name, (found, remedy.clone()));
        }
    }
    if !bad {
        let found = format!("rp_filter {value}; no stream and no query is affected");
        checks.ok(Topic::RpFilter, name, found);
    }
}

/// Whether a program of this host listens.
fn wanted_here(evidence: &Evidence, local: Local, ports: crate::flow::PortRange) -> bool {
    let bound = || {
        let listeners = evidence.host.listeners.as_ref();
        listeners.is_ok_and(|ports_bound| ports_bound.iter().any(|port| ports.contains(*port)))
    };
    match local {
        Local::Yes | Local::Auto => bound(),
        Local::No => false,
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn a_mask_has_words_of_32_bits() {
        let masks = [2, 31, 32, 33, 64, 130].map(mask);
        let all = "ffffffff,ffffffff,ffffffff,ffffffff";
        let words = ["3", "7fffffff", "ffffffff", "1,ffffffff", "ffffffff,ffffffff"];
        assert_eq!(masks[..5], words);
        assert_eq!(masks[5], format!("3,{all}"));
    }
}
