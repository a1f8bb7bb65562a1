//! Classic BPF: what of an interface's frames gets into the rings, and into which of them.
//!
//! Needs no privilege and no bpf(2). Both are judged by the kernel before a frame is copied. What a
//! filter lets through beyond what rules take costs a look by a worker, and nothing else.

pub(crate) mod taps;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use libc::sock_filter;
use mcr_core::flow::AddressBlock;
use mcr_core::wire::ethernet::{HEADER_LEN, TYPE_IPV4, TYPE_IPV6};
use mcr_core::wire::ip::PROTOCOL_UDP;
use mcr_core::wire::{ipv4, ipv6, udp};

/// Ranges of addresses that a filter tells apart. With more of them the closest neighbours are
/// joined, so that a few frames that no rule wants get through. A program of this size fits twice, as
/// it must while it replaces another, into the `optmem_max` of kernels before 6.9 (20,480 bytes; with
/// 110 ranges it did not).
const RANGES: usize = 80;
/// Of them, ranges of the beginnings of IPv6 addresses.
const BEGINNINGS: usize = 8;

/// `BPF_*` of linux/bpf_common.h.
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_H_IND: u16 = 0x48;
const LDX_B_MSH: u16 = 0xb1;
const JMP_JA: u16 = 0x05;
const JMP_JEQ: u16 = 0x15;
const JMP_JGT: u16 = 0x25;
const JMP_JGE: u16 = 0x35;
const JMP_JSET: u16 = 0x45;
const ALU_MUL: u16 = 0x24;
const ALU_AND: u16 = 0x54;
const ALU_RSH: u16 = 0x74;
const ALU_XOR_X: u16 = 0xac;
const MISC_TAX: u16 = 0x07;
const LDX_IMM: u16 = 0x01;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;

/// `SKF_AD_*` of linux/filter.h: what the kernel knows of the frame.
const AD_OFF: u32 = -0x1000_i32 as u32;
const AD_PROTOCOL: u32 = AD_OFF;
const AD_PKTTYPE: u32 = AD_OFF + 4;
const AD_VLAN_TAG: u32 = AD_OFF + 44;
const AD_VLAN_TAG_PRESENT: u32 = AD_OFF + 48;
/// `SKF_NET_OFF`: from the IP header on.
const NET_OFF: u32 = -0x10_0000_i32 as u32;

/// The next header of IPv6 when UDP may follow: UDP itself, and the extension headers that
/// [`ipv6`] walks.
const NEXT_HEADERS: [u8; 5] = [PROTOCOL_UDP, 44, 0, 43, 60];
/// Where IPv4 has its protocol and IPv6 its next header.
const PROTOCOL: u32 = 9;
const NEXT_HEADER: u32 = 6;
/// The last word of an IPv6 destination.
const DESTINATION_END: u32 = ipv6::DESTINATION as u32 + 12;

/// `PACKET_OTHERHOST` of linux/if_packet.h; what is larger is outgoing or looped back.
const OTHER_HOST: u32 = 3;

const ACCEPT: u32 = u32::MAX;
const DROP: u32 = 0;

/// Drops everything: for a socket whose fanout group is not complete yet.
pub(crate) fn nothing() -> Vec<sock_filter> {
    vec![op(RET_K, DROP)]
}

