//! Group memberships: sockets that join and receive nothing.
//!
//! The kernel counts groups per socket (`igmp_max_memberships`, 20 by default, per network
//! namespace), so a full socket is left as it is and the next one is opened: thousands of groups
//! need no sysctl. The sockets are not bound to a port, so no packet is ever queued on them.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use mcr_core::action::Membership;
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

/// The memberships of this process.
#[derive(Default)]
pub struct JoinSockets {
    sockets: Vec<JoinSocket>,
    held: BTreeMap<Membership, usize>,
    /// Sockets that may have room.
    roomy: Vec<usize>,
}

struct JoinSocket {
    socket: Socket,
    groups: usize,
}

impl JoinSockets {
    /// Joins a group, on a new socket when all are full.
    pub fn join(&mut self, membership: Membership) -> Result<(), Refusal> {
        if self.held.contains_key(&membership) {
            return Ok(());
        }
        loop {
            let index = match self.roomy.last() {
                Some(index) => *index,
                None => self.open().map_err(|error| no_socket(membership, &error))?,
            };
            let JoinSocket { socket, groups } = &mut self.sockets[index];
            match join(socket, membership) {
                Ok(()) => {
                    *groups += 1;
                    self.held.insert(membership, index);
                    return Ok(());
                }
                // The socket is full.
                Err(error) if is_enobufs(&error) && *groups > 0 => {
                    self.roomy.pop();
                }
                Err(error) => return Err(refused(membership, &error)),
            }
        }
    }

    /// Leaves a group. One that is not held is left alone.
    pub fn leave(&mut self, membership: Membership) {
        let Some(index) = self.held.remove(&membership) else { return };
        let JoinSocket { socket, groups } = &mut self.sockets[index];
        let interface = InterfaceIndexOrAddress::Index(membership.interface.0);
        // Also when the interface is deleted: the entry keeps a place on the socket until then.
        let _ = socket.leave_multicast_v4_n(&membership.group, &interface);
        *groups -= 1;
        if !self.roomy.contains(&index) {
            self.roomy.push(index);
        }
    }

    /// Number of sockets used.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    fn open(&mut self) -> io::Result<usize> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        self.sockets.push(JoinSocket { socket, groups: 0 });
        let index = self.sockets.len() - 1;
        self.roomy.push(index);
        Ok(index)
    }
}

fn join(socket: &Socket, Membership { interface, group }: Membership) -> io::Result<()> {
    socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface.0))
}

fn is_enobufs(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// A first join on a new socket has failed: the limit is not the number of groups on it.
fn refused(Membership { interface, group }: Membership, error: &io::Error) -> Refusal {
    let message = format!("the kernel refused to join {group} on {}: {error}", name(interface));
    match error.raw_os_error() {
        Some(libc::ENOBUFS) => {
            let limits = [sysctl("net/ipv4/igmp_max_memberships"), sysctl("net/core/optmem_max")];
            Refusal::new(
                Code::Join,
                format!("{message}; {}", limits.join(", ")),
                "ENOBUFS on a join is a limit of groups a socket or of optmem_max, never of socket \
                 buffers: raise net.ipv4.igmp_max_memberships to at least 1, or net.core.optmem_max",
            )
        }
        Some(libc::ENODEV) => Refusal::new(Code::Join, message, "is the interface still there?"),
        _ => Refusal::new(Code::Join, message, "see igmp(7) of your kernel's documentation"),
    }
}

fn no_socket(Membership { interface, group }: Membership, error: &io::Error) -> Refusal {
    Refusal::new(
        Code::Join,
        format!("no socket to join {group} on {}: {error}", name(interface)),
        "raise the limit of open files (LimitNOFILE= in the unit, `ulimit -n`): every 20 groups \
         take a socket",
    )
}

fn name(interface: IfIndex) -> String {
    crate::netlink::name_of(interface).unwrap_or_else(|_| format!("interface {interface}"))
}

fn sysctl(path: &str) -> String {
    let value = fs::read_to_string(format!("/proc/sys/{path}"));
    let value = value.map_or_else(|error| error.to_string(), |value| value.trim().to_owned());
    format!("{} = {value}", path.replace('/', "."))
}
