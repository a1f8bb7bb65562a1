//! A kernel and a data plane for the relay to drive.

use std::time::UNIX_EPOCH;

use super::super::*;
use crate::action::{PlaneChange, SecondSender};
use crate::api::{Change, RuleStats};
use crate::flow::InterfaceName;
use crate::link::{Link, LinkAddress, LinkKind, Mac};
use crate::refusal::Code;
use crate::resolve::{resolve, route_queries};
use crate::rule::Rule;
use crate::senders::{Sender, Senders};

/// A kernel and a data plane that do what the relay asks, unless told to refuse, and that judge
/// every action.
pub(super) struct World {
    pub(super) relay: Relay,
    pub(super) now: Instant,
    /// What the relay has been told; its routes and neighbours are made anew each time.
    pub(super) links: Links,
    /// Routes that do not follow from the addresses of interfaces.
    pub(super) routes: BTreeMap<IpAddr, Route>,
    /// The hosts that answer.
    pub(super) hosts: BTreeMap<IpAddr, Mac>,
    pub(super) joined: BTreeSet<Claim>,
    pub(super) refuse_group: Option<IpAddr>,
    /// The neighbours that are kept resolved.
    pub(super) sought: BTreeSet<NextHop>,
    pub(super) plane: BTreeMap<RuleId, PlaneRule>,
    pub(super) own: BTreeSet<IpAddr>,
    pub(super) inputs: BTreeSet<IfIndex>,
    pub(super) refuse_plane: RefusePlane,
    pub(super) counters: Counters,
    pub(super) asked: BTreeSet<RequestId>,
    pub(super) replies: BTreeMap<RequestId, Result<Change, Refusal>>,
    /// What the last step did.
    pub(super) did: Vec<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RefusePlane {
    Nothing,
    Input(u32),
    Times(u32),
}

impl World {
    /// lo, and eth0 to eth2 with the indexes 2 to 4, in the networks 10.n.0.0/24 and fd00:0:0:n::/64.
    pub(super) fn new() -> Self {
        Self::with_limits(Limits { rules: 100, outputs: 100 })
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        Self::with_relay(Relay::new(limits, 7, false))
    }

    pub(super) fn with_relay(relay: Relay) -> Self {
        let mut world = Self {
            relay,
            now: Instant::now(),
            links: Links::default(),
            routes: BTreeMap::new(),
            hosts: BTreeMap::new(),
            joined: BTreeSet::new(),
            refuse_group: None,
            sought: BTreeSet::new(),
            plane: BTreeMap::new(),
            own: BTreeSet::new(),
            inputs: BTreeSet::new(),
            refuse_plane: RefusePlane::Nothing,
            counters: Counters::default(),
            asked: BTreeSet::new(),
            replies: BTreeMap::new(),
            did: Vec::new(),
        };
        world.link(|links| {
            let lo = Link { kind: LinkKind::Loopback, ..link(1, "127.0.0.1") };
            links.insert("lo".parse().unwrap(), lo);
            for n in 0..3 {
                let name = format!("eth{n}").parse().unwrap();
                let mut link = link(n + 2, &format!("10.{n}.0.9"));
                link.addresses.push(address(&format!("fd00:0:0:{n}::9")));
                links.insert(name, link);
            }
        });
        world
    }

    pub(super) fn link(&mut self, change: impl FnOnce(&mut BTreeMap<InterfaceName, Link>)) {
        change(&mut self.links.interfaces);
        self.look();
    }

    /// The relay is told how the machine is.
    pub(super) fn look(&mut self) {
        let queries = self.relay.route_queries();
        self.links.routes = self.answers(queries.into_iter());
        let answer = |hop: &NextHop| Some((*hop, *self.hosts.get(&hop.address)?));
        self.links.neighbours = self.sought.iter().filter_map(answer).collect();
        self.relay.handle_links(self.links.clone(), self.now);
        self.settle();
    }

    /// What the routing table says: hosts of a network are reached by the interface that has an
    /// address there.
    pub(super) fn answers(&self, queries: impl Iterator<Item = RouteQuery>) -> Routes {
        let answer = |query: RouteQuery| {
            let RouteQuery { destination, interface } = &query;
            let on = |(name, link): &(&InterfaceName, &Link)| {
                let here = |a: &LinkAddress| network(a.address) == network(*destination);
                interface.as_ref().is_none_or(|wanted| wanted == *name)
                    && link.addresses.iter().any(here)
            };
            let via = |(name, _): (&InterfaceName, &Link)| Route::Via {
                interface: name.clone(),
                next_hop: *destination,
                source: None,
            };
            let route = match self.routes.get(destination) {
                Some(route) => Some(route.clone()),
                None if self.links.is_local(*destination) => Some(Route::Local),
                None => self.links.interfaces.iter().find(on).map(via),
            };
            let unreachable = || Route::None("Network is unreachable".into());
            (query, route.unwrap_or_else(unreachable))
        };
        queries.map(answer).collect()
    }

