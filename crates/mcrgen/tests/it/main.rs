//! `mcrgen` against itself: a sender and a receiver in two network namespaces, joined by a veth pair.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod network;
mod report;
mod streams;
mod usage;
