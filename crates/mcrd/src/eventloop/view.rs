//! What clients see of the daemon: counters and status.

use std::collections::BTreeMap;
use std::process;
use std::time::SystemTime;

use mcr_core::api::{InterfaceStatus, Stats, Status};
use mcr_core::capture::{Plan, Question};
use mcr_core::doctor::PlaneFacts;
use mcr_core::flow::InterfaceName;
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::time;
use mcr_core::rule::RuleKey;
use mcr_core::watch::Silence;
use mcr_dataplane::DataPlane;
use mcr_dataplane::netlink::{name_of, transmit_drops};

use super::{Daemon, now};
use crate::doctor::Facts;
use crate::metrics::Figures;

impl<P: DataPlane> Daemon<P> {
    pub(super) fn stats(&self, only: Option<&RuleKey>) -> Result<Stats, Refusal> {
        self.stats_with(only, &transmit_drops())
    }

    fn stats_with(
        &self,
        only: Option<&RuleKey>,
        transmit_drops: &BTreeMap<String, u64>,
    ) -> Result<Stats, Refusal> {
        let mut rules = self.relay.stats(only, now(), transmit_drops)?;
        self.inspection.show(&mut rules);
        let boot_id = self.boot_id.clone();
        Ok(Stats { time: time(SystemTime::now()), boot_id, rules })
    }

    /// Statistics and status of one moment.
    pub(super) fn figures(&mut self) -> Result<Figures, Refusal> {
        let silence = |silence| match silence {
            Silence::After(time) => Some(time),
            Silence::Never => None,
        };
        let transmit_drops = transmit_drops();
        Ok(Figures {
            stats: self.stats_with(None, &transmit_drops)?,
            status: self.status(),
            silences: self.relay.silences().map(|(_, found)| silence(found)).collect(),
            transmit_drops,
        })
    }

    /// For who looks for a fault.
    pub(super) fn facts(&self, only: Option<&RuleKey>) -> Result<Facts, Refusal> {
        let description = self.plane.describe();
        let (name, attach, why) = (description.plane, description.attach, self.why.clone());
        Ok(Facts {
            rules: self.relay.facts(only, now())?,
            links: self.relay.links().clone(),
            plane: PlaneFacts { name, attach, why },
            membership_sockets: self.memberships.sockets(),
        })
    }

    /// Where the packets of a rule are to be seen. What goes past the queue of an interface is not.
    pub(super) fn capture(&self, question: &Question) -> Result<Plan, Refusal> {
        let plan = self.relay.capture(question)?;
        for point in plan.points.iter().filter(|point| point.outgoing && self.plane.describe().tap)
        {
            let name = name_of(point.interface)?;
            if self.packet.interface(&name.parse()?).qdisc_bypass {
                let message =
                    format!("what {name} sends goes past its queue, where nobody sees it");
                let hint = format!(
                    "set qdisc_bypass = false under [interface.{name}] and restart mcrd, or capture \
                     where it arrives"
                );
                return Err(Refusal::new(Code::Plane, message, hint));
            }
        }
        Ok(plan)
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
