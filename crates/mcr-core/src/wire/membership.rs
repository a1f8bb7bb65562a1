//! Messages by which hosts and queriers speak of groups: IGMPv1 to IGMPv3 (RFC 1112, RFC 2236,
//! RFC 3376) and MLDv1 and MLDv2 (RFC 2710, RFC 3810).
//!
//! ```text
//! IGMP  |type|max resp| checksum | group         |          MLD  |type|code| checksum | max resp | 0 | group (16) |
//! v3 report, from byte 6 on: number of records, then       |record type|aux words|sources| group | sources | aux |
//! ```

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::be16;
use super::ip::{Ip, Version};

/// Protocol number of IGMP.
pub const PROTOCOL_IGMP: u8 = 2;
/// Protocol number of ICMPv6, which MLD is a part of.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A querier asks who is a member.
    Query(Query),
    /// A host says of which groups it is a member, or no longer one.
    Report(Report),
}

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// 1 to 3 of IGMP, 1 or 2 of MLD.
    pub version: u8,
    /// The group it asks for; `None` asks for all.
    pub group: Option<IpAddr>,
    /// Members answer within this time.
    pub max_response: Duration,
}

/// An answer, or news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// 1 to 3 of IGMP, 1 or 2 of MLD.
    pub version: u8,
    /// Groups, and whether the host is a member, if of some sources only.
    pub groups: Vec<(IpAddr, bool)>,
}

/// `None` for what is neither IGMP nor MLD, cut short, or of an unknown type.
pub fn parse(ip: &Ip<'_>) -> Option<Message> {
    if ip.fragment().is_some() {
        return None;
    }
    match (ip.version(), ip.protocol()) {
        (Version::V4, PROTOCOL_IGMP) => igmp(ip.payload()),
        (Version::V6, PROTOCOL_ICMPV6) => mld(ip.payload()),
        _ => None,
    }
}

fn igmp(bytes: &[u8]) -> Option<Message> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let group = Ipv4Addr::from_octets(*head.last_chunk::<4>()?);
    let single = |version, member| Some(report(version, vec![(IpAddr::V4(group), member)]));
    match head[0] {
        0x11 => {
            let version = match (head[1], rest.len()) {
                (_, 4..) => 3,
                (0, _) => 1,
                _ => 2,
            };
            let tenths = match version {
                1 => 100,
                2 => u64::from(head[1]),
                _ => u64::from(code8(head[1])),
            };
            let group = (!group.is_unspecified()).then_some(IpAddr::V4(group));
            let max_response = Duration::from_millis(tenths * 100);
            Some(Message::Query(Query { version, group, max_response }))
        }
        0x12 => single(1, true),
        0x16 => single(2, true),
        0x17 => single(2, false),
        0x22 => Some(report(3, records::<4>(rest, be16(head, 6), |a| Ipv4Addr::from(a).into())?)),
        _ => None,
    }
}

fn mld(bytes: &[u8]) -> Option<Message> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let group = || Some(Ipv6Addr::from_octets(*rest.first_chunk::<16>()?));
    let single = |member| Some(report(1, vec![(IpAddr::V6(group()?), member)]));
    match head[0] {
        130 => {
            let (version, code) = (if rest.len() >= 20 { 2 } else { 1 }, be16(head, 4));
            let milliseconds = if version == 1 { u32::from(code) } else { code16(code) };
            let group = Some(group()?).filter(|group| !group.is_unspecified()).map(IpAddr::V6);
            let max_response = Duration::from_millis(milliseconds.into());
            Some(Message::Query(Query { version, group, max_response }))
        }
        131 => single(true),
        132 => single(false),
        143 => Some(report(2, records::<16>(rest, be16(head, 6), |a| Ipv6Addr::from(a).into())?)),
        _ => None,
    }
}

fn report(version: u8, groups: Vec<(IpAddr, bool)>) -> Message {
    Message::Report(Report { version, groups })
}

/// The records of a report of IGMPv3 (RFC 3376 §4.2) or MLDv2 (RFC 3810 §5.2). What blocks sources
/// says nothing of the membership.
fn records<const N: usize>(
    mut bytes: &[u8],
    count: u16,
    address: impl Fn([u8; N]) -> IpAddr,
) -> Option<Vec<(IpAddr, bool)>> {
    let mut groups = Vec::new();
    for _ in 0..count {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let (group, rest) = rest.split_first_chunk::<N>()?;
        let sources = usize::from(be16(head, 2));
        bytes = rest.get(sources * N + usize::from(head[1]) * 4..)?;
        let member = match (head[0], sources) {
            (2 | 4, _) | (1 | 3 | 5, 1..) => true,
            (1 | 3, 0) => false,
            _ => continue,
        };
        groups.push((address(*group), member));
    }
    Some(groups)
}

/// RFC 3376 §4.1.1: from 128 on a mantissa of 4 bits and an exponent of 3.
fn code8(code: u8) -> u32 {
    match code {
        0..128 => code.into(),
        128.. => (u32::from(code & 0xf) | 0x10) << ((code >> 4 & 7) + 3),
    }
}

/// RFC 3810 §5.1.3: from 32,768 on a mantissa of 12 bits and an exponent of 3.
fn code16(code: u16) -> u32 {
    match code {
        0..32_768 => code.into(),
        32_768.. => (u32::from(code & 0xfff) | 0x1000) << ((code >> 12 & 7) + 3),
    }
}