    pub(super) fn ask(&mut self, request: Request, guard: Guard) -> RequestId {
        let id = RequestId(self.asked.len() as u64);
        self.asked.insert(id);
        let routes = self.answers(request.rules().flat_map(route_queries));
        self.relay.handle_request(id, request, (guard, routes), self.now);
        id
    }

    /// Asks, carries everything out, and sees to it that a refusal has changed nothing.
    pub(super) fn guarded(&mut self, request: Request, guard: Guard) -> Result<Change, Refusal> {
        let before = self.everything();
        let id = self.ask(request, guard);
        self.settle();
        let reply = self.replies[&id].clone();
        if reply.is_err() || guard.dry_run {
            assert_eq!(self.everything(), before, "{reply:?} has changed something");
        }
        reply
    }

    pub(super) fn request(&mut self, request: Request) -> Result<Change, Refusal> {
        self.guarded(request, Guard::default())
    }

    pub(super) fn steps(&mut self, steps: Vec<RuleStep>) -> Result<Change, Refusal> {
        self.request(Request::Steps(steps))
    }

    pub(super) fn add(&mut self, rule: Rule) -> Change {
        self.steps(vec![RuleStep::Add(rule)]).unwrap()
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.relay.handle_timeout(self.now);
        self.settle();
    }

    pub(super) fn count(&mut self, name: &str, packets: u64) {
        let running = self.relay.running[&RuleKey::from_user(name)].clone();
        let volume = Volume { packets, bytes: packets * 100 };
        let counters = &mut self.counters.rules[running.id.0 as usize];
        (counters.received, counters.matched) = (volume, volume);
        for output in &running.outputs {
            let counters = &mut self.counters.outputs[output.id.0 as usize];
            (counters.offered, counters.forwarded) = (volume, volume);
        }
        self.relay.handle_counters(self.counters.clone(), self.now);
    }

    /// The plane shows these senders of a rule, each with a stamp; what is told of it.
    pub(super) fn seen(&mut self, name: &str, senders: &[(&str, u64)]) -> Vec<SecondSender> {
        let id = self.relay.running[&RuleKey::from_user(name)].id;
        let sender = |(address, seen): &(&str, u64)| Sender {
            address: ip(address),
            packets: 1,
            seen: *seen,
        };
        self.counters.rules[id.0 as usize].senders = Senders::merge(senders.iter().map(sender));
        self.relay.handle_counters(self.counters.clone(), self.now);
        let mut told = Vec::new();
        while let Some(action) = self.relay.poll_action() {
            if let Action::SecondSender(second) = action {
                told.push(second);
            }
        }
        told
    }

    pub(super) fn clocks(&self) -> Now {
        Now { monotonic: self.now, wall: UNIX_EPOCH + Duration::from_secs(86400) }
    }

    pub(super) fn stats(&self, name: &str) -> RuleStats {
        let key = RuleKey::from_user(name);
        self.relay.stats(Some(&key), self.clocks(), &BTreeMap::new()).unwrap().remove(0)
    }

    /// The state of a rule, with its reason.
    pub(super) fn state(&self, name: &str) -> String {
        let list = self.relay.list(Some(&RuleKey::from_user(name)), self.clocks()).unwrap();
        let view = &list.rules[0];
        view.reason.iter().fold(view.state.clone(), |state, why| format!("{state}: {why}"))
    }

    pub(super) fn ids(&self, name: &str) -> (RuleId, Vec<OutputId>) {
        let running = &self.relay.running[&RuleKey::from_user(name)];
        (running.id, running.outputs.iter().map(|output| output.id).collect())
    }

    pub(super) fn keys(&self) -> Vec<&str> {
        self.relay.table.iter().map(|(key, _)| key.as_str()).collect()
    }

