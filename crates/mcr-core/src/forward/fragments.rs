//! Fragmented datagrams on their way: the first fragment has the ports, and those that follow are
//! known by it. What comes before its first fragment cannot be told and is counted.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::Shared;
use crate::link::IfIndex;

/// For so long, in nanoseconds, the fragments of a datagram are known after its first.
pub(super) const KNOWN_NS: u64 = 2_000_000_000;
/// Datagrams that are remembered; with more the oldest are forgotten.
const DATAGRAMS: usize = 4096;

/// What all fragments of a datagram have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Datagram {
    pub(super) interface: IfIndex,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) id: u32,
}

/// What the first fragment showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The destination port, which later fragments do not have.
    pub(super) port: u16,
    /// The identification that it got.
    pub(super) id: u32,
}

/// The datagrams whose first fragment has been seen.
#[derive(Debug)]
pub struct Fragments {
    seen: HashMap<Datagram, (Seen, u64), RandomState>,
    /// The oldest first.
    order: VecDeque<Datagram>,
}

impl Default for Fragments {
    fn default() -> Self {
        // Twice as much as is used: then what removed entries leave behind is tidied up in place.
        let seen = HashMap::with_capacity_and_hasher(2 * (DATAGRAMS + 1), RandomState::default());
        Self { seen, order: VecDeque::with_capacity(DATAGRAMS + 1) }
    }
}

impl Fragments {
    /// What the first fragment of the datagram showed.
    pub(super) fn find(&self, datagram: &Datagram, now: u64) -> Option<Seen> {
        let (seen, at) = self.seen.get(datagram)?;
        (now.saturating_sub(*at) <= KNOWN_NS).then_some(*seen)
    }

    /// A first fragment: the identification that the datagram gets.
    pub(super) fn begin(
        &mut self,
        datagram: Datagram,
        port: u16,
        shared: Shared<'_>,
        now: u64,
    ) -> u32 {
        let id = shared.fragmented();
        if self.seen.insert(datagram, (Seen { port, id }, now)).is_none() {
            self.order.push_back(datagram);
        }
        if self.order.len() > DATAGRAMS
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        id
    }
}
