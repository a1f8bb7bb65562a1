//! The Rust side of `abi.h`: the same structs, sizes and numbers.

use std::mem::offset_of;
use std::net::IpAddr;

use mcr_core::action::{LinkHeader, PlaneOutput, PlaneRule, ToStack};
use mcr_core::flow::AddressBlock;
use mcr_core::forward::FlowKey;
use mcr_core::link::IfIndex;
use mcr_core::rate::MaxRate;
use mcr_core::rule::{Dscp, Ttl};
use mcr_core::senders;
use mcr_core::verdict::{OutputDrop, Pass, RuleDrop};

/// Changes with every change of `abi.h` or of the maps; names the folder of pins.
pub(super) const LAYOUT: &str = "3";

const DSCP_KEEP: u8 = 0xff;
const RATE_SHIFT: u32 = 31;
const COUNT_SHIFT: u32 = 32;
const SOURCES_SHIFT: u32 = 39;
const STACK_SHIFT: u32 = 40;
const RULE_SHIFT: u32 = 42;
/// Rule ids have 22 bits in a slot.
pub(super) const RULES_MAX: u32 = 1 << 22;
/// First outputs have 31 bits.
pub(super) const OUTPUTS_MAX: u32 = 1 << 31;
/// A slot whose rule depends on the source.
pub(super) const BY_SOURCE: u64 = 1 << SOURCES_SHIFT;
/// `NODE_COUNT_SHIFT`.
const NODE_COUNT_SHIFT: u32 = 32;
/// What a binary search of `RANGE_STEPS` steps finds.
pub(super) const RANGES_MAX: usize = (1 << 10) - 1;
/// `NUMBERS`.
pub(super) const NUMBERS: u32 = 1025;

/// An address as all maps have it: IPv4 mapped (RFC 4291 §2.5.5.2).
pub(super) type RawAddress = [u8; 16];

pub(super) fn raw_address(address: IpAddr) -> RawAddress {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// `struct flow_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RawKey {
    ifindex: u32,
    port: [u8; 2],
    unused: [u8; 2],
    address: RawAddress,
}

impl From<FlowKey> for RawKey {
    fn from(key: FlowKey) -> Self {
        Self {
            ifindex: key.interface.0,
            port: key.port.to_be_bytes(),
            unused: [0; 2],
            address: raw_address(key.address),
        }
    }
}

/// `struct prefix_key`, without the length, which aya keeps beside it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawPrefix {
    ifindex: u32,
    address: RawAddress,
}

impl RawPrefix {
    /// With its length in bits.
    pub(super) fn new(interface: IfIndex, block: AddressBlock) -> (u32, Self) {
        let mapped = if block.first().is_ipv4() { 96 } else { 0 };
        let length = u32::BITS + mapped + u32::from(block.prefix());
        (length, Self { ifindex: interface.0, address: raw_address(block.first()) })
    }
}

/// `struct source_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawSource {
    slot: u32,
    address: RawAddress,
}

impl RawSource {
    pub(super) fn new(slot: u32, source: IpAddr) -> Self {
        Self { slot, address: raw_address(source) }
    }
}

/// `struct range`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) slot: u32,
}

/// `struct rate`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RawRate {
    lock: u32,
    unused: u32,
    limit: u64,
    due: u64,
}

/// `RATE_OF_BITS`.
const RATE_OF_BITS: u64 = 1 << 63;

impl From<MaxRate> for RawRate {
    fn from(rate: MaxRate) -> Self {
        let limit = match rate {
            MaxRate::Packets(rate) => rate.get(),
            MaxRate::Bits(rate) => rate.get() | RATE_OF_BITS,
        };
        Self { limit, ..Self::default() }
    }
}

/// `struct number`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RawNumber {
    lock: u32,
    next: u32,
}

impl RawNumber {
    pub(super) fn new(next: u32) -> Self {
        Self { lock: 0, next }
    }
}

/// `struct output`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RawOutput {
    ifindex: u32,
    id: u32,
    source: RawAddress,
    destination: RawAddress,
    mapped: RawAddress,
    source_port: [u8; 2],
    port_shift: u16,
    ttl_mode: u8,
    ttl: u8,
    dscp: u8,
    absent: u8,
    mac: [u8; 12],
    group_mac: u8,
    keep_source: u8,
    unused: [u8; 2],
}

