//! Who sends to a rule and since when it was quiet; and senders that its outputs make one stream of,
//! told once, while it lasts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Running;
use crate::action::{PlaneRule, SecondSender};
use crate::rule::{Rule, RuleKey};
use crate::senders::{SENDERS, Senders};

/// Senders seen within this time send at once.
const AT_ONCE: Duration = Duration::from_secs(10);
/// A sender that was quiet for so long is told of again.
const QUIET: Duration = Duration::from_secs(60);

/// The last senders of a rule, the latest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Vec<HeardSender>);

#[derive(Debug, Clone, Copy)]
pub(super) struct HeardSender {
    pub(super) address: IpAddr,
    pub(super) packets: u64,
    /// At this reading of the counters it had sent since the one before.
    pub(super) at: Instant,
    seen: u64,
}

impl Heard {
    pub(super) fn iter(&self) -> impl Iterator<Item = &HeardSender> {
        self.0.iter()
    }

    /// The counters say this now. What comes into sight only because another has lost its place was
    /// seen no later than the ones before it.
    pub(super) fn observe(&mut self, senders: &Senders, now: Instant) {
        let before = std::mem::take(&mut self.0);
        let latest = before.first().map(|sender| sender.seen);
        for sender in senders.iter() {
            let known = before.iter().find(|known| known.address == sender.address);
            let after = self.0.last().map_or(now, |after| after.at);
            let at = match known {
                Some(known) if sender.seen <= known.seen => known.at,
                None if latest.is_some_and(|latest| sender.seen < latest) => after,
                Some(_) | None => now,
            };
            let (address, packets, seen) = (sender.address, sender.packets, sender.seen);
            self.0.push(HeardSender { address, packets, at, seen });
        }
    }
}

/// The senders of a rule that the operator has been told of, and when each was last seen. At most
/// [`SENDERS`]: there is nothing more to say of a rule with many.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(BTreeMap<IpAddr, Instant>);

impl Told {
    /// The senders that send at once, the latest first, when that is news.
    fn observe(&mut self, heard: &Heard, now: Instant) -> Option<Vec<IpAddr>> {
        if self.0.is_empty() && heard.0.len() < 2 {
            return None;
        }
        let within = |at: Instant, time: Duration| now.saturating_duration_since(at) <= time;
        for sender in heard.iter() {
            if let Some(told) = self.0.get_mut(&sender.address) {
                *told = sender.at;
            }
        }
        self.0.retain(|_, at| within(*at, QUIET));
        let recent: Vec<&HeardSender> =
            heard.iter().filter(|sender| within(sender.at, AT_ONCE)).collect();
        let is_news = |sender: &&HeardSender| !self.0.contains_key(&sender.address);
        let room = SENDERS.saturating_sub(self.0.len());
        let news = recent.iter().copied().filter(is_news).take(room);
        let news: Vec<_> = news.map(|sender| (sender.address, sender.at)).collect();
        if recent.len() < 2 || news.is_empty() {
            return None;
        }
        self.0.extend(news);
        Some(recent.iter().map(|sender| sender.address).collect())
    }
}

impl Running {
    /// What to warn of, when a second sender has appeared beside the first, or another beside both.
    pub(super) fn second_sender(
        &mut self,
        (key, rule): (&RuleKey, &Rule),
        now: Instant,
    ) -> Option<SecondSender> {
        if !self.installed.as_ref().is_some_and(merges) {
            self.told = Told::default();
            return None;
        }
        let senders = self.told.observe(&self.heard, now)?;
        let text = advice(rule, &senders);
        Some(SecondSender { rule: key.clone(), senders, text })
    }
}

/// Whether the rule makes one stream of what several send. In a range each group may well have a
/// sender of its own, and the plane does not count them apart.
fn merges(rule: &PlaneRule) -> bool {
    let rewrites = rule.outputs.iter().any(|o| o.absent.is_none() && o.source.is_some());
    rewrites && rule.take.sources.is_empty() && !rule.take.is_range()
}

