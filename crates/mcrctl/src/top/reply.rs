//! What `mcrd` replied at one look.

use std::collections::BTreeMap;

use mcr_core::api::{Dropped, RuleList, Stats, Status};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::client::Reply;
use crate::failure::Failure;

/// The counters and the status, one right after the other.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) stats: Stats,
    pub(crate) status: Status,
    /// What the counters say beyond the known fields; for each rule, in the same order.
    pub(crate) further: Vec<Further>,
    /// What was lost before MCR could see it.
    pub(crate) lost: Lost,
    /// All rules, where they are others than those of the look before.
    pub(crate) rules: Option<RuleList>,
}

impl Look {
    pub(crate) fn read(
        stats: &Reply,
        status: &Reply,
        rules: Option<&Reply>,
    ) -> Result<Self, Failure> {
        let (counted, state) = (stats.read()?, status.read::<Status>()?);
        let before: BeforeMcr = status.read()?;
        Ok(Self {
            lost: Lost::of(&state, before),
            stats: counted,
            status: state,
            further: stats.read::<FurtherRules>()?.rules,
            rules: rules.map(Reply::read).transpose()?,
        })
    }
}

/// Of a rule.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub(crate) struct Further {
    /// Who has sent, the last four.
    #[serde(default)]
    pub(crate) senders: Vec<Sender>,
    /// What looking into the payload has found.
    #[serde(default)]
    pub(crate) inspect: Option<Map<String, Value>>,
}

/// Who sends to a rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Sender {
    pub(crate) address: String,
    pub(crate) packets: u64,
    #[serde(default)]
    pub(crate) last_seen: Option<String>,
}

#[derive(Deserialize)]
struct FurtherRules {
    rules: Vec<Further>,
}

#[derive(Deserialize)]
struct BeforeMcr {
    #[serde(default)]
    softnet_dropped: Option<u64>,
    #[serde(default)]
    interfaces: Vec<BeforeInterface>,
}

#[derive(Deserialize)]
struct BeforeInterface {
    name: String,
    #[serde(default)]
    lost_before: Option<Dropped>,
}

/// Packets lost before MCR could see them, by place.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Each input interface; reason to packets, those with 0 left out.
    pub(crate) interfaces: BTreeMap<String, Dropped>,
    /// By the host, whatever the interface: its receive queues were full.
    pub(crate) softnet: u64,
}

impl Lost {
    fn of(status: &Status, before: BeforeMcr) -> Self {
        let mut interfaces: BTreeMap<String, Dropped> = status
            .interfaces
            .iter()
            .map(|interface| (interface.name.clone(), Dropped::new()))
            .collect();
        for BeforeInterface { name, lost_before } in before.interfaces {
            interfaces.entry(name).or_default().extend(lost_before.unwrap_or_default());
        }
        for (name, reasons) in &mut interfaces {
            let rings = status.workers.iter().flat_map(|worker| &worker.rings);
            let dropped = rings.filter(|ring| ring.interface == *name).map(|ring| ring.dropped);
            reasons.entry(RING.into()).or_insert_with(|| dropped.sum());
            reasons.retain(|_, packets| *packets > 0);
        }
        Self { interfaces, softnet: before.softnet_dropped.unwrap_or_default() }
    }

    /// All of it.
    pub(crate) fn sum(&self) -> u64 {
        let interfaces = self.interfaces.values().flat_map(Dropped::values);
        interfaces.sum::<u64>() + self.softnet
    }
}

/// In the rings of the packet plane.
const RING: &str = "ring";
