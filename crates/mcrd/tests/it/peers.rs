//! Programs that nobody here wrote, before and behind the relay.
//!
//! Each test sends and receives by foreign programs, counts at the receiver, and then asks MCR for
//! the same number. They are ready when the kernel shows their socket and their group.

mod ffmpeg;
mod iperf;
mod mgen;
mod smcroute;
mod socat;
mod tcpreplay;

use std::process::{Command, Stdio};

use crate::lab::{Daemon, Lab, run, wait_for};
use crate::traffic::Background;

pub(crate) use ffmpeg::{
    ffmpeg_decodes_the_frames_of_a_transport_stream,
    ffmpeg_decodes_the_frames_of_rtp_and_ends_by_rtcp,
    ffmpeg_sends_transport_streams_that_are_found_whole,
};
pub(crate) use iperf::{
    iperf_counts_every_datagram_over_ipv4, iperf_counts_every_datagram_over_ipv6,
    iperf_joins_a_fixed_source_over_ipv4, iperf_joins_a_fixed_source_over_ipv6,
};
pub(crate) use mgen::mgen_joins_five_hundred_groups_of_a_range;
pub(crate) use smcroute::smcroute_routes_on_what_has_hops_left;
pub(crate) use socat::{
    socat_gets_a_group_by_unicast_over_ipv4, socat_gets_a_group_by_unicast_over_ipv6,
    socat_sends_unicast_to_a_group_over_ipv4, socat_sends_unicast_to_a_group_over_ipv6,
};
pub(crate) use tcpreplay::tcpreplay_repeats_a_capture;

/// A family: the addresses of the lab, and groups.
struct Family {
    /// What programs call it.
    number: u8,
    sender: &'static str,
    /// A second address of the sender's host.
    stranger: &'static str,
    relay_in: &'static str,
    relay_out: &'static str,
    receiver: &'static str,
    /// Of the receiver's link, and of nobody.
    fixed: &'static str,
    group_in: &'static str,
    group_out: &'static str,
    ssm_in: &'static str,
    ssm_out: &'static str,
}

const IPV4: Family = Family {
    number: 4,
    sender: "10.0.0.1",
    stranger: "10.0.0.7",
    relay_in: "10.0.0.2",
    relay_out: "10.0.1.1",
    receiver: "10.0.1.2",
    fixed: "10.0.1.9",
    group_in: "239.1.1.1",
    group_out: "239.10.1.1",
    ssm_in: "232.1.1.1",
    ssm_out: "232.10.1.1",
};

const IPV6: Family = Family {
    number: 6,
    sender: "fd00::1",
    stranger: "fd00::7",
    relay_in: "fd00::2",
    relay_out: "fd00:1::1",
    receiver: "fd00:1::2",
    fixed: "fd00:1::9",
    group_in: "ff15::5001",
    group_out: "ff15::6001",
    ssm_in: "ff3e::8000:1",
    ssm_out: "ff3e::8000:2",
};

impl Family {
    /// Gives the chain its addresses, where it has none yet.
    fn prepare(&self, lab: &Lab) {
        let ends = [
            ("gen", "veth0", self.sender),
            ("relay", "veth1", self.relay_in),
            ("relay", "veth2", self.relay_out),
            ("sink", "veth3", self.receiver),
        ];
        match self.number {
            4 => lab.ip("gen", &format!("address add {}/24 dev veth0", self.stranger)),
            _ => {
                // Without `nodad` an address is tentative for a second.
                for (role, interface, address) in ends {
                    lab.ip(role, &format!("address add {address}/64 dev {interface} nodad"));
                }
                lab.ip("gen", &format!("address add {}/64 dev veth0 nodad", self.stranger));
            }
        }
    }
}

/// An address before a port: IPv6 in brackets.
fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.into() }
}

/// A program with its arguments, in a namespace and in the folder of the lab. One that is missing
/// fails the test.
fn foreign(lab: &Lab, role: &str, line: &str) -> Command {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let (_, package) = PACKAGES.iter().find(|(name, _)| *name == program).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    assert!(
        std::env::split_paths(&path).any(|folder| folder.join(program).exists()),
        "{program} is missing: install the Debian package {package}, or run scripts/setup.sh test"
    );
    let mut command = lab.command(role, program);
    command.args(words).current_dir(lab.folder.path());
    // What it complains of is shown by `run` and `finish`; what it says beside is nobody's concern.
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts one that goes on beside the test.
fn start(mut command: Command) -> Background {
    Background(Some(command.spawn().unwrap()))
}

/// Waits until a socket has the port and the interface the group.
fn listens(lab: &Lab, role: &str, port: u16, joined: Option<(&str, &str)>) {
    wait_for(&format!("a socket of port {port}"), || {
        let mut sockets = lab.command(role, "ss");
        sockets.args(["-H", "-a", "-n", "-u", &format!("sport = :{port}")]);
        !run(&mut sockets).stdout.is_empty()
    });
    if let Some((interface, group)) = joined {
        let name = format!("\"{group}\"");
        wait_for(&format!("{group} joined on {interface}"), || {
            let mut groups = Command::new("ip");
            groups.args(["-n", &lab.namespace(role), "-j", "maddress", "show", "dev", interface]);
            String::from_utf8_lossy(&run(&mut groups).stdout).contains(&name)
        });
    }
}

/// Adds a rule called `a` and waits until it is ready for packets.
fn rule(daemon: &Daemon, input: &str, output: &str) {
    daemon.ok(&["add", input, output, "--name", "a"]);
    // The neighbour of a unicast output answers a moment later.
    wait_for(&format!("{input} {output}"), || daemon.state("a").0 == "idle");
}

/// Foreign programs and their Debian packages.
const PACKAGES: [(&str, &str); 7] = [
    ("ffmpeg", "ffmpeg"),
    ("iperf", "iperf"),
    ("mgen", "mgen"),
    ("smcrouted", "smcroute"),
    ("socat", "socat"),
    ("tcpdump", "tcpdump"),
    ("tcpreplay", "tcpreplay"),
];
