//! Classic BPF: what of an interface's frames gets into the rings, and into which of them.
//!
//! Needs no privilege and no bpf(2). Both are judged by the kernel before a frame is copied.

use std::net::Ipv4Addr;

use libc::sock_filter;
use mcr_core::wire::ethernet::TYPE_IPV4;
use mcr_core::wire::ipv4::PROTOCOL_UDP;

/// Ranges of groups that a filter tells apart. With more of them the closest neighbours are joined,
/// so that a few frames that no rule wants get through. A program of this size fits twice, as it must
/// while it replaces another, into the `optmem_max` of kernels before 6.9 (20,480 bytes; with 110
/// ranges it did not).
const RANGES: usize = 64;

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
const AD_PKTTYPE: u32 = AD_OFF + 4;
const AD_VLAN_TAG: u32 = AD_OFF + 44;
const AD_VLAN_TAG_PRESENT: u32 = AD_OFF + 48;

/// `PACKET_OTHERHOST` of linux/if_packet.h; what is larger is outgoing or looped back.
const OTHER_HOST: u32 = 3;

const ACCEPT: u32 = u32::MAX;
const DROP: u32 = 0;

/// Drops everything: for a socket whose fanout group is not complete yet.
pub(crate) fn nothing() -> Vec<sock_filter> {
    vec![op(RET_K, DROP)]
}

/// Accepts what is for this host, UDP over IPv4, untagged (a priority tag is none), and for one of
/// `groups`, which are sorted.
pub(crate) fn groups(groups: &[Ipv4Addr]) -> Vec<sock_filter> {
    let refuse_unless = |test: sock_filter| [test, op(RET_K, DROP)];
    let mut program = vec![op(LD_B_ABS, AD_PKTTYPE)];
    program.extend([jump(JMP_JGE, OTHER_HOST, 0, 1), op(RET_K, DROP)]);
    program.push(op(LD_W_ABS, AD_VLAN_TAG_PRESENT));
    program.push(jump(JMP_JEQ, 0, 4, 0));
    program.extend([op(LD_W_ABS, AD_VLAN_TAG), op(ALU_AND, 0xfff)]);
    program.extend(refuse_unless(jump(JMP_JEQ, 0, 1, 0)));
    program.push(op(LD_H_ABS, 12));
    program.extend(refuse_unless(jump(JMP_JEQ, TYPE_IPV4.into(), 1, 0)));
    program.push(op(LD_B_ABS, 14 + 9));
    program.extend(refuse_unless(jump(JMP_JEQ, PROTOCOL_UDP.into(), 1, 0)));
    program.push(op(LD_W_ABS, 14 + 16));
    program.extend(search(&ranges(groups)));
    program
}

/// Which worker takes a packet: a number that the kernel takes modulo their count. All packets to
/// one address and port get the same, and so do all fragments to one address, of which only the
/// first have a port. Offsets count from the IP header here.
pub(crate) fn shard() -> Vec<sock_filter> {
    vec![
        op(LDX_IMM, 0),
        op(LD_H_ABS, 6),
        jump(JMP_JSET, 0x3fff, 4, 0),
        op(LDX_B_MSH, 0),
        op(LD_H_IND, 2),
        op(ALU_MUL, 0x85eb_ca6b),
        op(MISC_TAX, 0),
        op(LD_W_ABS, 16),
        op(ALU_MUL, 0x9e37_79b1),
        op(ALU_XOR_X, 0),
        op(ALU_RSH, 16),
        op(RET_A, 0),
    ]
}

/// The groups as ranges, first and last, at most [`RANGES`] of them.
fn ranges(groups: &[Ipv4Addr]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for group in groups.iter().map(|group| group.to_bits()) {
        match ranges.last_mut() {
            Some((_, last)) if group <= last.saturating_add(1) => *last = group,
            _ => ranges.push((group, group)),
        }
    }
    if ranges.len() <= RANGES {
        return ranges;
    }
    let mut gaps: Vec<u32> = ranges.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
    let surplus = ranges.len() - RANGES;
    let (_, widest, _) = gaps.select_nth_unstable(surplus - 1);
    let widest = *widest;
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (first, end) in ranges {
        match joined.last_mut() {
            Some((_, last)) if first - *last <= widest => *last = end,
            _ => joined.push((first, end)),
        }
    }
    joined
}

/// A binary search for the number in the accumulator.
fn search(ranges: &[(u32, u32)]) -> Vec<sock_filter> {
    let (left, right) = match ranges {
        [] => return vec![op(RET_K, DROP)],
        [(first, last)] => {
            return vec![
                jump(JMP_JGE, *first, 0, 2),
                jump(JMP_JGT, *last, 1, 0),
                op(RET_K, ACCEPT),
                op(RET_K, DROP),
            ];
        }
        more => more.split_at(more.len() / 2),
    };
    let (pivot, _) = right[0];
    let left = search(left);
    // A conditional jump reaches 255 instructions, JA any number.
    let mut program = vec![jump(JMP_JGE, pivot, 0, 1), op(JMP_JA, left.len() as u32)];
    program.extend(left);
    program.extend(search(right));
    program
}

fn op(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The search as the kernel would carry it out.
    fn accepts(program: &[sock_filter], value: u32) -> bool {
        let mut at = 0;
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let branch = |taken: bool| usize::from(if taken { jt } else { jf });
            at += 1 + match code {
                RET_K => return k == ACCEPT,
                JMP_JA => k as usize,
                JMP_JGE => branch(value >= k),
                JMP_JGT => branch(value > k),
                other => panic!("instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn the_search_finds_the_groups_and_nothing_else() {
        for step in [1, 2, 3, 1000] {
            for count in [0, 1, 2, 3, 31, 63, 64] {
                let first = Ipv4Addr::new(239, 1, 1, 1).to_bits();
                let wanted: Vec<u32> = (0..count).map(|n| first + n * step).collect();
                let groups: Vec<Ipv4Addr> = wanted.iter().map(|bits| (*bits).into()).collect();
                let program = search(&ranges(&groups));
                for value in (first - 2)..(first + count * step + 2) {
                    assert_eq!(accepts(&program, value), wanted.contains(&value), "{value:#x}");
                }
            }
        }
    }

    #[test]
    fn ten_thousand_groups_fit_and_the_closest_are_joined() {
        let first = Ipv4Addr::new(239, 1, 0, 0).to_bits();
        let wanted: Vec<u32> = (0..10_000).map(|n| first + n * 2 + n / 200 * 1000).collect();
        let groups: Vec<Ipv4Addr> = wanted.iter().map(|bits| (*bits).into()).collect();
        let program = super::groups(&groups);
        assert!(program.len() < 1000, "{}", program.len());
        let found = search(&ranges(&groups));
        assert!(wanted.iter().all(|group| accepts(&found, *group)));
        // The wide gaps stay closed.
        assert!(!accepts(&found, wanted[199] + 500));
    }
}
