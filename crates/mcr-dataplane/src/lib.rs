//! The packet side of MCR: what moves packets, joins groups and watches interfaces. The only crate
//! with `unsafe` code, all of it in `sys` and the mirrors of `bpf`'s `abi.h`.
//!
//! A data plane holds derived state: everything in it can be thrown away and installed again from
//! the rule table.

#![allow(unsafe_code, reason = "this crate talks to the kernel; every block says why it holds")]

pub mod bpf;
pub mod membership;
pub mod netlink;
mod sys;

use mcr_core::action::{Counters, PlaneChange, PlaneRefusal};
use mcr_core::api::ProgramCost;
use mcr_core::refusal::Refusal;

pub use sys::raise_open_files;

/// What moves packets.
pub trait DataPlane {
    /// `ebpf`, and how it is attached.
    fn describe(&self) -> Description;

    /// Makes a change whole or not at all. When it returns `Ok`, every packet from here on sees
    /// the change, and nothing uses what was removed.
    fn apply(&mut self, change: &PlaneChange) -> Result<(), PlaneRefusal>;

    /// Reads the counters of ids below the two bounds (rules, outputs).
    fn counters(&mut self, bounds: (u32, u32)) -> Result<Counters, Refusal>;

    /// The start is over: whatever an earlier process left running, and this one has not taken
    /// over, ends.
    fn settle(&mut self);

    /// Ends forwarding and removes what the plane has made in the kernel.
    fn stop(&mut self);

    /// The cost of the plane's program, when it is measured.
    fn cost(&self) -> Option<ProgramCost> {
        None
    }
}

/// What a plane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Its name, as in `--dataplane`.
    pub plane: &'static str,
    /// How it gets at packets.
    pub attach: &'static str,
}
