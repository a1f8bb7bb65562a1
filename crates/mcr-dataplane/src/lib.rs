//! The packet side of MCR: what moves packets, joins groups and watches interfaces. The only crate
//! with `unsafe` code: `sys`, the mirrors of `bpf`'s `abi.h`, and of `packet` what shares memory with
//! the kernel or hands it addresses (`ring`, `shared`, `socket`, `send`, and what gives frames to
//! `send`), ignores signals (`confine`) or registers a descriptor with tokio (`process`).
//!
//! A data plane holds derived state: everything in it can be thrown away and installed again from
//! the rule table.

#![allow(unsafe_code, reason = "this crate talks to the kernel; every block says why it holds")]

pub mod bpf;
pub mod machine;
pub mod membership;
pub mod netlink;
pub mod packet;
mod sys;
pub mod tap;

use mcr_core::action::{Counters, PlaneChange, PlaneRefusal};
use mcr_core::api::{ProgramCost, WorkerStatus};
use mcr_core::event::Event;
use mcr_core::refusal::Refusal;

pub use sys::raise_open_files;

/// How a change has ended: with warnings, or refused.
pub type Applied = Result<Vec<String>, PlaneRefusal>;

/// What a plane has to say by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A pending change has ended.
    Applied(Applied),
    /// Something has happened.
    Event(Event),
}

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has ended.
    Done(Applied),
    /// [`DataPlane::next`] says when it has.
    Pending,
}

/// What moves packets. One change at a time.
pub trait DataPlane {
    /// Its name, and what is to be known of it.
    fn describe(&self) -> Description;

    /// Makes a change whole or not at all. When it has ended well, every packet from here on sees
    /// the change, and nothing uses what was removed.
    fn apply(&mut self, change: &PlaneChange) -> Progress;

    /// Waits for the end of a pending change, or for what is to be told; meanwhile the plane does
    /// what it has to do by itself. May be dropped and called again at any time.
    fn next(&mut self) -> impl Future<Output = News>;

    /// Reads the counters of ids below the two bounds (rules, outputs).
    fn counters(&mut self, bounds: (u32, u32)) -> Result<Counters, Refusal>;

    /// The start is over: whatever an earlier process left running, and this one has not taken
    /// over, ends. Refused when the plane cannot forward after all.
    fn settle(&mut self) -> impl Future<Output = Result<(), Refusal>>;

    /// Ends forwarding and removes what the plane has made in the kernel.
    fn stop(&mut self) -> impl Future<Output = ()>;

    /// The cost of the plane's program, when it is measured.
    fn cost(&self) -> Option<ProgramCost> {
        None
    }

    /// Its worker processes.
    fn worker_status(&self) -> Vec<WorkerStatus> {
        Vec::new()
    }
}

/// What a plane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Its name, as in `--dataplane`.
    pub plane: &'static str,
    /// How it gets at packets.
    pub attach: &'static str,
    /// It sees copies: the host's stack always gets the input too.
    pub tap: bool,
}
