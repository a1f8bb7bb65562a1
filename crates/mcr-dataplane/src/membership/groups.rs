//! Sockets that join groups.
//!
//! The kernel counts groups per socket (`igmp_max_memberships`, 20 by default, per network
//! namespace), sources per group and socket (`igmp_max_msf`, 10; `mld_max_msf`, 64), and the memory
//! of both (`optmem_max`). A full socket is left as it is and the next one is opened: thousands of
//! groups need no sysctl. A socket without groups is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use mcr_core::action::Membership;
use mcr_core::link::IfIndex;
use mcr_core::refusal::Refusal;
use socket2::{Domain, Protocol, Socket, Type};

use super::refusals::{no_socket, refused};
use crate::sys::groups;

/// The most groups of a socket, where the kernel takes more: it searches them one by one.
const GROUPS_MAX: usize = 512;

type Group = (IfIndex, IpAddr);

/// Sockets of one family, all joined from anyone, or all from named sources.
#[derive(Default)]
pub(super) struct Pool {
    sockets: BTreeMap<usize, JoinSocket>,
    next: usize,
    held: BTreeMap<Membership, usize>,
    /// Sockets that may have room for one more group.
    roomy: BTreeSet<usize>,
    /// For groups from named sources: a socket that has the group, and may take one more source.
    growing: BTreeMap<Group, usize>,
}

struct JoinSocket {
    socket: Socket,
    /// Memberships of each group: 1, or the number of its sources.
    groups: BTreeMap<Group, usize>,
}

impl Pool {
    pub(super) fn join(&mut self, membership: Membership) -> Result<(), Refusal> {
        if self.held.contains_key(&membership) {
            return Ok(());
        }
        let group = (membership.interface, membership.group);
        if let Some(id) = self.growing.get(&group).copied() {
            match self.join_on(id, membership) {
                Err(error) if is_full(&error) => self.growing.remove(&group),
                result => return result.map_err(|error| refused(membership, &error)),
            };
        }
        loop {
            let id = match self.with_room_for(&group) {
                Some(id) => id,
                None => {
                    self.open(membership.group).map_err(|error| no_socket(membership, &error))?
                }
            };
            match self.join_on(id, membership) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) && !self.is_empty(id) => {
                    self.roomy.remove(&id);
                }
                Err(error) => {
                    self.close_empty(id);
                    return Err(refused(membership, &error));
                }
            }
        }
    }

    pub(super) fn leave(&mut self, membership: Membership) {
        let group = (membership.interface, membership.group);
        let Some(id) = self.held.remove(&membership) else { return };
        let Some(JoinSocket { socket, groups }) = self.sockets.get_mut(&id) else { return };
        // Also when the interface is deleted: the entry keeps a place on the socket until then. A
        // source is no longer to be found in that case, and its group is.
        let left = groups::leave(socket, membership);
        if left.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV)) {
            let _ = groups::leave(socket, Membership { source: None, ..membership });
        }
        let memberships = groups.entry(group).or_default();
        *memberships = memberships.saturating_sub(1);
        if *memberships > 0 {
            self.growing.insert(group, id);
        } else {
            groups.remove(&group);
            self.roomy.insert(id);
            if self.growing.get(&group) == Some(&id) {
                self.growing.remove(&group);
            }
        }
        self.close_empty(id);
    }

    /// What is joined from named sources.
    pub(super) fn sourced(&self) -> impl Iterator<Item = Membership> {
        self.held.keys().filter(|membership| membership.source.is_some()).copied()
    }

    pub(super) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    fn join_on(&mut self, id: usize, membership: Membership) -> io::Result<()> {
        let group = (membership.interface, membership.group);
        let Some(JoinSocket { socket, groups }) = self.sockets.get_mut(&id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Err(error) = groups::join(socket, membership) {
            // The kernel joins the group before it looks at the source.
            if membership.source.is_some() && !groups.contains_key(&group) {
                let _ = groups::leave(socket, Membership { source: None, ..membership });
            }
            return Err(error);
        }
        *groups.entry(group).or_default() += 1;
        if groups.len() >= GROUPS_MAX {
            self.roomy.remove(&id);
        }
        if membership.source.is_some() {
            self.growing.insert(group, id);
        }
        self.held.insert(membership, id);
        Ok(())
    }

    /// A group is joined once on a socket; more sources than fit there go to another.
    fn with_room_for(&self, group: &Group) -> Option<usize> {
        let lacks = |id: &&usize| {
            self.sockets.get(id).is_some_and(|socket| !socket.groups.contains_key(group))
        };
        self.roomy.iter().rev().find(lacks).copied()
    }

    fn open(&mut self, family: IpAddr) -> io::Result<usize> {
        let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        let id = self.next;
        self.next += 1;
        self.sockets.insert(id, JoinSocket { socket, groups: BTreeMap::new() });
        self.roomy.insert(id);
        Ok(id)
    }

    fn is_empty(&self, id: usize) -> bool {
        self.sockets.get(&id).is_none_or(|socket| socket.groups.is_empty())
    }

    fn close_empty(&mut self, id: usize) {
        if self.is_empty(id) {
            self.sockets.remove(&id);
            self.roomy.remove(&id);
        }
    }
}

/// ENOBUFS, or for the memory of an IPv6 group ENOMEM.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Whether an interface speaks IGMPv1 or IGMPv2, as a querier on it or an operator has said.
pub(super) fn is_igmp_old() -> bool {
    // For each interface `INDEX NAME: COUNT VERSION`, and a line for each group, which is indented.
    let text = std::fs::read_to_string("/proc/thread-self/net/igmp").unwrap_or_default();
    text.lines().any(|line| {
        let version = line.split_once(':').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        matches!(version, Some("V1" | "V2"))
    })
}
