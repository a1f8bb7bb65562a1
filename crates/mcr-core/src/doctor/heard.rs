//! What hosts and queriers have said of memberships on each interface, as somebody hears it who
//! listens from the start of the daemon on: at the interfaces, where everything is seen that arrives,
//! and behind the filters of this host, where only that is which the kernel answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::seen::Frame;
use crate::link::IfIndex;
use crate::wire::ip::Ip;
use crate::wire::membership::{Message, Query, parse};

/// How long a membership, and the presence of a querier, outlasts a query with the intervals that
/// protocols have by default: 2 × 125 s + 10 s (RFC 3376 §8.4, RFC 3810 §9.4).
pub const LASTS: Duration = Duration::from_secs(260);
/// Between its arrival and its delivery a query takes no longer than this, whoever is looked at first.
const GRACE: Duration = Duration::from_secs(1);
/// How long the last question is remembered after that, to tell who has fallen silent.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What is over is looked for this often.
const TIDY: Duration = Duration::from_secs(60);
/// The most groups that are remembered of an interface and protocol.
const GROUPS_MAX: usize = 16_384;
/// The most hosts that are remembered.
const QUERIERS_MAX: usize = 1024;

/// The two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Of IPv4.
    Igmp,
    /// Of IPv6.
    Mld,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Igmp, Self::Mld];

    /// That of the family of `address`.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Igmp } else { Self::Mld }
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Igmp => "IGMP",
            Self::Mld => "MLD",
        }
    }
}

/// A question for all groups that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// When, since the listening began.
    pub at: Duration,
    /// By whom.
    pub by: IpAddr,
    /// The version, and the time for an answer.
    pub query: Query,
}

/// What was said of one protocol on one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Talk {
    /// The last question for all groups.
    pub asked: Option<Asked>,
    /// Who else has joined a group, and when that was last heard.
    pub members: BTreeMap<IpAddr, (IpAddr, Duration)>,
}

/// Everything that was heard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hearing {
    /// How long has been listened.
    pub now: Duration,
    talks: BTreeMap<(IfIndex, Protocol), Talk>,
    /// Whose questions have come through to this host's own kernel, and when they last did.
    delivered: BTreeMap<IpAddr, Duration>,
    /// When what is over was last forgotten.
    tidied: Duration,
}

impl Hearing {
    /// A frame that has arrived, at a time since the listening began. What carries a tag was said on the
    /// VLAN's interface, and is heard there.
    pub fn observe(&mut self, frame: &Frame<'_>, at: Duration) {
        self.tidy(at);
        if frame.tag.is_some_and(|tag| tag & 0xfff > 0) {
            return;
        }
        let Some(ip) = Ip::parse(frame.packet) else { return };
        let Some(message) = parse(&ip) else { return };
        let by = ip.source();
        let talk = self.talks.entry((frame.interface, Protocol::of(by))).or_default();
        match message {
            Message::Query(query) => {
                if query.group.is_none() {
                    talk.asked = Some(Asked { at, by, query });
                }
            }
            Message::Report(report) => {
                for (group, member) in report.groups {
                    if !member {
                        talk.members.remove(&group);
                    } else if talk.members.len() < GROUPS_MAX || talk.members.contains_key(&group) {
                        talk.members.insert(group, (by, at));
                    }
                }
            }
        }
    }

    /// A message of that host has come through to the kernel.
    pub fn delivered(&mut self, by: IpAddr, at: Duration) {
        self.tidy(at);
        if self.delivered.len() < QUERIERS_MAX || self.delivered.contains_key(&by) {
            self.delivered.insert(by, at);
        }
    }