    pub(super) fn everything(&self) -> String {
        let relay = &self.relay;
        let claims = (&relay.claims, &relay.next_hops, &self.joined, &self.sought);
        let core = (&relay.table, &relay.running, relay.generation);
        let world = (&self.plane, &self.own, &self.inputs, relay.ids_in_use());
        format!("{claims:#?}\n{core:#?}\n{world:#?}")
    }

    /// Carries out all actions, then compares the world with what the rules ask for.
    pub(super) fn settle(&mut self) {
        self.did.clear();
        let held = self.joined.clone();
        while let Some(action) = self.relay.poll_action() {
            self.did.push(action.clone());
            match action {
                Action::Join(claims) => {
                    let results = claims.into_iter().map(|claim| (claim, self.join(claim)));
                    let results = results.collect();
                    self.relay.handle_joined(results);
                }
                Action::Apply(change) => {
                    let result = self.apply(change);
                    self.relay.handle_applied(result.map(|()| Vec::new()));
                }
                Action::Leave(claims) => claims.iter().for_each(|claim| {
                    assert!(self.joined.remove(claim), "left {claim:?}, which is not joined");
                }),
                Action::Resolve(next_hops) => {
                    assert_ne!(self.sought, next_hops, "sought already");
                    self.sought = next_hops;
                }
                Action::Reply(id, result) => {
                    assert!(self.asked.contains(&id));
                    assert!(self.replies.insert(id, result).is_none(), "two replies to {id:?}");
                }
                Action::Note(_) | Action::SecondSender(_) | Action::SaveRuntime => {}
            }
        }
        let left: BTreeSet<Claim> = self.did.iter().flat_map(leaves).collect();
        assert_eq!(held.intersection(&left).find(|claim| self.joined.contains(claim)), None);
        self.judge();
    }

    fn join(&mut self, claim: Claim) -> Result<(), Refusal> {
        if let Claim::Group(membership) = claim
            && self.refuse_group == Some(membership.group)
        {
            return Err(Refusal::new(Code::Join, "igmp_max_memberships", "raise it"));
        }
        assert!(self.joined.insert(claim), "{claim:?} joined twice");
        Ok(())
    }

    pub(super) fn apply(&mut self, change: PlaneChange) -> Result<(), PlaneRefusal> {
        let installed: Vec<RuleId> = change.install.iter().map(|rule| rule.id).collect();
        let unique: BTreeSet<&RuleId> = installed.iter().chain(&change.remove).collect();
        assert_eq!(unique.len(), installed.len() + change.remove.len(), "{change:?}");
        for rule in &change.install {
            let old = self.plane.get(&rule.id);
            assert_ne!(old, Some(rule), "an unchanged rule is installed");
        }
        assert!(change.fresh_rules.iter().all(|id| !self.plane.contains_key(id)), "{change:?}");
        let live: BTreeSet<OutputId> =
            self.plane.values().flat_map(|rule| rule.outputs.iter().map(|o| o.id)).collect();
        assert!(change.fresh_outputs.iter().all(|id| !live.contains(id)), "{change:?}");
        let refusal = || Refusal::new(Code::Plane, "the plane says no", "try later");
        let attached = &self.inputs;
        let fresh =
            |index| change.inputs.difference(attached).any(|input| *input == IfIndex(index));
        match &mut self.refuse_plane {
            RefusePlane::Input(index) if fresh(*index) => {
                let interface = Some(IfIndex(*index));
                return Err(PlaneRefusal { interface, refusal: refusal() });
            }
            RefusePlane::Times(times) if *times > 0 => {
                *times -= 1;
                return Err(PlaneRefusal { interface: None, refusal: refusal() });
            }
            RefusePlane::Nothing | RefusePlane::Input(_) | RefusePlane::Times(_) => {}
        }
        for id in &change.remove {
            assert!(self.plane.remove(id).is_some(), "{id:?} is not there to remove");
        }
        self.plane.extend(change.install.into_iter().map(|rule| (rule.id, rule)));
        for id in change.fresh_rules {
            let end = self.counters.rules.len().max(id.0 as usize + 1);
            self.counters.rules.resize(end, RuleCounters::default());
            self.counters.rules[id.0 as usize] = RuleCounters::default();
        }
        for id in change.fresh_outputs {
            let end = self.counters.outputs.len().max(id.0 as usize + 1);
            self.counters.outputs.resize(end, OutputCounters::default());
            self.counters.outputs[id.0 as usize] = OutputCounters::default();
        }
        (self.own, self.inputs) = (change.own, change.inputs);
        Ok(())
    }

