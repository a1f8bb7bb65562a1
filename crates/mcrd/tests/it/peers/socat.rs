//! socat: a host that knows nothing of groups, behind the relay or before it.

use std::fs;

use crate::forwarding::sums;
use crate::lab::{Lab, Plane, run, wait_for};
use crate::peers::{Family, IPV4, IPV6, foreign, host, listens, rule, start};
use crate::traffic::Background;

pub(crate) fn socat_gets_a_group_by_unicast_over_ipv4(plane: Plane) {
    gets_a_group_by_unicast(plane, &IPV4);
}

pub(crate) fn socat_gets_a_group_by_unicast_over_ipv6(plane: Plane) {
    gets_a_group_by_unicast(plane, &IPV6);
}

pub(crate) fn socat_sends_unicast_to_a_group_over_ipv4(plane: Plane) {
    sends_unicast_to_a_group(plane, &IPV4);
}

pub(crate) fn socat_sends_unicast_to_a_group_over_ipv6(plane: Plane) {
    sends_unicast_to_a_group(plane, &IPV6);
}

fn gets_a_group_by_unicast(plane: Plane, family: &Family) {
    let lab = Lab::chain_ipv4(plane);
    family.prepare(&lab);
    let daemon = lab.daemon(&[]);
    let input = format!("{}:5000@veth1", host(family.group_in));
    rule(&daemon, &input, &format!("{}:6000", host(family.receiver)));
    let catcher = Catcher::start(&lab, "sink", family.receiver, None);
    send(&lab, family.sender, family.group_in);
    catcher.has_all();
    sums(&daemon.settled("a", DATAGRAMS), 0, DATAGRAMS);
}

fn sends_unicast_to_a_group(plane: Plane, family: &Family) {
    let lab = Lab::chain_ipv4(plane);
    family.prepare(&lab);
    let daemon = lab.daemon(&[]);
    let input = format!("{}:5000@veth1", host(family.relay_in));
    rule(&daemon, &input, &format!("{}:6000@veth2", host(family.group_out)));
    let catcher = Catcher::start(&lab, "sink", family.group_out, Some("veth3"));
    send(&lab, family.sender, family.relay_in);
    catcher.has_all();
    sums(&daemon.settled("a", DATAGRAMS), 0, DATAGRAMS);
    for counter in ["IcmpInDestUnreachs", "Icmp6InDestUnreachs"] {
        assert_eq!(lab.counter("gen", counter), 0, "{counter}: the sender was told to stop");
    }
}

/// Sends the text from an address of `gen`, port 5000.
pub(super) fn send(lab: &Lab, source: &str, to: &str) {
    fs::write(lab.folder.path().join("text"), text()).unwrap();
    let number = if to.contains(':') { 6 } else { 4 };
    let (to, bind) = (host(to), host(source));
    // The TTL of IPv4, the hops of IPv6; a unicast address takes no notice.
    let hops = if number == 6 { "setsockopt-int=41:18:8" } else { "ip-multicast-ttl=8" };
    run(&mut foreign(
        lab,
        "gen",
        &format!("socat -u -b {SIZE} OPEN:text UDP{number}-DATAGRAM:{to}:5000,bind={bind},{hops}"),
    ));
}

/// Receives on port 6000 into a file.
pub(super) struct Catcher<'a> {
    lab: &'a Lab,
    file: String,
    _socat: Background,
}

impl<'a> Catcher<'a> {
    /// Bound to the address, which is a group of the interface where one is named.
    pub(super) fn start(lab: &'a Lab, role: &str, address: &str, join: Option<&str>) -> Self {
        let file = format!("caught-{}", address.replace(':', "-"));
        let (number, option) = match address.contains(':') {
            true => (6, "ipv6-join-group"),
            false => (4, "ip-add-membership"),
        };
        let bind = host(address);
        let join_option =
            join.map(|interface| format!(",{option}={bind}:{interface}")).unwrap_or_default();
        let socat = start(foreign(
            lab,
            role,
            &format!(
                "socat -u UDP{number}-RECV:6000,bind={bind},reuseaddr{join_option},{BUFFER} \
                 OPEN:{file},creat,trunc"
            ),
        ));
        listens(lab, role, 6000, join.map(|interface| (interface, address)));
        Self { lab, file, _socat: socat }
    }

    /// What it has received.
    pub(super) fn caught(&self) -> Vec<u8> {
        // It makes the file a moment after the socket.
        fs::read(self.lab.folder.path().join(&self.file)).unwrap_or_default()
    }

    /// Waits for the whole text, and finds nothing else.
    pub(super) fn has_all(&self) {
        self.has_times(1);
    }

    /// Waits for so many texts.
    pub(super) fn has_times(&self, times: usize) {
        let expected = text().repeat(times);
        wait_for("what was sent", || self.caught().len() >= expected.len());
        assert!(self.caught() == expected, "{} is not what was sent", self.file);
    }
}

/// What is sent: no two datagrams are alike.
fn text() -> Vec<u8> {
    (0..DATAGRAMS).flat_map(|n| format!("{n:0width$}\n", width = SIZE - 1).into_bytes()).collect()
}

/// Few enough that a sender holds them all while it looks for its neighbour.
pub(super) const DATAGRAMS: u64 = 50;
const SIZE: usize = 1000;
/// `SO_RCVBUFFORCE` of `SOL_SOCKET`: a receive buffer beyond the limit of the host.
const BUFFER: &str = "setsockopt-listen=1:33:i4194304";
