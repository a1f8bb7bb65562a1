//! The pure part of MCR: no IO, no clock, no threads, no `unsafe`.
//!
//! A rule enters as text ([`api`], [`flow`]), becomes a checked [`rule::Rule`], is owned by one
//! [`table::RuleTable`], and leaves as a [`action::PlaneChange`] that [`relay::Relay`] hands to a
//! data plane. What a data plane does with a frame is specified by [`forward`], which every plane
//! is tested against.

#![forbid(unsafe_code)]

pub mod action;
pub mod api;
pub mod flow;
pub mod forward;
pub mod link;
pub mod loss;
pub mod packet;
pub mod rate;
pub mod refusal;
pub mod relay;
pub mod resolve;
pub mod rule;
pub mod senders;
pub mod supervisor;
pub mod table;
pub mod vectors;
pub mod verdict;
pub mod watch;
pub mod wire;
