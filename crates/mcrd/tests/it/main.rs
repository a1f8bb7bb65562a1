//! The relay as its users meet it: daemon, client and test tool in network namespaces, packets
//! counted by a receiver in a namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod changes;
mod circles;
mod control;
mod daemon;
mod forwarding;
mod fragments;
mod hook;
mod interfaces;
mod ipv6;
mod lab;
mod late;
mod links;
mod load;
mod peers;
mod promises;
mod ranges;
mod rate;
mod refusals;
mod rings;
mod scaling;
mod senders;
mod snooping;
mod sources;
mod start;
mod table;
mod takeover;
mod traffic;
mod tunnels;
mod unicast;
mod workers;
