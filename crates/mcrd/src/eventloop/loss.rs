//! What is lost before MCR can see it, since the daemon has begun to look. What cannot be read is
//! left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use mcr_core::api::{Dropped, WorkerStatus};
use mcr_core::link::IfIndex;
use mcr_core::loss::{Baseline, LinkCounts, Loss, softnet_dropped, softnet_since};
use mcr_dataplane::netlink::receive_losses;

/// First looks at the interfaces and at the CPUs.
pub(super) struct Losses {
    links: Baseline,
    softnet: Option<Vec<u32>>,
}

impl Losses {
    pub(super) fn new() -> Self {
        Self { links: Baseline::default(), softnet: softnet() }
    }

    /// Looks at inputs that are new.
    pub(super) fn watch(&mut self, inputs: &BTreeSet<IfIndex>) {
        if self.links.lacks(inputs.iter().copied()) {
            self.look(inputs);
        }
    }

    /// Looks at all inputs; what the kernel has counted of each interface.
    pub(super) fn look(&mut self, inputs: &BTreeSet<IfIndex>) -> BTreeMap<IfIndex, LinkCounts> {
        let counts = receive_losses();
        self.links.look(inputs, &counts);
        counts
    }

    /// Packets of the host that found the queue of a CPU full.
    pub(super) fn softnet(&self) -> Option<u64> {
        softnet_since(self.softnet.as_ref()?, &softnet()?)
    }

    /// What the kernel has lost on an interface, and what its rings had no room for.
    pub(super) fn of(
        &self,
        (index, name): (IfIndex, &str),
        counts: Option<&LinkCounts>,
        workers: &[WorkerStatus],
    ) -> Dropped {
        let mut lost = self.links.since(index, counts);
        let rings = workers.iter().flat_map(|worker| &worker.rings);
        let ring: u64 = rings.filter(|ring| ring.interface == name).map(|ring| ring.dropped).sum();
        lost.extend((ring > 0).then(|| (Loss::Ring.name().to_owned(), ring)));
        lost
    }
}

fn softnet() -> Option<Vec<u32>> {
    softnet_dropped(&fs::read_to_string("/proc/net/softnet_stat").ok()?)
}
