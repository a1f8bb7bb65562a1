use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

struct Words([AtomicU64; WORDS]);

impl Words {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn note(&self, host: u8, packets: u64, now: u64) {
        Table::new(&self.0).note(ip(host), packets, now);
    }

    /// Address, packets and time of each, the latest first.
    fn shown(&self) -> Vec<(IpAddr, u64, u64)> {
        shown(&Senders::merge(Table::new(&self.0).senders()))
    }
}

fn shown(senders: &Senders) -> Vec<(IpAddr, u64, u64)> {
    senders.iter().map(|s| (s.address, s.packets, s.seen)).collect()
}

fn ip(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

#[test]
fn each_sender_is_counted_and_the_latest_comes_first() {
    let words = Words::new();
    assert_eq!(words.shown(), []);
    for (host, packets, now) in [(1, 1, 10), (2, 5, 20), (1, 1, 30), (3, 2, 40), (2, 1, 50)] {
        words.note(host, packets, now);
    }
    assert_eq!(words.shown(), [(ip(2), 6, 50), (ip(3), 2, 40), (ip(1), 2, 30)]);
}

#[test]
fn a_fifth_sender_takes_the_place_of_the_one_not_seen_for_longest() {
    let words = Words::new();
    (1..=4).for_each(|host| words.note(host, 10, host.into()));
    words.note(1, 1, 5);
    words.note(5, 1, 6);
    let rest = [(ip(5), 1, 6), (ip(1), 11, 5), (ip(4), 10, 4), (ip(3), 10, 3)];
    assert_eq!(words.shown(), rest);
    words.note(2, 1, 7);
    assert_eq!(words.shown()[0], (ip(2), 1, 7), "it begins anew");
}

/// The kernel's ticks are up to 10 ms apart, and the packet plane looks at its clock once a batch.
#[test]
fn while_the_clock_stands_still_the_first_in_turn_gives_way_and_never_the_latest() {
    let words = Words::new();
    for host in 1..=8 {
        words.note(host, 1, 7);
    }
    let mut left: Vec<IpAddr> = words.shown().into_iter().map(|(address, ..)| address).collect();
    left.sort();
    assert_eq!(left, [5, 6, 7, 8].map(ip));
}

#[test]
fn addresses_of_both_families_come_out_as_they_went_in() {
    for text in ["10.0.0.1", "0.0.0.0", "255.255.255.255", "fd00::1", "::", "2001:db8::ffff:1"] {
        let (words, address) = (Words::new(), text.parse().unwrap());
        Table::new(&words.0).note(address, 3, 9);
        assert_eq!(words.shown(), [(address, 3, 9)]);
    }
    let v6: [u8; 16] = "fd00:1:2:3:4:5:6:7".parse::<Ipv6Addr>().unwrap().octets();
    let words = raw(v6.into()).map(u64::to_ne_bytes);
    assert_eq!(words.concat(), v6, "in network byte order");
}

#[test]
fn tables_are_summed_up_before_the_latest_are_taken() {
    let sender = |host, packets, seen| Sender { address: ip(host), packets, seen };
    let first = [(1, 10, 100), (2, 10, 20), (3, 10, 30), (4, 10, 40)];
    let second = [(5, 1, 50), (6, 1, 60), (7, 1, 70), (2, 1, 200)];
    let all = first.into_iter().chain(second).map(|(host, n, seen)| sender(host, n, seen));
    let merged = [(ip(2), 11, 200), (ip(1), 10, 100), (ip(7), 1, 70), (ip(6), 1, 60)];
    assert_eq!(shown(&Senders::merge(all)), merged);
}

proptest! {
    /// Against a list of all senders that forgets what a place in the table forgets.
    #[test]
    fn the_last_four_are_remembered(
        packets in prop::collection::vec((0_u8..8, 1_u64..70, 1_u64..3), 0..200),
    ) {
        let words = Words::new();
        let mut model: BTreeMap<IpAddr, (u64, u64)> = BTreeMap::new();
        let mut now = 0;
        for (host, count, pause) in packets {
            now += pause;
            words.note(host, count, now);
            if !model.contains_key(&ip(host)) && model.len() == SENDERS {
                let oldest = *model.iter().min_by_key(|(_, (_, seen))| *seen).unwrap().0;
                model.remove(&oldest);
            }
            let (sum, seen) = model.entry(ip(host)).or_default();
            (*sum, *seen) = (*sum + count, now);
            let mut expected: Vec<_> =
                model.iter().map(|(address, (sum, seen))| (*address, *sum, *seen)).collect();
            expected.sort_by_key(|(_, _, seen)| Reverse(*seen));
            prop_assert_eq!(words.shown(), expected);
        }
    }

    /// However packets fall to the tables, nothing is counted twice or lost while four can hold all.
    #[test]
    fn packets_that_fall_to_several_tables_are_all_there(
        packets in prop::collection::vec((0_usize..3, 0_u8..4, 1_u64..70), 0..200),
    ) {
        let tables = [Words::new(), Words::new(), Words::new()];
        let mut sums: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for (now, (table, host, count)) in (1..).zip(packets) {
            tables[table].note(host, count, now);
            *sums.entry(ip(host)).or_default() += count;
        }
        let all = tables.iter().flat_map(|words| Table::new(&words.0).senders());
        let merged: BTreeMap<IpAddr, u64> =
            Senders::merge(all).iter().map(|s| (s.address, s.packets)).collect();
        prop_assert_eq!(merged, sums);
    }
}
