//! What `mcrd` replied at one look.

use mcr_core::api::{Dropped, RuleList, Stats, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::client::Reply;
use crate::failure::Failure;

/// The counters and the status, one right after the other.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) stats: Stats,
    pub(crate) status: Status,
    /// What was found in the payload, for each rule in the same order.
    pub(crate) found: Vec<Found>,
    /// All rules, where they are others than those of the look before.
    pub(crate) rules: Option<RuleList>,
}

impl Look {
    pub(crate) fn read(
        stats: &Reply,
        status: &Reply,
        rules: Option<&Reply>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            found: stats.read::<FoundInRules>()?.rules,
            stats: stats.read()?,
            status: status.read()?,
            rules: rules.map(Reply::read).transpose()?,
        })
    }
}

/// What was found in the payload of a rule; nothing where nobody looks. The page of the rule shows
/// all of it, whatever there is.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub(crate) struct Found {
    #[serde(default)]
    pub(crate) inspect: Value,
}

impl Found {
    /// What was wrong with the stream before it came.
    pub(crate) fn faults(&self) -> Dropped {
        let kinds = [("rtp-lost", "/rtp/lost"), ("ts-errors", "/ts/continuity_errors")];
        let count = |path| self.inspect.pointer(path).and_then(Value::as_u64);
        let faults = kinds.into_iter().filter_map(|(name, path)| Some((name.into(), count(path)?)));
        faults.filter(|(_, count)| *count > 0).collect()
    }
}

#[derive(Deserialize)]
struct FoundInRules {
    rules: Vec<Found>,
}

/// Packets that were lost before MCR could see them.
pub(crate) fn lost_before(status: &Status) -> u64 {
    let interfaces = status.interfaces.iter().flat_map(|interface| interface.lost_before.values());
    interfaces.sum::<u64>() + status.softnet_dropped.unwrap_or_default()
}
