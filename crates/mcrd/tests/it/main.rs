//! The relay as its users meet it: daemon, client and test tool in network namespaces, packets
//! counted by a receiver in a namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod changes;
mod control;
mod daemon;
mod forwarding;
mod hook;
mod interfaces;
mod lab;
mod links;
mod load;
mod promises;
mod refusals;
mod rings;
mod scaling;
mod snooping;
mod start;
mod table;
mod takeover;
mod traffic;
mod tunnels;
mod workers;
