//! mgen: many groups of one range, each with a join of its own at the receiver.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};
use crate::peers::{foreign, listens, rule, start};

/// The receiver leaves out the first and the last groups of the range, and gets nothing of them. One
/// datagram for each group.
pub(crate) fn mgen_joins_five_hundred_groups_of_a_range(plane: Plane) {
    let lab = Lab::chain_ipv4(plane);
    // mgen joins all groups by one socket.
    let limit = "echo 1000 > /proc/sys/net/ipv4/igmp_max_memberships";
    run(lab.command("sink", "sh").args(["-c", limit]));
    let daemon = lab.daemon(&[]);
    rule(&daemon, "239.1.0.0/23:5000@veth1", "239.10.0.0/23:6000@veth2");
    wait_for("512 groups of the rule", || groups(&lab, "relay", 1) == 512);

    let mut script = "0.0 LISTEN UDP 6000\n".to_owned();
    for n in JOINED {
        writeln!(script, "0.0 JOIN {} INTERFACE veth3", group(10, n)).unwrap();
    }
    lab.file("receive.mgn", &script);
    let line = "mgen ipv4 rxbuffer 4194304 input receive.mgn output received.drc flush";
    let receiver = start(foreign(&lab, "sink", line));
    listens(&lab, "sink", 6000, None);
    wait_for("500 groups of mgen", || groups(&lab, "sink", 10) == 500);

    let mut script = String::new();
    for n in 0..512 {
        // One after the other in a second: the buffer of the receiver may not hold them all.
        let (start, flow, group) = (f64::from(n) / 512.0, n + 1, group(1, n));
        writeln!(
            script,
            "{start:.4} ON {flow} UDP SRC 5555 DST {group}/5000 PERIODIC [5 100] COUNT 1"
        )
        .unwrap();
    }
    lab.file("send.mgn", &script);
    let line = "mgen ipv4 interface veth0 ttl 8 input send.mgn output sent.drc";
    run(&mut foreign(&lab, "gen", line));

    let mut received = String::new();
    let expected: BTreeMap<String, usize> = JOINED.map(|n| (group(1, n), 1)).collect();
    wait_for("all datagrams of the groups that mgen joined", || {
        received = fs::read_to_string(lab.folder.path().join("received.drc")).unwrap();
        received.ends_with('\n') && received.matches("RECV").count() >= expected.len()
    });
    drop(receiver);
    // Each datagram holds the group that it was sent to.
    let mut flows = BTreeMap::new();
    for line in received.lines().filter(|line| line.contains("RECV")) {
        assert!(line.contains(" src>10.0.1.1/5555 "), "{line}");
        let (_, sent_to) = line.split_once(" dst>").unwrap();
        let (group, _) = sent_to.split_once('/').unwrap();
        *flows.entry(group.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(flows, expected);
    sums(&daemon.settled("a", 512), 0, 512);
}

/// How many groups of 239.`second`.0.0/16 a namespace has joined.
fn groups(lab: &Lab, role: &str, second: u8) -> usize {
    let output = run(lab.command(role, "cat").arg("/proc/net/igmp"));
    // Hexadecimal, in the byte order of the machine.
    let is_one = |line: &&str| {
        let address = line.split_whitespace().next().unwrap_or_default();
        let octets = u32::from_str_radix(address, 16).unwrap_or_default().to_ne_bytes();
        line.starts_with('\t') && octets[..2] == [239, second]
    };
    String::from_utf8_lossy(&output.stdout).lines().filter(is_one).count()
}

/// A group of a /23.
fn group(second: u8, n: u16) -> String {
    format!("239.{second}.{}.{}", n >> 8, n & 255)
}

const JOINED: std::ops::Range<u16> = 6..506;