impl From<&PlaneOutput> for RawOutput {
    fn from(output: &PlaneOutput) -> Self {
        let (ttl_mode, ttl) = match output.ttl {
            Ttl::Set(ttl) => (0, ttl.get()),
            Ttl::Keep => (1, 0),
            Ttl::Decrement => (2, 0),
        };
        let mut mac = [0; 12];
        let mut group_mac = 0;
        if let LinkHeader::Ethernet { source, next_hop } = output.header {
            mac[..6].copy_from_slice(&next_hop.unwrap_or_default());
            mac[6..].copy_from_slice(&source);
            group_mac = next_hop.is_none().into();
        }
        let destination = output.destination;
        let host = u128::MAX.checked_shl(destination.host_bits().into()).unwrap_or(0);
        Self {
            ifindex: output.interface.0,
            id: output.id.0,
            source: output.source.map_or([0; 16], raw_address),
            destination: raw_address(destination.first()),
            mapped: (!host).to_be_bytes(),
            source_port: output.source_port.unwrap_or(0).to_be_bytes(),
            port_shift: output.port_shift,
            ttl_mode,
            ttl,
            dscp: match output.dscp {
                Dscp::Keep => DSCP_KEEP,
                Dscp::Set(dscp) => dscp,
            },
            absent: output.absent.map_or(0, |reason| reason as u8 + 1),
            mac,
            group_mac,
            keep_source: output.source.is_none().into(),
            unused: [0; 2],
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
        | u64::from(rule.max_rate.is_some()) << RATE_SHIFT
        | (rule.outputs.len() as u64) << COUNT_SHIFT
        | to_stack << STACK_SHIFT
        | u64::from(rule.id.0) << RULE_SHIFT
}

/// The u64 of a node whose ranges begin at `first`.
pub(super) fn node(first: u32, count: u32) -> u64 {
    u64::from(first) | u64::from(count) << NODE_COUNT_SHIFT
}

/// u64s of `struct rule_stats` that are summed up over the CPUs: received, matched (packets and bytes
/// each), dropped.
pub(super) const RULE_SUMS: usize = 4 + RuleDrop::ALL.len();
/// u64s of `struct rule_stats`: the sums, then the senders.
pub(super) const RULE_STATS: usize = RULE_SUMS + senders::WORDS;
/// u64s of `struct output_stats`: offered, forwarded, dropped.
pub(super) const OUTPUT_STATS: usize = 4 + OutputDrop::ALL.len();
/// `struct pass_stats`.
pub(super) type RawPass = [u64; Pass::COUNTED.len()];

const _: () = assert!(size_of::<RawKey>() == 24);
const _: () = assert!(size_of::<RawPrefix>() + size_of::<u32>() == 24);
const _: () = assert!(size_of::<RawSource>() == 20 && size_of::<RawRange>() == 8);
const _: () = assert!(size_of::<RawRate>() == 24 && size_of::<RawNumber>() == 8);
const _: () = assert!(size_of::<RawOutput>() == 80 && offset_of!(RawOutput, mac) == 64);
const _: () = assert!(RULE_SUMS * 8 == 56 && RULE_STATS * 8 == 192 && OUTPUT_STATS * 8 == 112);
const _: () = assert!(senders::WORDS * 8 == 8 + senders::SENDERS * 32);
const _: () = assert!(size_of::<RawPass>() == 40);

// SAFETY: RawKey is repr(C) of integers and arrays without padding (24 bytes, asserted above), so
// every bit pattern is a value and no byte is uninitialised.
unsafe impl aya::Pod for RawKey {}
// SAFETY: as for RawKey: repr(C), 20 bytes without padding, asserted above.
unsafe impl aya::Pod for RawPrefix {}
// SAFETY: as for RawKey: repr(C), 20 bytes without padding, asserted above.
unsafe impl aya::Pod for RawSource {}
// SAFETY: as for RawKey: repr(C), 8 bytes without padding, asserted above.
unsafe impl aya::Pod for RawRange {}
// SAFETY: as for RawKey: repr(C), 24 bytes without padding, asserted above.
unsafe impl aya::Pod for RawRate {}
// SAFETY: as for RawKey: repr(C), 8 bytes without padding, asserted above.
unsafe impl aya::Pod for RawNumber {}
// SAFETY: as for RawKey: repr(C), 80 bytes without padding, asserted above.
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
        assert!(header.contains(&format!("#define SENDERS {}\n", senders::SENDERS)));
    }
}
