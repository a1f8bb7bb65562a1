//! What clients see of the daemon: counters and status.

use std::process;
use std::time::SystemTime;

use mcr_core::api::{InterfaceStatus, Stats, Status};
use mcr_core::flow::InterfaceName;
use mcr_core::link::IfIndex;
use mcr_core::refusal::Refusal;
use mcr_core::relay::time;
use mcr_core::rule::RuleKey;
use mcr_dataplane::DataPlane;
use mcr_dataplane::netlink::transmit_drops;

use super::{Daemon, now};

impl<P: DataPlane> Daemon<P> {
    pub(super) fn stats(&self, only: Option<&RuleKey>) -> Result<Stats, Refusal> {
        let rules = self.relay.stats(only, now(), &transmit_drops())?;
        let boot_id = self.boot_id.clone();
        Ok(Stats { time: time(SystemTime::now()), boot_id, rules })
    }

    pub(super) fn status(&mut self) -> Status {
        let description = self.plane.describe();
        let limits = self.relay.limits();
        let counts = self.losses.look(self.relay.input_indexes());
        let workers = self.plane.worker_status();
        let interface = |(name, index, groups): (&InterfaceName, _, _)| {
            let IfIndex(number) = index;
            let here = (index, name.as_str());
            InterfaceStatus {
                name: name.to_string(),
                index: number,
                groups,
                passed: self.relay.passed(index),
                lost_before: self.losses.of(here, counts.get(&index), &workers),
            }
        };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            instance: self.instance.name.clone(),
            pid: process::id(),
            since: time(self.started),
            boot_id: self.boot_id.clone(),
            plane: description.plane.into(),
            attach: description.attach.into(),
            why: self.why.clone(),
            generation: self.relay.generation(),
            states: self.relay.states(now()),
            rules_in_no_file: self.relay.runtime_rules().count(),
            rules_max: limits.rules,
            outputs_max: limits.outputs,
            membership_sockets: self.memberships.sockets(),
            interfaces: self.relay.inputs().map(interface).collect(),
            softnet_dropped: self.losses.softnet(),
            program: self.plane.cost(),
            workers,
        }
    }
}
