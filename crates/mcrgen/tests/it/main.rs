//! `mcrgen` against itself: a sender and a receiver in two network namespaces, joined by a veth pair.

mod network;
mod report;
mod streams;
mod usage;