fn advice(rule: &Rule, senders: &[IpAddr]) -> String {
    let all: Vec<String> = senders.iter().map(IpAddr::to_string).collect();
    let what = format!(
        "{} send to {} at once, and behind its outputs nobody can tell their packets apart",
        all.join(" and "),
        rule.input
    );
    let mut one = rule.input.clone();
    one.sources.extend(senders.last());
    if rule.input.addresses.first().is_multicast() {
        format!(
            "{what}: name the sender that is meant in the input (as in {one}), make a rule for each, or \
             let the outputs keep the source"
        )
    } else {
        format!("{what}: let each send to a port of its own, or let the outputs keep the source")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::senders::Sender;

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    /// A rule's senders, read at times in seconds after the start.
    struct Read {
        start: Instant,
        heard: Heard,
        told: Told,
    }

    impl Read {
        fn new() -> Self {
            Self { start: Instant::now(), heard: Heard::default(), told: Told::default() }
        }

        /// What is told when the plane shows these hosts with these stamps.
        fn at(&mut self, now: u64, seen: &[(u8, u64)]) -> Option<Vec<IpAddr>> {
            let sender =
                |(host, seen): &(u8, u64)| Sender { address: ip(*host), packets: 1, seen: *seen };
            let now = self.start + Duration::from_secs(now);
            self.heard.observe(&Senders::merge(seen.iter().map(sender)), now);
            self.told.observe(&self.heard, now)
        }

        /// Last seen, in seconds.
        fn seen(&self) -> Vec<(IpAddr, u64)> {
            let seen = |sender: &HeardSender| (sender.address, (sender.at - self.start).as_secs());
            self.heard.iter().map(seen).collect()
        }
    }

    #[test]
    fn a_sender_was_seen_when_its_stamp_has_grown() {
        let mut read = Read::new();
        read.at(1, &[(1, 100)]);
        read.at(2, &[(1, 100)]);
        assert_eq!(read.seen(), [(ip(1), 1)]);
        read.at(3, &[(1, 100), (2, 105)]);
        read.at(4, &[(1, 110), (2, 105)]);
        assert_eq!(read.seen(), [(ip(1), 4), (ip(2), 3)]);
        // A CPU has given the place of its stamp away, and an old one has come into sight.
        read.at(5, &[(1, 110), (2, 90), (3, 80)]);
        assert_eq!(read.seen(), [(ip(1), 4), (ip(2), 3), (ip(3), 3)]);
        read.at(6, &[]);
        assert_eq!(read.seen(), []);
    }

    #[test]
    fn two_that_send_at_once_are_told_of_once() {
        let mut read = Read::new();
        assert_eq!(read.at(100, &[(1, 100)]), None);
        assert_eq!(read.at(111, &[(1, 100), (2, 111)]), None, "the first has ended");
        assert_eq!(read.at(121, &[(1, 121), (2, 111)]), Some(vec![ip(1), ip(2)]));
        for now in 122..=160 {
            assert_eq!(read.at(now, &[(1, now), (2, now)]), None);
        }
    }

    #[test]
    fn a_third_is_told_of_too_and_many_are_no_flood() {
        let mut read = Read::new();
        assert_eq!(read.at(100, &[(1, 100), (2, 99)]), Some(vec![ip(1), ip(2)]));
        let three = [(1, 100), (2, 99), (3, 101)];
        assert_eq!(read.at(101, &three), Some(vec![ip(3), ip(1), ip(2)]));
        let mut warnings = 0;
        for now in 102..222_u64 {
            let four: Vec<_> = (0..4).map(|n| ((now % 50 * 4 + n) as u8, now)).collect();
            warnings += usize::from(read.at(now, &four).is_some());
        }
        assert!(warnings <= 8, "{warnings} in two minutes");
    }

    #[test]
    fn who_comes_back_after_a_minute_is_told_of_again() {
        let mut read = Read::new();
        assert!(read.at(100, &[(1, 100), (2, 100)]).is_some());
        assert_eq!(read.at(130, &[(1, 130), (2, 100)]), None);
        assert_eq!(read.at(155, &[(1, 155), (2, 155)]), None, "not quiet for a minute");
        assert_eq!(read.at(216, &[(1, 216), (2, 155)]), None);
        assert_eq!(read.at(217, &[(1, 217), (2, 217)]), Some(vec![ip(1), ip(2)]));
    }
}
