//! A plane and memberships without a kernel: they remember what they were told, and refuse what a
//! test wants refused. For tests of the daemon that need no privileges.

use std::collections::{BTreeMap, BTreeSet};

use mcr_core::action::{
    Counters, Membership, OutputCounters, PlaneChange, PlaneRefusal, PlaneRule, RuleCounters,
    RuleId,
};
use mcr_core::refusal::{Code, Refusal};

use crate::{DataPlane, Description, Memberships};

/// Holds what was installed.
#[derive(Debug, Default)]
pub struct Recording {
    /// What is installed.
    pub rules: BTreeMap<RuleId, PlaneRule>,
    /// Groups that are joined.
    pub joined: BTreeSet<Membership>,
    /// Groups whose join is refused.
    pub refuse: BTreeSet<Membership>,
    /// Whether the plane was stopped.
    pub stopped: bool,
}

impl DataPlane for Recording {
    fn describe(&self) -> Description {
        Description { plane: "recording", attach: "none" }
    }

    fn apply(&mut self, change: &PlaneChange) -> Result<(), PlaneRefusal> {
        for id in &change.remove {
            self.rules.remove(id);
        }
        self.rules.extend(change.install.iter().map(|rule| (rule.id, rule.clone())));
        Ok(())
    }

    fn counters(&mut self, (rules, outputs): (u32, u32)) -> Result<Counters, Refusal> {
        Ok(Counters {
            rules: vec![RuleCounters::default(); rules as usize],
            outputs: vec![OutputCounters::default(); outputs as usize],
            passed: Vec::new(),
        })
    }

    fn settle(&mut self) {}

    fn stop(&mut self) {
        self.stopped = true;
    }
}

impl Memberships for Recording {
    fn join(&mut self, membership: Membership) -> Result<(), Refusal> {
        if self.refuse.contains(&membership) {
            return Err(Refusal::new(Code::Join, "refused by the test", "none"));
        }
        self.joined.insert(membership);
        Ok(())
    }

    fn leave(&mut self, membership: Membership) {
        self.joined.remove(&membership);
    }

    fn sockets(&self) -> usize {
        usize::from(!self.joined.is_empty())
    }
}
