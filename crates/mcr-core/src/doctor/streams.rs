//! The packets of a rule: whether they come, from whom, and what becomes of them.

mod outputs;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;

use super::seen::{Flow, Seen, Sight};
use super::{Checks, Evidence, RuleEvidence, Topic, counted, some_of, span};
use crate::flow::{Input, OutputSource, PortRange};
use crate::link::{IfIndex, Links};
use crate::relay::State;
use crate::resolve::Resolved;
use crate::rule::{RuleKey, Ttl};
use crate::table::is_ssm;
use crate::watch::Silence;

pub(super) fn judge(
    evidence: &Evidence,
    (rule, resolved): (&RuleEvidence, &Resolved),
    checks: &mut Checks,
) {
    if rule.facts.state == State::Disabled {
        return;
    }
    outputs::drops(evidence, rule, checks);
    let key = &rule.facts.key;
    let seen = match &evidence.seen {
        Ok(seen) => seen,
        Err(why) => {
            let topics = [Topic::Sender, Topic::Source, Topic::Ttl, Topic::SecondRelay];
            return topics.iter().for_each(|topic| checks.unread(*topic, key, why));
        }
    };
    let input = &rule.facts.rule.input;
    let link = evidence.links.by_name(&input.interface);
    // Of an interface that is not there or down nothing can be expected.
    if let Some(link) = link.filter(|link| link.up && link.carrier) {
        let stream = Stream { evidence, rule, seen, interface: link.index };
        stream.sender(checks);
        stream.source(checks);
        stream.second_sender(checks);
        stream.duplicates(checks);
        stream.ttl(checks);
    }
    outputs::second_relays(evidence, seen, (rule, resolved), checks);
}

/// A rule whose input interface can receive.
struct Stream<'e> {
    evidence: &'e Evidence,
    rule: &'e RuleEvidence,
    seen: &'e Seen,
    interface: IfIndex,
}