    /// Forgets what is over, so that neither interfaces that have gone nor forged messages fill the room
    /// for ever.
    fn tidy(&mut self, at: Duration) {
        self.now = self.now.max(at);
        let now = self.now;
        if now.saturating_sub(self.tidied) < TIDY {
            return;
        }
        self.tidied = now;
        let within = |at: Duration, time| now.saturating_sub(at) <= time;
        self.delivered.retain(|_, at| within(*at, LASTS + GRACE));
        self.talks.retain(|_, talk| {
            talk.members.retain(|_, (_, at)| within(*at, LASTS));
            let asked = talk.asked.is_some_and(|asked| within(asked.at, REMEMBERED));
            asked || !talk.members.is_empty()
        });
    }

    /// The last question on an interface, if it did not come through to the kernel, which so cannot
    /// answer.
    pub fn lost(&self, interface: IfIndex, protocol: Protocol) -> Option<Asked> {
        let asked = self.on(interface, protocol)?.querier(self.now)?;
        let over = self.now.saturating_sub(asked.at) > GRACE;
        let came = self.delivered.get(&asked.by).is_some_and(|at| *at + GRACE >= asked.at);
        (over && !came).then_some(asked)
    }

    /// Whoever asks, on any interface.
    pub fn queriers(&self, protocol: Protocol) -> impl Iterator<Item = IpAddr> {
        let talks = self.talks.iter().filter(move |((_, spoken), _)| *spoken == protocol);
        talks.filter_map(|(_, talk)| Some(talk.querier(self.now)?.by))
    }

    /// What was said on an interface.
    pub fn on(&self, interface: IfIndex, protocol: Protocol) -> Option<&Talk> {
        self.talks.get(&(interface, protocol))
    }
}

