//! What a tap catches: frames both ways, of interfaces of any kind.

use std::collections::BTreeSet;

use libc::sock_filter;
use mcr_core::flow::AddressBlock;
use mcr_core::wire::ethernet::{HEADER_LEN, TYPE_IPV4, TYPE_IPV6};
use mcr_core::wire::ipv6;

use super::*;

pub(super) const LD_B_IND: u16 = 0x50;
pub(super) const ALU_ADD: u16 = 0x04;
pub(super) const ALU_LSH: u16 = 0x64;
/// `SKF_AD_HATYPE`: the `ARPHRD_*` number of the interface.
pub(super) const AD_HARDWARE: u32 = AD_OFF + 28;
/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`, whose frames have an Ethernet header.
const ETHERNET: u32 = 1;
const LOOPBACK: u32 = 772;

const PROTOCOL_IGMP: u32 = 2;
const HOP_BY_HOP: u32 = 0;
const PROTOCOL_ICMPV6: u32 = 58;
/// Query, report and done of MLD (RFC 2710), report of MLDv2 (RFC 3810).
const MLD: [u32; 4] = [130, 131, 132, 143];

/// UDP and its fragments to these blocks, `snap` bytes of each frame.
pub(crate) fn udp(blocks: &BTreeSet<AddressBlock>, snap: u32) -> Vec<sock_filter> {
    if blocks.is_empty() {
        return nothing();
    }
    // The program is there twice, for the two places of the IP header.
    let look = |start| Look { start, ranges: RANGES / 2, accept: snap };
    by_header(|start| destinations(blocks, &look(start)))
}

/// IGMP, and MLD: ICMPv6 behind hop-by-hop options (RFC 3810 §5).
pub(crate) fn membership(snap: u32) -> Vec<sock_filter> {
    by_header(|start| {
        let options = start + ipv6::HEADER_LEN as u32;
        let mut program = vec![op(LD_H_ABS, AD_PROTOCOL), jump(JMP_JEQ, TYPE_IPV4.into(), 0, 4)];
        program.extend([op(LD_B_ABS, start + PROTOCOL), jump(JMP_JEQ, PROTOCOL_IGMP, 0, 1)]);
        program.extend([op(RET_K, snap), op(RET_K, DROP)]);
        program.extend([jump(JMP_JEQ, TYPE_IPV6.into(), 1, 0), op(RET_K, DROP)]);
        for (at, wanted) in [(start + NEXT_HEADER, HOP_BY_HOP), (options, PROTOCOL_ICMPV6)] {
            program.push(op(LD_B_ABS, at));
            program.extend([jump(JMP_JEQ, wanted, 1, 0), op(RET_K, DROP)]);
        }
        // The length of the options: in units of 8 bytes, without the first.
        program.extend([op(LD_B_ABS, options + 1), op(ALU_ADD, 1), op(ALU_LSH, 3)]);
        program.extend([op(MISC_TAX, 0), op(LD_B_IND, options)]);
        for (kind, rest) in MLD.into_iter().zip((1..=MLD.len() as u8).rev()) {
            program.push(jump(JMP_JEQ, kind, rest, 0));
        }
        program.extend([op(RET_K, DROP), op(RET_K, snap)]);
        program
    })
}

/// The program for the frames of Ethernet, or the one for those without a link header.
fn by_header(program: impl Fn(u32) -> Vec<sock_filter>) -> Vec<sock_filter> {
    let ethernet = program(HEADER_LEN as u32);
    let mut whole = vec![op(LD_W_ABS, AD_HARDWARE), jump(JMP_JEQ, ETHERNET, 2, 0)];
    whole.extend([jump(JMP_JEQ, LOOPBACK, 1, 0), op(JMP_JA, ethernet.len() as u32)]);
    whole.extend(ethernet);
    whole.extend(program(NET_OFF));
    whole
}
