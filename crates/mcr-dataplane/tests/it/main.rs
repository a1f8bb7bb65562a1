//! The planes against the kernel. Each test runs in a network namespace of its own, which its
//! thread enters and which ends with the thread.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(unsafe_code, reason = "namespaces and raw sockets; every block says why it holds")]

mod bare;
mod foreign;
mod hosts;
mod lookups;
mod maps;
mod membership;
mod namespace;
mod netlink;
mod plane;
mod random;
mod tags;
mod taps;
mod tun;
mod vectors;