impl Stream<'_> {
    fn key(&self) -> &RuleKey {
        &self.rule.facts.key
    }

    /// What arrives for the group and port on the interface, whoever sends it.
    fn arriving(&self) -> impl Iterator<Item = (&Flow, &Sight)> {
        let input = &self.rule.facts.rule.input;
        let sights = self.seen.to(input.addresses, Some(input.ports));
        sights.filter(|(flow, _)| self.is_here(flow))
    }

    fn is_here(&self, flow: &Flow) -> bool {
        flow.interface == self.interface && !flow.outgoing && flow.vlan.is_none()
    }

    /// Whether the rule takes from that sender.
    fn takes(&self, source: IpAddr) -> bool {
        let sources = &self.rule.facts.rule.input.sources;
        sources.is_empty() || sources.contains(&source)
    }

    fn sender(&self, checks: &mut Checks) {
        let facts = &self.rule.facts;
        let duration = span(self.evidence.duration);
        let (mut packets, mut senders) = (0, BTreeSet::new());
        for (flow, sight) in self.arriving() {
            packets += sight.packets;
            senders.insert(flow.source);
        }
        if facts.state == State::Forwarding {
            let from = if senders.is_empty() {
                String::new()
            } else {
                format!(" from {}", some_of(senders))
            };
            let found = format!("{} packets/s{from}", facts.rate.packets);
            return checks.ok(Topic::Sender, self.key(), found);
        }
        if packets > 0 {
            let found =
                format!("{} in {duration} from {}", counted(packets, "packet"), some_of(senders));
            return checks.ok(Topic::Sender, self.key(), found);
        }
        let input = &facts.rule.input;
        let last = match facts.quiet {
            Some(quiet) => format!("the last packet came {} ago", span(quiet)),
            None => "none has come yet".to_owned(),
        };
        let found = self.elsewhere();
        let pauses = match (facts.quiet, facts.rule.silence) {
            (Some(_), Silence::Never) => true,
            (Some(quiet), Silence::After(limit)) => quiet < limit,
            (None, _) => false,
        };
        if found.is_none() && pauses {
            let found = format!("no packet in {duration}; {last}, which its `silence` allows");
            return checks.ok(Topic::Sender, self.key(), found);
        }
        let (found, remedy) = found.unwrap_or_else(|| {
            (
                format!("no packet to {} on any port or interface", input.addresses),
                "does the sender run, does it send to that group, and has it a TTL that lasts to here? \
                 Where a switch snoops see the checks membership, querier and queries-answered"
                    .into(),
            )
        });
        checks.problem(
            Topic::Sender,
            self.key(),
            (format!("{found} (watched for {duration}); {last}"), remedy),
        );
    }

    /// Where the group is seen instead.
    fn elsewhere(&self) -> Option<(String, String)> {
        let input = &self.rule.facts.rule.input;
        let key = self.key();
        let all = || self.seen.to(input.addresses, None);
        let same_port = |flow: &Flow| input.ports.contains(flow.port);
        let name = |index| name_of(&self.evidence.links, index);
        let here = input.interface.clone();
        if let Some((flow, sight)) = all()
            .find(|(flow, _)| flow.outgoing && flow.interface == self.interface && same_port(flow))
        {
            let found = format!(
                "this host itself sends it by {here} ({} from {}), and what it sends never arrives",
                counted(sight.packets, "packet"),
                flow.source
            );
            return Some((
                found,
                "run the sender elsewhere, or let it send to the output itself".into(),
            ));
        }
        let arrives = |flow: &Flow| !flow.outgoing;
        let ports: BTreeSet<u16> =
            all().filter(|(flow, _)| self.is_here(flow)).map(|(flow, _)| flow.port).collect();
        if !ports.is_empty() {
            let found = format!(
                "{} comes to port {}, and the rule wants {}",
                input.addresses,
                some_of(&ports),
                input.ports
            );
            let port = ports.first().and_then(|port| PortRange::new(*port, *port).ok());
            let remedy = match port {
                Some(ports) => {
                    let flow = Input { ports, ..input.clone() };
                    format!("mcrctl set {key} --input {flow}, or change the sender's port")
                }
                None => "change the sender's port".to_owned(),
            };
            return Some((found, remedy));
        }
        if let Some((flow, vlan)) = all()
            .filter(|(flow, _)| {
                arrives(flow) && flow.interface == self.interface && same_port(flow)
            })
            .find_map(|(flow, _)| Some((flow, flow.vlan?)))
        {
            let found = format!("it comes tagged with VLAN {vlan}, from {}", flow.source);
            let remedy = format!(
                "make the rule on the VLAN's interface: ip link add link {here} name {here}.{vlan} type \
                 vlan id {vlan}; ip link set {here}.{vlan} up; mcrctl set {key} --input {}",
                moved(input, format!("{here}.{vlan}"))
            );
            return Some((found, remedy));
        }
        let (flow, _) = all().find(|(flow, _)| arrives(flow) && same_port(flow))?;
        let other = name(flow.interface);
        let found =
            format!("it comes on {other} from {}, and the rule listens on {here}", flow.source);
        let remedy = format!("mcrctl set {key} --input {}", moved(input, other));
        Some((found, remedy))
    }

    fn source(&self, checks: &mut Checks) {
        let input = &self.rule.facts.rule.input;
        if input.sources.is_empty() {
            if is_ssm(input.addresses.first()) {
                let found = format!(
                    "{} is source-specific (RFC 4607), and the rule takes any source",
                    input.addresses
                );
                let senders: BTreeSet<IpAddr> =
                    self.arriving().map(|(flow, _)| flow.source).collect();
                let flow = match senders.first() {
                    Some(sender) => from(input, [*sender].into()),
                    None => format!("SOURCE@{input}"),
                };
                let remedy = format!(
                    "name the sender: mcrctl set {} --input {flow}; routers build no tree without",
                    self.key()
                );
                checks.warning(Topic::Source, self.key(), (found, remedy));
            } else {
                checks.ok(Topic::Source, self.key(), "takes any");
            }
            return;
        }
        let others: BTreeSet<IpAddr> = self
            .arriving()
            .map(|(flow, _)| flow.source)
            .filter(|source| !self.takes(*source))
            .collect();
        let right = self.arriving().any(|(flow, _)| self.takes(flow.source));
        if others.is_empty() {
            return checks.ok(Topic::Source, self.key(), "nobody else sends to it");
        }
        let found = format!(
            "{} sends to it too, and the rule takes from {} alone",
            some_of(&others),
            some_of(&input.sources)
        );
        let remedy = format!(
            "if that is the sender, take from it: mcrctl set {} --input {}",
            self.key(),
            from(input, others)
        );
        if right || self.rule.facts.state == State::Forwarding {
            checks.ok(Topic::Source, self.key(), found);
        } else {
            checks.problem(Topic::Source, self.key(), (found.replace(" too,", ","), remedy));
        }
    }

    /// Rewriting gives all of them one source, and nobody can tell them apart behind the relay.
    fn second_sender(&self, checks: &mut Checks) {
        if !self.rule.facts.rule.input.sources.is_empty() {
            return checks.ok(Topic::SecondSender, self.key(), "the rule names its senders");
        }
        let mut flows: Vec<_> =
            self.arriving().map(|(f, _)| (f.destination, f.port, f.source)).collect();
        flows.sort_unstable();
        let same =
            |pair: &&[(IpAddr, u16, IpAddr)]| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1);
        let mixed = self.rule.facts.rule.outputs.iter().any(|o| o.to.source != OutputSource::Keep);
        let double: BTreeSet<IpAddr> =
            flows.windows(2).filter(same).flat_map(|pair| [pair[0].2, pair[1].2]).collect();
        if double.is_empty() || !mixed {
            return checks.ok(Topic::SecondSender, self.key(), "no two senders are mixed");
        }
        let found =
            format!("{} send to the same group and port: the outputs mix them", some_of(double));
        let remedy = "stop one of them, or name the one that is meant as the source of the input, or make \
                      a rule for each";
        checks.warning(Topic::SecondSender, self.key(), (found, remedy.into()));
    }

    fn duplicates(&self, checks: &mut Checks) {
        let (mut packets, mut repeated) = (0, 0);
        for (_, sight) in self.arriving().filter(|(flow, _)| self.takes(flow.source)) {
            packets += sight.packets;
            repeated += sight.repeated;
        }
        if repeated == 0 {
            return checks.ok(Topic::Duplicates, self.key(), "no packet came twice");
        }
        let found = format!(
            "{repeated} of {packets} packets came a second time (same source, identification, checksum \
             and length), before MCR"
        );
        let remedy = "look for two ways from the sender to here: a loop, a mirror port, a second relay, or \
                      two interfaces of the sender in one network";
        checks.warning(Topic::Duplicates, self.key(), (found, remedy.into()));
    }

    fn ttl(&self, checks: &mut Checks) {
        let taken = self.arriving().filter(|(flow, _)| self.takes(flow.source));
        let Some((lowest, from)) = taken.map(|(flow, sight)| (sight.ttl, flow.source)).min() else {
            return;
        };
        let outputs = &self.rule.facts.rule.outputs;
        let with =
            |ttl: Ttl| outputs.iter().filter(|o| o.ttl == ttl).map(|o| &o.to).collect::<Vec<_>>();
        let (expired, kept) = (with(Ttl::Decrement), with(Ttl::Keep));
        let found = format!("packets of {from} arrive with TTL {lowest}");
        let remedy = format!(
            "raise the sender's TTL, or give the output a fixed one: mcrctl set {} --ttl 32",
            self.key()
        );
        if lowest <= 1 && !expired.is_empty() {
            let found =
                format!("{found}, and ttl = \"decrement\" ends it for {}", some_of(expired));
            checks.problem(Topic::Ttl, self.key(), (found, remedy));
        } else if lowest <= 1 && !kept.is_empty() {
            let found = format!(
                "{found}, and ttl = \"keep\" lets the first router drop it for {}",
                some_of(kept)
            );
            checks.warning(Topic::Ttl, self.key(), (found, remedy));
        } else {
            checks.ok(Topic::Ttl, self.key(), found);
        }
    }
}

/// An input as a command has it, with its sources, on another interface.
fn moved(input: &Input, interface: impl Display) -> String {
    let here = input.to_string();
    let flow = here.strip_suffix(input.interface.as_str()).unwrap_or(&here);
    format!("{flow}{interface}")
}

/// An input as a command has it, from these senders.
fn from(input: &Input, sources: BTreeSet<IpAddr>) -> String {
    Input { sources: sources.into_iter().collect(), ..input.clone() }.to_string()
}

fn name_of(links: &Links, index: IfIndex) -> String {
    let found = links.interfaces.iter().find(|(_, link)| link.index == index);
    found.map_or_else(|| format!("interface {index}"), |(name, _)| name.to_string())
}
