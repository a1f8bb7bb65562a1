//! Why the kernel does not join or bind, and what to do about it.

use std::fs;
use std::io;
use std::net::SocketAddr;

use mcr_core::action::Membership;
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};

/// A first join on a new socket has failed: the limit is not the number of groups on it.
pub(super) fn refused(membership: Membership, error: &io::Error) -> Refusal {
    let Membership { interface, group, source } = membership;
    let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
    let message =
        format!("the kernel refused to join {group}{from} on {}: {error}", name(interface));
    match error.raw_os_error() {
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            let (family, sources) = if group.is_ipv4() {
                (Some("net/ipv4/igmp_max_memberships"), "net/ipv4/igmp_max_msf")
            } else {
                (None, "net/ipv6/mld_max_msf")
            };
            let sources = source.map(|_| sources);
            let limits = family.into_iter().chain(sources).chain(["net/core/optmem_max"]);
            let limits: Vec<&str> = limits.collect();
            let values: Vec<String> = limits.iter().map(|limit| sysctl(limit)).collect();
            let names: Vec<String> = limits.iter().map(|limit| limit.replace('/', ".")).collect();
            Refusal::new(
                Code::Join,
                format!("{message}; {}", values.join(", ")),
                format!(
                    "this error of a join is a limit of groups a socket, of sources a group, or of \
                     memory for both, never of socket buffers: raise {} (the counts to at least 1)",
                    names.join(" or ")
                ),
            )
        }
        Some(libc::EINVAL) if group.is_ipv6() => {
            Refusal::new(Code::Join, message, "has the interface IPv6? It needs an MTU of 1280")
        }
        Some(libc::ENODEV) => Refusal::new(Code::Join, message, "is the interface still there?"),
        _ => Refusal::new(Code::Join, message, "see igmp(7) of your kernel's documentation"),
    }
}

/// No socket could be opened.
pub(super) fn no_socket(
    Membership { interface, group, .. }: Membership,
    error: &io::Error,
) -> Refusal {
    Refusal::new(
        Code::Join,
        format!("no socket to join {group} on {}: {error}", name(interface)),
        OPEN_FILES,
    )
}

/// A port could not be bound.
pub(super) fn not_held(address: SocketAddr, error: &io::Error) -> Refusal {
    let message = format!(
        "the kernel refused to bind {address}, which would make it answer senders: {error}"
    );
    let hint = match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => "is it an address of this host? `ip address` shows them",
        Some(libc::ENODEV) => "is the interface still there?",
        Some(libc::EACCES) => "a port below 1024 needs CAP_NET_BIND_SERVICE: run mcrd as root",
        Some(libc::EMFILE | libc::ENFILE) => OPEN_FILES,
        _ => "see bind(2), and udp(7) of your kernel's documentation",
    };
    Refusal::new(Code::Join, message, hint)
}

fn name(interface: IfIndex) -> String {
    crate::netlink::name_of(interface).unwrap_or_else(|_| format!("interface {interface}"))
}

fn sysctl(path: &str) -> String {
    let value = fs::read_to_string(format!("/proc/sys/{path}"));
    let value = value.map_or_else(|error| error.to_string(), |value| value.trim().to_owned());
    format!("{} = {value}", path.replace('/', "."))
}

const OPEN_FILES: &str = "raise the limit of open files (LimitNOFILE= in the unit, `ulimit -n`): \
                          every 20 groups, and every unicast port, take a socket";
