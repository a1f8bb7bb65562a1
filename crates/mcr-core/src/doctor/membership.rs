//! Group memberships: MCR's own on input interfaces, and those of receivers on output interfaces.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::heard::{Asked, LASTS, Protocol, Talk};
use super::interfaces::Used;
use super::{BridgeFacts, Checks, Evidence, RuleEvidence, Topic, some_of, span};
use crate::flow::{AddressBlock, InterfaceName};
use crate::link::{Link, LinkKind};
use crate::refusal::Code;
use crate::relay::State;

pub(super) fn judge(
    evidence: &Evidence,
    name: &InterfaceName,
    used: &Used<'_>,
    checks: &mut Checks,
) {
    let usable = |link: &&Link| link.up && link.kind != LinkKind::Loopback;
    let Some(link) = evidence.links.by_name(name).filter(usable) else { return };
    let at = At { evidence, name, link };
    for protocol in Protocol::ALL {
        let joined: Vec<_> = used.inputs.iter().copied().filter(|r| joins(r, protocol)).collect();
        if !joined.is_empty() {
            at.joined(&joined, protocol, checks);
            at.querier(protocol, checks);
        }
        let groups: BTreeSet<AddressBlock> = used
            .outputs
            .iter()
            .map(|(_, output)| output.to.addresses)
            .filter(|to| to.first().is_multicast() && Protocol::of(to.first()) == protocol)
            .collect();
        if !groups.is_empty() {
            at.downstream(&groups, protocol, checks);
        }
    }
}

/// Whether MCR is a member for the rule.
fn joins(rule: &RuleEvidence, protocol: Protocol) -> bool {
    let group = rule.facts.rule.input.addresses.first();
    let refused = rule.facts.problem.as_ref().is_some_and(|refusal| refusal.code == Code::Join);
    let runs = !refused && !matches!(rule.facts.state, State::Disabled | State::Failed);
    rule.facts.rule.join && group.is_multicast() && runs && Protocol::of(group) == protocol
}

/// An interface.
struct At<'e> {
    evidence: &'e Evidence,
    name: &'e InterfaceName,
    link: &'e Link,
}

