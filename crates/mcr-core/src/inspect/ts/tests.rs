use proptest::prelude::*;

use super::*;

/// A packet with a payload.
pub(crate) fn packet(pid: u16, counter: u8) -> [u8; PACKET] {
    let mut packet = [0xff; PACKET];
    let [high, low] = pid.to_be_bytes();
    packet[..4].copy_from_slice(&[SYNC, high, low, 0x10 | counter & 0xf]);
    packet
}

/// One without a payload; its adaptation field has these flags.
fn adaptation(pid: u16, counter: u8, flags: u8) -> [u8; PACKET] {
    let mut packet = packet(pid, counter);
    (packet[3], packet[4], packet[5]) = (0x20 | counter & 0xf, 183, flags);
    packet
}

fn counts(packets: &[[u8; PACKET]]) -> Counts {
    let mut stream = Stream::default();
    for datagram in packets.chunks(7) {
        assert!(stream.observe(&datagram.concat(), 1));
    }
    stream.counts()
}

fn errors(packets: &[[u8; PACKET]]) -> u64 {
    counts(packets).continuity_errors
}

#[test]
fn counters_go_on_for_each_pid() {
    let packets: Vec<_> =
        (0..100).flat_map(|n| [packet(0, n), packet(0x100, n + 9), packet(0x1fff, 3)]).collect();
    let known = Counts { packets: 300, pids: 2, pat: true, ..Counts::default() };
    assert_eq!(counts(&packets), known);
}

#[test]
fn a_jump_is_one_error() {
    assert_eq!(
        errors(&[packet(5, 14), packet(5, 15), packet(5, 0), packet(5, 4), packet(5, 5)]),
        1
    );
    assert_eq!(errors(&[packet(5, 1), packet(6, 7), packet(5, 3), packet(6, 7), packet(6, 9)]), 2);
    assert_eq!(errors(&[packet(0x1fff, 1), packet(0x1fff, 9)]), 0);
}

#[test]
fn a_packet_may_be_there_twice_but_not_three_times() {
    assert_eq!(errors(&[packet(5, 1), packet(5, 1), packet(5, 2), packet(5, 2)]), 0);
    assert_eq!(errors(&[packet(5, 1), packet(5, 1), packet(5, 1), packet(5, 2)]), 1);
}

#[test]
fn without_a_payload_the_counter_stays() {
    assert_eq!(errors(&[packet(5, 1), adaptation(5, 1, 0), adaptation(5, 1, 0), packet(5, 2)]), 0);
    assert_eq!(errors(&[packet(5, 1), adaptation(5, 2, 0), packet(5, 3)]), 1);
}

#[test]
fn a_discontinuity_that_is_told_is_none() {
    assert_eq!(errors(&[packet(5, 1), adaptation(5, 9, 0x80), packet(5, 10)]), 0);
    let mut told = adaptation(5, 9, 0x80);
    told[3] |= 0x10;
    assert_eq!(errors(&[packet(5, 1), told, packet(5, 10), packet(5, 12)]), 1);
    // An adaptation field of no length has no flags.
    let mut empty = told;
    empty[4] = 0;
    assert_eq!(errors(&[packet(5, 1), empty]), 1);
}

#[test]
fn damaged_and_reserved_packets_are_not_believed() {
    let mut damaged = packet(5, 2);
    damaged[1] |= 0x80;
    let mut strange = packet(7, 9);
    strange[1] |= 0x80;
    let mut reserved = packet(5, 9);
    reserved[3] &= 0xf;
    let known = Counts { packets: 5, transport_errors: 2, pids: 1, ..Counts::default() };
    assert_eq!(counts(&[packet(5, 1), damaged, strange, reserved, packet(5, 3)]), known);
    let mut wrong = damaged;
    wrong[3] |= 0xf;
    let known = Counts { continuity_errors: 1, packets: 3, transport_errors: 1, ..known };
    assert_eq!(counts(&[packet(5, 1), wrong, packet(5, 3)]), known);
}

#[test]
fn sync_bytes_are_missed_where_they_should_be() {
    let mut broken = packet(5, 2);
    broken[0] = 0;
    let known =
        Counts { packets: 3, sync_errors: 1, continuity_errors: 1, pids: 1, ..Counts::default() };
    assert_eq!(counts(&[packet(5, 1), broken, packet(5, 3), packet(5, 4)]), known);
    let mut stream = Stream::default();
    let long = [&packet(5, 1)[..], &[SYNC; 20]].concat();
    assert!(stream.observe(&long, 1));
    assert_eq!((stream.counts().packets, stream.counts().sync_errors), (1, 1));
    for strange in [&[][..], &[SYNC; 187], &[0; 200]] {
        assert!(!stream.observe(strange, 1));
    }
}

#[test]
fn scrambled_packets_are_counted() {
    let mut scrambled = packet(5, 2);
    scrambled[3] |= 0xc0;
    assert_eq!(counts(&[packet(5, 1), scrambled, packet(5, 3)]).scrambled, 1);
}

#[test]
fn what_the_mirror_missed_is_no_error() {
    let mut stream = Stream::default();
    let mut see = |counters: &[u8], batch| {
        let packets: Vec<_> = counters.iter().map(|counter| packet(5, *counter)).collect();
        stream.observe(&packets.concat(), batch);
        if batch == 3 {
            stream.missed(3);
        }
        stream.counts().continuity_errors
    };
    assert_eq!(see(&[1, 2, 4], 1), 1);
    assert_eq!(see(&[5, 6], 2), 1);
    assert_eq!(see(&[9, 11], 3), 1);
    assert_eq!(see(&[1, 2, 3, 5], 4), 2);
}

proptest! {
    #[test]
    fn every_loss_is_an_error(
        lost in prop::collection::vec((0_u16..4, 0_usize..15), 1..300),
    ) {
        // Of each PID so many in a row are lost before each packet: fewer than 15, so that none of the
        // counters comes round to the same.
        let (mut next, mut seen, mut model) = ([0_usize; 4], [false; 4], 0);
        let mut packets = Vec::new();
        for (pid, lost) in lost {
            let at = usize::from(pid);
            next[at] += lost;
            model += u64::from(seen[at] && lost > 0);
            packets.push(packet(pid, (next[at] % 16) as u8));
            (next[at], seen[at]) = (next[at] + 1, true);
        }
        prop_assert_eq!(errors(&packets), model);
    }

    #[test]
    fn any_bytes_are_taken(datagrams in prop::collection::vec(
        (prop::collection::vec(any::<u8>(), 0..600), any::<bool>()), 0..40,
    )) {
        let mut stream = Stream::default();
        for (n, (mut bytes, sync)) in (0..).zip(datagrams) {
            if sync {
                bytes.iter_mut().step_by(PACKET).for_each(|byte| *byte = SYNC);
            }
            stream.observe(&bytes, n / 5);
            if n % 7 == 0 {
                stream.missed(n / 5);
            }
        }
    }
}