/// Accepts what is for this host, UDP or a fragment of it, untagged (a priority tag is none), and to
/// an address of `blocks`. `bare` is an interface without link header.
pub(crate) fn blocks(blocks: &BTreeSet<AddressBlock>, bare: bool) -> Vec<sock_filter> {
    let refuse_unless = |test: sock_filter| [test, op(RET_K, DROP)];
    let mut program = vec![op(LD_B_ABS, AD_PKTTYPE)];
    program.extend([jump(JMP_JGE, OTHER_HOST, 0, 1), op(RET_K, DROP)]);
    program.push(op(LD_W_ABS, AD_VLAN_TAG_PRESENT));
    program.push(jump(JMP_JEQ, 0, 4, 0));
    program.extend([op(LD_W_ABS, AD_VLAN_TAG), op(ALU_AND, 0xfff)]);
    program.extend(refuse_unless(jump(JMP_JEQ, 0, 1, 0)));
    // An interface without link header may put one of its own kind before the packet after all (GRE
    // to many). Elsewhere the plain offset is the safer one: from SKF_NET_OFF on, kernels before
    // 6.16 read only what a driver has put into the linear part of the packet.
    let start = if bare { NET_OFF } else { HEADER_LEN as u32 };
    program.extend(destinations(blocks, &Look { start, ranges: RANGES, accept: ACCEPT }));
    program
}

/// How a program looks at packets.
struct Look {
    /// Where their IP header is.
    start: u32,
    /// Ranges of addresses that it tells apart.
    ranges: usize,
    /// What it returns for those that it lets through.
    accept: u32,
}

/// Accepts what is UDP, or a fragment of it, to an address of `blocks`.
fn destinations(blocks: &BTreeSet<AddressBlock>, look: &Look) -> Vec<sock_filter> {
    let (v4, v6): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.first().is_ipv4());
    let most = if v4.is_empty() || v6.is_empty() { look.ranges } else { look.ranges / 2 };
    let v4 = only_v4(look, &join(v4.into_iter().map(last_words), most));
    let mut program = vec![op(LD_H_ABS, AD_PROTOCOL)];
    program.extend([jump(JMP_JEQ, TYPE_IPV4.into(), 1, 0), op(JMP_JA, v4.len() as u32)]);
    program.extend(v4);
    program.extend([jump(JMP_JEQ, TYPE_IPV6.into(), 1, 0), op(RET_K, DROP)]);
    program.extend(only_v6(look, v6, most));
    program
}

fn only_v4(look: &Look, ranges: &[(u32, u32)]) -> Vec<sock_filter> {
    let mut program = vec![op(LD_B_ABS, look.start + PROTOCOL)];
    program.extend([jump(JMP_JEQ, PROTOCOL_UDP.into(), 1, 0), op(RET_K, DROP)]);
    program.push(op(LD_W_ABS, look.start + ipv4::DESTINATION as u32));
    program.extend(search(ranges, look.accept));
    program
}

/// Of the destination, the last 32 bits are searched for, or the first 32 where a block does not
/// leave anything of the last.
fn only_v6(look: &Look, blocks: Vec<&AddressBlock>, most: usize) -> Vec<sock_filter> {
    let Look { start, accept, .. } = *look;
    let mut program = vec![op(LD_B_ABS, start + NEXT_HEADER)];
    for (header, rest) in NEXT_HEADERS.into_iter().zip((1..=NEXT_HEADERS.len() as u8).rev()) {
        program.push(jump(JMP_JEQ, header.into(), rest, 0));
    }
    program.push(op(RET_K, DROP));
    let (wide, narrow): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|b| b.prefix() <= 96);
    program.push(op(LD_W_ABS, start + ipv6::DESTINATION as u32));
    for (first, last) in join(wide.into_iter().map(first_words), BEGINNINGS) {
        program.extend([jump(JMP_JGE, first, 0, 2), jump(JMP_JGT, last, 1, 0)]);
        program.push(op(RET_K, accept));
    }
    program.push(op(LD_W_ABS, start + DESTINATION_END));
    program.extend(search(&join(narrow.into_iter().map(last_words), most - BEGINNINGS), accept));
    program
}