impl Talk {
    /// The last question, if it is still in force.
    pub fn querier(&self, now: Duration) -> Option<Asked> {
        self.asked.filter(|asked| now.saturating_sub(asked.at) <= LASTS)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const ETH0: IfIndex = IfIndex(2);

    fn igmp(source: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(source, [224, 0, 0, 1], 1);
        builder.write(&mut packet, 2.into(), payload).unwrap();
        packet
    }

    fn hear(hearing: &mut Hearing, at: u64, payload: &[u8]) {
        let packet = igmp([10, 0, 0, 254], payload);
        let frame =
            Frame { interface: ETH0, outgoing: false, tag: None, packet: &packet, segment: 0 };
        hearing.observe(&frame, seconds(at));
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const QUERY: [u8; 12] = [0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    const OF_A_GROUP: [u8; 12] = [0x11, 10, 0, 0, 239, 1, 1, 1, 2, 125, 0, 0];
    const REPORT: [u8; 16] = [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 1, 1];
    const LEAVE: [u8; 16] = [0x22, 0, 0, 0, 0, 0, 0, 1, 3, 0, 0, 0, 239, 1, 1, 1];

    fn talk(hearing: &Hearing) -> Talk {
        hearing.on(ETH0, Protocol::Igmp).cloned().unwrap_or_default()
    }

    #[test]
    fn a_querier_is_in_force_for_260_seconds() {
        let mut hearing = Hearing::default();
        hear(&mut hearing, 100, &QUERY);
        hear(&mut hearing, 130, &OF_A_GROUP);
        assert_eq!(hearing.now, seconds(130));
        let asked = talk(&hearing).querier(seconds(360)).unwrap();
        assert_eq!((asked.by.to_string(), asked.query.version), ("10.0.0.254".into(), 3));
        assert_eq!(talk(&hearing).querier(seconds(361)), None);
        assert_eq!(hearing.on(ETH0, Protocol::Mld), None);
        assert_eq!(hearing.on(IfIndex(3), Protocol::Igmp), None);
    }

    #[test]
    fn a_query_that_does_not_come_through_is_seen() {
        let mut hearing = Hearing::default();
        let lost = |hearing: &Hearing, now| {
            let hearing = Hearing { now: seconds(now), ..hearing.clone() };
            hearing.lost(ETH0, Protocol::Igmp).is_some()
        };
        hear(&mut hearing, 100, &QUERY);
        assert!(!lost(&hearing, 101), "it may still come");
        assert!(lost(&hearing, 102));
        assert!(!lost(&hearing, 400), "nobody asks any more");
        let mut other = hearing.clone();
        other.delivered([10, 0, 0, 253].into(), seconds(100));
        assert!(lost(&other, 102), "that was another's");
        // Whoever reads the two may read the later one first.
        hearing.delivered([10, 0, 0, 254].into(), Duration::from_millis(99_900));
        assert!(!lost(&hearing, 102));
        hear(&mut hearing, 225, &QUERY);
        assert!(lost(&hearing, 230));
        hearing.delivered([10, 0, 0, 254].into(), seconds(225));
        assert!(!lost(&hearing, 230));
    }

    #[test]
    fn members_come_and_go() {
        let mut hearing = Hearing::default();
        hear(&mut hearing, 2, &REPORT);
        let group = IpAddr::from([239, 1, 1, 1]);
        assert_eq!(talk(&hearing).members[&group], ([10, 0, 0, 254].into(), seconds(2)));
        hear(&mut hearing, 3, &LEAVE);
        assert!(talk(&hearing).members.is_empty());
    }

    #[test]
    fn what_is_over_makes_room() {
        let mut hearing = Hearing::default();
        let forged = |host: usize| IpAddr::from((host as u32).to_be_bytes());
        (0..QUERIERS_MAX).for_each(|host| hearing.delivered(forged(host), seconds(1)));
        hear(&mut hearing, 1, &REPORT);
        let members = &mut hearing.talks.values_mut().next().unwrap().members;
        members.clear();
        members.extend((0..GROUPS_MAX).map(|group| (forged(group), (forged(0), seconds(1)))));
        let group = IpAddr::from([239, 1, 1, 1]);
        hear(&mut hearing, 261, &REPORT);
        assert!(!talk(&hearing).members.contains_key(&group), "those may still be there");
        hear(&mut hearing, 322, &REPORT);
        assert_eq!(talk(&hearing).members.keys().collect::<Vec<_>>(), [&group]);
        let querier = IpAddr::from([10, 0, 0, 254]);
        hearing.delivered(querier, seconds(322));
        assert_eq!(hearing.delivered.keys().collect::<Vec<_>>(), [&querier]);
    }

    #[test]
    fn an_interface_on_which_nobody_speaks_is_forgotten() {
        let mut hearing = Hearing::default();
        let elsewhere = |hearing: &mut Hearing, at| hearing.delivered([10, 0, 0, 1].into(), at);
        hear(&mut hearing, 100, &OF_A_GROUP);
        elsewhere(&mut hearing, seconds(160));
        assert_eq!(hearing.talks.len(), 0, "nothing is known of it");
        hear(&mut hearing, 200, &QUERY);
        elsewhere(&mut hearing, seconds(3800));
        assert_eq!(talk(&hearing).querier(hearing.now), None);
        assert!(talk(&hearing).asked.is_some(), "who has asked is still told");
        elsewhere(&mut hearing, seconds(3860));
        assert_eq!(hearing.talks.len(), 0);
    }

    #[test]
    fn what_is_tagged_was_said_elsewhere() {
        let packet = igmp([10, 0, 0, 254], &QUERY);
        let mut hearing = Hearing::default();
        let mut frame =
            Frame { interface: ETH0, outgoing: false, tag: Some(10), packet: &packet, segment: 0 };
        hearing.observe(&frame, seconds(1));
        assert_eq!(hearing.on(ETH0, Protocol::Igmp), None);
        frame.tag = Some(0x6000);
        hearing.observe(&frame, seconds(1));
        assert!(hearing.on(ETH0, Protocol::Igmp).is_some());
    }

    proptest! {
        #[test]
        fn any_packets_are_taken(packets in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..60), 0..20,
        )) {
            let mut hearing = Hearing::default();
            for (at, packet) in packets.iter().enumerate() {
                hear(&mut hearing, at as u64, packet);
                let frame =
                    Frame { interface: ETH0, outgoing: false, tag: None, packet, segment: 0 };
                hearing.observe(&frame, seconds(at as u64));
            }
        }
    }
}
