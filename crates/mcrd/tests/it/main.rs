//! The relay as its users meet it: daemon, client and test tool in network namespaces, packets
//! counted by a receiver in a namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod capture;
mod changes;
mod circles;
mod control;
mod daemon;
mod discover;
mod doctor;
mod events;
mod followers;
mod forwarding;
mod fragments;
mod hook;
mod inspect;
mod interfaces;
mod ipv6;
mod lab;
mod late;
mod links;
mod load;
mod metrics;
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
mod top;
mod traffic;
mod tunnels;
mod unicast;
mod workers;