/// Which worker takes a packet: a number that the kernel takes modulo their count. All packets to
/// one address and port get the same, and so do all to one address that are fragments, of which only
/// the first have a port, or have IPv6 extension headers. Offsets count from the IP header here.
pub(crate) fn shard() -> Vec<sock_filter> {
    const UDP_PORT: u32 = udp::DESTINATION_PORT as u32;
    let v4 = [
        op(LD_H_ABS, 6),
        jump(JMP_JSET, 0x3fff, 4, 0),
        op(LDX_B_MSH, 0),
        op(LD_H_IND, UDP_PORT),
        op(ALU_MUL, 0x85eb_ca6b),
        op(MISC_TAX, 0),
        op(LD_W_ABS, ipv4::DESTINATION as u32),
    ];
    let v6 = [
        op(LD_B_ABS, NEXT_HEADER),
        jump(JMP_JEQ, PROTOCOL_UDP.into(), 0, 3),
        op(LD_H_ABS, ipv6::HEADER_LEN as u32 + UDP_PORT),
        op(ALU_MUL, 0x85eb_ca6b),
        op(MISC_TAX, 0),
        op(LD_W_ABS, DESTINATION_END),
    ];
    let mut program = vec![op(LDX_IMM, 0), op(LD_B_ABS, 0), op(ALU_AND, 0xf0)];
    program.push(jump(JMP_JEQ, 0x60, v4.len() as u8 + 1, 0));
    program.extend(v4);
    program.push(op(JMP_JA, v6.len() as u32));
    program.extend(v6);
    program.extend([op(ALU_MUL, 0x9e37_79b1), op(ALU_XOR_X, 0), op(ALU_RSH, 16), op(RET_A, 0)]);
    program
}

/// The addresses of a block by their last 32 bits, first and last.
fn last_words(block: &AddressBlock) -> (u32, u32) {
    let word = |address| match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => address.to_bits() as u32,
    };
    (word(block.first()), word(block.last()))
}

/// Likewise by their first 32 bits.
fn first_words(block: &AddressBlock) -> (u32, u32) {
    let word = |address| match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => (address.to_bits() >> 96) as u32,
    };
    (word(block.first()), word(block.last()))
}

/// Ranges in order, those that touch made one, at most `most` of them.
fn join(ranges: impl Iterator<Item = (u32, u32)>, most: usize) -> Vec<(u32, u32)> {
    let mut unsorted: Vec<_> = ranges.collect();
    unsorted.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for (first, end) in unsorted {
        match ranges.last_mut() {
            Some((_, last)) if first <= last.saturating_add(1) => *last = end.max(*last),
            _ => ranges.push((first, end)),
        }
    }
    let Some(surplus) = ranges.len().checked_sub(most + 1) else { return ranges };
    let gap = |(before, after): (&(u32, u32), &(u32, u32))| after.0 - before.1;
    let mut gaps: Vec<_> = ranges.iter().zip(&ranges[1..]).map(gap).zip(1_usize..).collect();
    let (_, widest, _) = gaps.select_nth_unstable(surplus);
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for ((first, end), number) in ranges.into_iter().zip(0..) {
        match joined.last_mut() {
            Some((_, last)) if (first - *last, number) <= *widest => *last = end,
            _ => joined.push((first, end)),
        }
    }
    joined
}

/// A binary search for the number in the accumulator, that returns `accept` when it is in a range.
fn search(ranges: &[(u32, u32)], accept: u32) -> Vec<sock_filter> {
    let (left, right) = match ranges {
        [] => return vec![op(RET_K, DROP)],
        [(first, last)] => {
            return vec![
                jump(JMP_JGE, *first, 0, 2),
                jump(JMP_JGT, *last, 1, 0),
                op(RET_K, accept),
                op(RET_K, DROP),
            ];
        }
        more => more.split_at(more.len() / 2),
    };
    let (pivot, _) = right[0];
    let left = search(left, accept);
    // A conditional jump reaches 255 instructions, JA any number.
    let mut program = vec![jump(JMP_JGE, pivot, 0, 1), op(JMP_JA, left.len() as u32)];
    program.extend(left);
    program.extend(search(right, accept));
    program
}

fn op(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
