//! iperf 2: numbered datagrams, counted by the receiver; group and source are its own joins.

use std::fs::{self, File};

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};
use crate::peers::{Family, IPV4, IPV6, foreign, host, listens, rule, start};
use crate::promises::passed;
use crate::traffic::Background;

pub(crate) fn iperf_counts_every_datagram_over_ipv4(plane: Plane) {
    counts_every_datagram(plane, &IPV4);
}

pub(crate) fn iperf_counts_every_datagram_over_ipv6(plane: Plane) {
    counts_every_datagram(plane, &IPV6);
}

pub(crate) fn iperf_joins_a_fixed_source_over_ipv4(plane: Plane) {
    joins_a_fixed_source(plane, &IPV4);
}

pub(crate) fn iperf_joins_a_fixed_source_over_ipv6(plane: Plane) {
    joins_a_fixed_source(plane, &IPV6);
}

fn counts_every_datagram(plane: Plane, family: &Family) {
    let lab = Lab::chain_ipv4(plane);
    family.prepare(&lab);
    let daemon = lab.daemon(&[]);
    let input = format!("{}:5000@veth1", host(family.group_in));
    rule(&daemon, &input, &format!("{}:6000@veth2", host(family.group_out)));
    let server = Server::start(&lab, family, family.group_out, None);
    let sent = send(&lab, family, family.group_in);
    server.has_all(sent, family.relay_out);
    sums(&daemon.settled("a", sent), 0, sent);
}

/// The rule takes one sender's datagrams alone, and sends from the address that the receiver joins.
fn joins_a_fixed_source(plane: Plane, family: &Family) {
    let lab = Lab::chain_ipv4(plane);
    family.prepare(&lab);
    let daemon = lab.daemon(&[]);
    let input = format!("{}@{}:5000@veth1", host(family.sender), host(family.ssm_in));
    let output = format!("{}@{}:6000@veth2", host(family.fixed), host(family.ssm_out));
    rule(&daemon, &input, &output);
    let server = Server::start(&lab, family, family.ssm_out, Some(family.fixed));
    assert_eq!(source_joins(&lab, "relay", family), 1, "joins of the relay");
    assert_eq!(source_joins(&lab, "sink", family), 1, "joins of iperf");

    let Family { number, stranger, ssm_in, .. } = family;
    fs::write(lab.folder.path().join("strange"), "not for iperf").unwrap();
    let group = host(ssm_in);
    let bind = host(stranger);
    run(&mut foreign(
        &lab,
        "gen",
        &format!("socat -u OPEN:strange UDP{number}-DATAGRAM:{group}:5000,bind={bind}"),
    ));
    assert_eq!(passed(&daemon, "other-source", 1), 1);

    let sent = send(&lab, family, ssm_in);
    server.has_all(sent, family.fixed);
    sums(&daemon.settled("a", sent), 0, sent);
}

/// The source-specific joins of a namespace.
fn source_joins(lab: &Lab, role: &str, family: &Family) -> usize {
    let path = if family.number == 4 { "/proc/net/mcfilter" } else { "/proc/net/mcfilter6" };
    let output = run(lab.command(role, "cat").arg(path));
    // The first line is the head of the table; the last columns are the sockets that include and
    // exclude the source.
    String::from_utf8_lossy(&output.stdout).lines().skip(1).filter(|l| l.ends_with(" 0")).count()
}

/// Sends to a group; returns how many datagrams, the last of which ends the stream.
fn send(lab: &Lab, family: &Family, group: &str) -> u64 {
    let source = family.sender;
    // A zone chooses the interface where an address does not.
    let (zone, version) = if family.number == 6 { ("%veth0", "-V") } else { ("", "") };
    let output = run(&mut foreign(
        lab,
        "gen",
        &format!(
            "iperf -c {group}{zone} -u {version} -p 5000 -B {source} -T 8 -b 2m -l {SIZE} -n \
             {BYTES} -y C"
        ),
    ));
    let report = String::from_utf8(output.stdout).unwrap();
    let bytes: u64 = report.trim().split(',').nth(7).unwrap().parse().unwrap();
    assert!(bytes > BYTES, "{report}");
    bytes / SIZE
}

/// A receiver, and where it writes its report.
struct Server<'a> {
    lab: &'a Lab,
    _iperf: Background,
}

impl<'a> Server<'a> {
    /// Joins the group on the receiver's link, of one source or of any.
    fn start(lab: &'a Lab, family: &Family, group: &str, source: Option<&str>) -> Self {
        let version = if family.number == 6 { "-V" } else { "" };
        let source = source.map(|source| format!("-H {source}")).unwrap_or_default();
        let line = format!("iperf -s -u {version} -B {group}%veth3 {source} -p 6000 -y C");
        let mut command = foreign(lab, "sink", &line);
        command.stdout(File::create(lab.folder.path().join(REPORT)).unwrap());
        let iperf = start(command);
        listens(lab, "sink", 6000, Some(("veth3", group)));
        Self { lab, _iperf: iperf }
    }

    /// Waits for the report: all these datagrams from this address, none lost or out of order.
    fn has_all(self, sent: u64, source: &str) {
        let mut report = String::new();
        wait_for("the report of iperf", || {
            report = fs::read_to_string(self.lab.folder.path().join(REPORT)).unwrap();
            report.ends_with('\n')
        });
        let fields: Vec<&str> = report.trim().split(',').collect();
        let number = |field: usize| -> u64 { fields[field].parse().unwrap() };
        assert_eq!(fields[1], source, "{report}");
        let (bytes, lost, total, reordered) = (number(7), number(10), number(11), number(13));
        assert_eq!((bytes, lost, total, reordered), (sent * SIZE, 0, sent, 0), "{report}");
    }
}

/// All of them fit into a receive buffer of the kernel's default size, which takes about 165 of this
/// size: a receiver may be late on a busy machine.
const SIZE: u64 = 200;
const BYTES: u64 = 100 * SIZE;
const REPORT: &str = "iperf.csv";
