//! The Rust side of `abi.h`: the same structs, sizes and numbers.

use std::mem::offset_of;

use mcr_core::action::{FlowKey, PlaneOutput, PlaneRule, ToStack};
use mcr_core::rule::{Dscp, Ttl};
use mcr_core::verdict::{OutputDrop, Pass, RuleDrop};

/// Changes with every change of `abi.h` or of the maps; names the folder of pins.
pub(super) const LAYOUT: &str = "1";

const DSCP_KEEP: u8 = 0xff;
const COUNT_SHIFT: u32 = 32;
const STACK_SHIFT: u32 = 40;
const RULE_SHIFT: u32 = 42;
/// Rule ids have 22 bits in a slot.
pub(super) const RULES_MAX: u32 = 1 << 22;

/// `struct flow_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RawKey {
    ifindex: u32,
    port: [u8; 2],
    unused: [u8; 2],
    address: [u8; 4],
    source: [u8; 4],
}

impl From<FlowKey> for RawKey {
    fn from(key: FlowKey) -> Self {
        Self {
            ifindex: key.interface.0,
            port: key.port.to_be_bytes(),
            unused: [0; 2],
            address: key.address.octets(),
            source: [0; 4],
        }
    }
}

/// `struct output`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RawOutput {
    ifindex: u32,
    id: u32,
    source: [u8; 4],
    destination: [u8; 4],
    source_port: [u8; 2],
    destination_port: [u8; 2],
    ttl_mode: u8,
    ttl: u8,
    dscp: u8,
    absent: u8,
    mac: [u8; 12],
}

impl From<&PlaneOutput> for RawOutput {
    fn from(output: &PlaneOutput) -> Self {
        let (ttl_mode, ttl) = match output.ttl {
            Ttl::Set(ttl) => (0, ttl.get()),
            Ttl::Keep => (1, 0),
            Ttl::Decrement => (2, 0),
        };
        let mut mac = [0; 12];
        mac[..6].copy_from_slice(&output.destination_mac);
        mac[6..].copy_from_slice(&output.source_mac);
        Self {
            ifindex: output.interface.0,
            id: output.id.0,
            source: output.source.map_or([0; 4], |source| source.octets()),
            destination: output.destination.octets(),
            source_port: output.source_port.unwrap_or(0).to_be_bytes(),
            destination_port: output.destination_port.to_be_bytes(),
            ttl_mode,
            ttl,
            dscp: match output.dscp {
                Dscp::Keep => DSCP_KEEP,
                Dscp::Set(dscp) => dscp,
            },
            absent: output.absent.map_or(0, |reason| reason as u8 + 1),
            mac,
        }
    }
}

/// The u64 of a slot whose outputs begin at `first`.
pub(super) fn slot(rule: &PlaneRule, first: u32) -> u64 {
    let to_stack: u64 = match rule.to_stack {
        ToStack::Always => 0,
        ToStack::IfSocket => 1,
        ToStack::Never => 2,
    };
    u64::from(first)
        | (rule.outputs.len() as u64) << COUNT_SHIFT
        | to_stack << STACK_SHIFT
        | u64::from(rule.id.0) << RULE_SHIFT
}

/// u64s of `struct rule_stats`: received, matched (packets and bytes each), dropped.
pub(super) const RULE_STATS: usize = 4 + RuleDrop::ALL.len();
/// u64s of `struct output_stats`: offered, forwarded, dropped.
pub(super) const OUTPUT_STATS: usize = 4 + OutputDrop::ALL.len();
/// `struct pass_stats`.
pub(super) type RawPass = [u64; Pass::COUNTED.len()];

const _: () = assert!(size_of::<RawKey>() == 16);
const _: () = assert!(size_of::<RawOutput>() == 36 && offset_of!(RawOutput, mac) == 24);
const _: () = assert!(RULE_STATS * 8 == 56 && OUTPUT_STATS * 8 == 96);
const _: () = assert!(size_of::<RawPass>() == 32);

// SAFETY: RawKey is repr(C) of integers and arrays without padding (16 bytes, asserted above), so
// every bit pattern is a value and no byte is uninitialised.
unsafe impl aya::Pod for RawKey {}
// SAFETY: as for RawKey: repr(C), 36 bytes without padding, asserted above.
unsafe impl aya::Pod for RawOutput {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reason of `verdict.rs` has the number of its namesake in `abi.h`.
    #[test]
    fn reasons_have_the_same_numbers_on_both_sides() {
        let header = include_str!("abi.h");
        let number = |name: String| {
            let line =
                header.lines().find_map(|line| line.trim().strip_prefix(&format!("{name} = ")));
            line.and_then(|rest| rest.trim_end_matches(',').parse::<u32>().ok())
        };
        let constant = |prefix: &str, name: &str| {
            format!("{prefix}_{}", name.to_uppercase().replace('-', "_"))
        };
        for reason in RuleDrop::ALL {
            assert_eq!(number(constant("RULE", reason.name())), Some(reason as u32));
        }
        for reason in OutputDrop::ALL {
            assert_eq!(number(constant("OUTPUT", reason.name())), Some(reason as u32));
        }
        for reason in Pass::COUNTED {
            assert_eq!(number(constant("PASS", reason.name())), Some(reason as u32));
        }
        assert_eq!(number("RULE_DROPS".into()), Some(RuleDrop::ALL.len() as u32));
        assert_eq!(number("OUTPUT_DROPS".into()), Some(OutputDrop::ALL.len() as u32));
        assert_eq!(number("PASS_COUNTED".into()), Some(Pass::COUNTED.len() as u32));
    }
}