    fn judge(&self) {
        let relay = &self.relay;
        assert_eq!(self.asked, self.replies.keys().copied().collect(), "requests and replies");
        let routes = self.answers(relay.route_queries().into_iter());
        let links = Links { routes, ..self.links.clone() };
        let (mut plane, mut joined) = (BTreeMap::new(), BTreeSet::new());
        let mut sought = BTreeSet::new();
        let (mut outputs, mut rules) = (BTreeSet::new(), BTreeSet::new());
        for (key, entry) in relay.table.iter() {
            let running = &relay.running[key];
            assert!(rules.insert(running.id), "{:?} twice", running.id);
            assert_eq!(running.outputs.len(), entry.rule.outputs.len());
            for output in &running.outputs {
                assert!(outputs.insert(output.id), "{:?} twice", output.id);
            }
            let failed = matches!(running.problem, Some(Problem::Failed(_)));
            let resolved = resolve(&entry.rule, &links);
            let circle = relay.table.refuse_circle(key, &entry.rule, &links).is_err();
            let runs = entry.rule.enabled && !failed && !circle;
            sought.extend(resolved.next_hops.into_iter().filter(|_| entry.rule.enabled));
            let Some(mut wanted) = resolved.plane.filter(|_| runs) else { continue };
            wanted.id = running.id;
            for (output, running) in wanted.outputs.iter_mut().zip(&running.outputs) {
                output.id = running.id;
            }
            joined.extend(resolved.claims.iter().copied());
            plane.insert(wanted.id, wanted);
        }
        assert_eq!(
            (relay.running.len(), relay.ids_in_use()),
            (rules.len(), (rules.len(), outputs.len()))
        );
        assert_eq!(self.plane, plane, "the plane is not what the rules ask for");
        assert_eq!(self.joined, joined, "the claims are not what the rules ask for");
        assert_eq!(self.joined, relay.claims.keys().copied().collect());
        assert_eq!(self.sought, sought, "the neighbours are not what the rules ask for");
        assert_eq!(self.inputs, plane.values().map(|rule| rule.take.interface).collect());
        let sources = plane.values().flat_map(|rule| &rule.outputs).filter_map(|o| o.source);
        let own = sources.filter(|source| self.links.is_local(*source)).collect();
        assert_eq!(self.own, own);
        let failed = relay.running.values().any(|r| matches!(r.problem, Some(Problem::Failed(_))));
        assert!(!failed || relay.poll_timeout().is_some(), "a failed rule is never tried again");
    }

    pub(super) fn changes(&self) -> Vec<&PlaneChange> {
        let applies = self.did.iter().map(|action| match action {
            Action::Apply(change) => Some(change),
            Action::Join(_)
            | Action::Leave(_)
            | Action::Resolve(_)
            | Action::Note(_)
            | Action::SecondSender(_)
            | Action::Reply(..)
            | Action::SaveRuntime => None,
        });
        applies.flatten().collect()
    }

    /// How much was joined or bound.
    pub(super) fn joins(&self) -> usize {
        let joins =
            |action: &Action| if let Action::Join(claims) = action { claims.len() } else { 0 };
        self.did.iter().map(joins).sum()
    }

    /// How much was left.
    pub(super) fn leaves(&self) -> usize {
        self.did.iter().map(|action| leaves(action).len()).sum()
    }

    pub(super) fn notes(&self) -> Vec<&str> {
        let notes = self.did.iter().map(|action| match action {
            Action::Note(note) => Some(note.as_str()),
            Action::Join(_)
            | Action::Apply(_)
            | Action::Leave(_)
            | Action::Resolve(_)
            | Action::SecondSender(_)
            | Action::Reply(..)
            | Action::SaveRuntime => None,
        });
        notes.flatten().collect()
    }
}

fn leaves(action: &Action) -> Vec<Claim> {
    if let Action::Leave(claims) = action { claims.clone() } else { Vec::new() }
}

/// The first 24 bits of IPv4, 64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    crate::flow::masked(address, if address.is_ipv4() { 24 } else { 64 })
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn address(text: &str) -> LinkAddress {
    ip(text).into()
}

pub(super) fn link(index: u32, primary: &str) -> Link {
    Link {
        index: IfIndex(index),
        kind: LinkKind::Ethernet,
        up: true,
        carrier: true,
        no_arp: false,
        mac: [2, 0, 0, 0, 0, index as u8],
        mtu: 1500,
        addresses: vec![address(primary)],
        shared: false,
        mc_forwarding: false,
    }
}
