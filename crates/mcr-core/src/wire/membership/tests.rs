use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

fn four(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [224, 0, 0, 1], 1)
        .write(&mut packet, PROTOCOL_IGMP.into(), payload)
        .unwrap();
    packet
}

/// With the hop-by-hop header that MLD always has (router alert).
fn six(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let hop_by_hop = [58, 0, 5, 2, 0, 0, 1, 0];
    let length = (hop_by_hop.len() + payload.len()) as u16;
    packet.extend([0x60, 0, 0, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend("ff02::16".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(hop_by_hop);
    packet.extend(payload);
    packet
}

fn said(packet: &[u8]) -> Option<Message> {
    parse(&Ip::parse(packet).unwrap())
}

fn query(version: u8, group: Option<&str>, milliseconds: u64) -> Option<Message> {
    let group = group.map(|group| group.parse().unwrap());
    Some(Message::Query(Query {
        version,
        group,
        max_response: Duration::from_millis(milliseconds),
    }))
}

fn reported(version: u8, groups: &[(&str, bool)]) -> Option<Message> {
    let group = |(group, member): &(&str, bool)| (group.parse().unwrap(), *member);
    Some(report(version, groups.iter().map(group).collect()))
}

#[test]
fn igmp_of_all_versions_is_understood() {
    let v3 = |code| [0x11, code, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    for (bytes, expected) in [
        (&[0x11, 0, 0, 0, 0, 0, 0, 0][..], query(1, None, 10_000)),
        (&[0x11, 100, 0, 0, 0, 0, 0, 0], query(2, None, 10_000)),
        (&[0x11, 10, 0, 0, 239, 1, 1, 1], query(2, Some("239.1.1.1"), 1000)),
        (&v3(100), query(3, None, 10_000)),
        (&v3(0x8f), query(3, None, 24_800)),
        (&[0x12, 0, 0, 0, 239, 1, 1, 1], reported(1, &[("239.1.1.1", true)])),
        (&[0x16, 0, 0, 0, 239, 1, 1, 1], reported(2, &[("239.1.1.1", true)])),
        (&[0x17, 0, 0, 0, 239, 1, 1, 1], reported(2, &[("239.1.1.1", false)])),
        (
            &[
                0x22, 0, 0, 0, 0, 0, 0, 4, // four records
                4, 0, 0, 0, 239, 1, 1, 1, // to exclude none
                3, 0, 0, 0, 239, 1, 1, 2, // to include none
                1, 1, 0, 1, 232, 1, 1, 3, 10, 0, 0, 9, 1, 2, 3,
                4, // one source, auxiliary data
                6, 0, 0, 1, 232, 1, 1, 4, 10, 0, 0, 9, // one source blocked
            ],
            reported(3, &[("239.1.1.1", true), ("239.1.1.2", false), ("232.1.1.3", true)]),
        ),
        // A record that is not there; seven bytes; PIM of old; DVMRP.
        (&[0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0], None),
        (&[0x16, 0, 0, 0, 239, 1, 1], None),
        (&[0x14, 0, 0, 0, 0, 0, 0, 0], None),
        (&[0x13, 0, 0, 0, 0, 0, 0, 0], None),
    ] {
        assert_eq!(said(&four(bytes)), expected, "{bytes:02x?}");
    }
}

#[test]
fn mld_of_both_versions_is_understood() {
    let group = "ff15::5001".parse::<Ipv6Addr>().unwrap().octets();
    let all = [0; 16];
    let message = |head: [u8; 8], group: [u8; 16], rest: &[u8]| [&head[..], &group, rest].concat();
    for (bytes, expected) in [
        (message([130, 0, 0, 0, 0x27, 0x10, 0, 0], all, &[]), query(1, None, 10_000)),
        (message([130, 0, 0, 0, 0x27, 0x10, 0, 0], all, &[2, 125, 0, 0]), query(2, None, 10_000)),
        (
            message([130, 0, 0, 0, 0x83, 0xe8, 0, 0], group, &[2, 125, 0, 0]),
            query(2, Some("ff15::5001"), 40_768),
        ),
        (message([131, 0, 0, 0, 0, 0, 0, 0], group, &[]), reported(1, &[("ff15::5001", true)])),
        (message([132, 0, 0, 0, 0, 0, 0, 0], group, &[]), reported(1, &[("ff15::5001", false)])),
        (
            [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group].concat(),
            reported(2, &[("ff15::5001", true)]),
        ),
        ([&[143, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0][..], &group].concat(), None),
        // An echo request.
        (message([128, 0, 0, 0, 0, 0, 0, 0], group, &[]), None),
    ] {
        assert_eq!(said(&six(&bytes)), expected, "{bytes:02x?}");
    }
}

#[test]
fn other_protocols_are_none_of_it() {
    let mut udp = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [239, 1, 1, 1], 1)
        .udp(1, 2)
        .write(&mut udp, &[0x11; 8])
        .unwrap();
    assert_eq!(said(&udp), None);
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..4) {
        let _ = (igmp(&bytes), mld(&bytes));
        let first = [0x11, 0x22, 130, 143][at];
        let typed = [&[first][..], &bytes].concat();
        let _ = (igmp(&typed), mld(&typed));
    }

    #[test]
    fn the_groups_of_a_report_are_found(hosts in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = vec![0x22, 0, 0, 0, 0, 0, 0, hosts.len() as u8];
        for host in &hosts {
            bytes.extend([4, 0, 0, 0, 239, 1, 1, *host]);
        }
        let groups: Vec<String> = hosts.iter().map(|host| format!("239.1.1.{host}")).collect();
        let groups: Vec<(&str, bool)> = groups.iter().map(|group| (group.as_str(), true)).collect();
        prop_assert_eq!(said(&four(&bytes)), reported(3, &groups));
    }
}
