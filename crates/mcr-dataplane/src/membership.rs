//! What makes this host receive: groups that are joined, and unicast ports that are held.
//!
//! Either is a socket that receives nothing. No packet is ever queued on those that join, since they
//! are bound to no port, and those that hold a port drop everything.

mod filters;
mod groups;
mod ports;
mod refusals;

use std::time::Duration;

use mcr_core::action::{Claim, Membership};
use mcr_core::refusal::Refusal;

use groups::Pool;
pub use ports::HELD_MARK;
use ports::Ports;

/// Joins at once, where each is a packet.
const BURST: usize = 200;
/// Two ticks of a kernel with HZ=100.
const BETWEEN_BURSTS: Duration = Duration::from_millis(20);

/// The memberships and the held ports of this process.
#[derive(Default)]
pub struct JoinSockets {
    /// IPv4 and IPv6, each from anyone and from named sources: the kernel does not take both for
    /// one group on one socket.
    pools: [Pool; 4],
    ports: Ports,
}

impl JoinSockets {
    /// Joins a group, on a new socket when all are full; or holds a port.
    pub fn join(&mut self, claim: Claim) -> Result<(), Refusal> {
        match claim {
            Claim::Group(membership) => self.pool(membership).join(membership),
            Claim::Port(address) => self.ports.hold(address),
        }
    }

    /// The same for many, in bursts that a network can take.
    ///
    /// Before IGMPv3 each group is a packet of its own, and the kernel sends the first ones of all in
    /// one tick of its clock (`IGMP_INITIAL_REPORT_DELAY`), before it delivers any: a veth pair drops
    /// what is more than `net.core.netdev_max_backlog`, 1,000 by default. IGMPv3 and MLDv2 need few
    /// packets, and MLDv1 sends while it joins.
    pub async fn join_all(&mut self, claims: Vec<Claim>) -> Vec<(Claim, Result<(), Refusal>)> {
        let at_once =
            if claims.len() > BURST && groups::is_igmp_old() { BURST } else { usize::MAX };
        let mut results = Vec::with_capacity(claims.len());
        for burst in claims.chunks(at_once) {
            if !results.is_empty() {
                tokio::time::sleep(BETWEEN_BURSTS).await;
            }
            results.extend(burst.iter().map(|claim| (*claim, self.join(*claim))));
        }
        results
    }

    /// Leaves a group, or gives up a port. What is not held is left alone.
    pub fn leave(&mut self, claim: Claim) {
        match claim {
            Claim::Group(membership) => self.pool(membership).leave(membership),
            Claim::Port(address) => self.ports.give_up(address),
        }
    }

    /// Joins again what the kernel has forgotten. To be called when an interface may have been down:
    /// it comes up with its groups, and without their sources, for which it no longer asks then.
    pub fn join_again(&mut self) {
        if self.pools.iter().all(|pool| pool.sourced().next().is_none()) {
            return;
        }
        let known = match filters::read() {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "sources not read; streams of an interface that was down may stay away");
                return;
            }
        };
        for pool in &mut self.pools {
            let lost: Vec<_> = pool.sourced().filter(|held| !known.contains(held)).collect();
            // All of a group first: the last source takes it along.
            lost.iter().for_each(|membership| pool.leave(*membership));
            for membership in lost {
                if let Err(refusal) = pool.join(membership) {
                    tracing::warn!(%refusal, "not joined again");
                }
            }
        }
    }

    /// Binds the ports that somebody else had and has since closed. To be called now and then: the
    /// kernel does not tell.
    pub fn bind_again(&mut self) {
        self.ports.bind_again();
    }

    /// Number of sockets that join groups.
    pub fn sockets(&self) -> usize {
        self.pools.iter().map(Pool::sockets).sum()
    }

    fn pool(&mut self, Membership { group, source, .. }: Membership) -> &mut Pool {
        &mut self.pools[usize::from(group.is_ipv6()) * 2 + usize::from(source.is_some())]
    }
}
