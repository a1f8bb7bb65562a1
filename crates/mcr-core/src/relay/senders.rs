//! Senders of a rule that its outputs make one stream of: told once, while it lasts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Running;
use crate::action::{PlaneRule, SecondSender};
use crate::rule::{Rule, RuleKey};
use crate::senders::{SENDERS, Sender, Senders};

/// Senders seen within this time send at once.
const AT_ONCE: Duration = Duration::from_secs(10);
/// A sender that was quiet for so long is told of again.
const QUIET: Duration = Duration::from_secs(60);

/// The senders of a rule that the operator has been told of, and when each was last seen. At most
/// [`SENDERS`]: there is nothing more to say of a rule with many.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(BTreeMap<IpAddr, u64>);

impl Told {
    /// The senders that send at once, the latest first, when that is news.
    fn observe(&mut self, senders: &Senders, now: u64) -> Option<Vec<IpAddr>> {
        if self.0.is_empty() && senders.iter().count() < 2 {
            return None;
        }
        let within =
            |seen: u64, time: Duration| u128::from(now.saturating_sub(seen)) <= time.as_nanos();
        for Sender { address, seen, .. } in senders.iter() {
            if let Some(told) = self.0.get_mut(address) {
                *told = *seen;
            }
        }
        self.0.retain(|_, seen| within(*seen, QUIET));
        let recent = senders.iter().filter(|sender| within(sender.seen, AT_ONCE));
        let recent: Vec<Sender> = recent.copied().collect();
        let is_news = |sender: &Sender| !self.0.contains_key(&sender.address);
        let room = SENDERS.saturating_sub(self.0.len());
        if recent.len() < 2 || room == 0 || !recent.iter().any(is_news) {
            return None;
        }
        let news: Vec<_> = recent.iter().filter(|sender| is_news(sender)).take(room).collect();
        let news: Vec<_> = news.iter().map(|sender| (sender.address, sender.seen)).collect();
        self.0.extend(news);
        Some(recent.iter().map(|sender| sender.address).collect())
    }
}

impl Running {
    /// What to warn of, when a second sender has appeared beside the first, or another beside both.
    pub(super) fn second_sender(
        &mut self,
        (key, rule): (&RuleKey, &Rule),
        senders: &Senders,
        now: u64,
    ) -> Option<SecondSender> {
        if !self.installed.as_ref().is_some_and(merges) {
            self.told = Told::default();
            return None;
        }
        let senders = self.told.observe(senders, now)?;
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

    const SECOND: u64 = 1_000_000_000;

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    /// What is told at a time in seconds, of senders that were seen at these times.
    fn at(told: &mut Told, now: u64, seen: &[(u8, u64)]) -> Option<Vec<IpAddr>> {
        let sender = |(host, seen): &(u8, u64)| Sender {
            address: ip(*host),
            packets: 1,
            seen: seen * SECOND,
        };
        told.observe(&Senders::merge(seen.iter().map(sender)), now * SECOND)
    }

    #[test]
    fn two_that_send_at_once_are_told_of_once() {
        let mut told = Told::default();
        assert_eq!(at(&mut told, 100, &[(1, 100)]), None);
        assert_eq!(at(&mut told, 111, &[(1, 100), (2, 111)]), None, "the first has ended");
        assert_eq!(at(&mut told, 121, &[(1, 121), (2, 111)]), Some(vec![ip(1), ip(2)]));
        for now in 121..=160 {
            assert_eq!(at(&mut told, now, &[(1, now), (2, now)]), None);
        }
    }

    #[test]
    fn a_third_is_told_of_too_and_many_are_no_flood() {
        let mut told = Told::default();
        assert_eq!(at(&mut told, 100, &[(1, 100), (2, 99)]), Some(vec![ip(1), ip(2)]));
        let three = [(1, 100), (2, 99), (3, 101)];
        assert_eq!(at(&mut told, 101, &three), Some(vec![ip(3), ip(1), ip(2)]));
        let mut warnings = 0;
        for now in 102..222_u64 {
            let four: Vec<_> = (0..4).map(|n| ((now % 50 * 4 + n) as u8, now)).collect();
            warnings += usize::from(at(&mut told, now, &four).is_some());
        }
        assert!(warnings <= 4, "{warnings} in two minutes");
    }

    #[test]
    fn who_comes_back_after_a_minute_is_told_of_again() {
        let mut told = Told::default();
        assert!(at(&mut told, 100, &[(1, 100), (2, 100)]).is_some());
        assert_eq!(at(&mut told, 130, &[(1, 130), (2, 100)]), None);
        assert_eq!(at(&mut told, 155, &[(1, 155), (2, 155)]), None, "not quiet for a minute");
        assert_eq!(at(&mut told, 216, &[(1, 216), (2, 155)]), None);
        assert_eq!(at(&mut told, 217, &[(1, 217), (2, 217)]), Some(vec![ip(1), ip(2)]));
    }
}