impl At<'_> {
    fn joined(&self, rules: &[&RuleEvidence], protocol: Protocol, checks: &mut Checks) {
        let Some(facts) = self.evidence.interfaces.get(self.name) else { return };
        let groups = match &facts.groups {
            Ok(groups) => groups,
            Err(why) => return checks.unread(Topic::Membership, self.name, why),
        };
        let wanted = rules.iter().flat_map(|rule| rule.facts.rule.input.addresses.iter());
        let wanted: BTreeSet<IpAddr> = wanted.collect();
        let missing: Vec<_> = wanted.difference(groups).collect();
        let sources = rules.iter().find(|rule| !rule.facts.rule.input.sources.is_empty());
        if !missing.is_empty() {
            let found = format!("the kernel is no member of {}", some_of(missing));
            let remedy = "disable and enable the rule (mcrctl disable NAME; mcrctl enable NAME), and \
                          see the log of mcrd for why a join was refused";
            checks.problem(Topic::Membership, self.name, (found, remedy.into()));
        } else if let (Protocol::Igmp, Ok(version @ 1..=2), Some(rule)) =
            (protocol, &facts.igmp, sources)
        {
            let found = format!(
                "the kernel speaks IGMPv{version} here, which has no sources: those of {} are not asked \
                 for",
                rule.facts.key
            );
            let remedy = format!(
                "let the querier speak IGMPv3, and see that net.ipv4.conf.{}.force_igmp_version is 0",
                self.name
            );
            checks.warning(Topic::Membership, self.name, (found, remedy));
        } else {
            let count = super::counted(wanted.len() as u64, "group");
            let found = format!("{count} of {} joined", protocol.name());
            checks.ok(Topic::Membership, self.name, found);
        }
    }

    /// Whether somebody asks for members, and gets an answer.
    fn querier(&self, protocol: Protocol, checks: &mut Checks) {
        let heard = match &self.evidence.heard {
            Ok(heard) => heard,
            Err(why) => {
                checks.unread(Topic::Querier, self.name, why);
                return checks.unread(Topic::QueriesAnswered, self.name, why);
            }
        };
        let (talk, now) = (heard.on(self.link.index, protocol), heard.now);
        match talk.and_then(|talk| talk.querier(now)) {
            Some(asked) => checks.ok(Topic::Querier, self.name, words(asked, protocol, now)),
            None if self.bridge().is_some_and(|bridge| bridge.snooping && bridge.querier) => {
                checks.ok(Topic::Querier, self.name, "the bridge of this host asks");
            }
            None => self.no_querier(talk, protocol, now, checks),
        }
        let Some(asked) = heard.lost(self.link.index, protocol) else {
            let found = format!("every {} query that arrives gets to the kernel", protocol.name());
            return checks.ok(Topic::QueriesAnswered, self.name, found);
        };
        let (rule, drop) = match protocol {
            Protocol::Igmp => ("ip protocol igmp accept", "iptables -I INPUT -p igmp -j ACCEPT"),
            Protocol::Mld => (
                "icmpv6 type { mld-listener-query, mld-listener-report, mld2-listener-report } accept",
                "ip6tables -I INPUT -p icmpv6 -j ACCEPT",
            ),
        };
        let found = format!(
            "{}, and it did not get to the kernel, which so answers nothing: a firewall drops it on input; \
             a switch ends the stream {} after the join",
            words(asked, protocol, now),
            span(LASTS)
        );
        let remedy = format!(
            "let them in: nft insert rule inet filter input {rule} (`nft list ruleset` shows table and \
             chain), or {drop}; then see the check rp-filter"
        );
        checks.problem(Topic::QueriesAnswered, self.name, (found, remedy));
    }

    fn no_querier(
        &self,
        talk: Option<&Talk>,
        protocol: Protocol,
        now: Duration,
        checks: &mut Checks,
    ) {
        let remedy = "switch a querier on in the switch or router of this network: a switch that snoops \
                      forgets a membership 260 s after the join when nobody asks again; or switch \
                      snooping off there";
        let name = protocol.name();
        if let Some(bridge) = self.bridge().filter(|bridge| bridge.snooping && !bridge.querier) {
            let found = format!(
                "bridge {} snoops and does not ask itself (multicast_querier 0), and no {name} query was \
                 heard for {}",
                bridge.name,
                span(now.min(LASTS))
            );
            let remedy = format!(
                "let the bridge ask: ip link set {0} type bridge mcast_querier 1; or not snoop: ip link \
                 set {0} type bridge mcast_snooping 0",
                bridge.name
            );
            return checks.warning(Topic::Querier, self.name, (found, remedy));
        }
        let last = match talk.and_then(|talk| talk.asked) {
            Some(asked) => format!("; the last was {}", words(asked, protocol, now)),
            None => String::new(),
        };
        if now <= LASTS {
            let found = format!(
                "no {name} query heard in the {} since mcrd started; a querier asks every 125 s",
                span(now)
            );
            let remedy = format!("ask again {} after the start of mcrd", span(LASTS));
            return checks.unknown(Topic::Querier, self.name, (found, remedy));
        }
        let found = format!("no {name} query heard for {}{last}", span(LASTS));
        checks.warning(Topic::Querier, self.name, (found, remedy.into()));
    }

    /// Whether a receiver can be seen behind an output interface.
    fn downstream(&self, groups: &BTreeSet<AddressBlock>, protocol: Protocol, checks: &mut Checks) {
        let name = protocol.name();
        let bridge = self.bridge().filter(|bridge| bridge.snooping);
        if let Some(BridgeFacts { name: bridge, members, .. }) = bridge {
            let members = match members {
                Ok(members) => members,
                Err(why) => return checks.unread(Topic::Downstream, self.name, why),
            };
            let missing = without(groups, members.iter());
            if missing.is_empty() {
                let found = format!("bridge {bridge} knows members of all output groups");
                return checks.ok(Topic::Downstream, self.name, found);
            }
            let found = format!("bridge {bridge} knows no member of {}", some_of(missing));
            let remedy = format!(
                "let a receiver join; `bridge mdb show dev {bridge}` shows who has, and reports must get \
                 from it to the bridge"
            );
            return checks.warning(Topic::Downstream, self.name, (found, remedy));
        }
        let heard = match &self.evidence.heard {
            Ok(heard) => heard,
            Err(why) => return checks.unread(Topic::Downstream, self.name, why),
        };
        let talk = heard.on(self.link.index, protocol);
        let fresh = |at: &Duration| heard.now.saturating_sub(*at) <= LASTS;
        let members = talk.into_iter().flat_map(|talk| &talk.members);
        let members: Vec<_> = members.filter(|(_, (_, at))| fresh(at)).collect();
        let missing = without(groups, members.iter().map(|(group, _)| *group));
        if missing.is_empty() {
            let (group, (by, at)) = members[0];
            let ago = span(heard.now.saturating_sub(*at));
            let found = format!(
                "{name} reports are heard for all output groups, as of {group} by {by} {ago} ago"
            );
            return checks.ok(Topic::Downstream, self.name, found);
        }
        let found = format!("no {name} report for {} was heard here", some_of(missing));
        let answered = |asked: &Asked| {
            heard.now.saturating_sub(asked.at) > asked.query.max_response + Duration::from_secs(1)
        };
        let asked = talk.and_then(|talk| talk.querier(heard.now)).filter(answered);
        match asked {
            Some(asked) => checks.warning(
                Topic::Downstream,
                self.name,
                (
                    format!("{found}, though {}", words(asked, protocol, heard.now)),
                    "let a receiver join; a snooping switch may keep reports from this host, so look \
                     there too"
                        .into(),
                ),
            ),
            None => checks.unknown(
                Topic::Downstream,
                self.name,
                (
                    format!("{found} in {}, and nobody asks for members", span(heard.now.min(LASTS))),
                    "look at the switch or at the receivers (`ip maddr` there): without a querier a host \
                     reports only when it joins"
                        .into(),
                ),
            ),
        }
    }

    fn bridge(&self) -> Option<&BridgeFacts> {
        self.evidence.interfaces.get(self.name)?.bridge.as_ref().ok()?.as_ref()
    }
}

/// Groups, and ranges of them, of which none is a member.
fn without<'m>(
    groups: &BTreeSet<AddressBlock>,
    members: impl Iterator<Item = &'m IpAddr>,
) -> Vec<AddressBlock> {
    let members: BTreeSet<&IpAddr> = members.collect();
    let joined =
        |block: &AddressBlock| members.range(block.first()..=block.last()).next().is_some();
    groups.iter().filter(|block| !joined(block)).copied().collect()
}

/// `IGMPv3 queries come from 10.0.0.254, the last 12s ago`.
fn words(asked: Asked, protocol: Protocol, now: Duration) -> String {
    let ago = span(now.saturating_sub(asked.at));
    let (name, version, by) = (protocol.name(), asked.query.version, asked.by);
    format!("{name}v{version} queries come from {by}, the last {ago} ago")
}
