//! Where the program gets at packets: the TCX ingress hook, or a clsact qdisc where the kernel has
//! no TCX (before 6.6).
//!
//! A program of ours that nobody accounts for must not stay on a hook beside this one, since every
//! packet would be relayed twice. What an earlier process of this instance left is taken over, the
//! program swapped in place; anything else by our name is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aya::programs::links::FdLink;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramInfo, SchedClassifier};
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};

use super::pins::{Pins, link_name};
use super::{PROGRAM, chain};
use crate::netlink;

/// The priority of our filters on clsact; any number will do that nobody else uses.
const PRIORITY: u16 = 0x4d43;

/// How to get at packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// TCX where the kernel has it, clsact elsewhere.
    Auto,
    /// The TCX ingress hook (Linux 6.6).
    Tcx,
    /// A filter on the ingress side of a clsact qdisc.
    Clsact,
}

impl Attach {
    /// The way that this kernel has.
    pub(super) fn resolve(self) -> Result<Self, Refusal> {
        match self {
            Self::Auto if has_tcx() => Ok(Self::Tcx),
            Self::Auto => Ok(Self::Clsact),
            Self::Tcx if !has_tcx() => Err(Refusal::new(
                Code::Plane,
                "this kernel has no TCX hooks",
                "TCX came with Linux 6.6: leave out --attach",
            )),
            Self::Tcx | Self::Clsact => Ok(self),
        }
    }

    /// The name in status and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// The hooks in use.
pub(super) struct Hooks {
    attach: Attach,
    handle: TcHandle,
    pins: Pins,
    hooks: BTreeMap<IfIndex, Hook>,
}

enum Hook {
    /// Held by its pin alone.
    Tcx,
    /// A filter, and whether the qdisc is ours too.
    Clsact { qdisc_is_ours: bool },
}

impl Hooks {
    pub(super) fn new(attach: Attach, instance: &str, pins: Pins) -> Self {
        Self { attach, handle: handle_of(instance), pins, hooks: BTreeMap::new() }
    }

    pub(super) fn attach(&self) -> Attach {
        self.attach
    }

    /// The inputs that have no hook yet.
    pub(super) fn missing(&self, inputs: &BTreeSet<IfIndex>) -> Vec<IfIndex> {
        inputs.iter().filter(|index| !self.hooks.contains_key(index)).copied().collect()
    }

    /// The hooks that no input needs.
    pub(super) fn surplus(&self, inputs: &BTreeSet<IfIndex>) -> Vec<IfIndex> {
        self.hooks.keys().filter(|index| !inputs.contains(index)).copied().collect()
    }

    /// Whether the program may be put on an interface: a program by our name that no instance has
    /// pinned would relay every packet once more.
    pub(super) fn check(&self, index: IfIndex) -> Result<(), Refusal> {
        let name = netlink::name_of(index)?;
        if self.left_link(index, &name).is_some() {
            return Ok(());
        }
        let mut programs = netlink::programs(index, self.handle.into())
            .map_err(|e| refused(&e).about(format_args!("interface {name}")))?;
        // An error is a kernel without TCX.
        if let Ok((_, tcx)) = SchedClassifier::query_tcx(&name, TcAttachType::Ingress) {
            let name = |info: &ProgramInfo| info.name_as_str().unwrap_or("").to_owned();
            programs.extend(tcx.iter().map(|info| (name(info), info.id())));
        }
        let known = Pins::programs_of_all_instances();
        let stranger = |(name, id): &&(String, u32)| is_ours(name) && !known.contains(id);
        if programs.iter().any(|(name, id)| is_ours(name) && known.contains(id)) {
            tracing::warn!(
                interface = name,
                "another instance of MCR receives here too; of a flow that both have, the second \
                 sees only what the first leaves to the host (local = \"yes\")"
            );
        }
        match programs.iter().find(stranger) {
            None => Ok(()),
            Some((_, id)) => Err(Refusal::new(
                Code::Plane,
                format!(
                    "interface {name}: program {id} on it is MCR's, and no instance on this host \
                     has pinned it"
                ),
                "it would relay every packet twice: stop the mcrd that holds it (it may run under \
                 `ip netns exec`, with a /sys/fs/bpf of its own), or detach it with bpftool or tc",
            )),
        }
    }

    /// Puts the program on an interface.
    pub(super) fn add(
        &mut self,
        program: &mut SchedClassifier,
        index: IfIndex,
    ) -> Result<(), Refusal> {
        let name = netlink::name_of(index)?;
        let hook = match self.attach {
            Attach::Auto | Attach::Tcx => self.add_tcx(program, index, &name),
            Attach::Clsact => self.add_clsact(program, index, &name),
        };
        let hook = hook.map_err(|r| r.about(format_args!("interface {name}")))?;
        self.end_other_way(index, &hook);
        tracing::info!(interface = name, attach = self.attach.name(), "receiving");
        self.hooks.insert(index, hook);
        Ok(())
    }

    /// What an earlier process has attached to the interface in the other way would relay every
    /// packet once more.
    fn end_other_way(&self, index: IfIndex, hook: &Hook) {
        match hook {
            Hook::Clsact { .. } => self.pins.unpin(&link_name(index)),
            Hook::Tcx if self.mark("filter", index).exists() => {
                self.detach_filter(index);
                self.clear_clsact(index, self.mark("qdisc", index).exists());
            }
            Hook::Tcx => {}
        }
    }

    fn add_tcx(
        &self,
        program: &mut SchedClassifier,
        index: IfIndex,
        name: &str,
    ) -> Result<Hook, Refusal> {
        if let Some(left) = self.left_link(index, name) {
            // The program is swapped in place; the pin stays as it is.
            let id = program.attach_to_link(left).map_err(|e| refused(&e))?;
            let link = program.take_link(id).map_err(|e| refused(&e))?;
            drop(FdLink::try_from(link).map_err(|e| refused(&e))?);
            return Ok(Hook::Tcx);
        }
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program
            .attach_with_options(name, TcAttachType::Ingress, order)
            .map_err(|e| refused(&e))?;
        let link = program.take_link(id).map_err(|e| refused(&e))?;
        self.pins.pin_link(index, FdLink::try_from(link).map_err(|e| refused(&e))?)?;
        Ok(Hook::Tcx)
    }

    /// The link that an earlier process has left on this interface. Its number alone does not say
    /// so: the interface may have been deleted, or be one of another network namespace.
    fn left_link(&self, index: IfIndex, name: &str) -> Option<SchedClassifierLink> {
        let link = self.pins.link(index)?;
        let program = link.info().ok()?.program_id();
        let (_, here) = SchedClassifier::query_tcx(name, TcAttachType::Ingress).ok()?;
        let same = here.iter().any(|info| info.id() == program);
        same.then(|| SchedClassifierLink::try_from(link).ok()).flatten()
    }

    fn add_clsact(
        &self,
        program: &mut SchedClassifier,
        index: IfIndex,
        name: &str,
    ) -> Result<Hook, Refusal> {
        let made = match qdisc_add_clsact(name) {
            Ok(()) => true,
            Err(error) if netlink::is_exists(&error) => false,
            Err(error) => return Err(refused(&error)),
        };
        let qdisc_is_ours = made || self.mark("qdisc", index).exists();
        let attached = self.put_filter(program, name).and_then(|()| {
            self.set_mark(program, "filter", index)?;
            if qdisc_is_ours { self.set_mark(program, "qdisc", index) } else { Ok(()) }
        });
        if let Err(refusal) = attached {
            self.detach_filter(index);
            self.clear_clsact(index, made);
            return Err(refusal);
        }
        Ok(Hook::Clsact { qdisc_is_ours })
    }

    /// An earlier process's filter has the same priority and handle, and is replaced in place.
    fn put_filter(&self, program: &mut SchedClassifier, name: &str) -> Result<(), Refusal> {
        let replaced = self
            .filter(name)
            .and_then(|link| program.attach_to_link(link).map_err(|e| refused(&e)));
        let id = replaced.or_else(|_| {
            let options = NlOptions { priority: PRIORITY, handle: self.handle, classid: None };
            let options = TcAttachOptions::Netlink(options);
            program
                .attach_with_options(name, TcAttachType::Ingress, options)
                .map_err(|e| refused(&e))
        })?;
        // Dropping the link would detach it; the filter is found again by its handle.
        program.take_link(id).map(std::mem::forget).map_err(|e| refused(&e))
    }

    /// Takes the program off an interface, which may be gone.
    pub(super) fn remove(&mut self, index: IfIndex) {
        match self.hooks.remove(&index) {
            Some(Hook::Tcx) => self.pins.unpin(&link_name(index)),
            Some(Hook::Clsact { qdisc_is_ours }) => {
                self.detach_filter(index);
                self.clear_clsact(index, qdisc_is_ours);
            }
            None => {}
        }
    }

    /// Takes the program off every interface and removes all pins.
    pub(super) fn remove_all(&mut self) {
        let all: Vec<IfIndex> = self.hooks.keys().copied().collect();
        all.into_iter().for_each(|index| self.remove(index));
        self.settle();
        self.pins.remove_all();
    }

    /// Ends what an earlier process left on interfaces that are not used any more.
    pub(super) fn settle(&self) {
        for index in self.pins.left("link").into_iter().filter(|i| !self.is_tcx(*i)) {
            self.pins.unpin(&link_name(index));
        }
        for index in self.pins.left("filter").into_iter().filter(|i| !self.is_clsact(*i)) {
            self.detach_filter(index);
            self.clear_clsact(index, self.mark("qdisc", index).exists());
        }
    }

    fn is_tcx(&self, index: IfIndex) -> bool {
        matches!(self.hooks.get(&index), Some(Hook::Tcx))
    }

    fn is_clsact(&self, index: IfIndex) -> bool {
        matches!(self.hooks.get(&index), Some(Hook::Clsact { .. }))
    }

    fn filter(&self, name: &str) -> Result<SchedClassifierLink, Refusal> {
        SchedClassifierLink::attached(name, TcAttachType::Ingress, PRIORITY, self.handle, None)
            .map_err(|e| refused(&e))
    }

    fn detach_filter(&self, index: IfIndex) {
        let Ok(name) = netlink::name_of(index) else { return };
        // Dropping the link detaches the filter.
        drop(self.filter(&name));
    }

    fn clear_clsact(&self, index: IfIndex, remove_qdisc: bool) {
        if remove_qdisc {
            netlink::remove_empty_clsact(index);
        }
        for kind in ["filter", "qdisc"] {
            self.pins.unpin(&format!("{kind}-{index}"));
        }
    }

    /// A mark is a pin of the program, since bpffs holds nothing else.
    fn set_mark(
        &self,
        program: &mut SchedClassifier,
        kind: &str,
        index: IfIndex,
    ) -> Result<(), Refusal> {
        let path = self.mark(kind, index);
        self.pins.unpin(&format!("{kind}-{index}"));
        program.pin(path).map_err(|e| refused(&e))
    }

    fn mark(&self, kind: &str, index: IfIndex) -> PathBuf {
        self.pins.mark(kind, index)
    }
}

/// Either of our programs.
fn is_ours(name: &str) -> bool {
    name.starts_with(PROGRAM)
}

fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Each instance has its own filter: FNV-1a of the name.
fn handle_of(instance: &str) -> TcHandle {
    let hash = instance
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    TcHandle::from(hash | 1)
}

fn refused(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(
        Code::Plane,
        format!("the kernel refused the hook: {}", chain(error)),
        "is the interface still there, and does mcrd have CAP_NET_ADMIN?",
    )
}
