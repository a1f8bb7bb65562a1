//! Golden frames: the format of the files in `vectors/`, for the tests that hold every data plane
//! to [`crate::forward`].
//!
//! A file has rules, written as in a configuration, and frames: what comes in, the verdict, and
//! what goes out byte by byte. The frames of a file come one after the other, so that fragments find
//! what came before them. All run on one topology, which [`links`] describes:
//!
//! ```text
//!  02:00:00:00:00:0a ── in0  10.0.0.2  fd00::2          02:00:00:00:00:01
//!                       out0 10.0.1.1  fd00:0:0:1::1    02:00:00:00:00:10 ── host 10.0.1.9,
//!                       out1 10.0.2.1  fd00:0:0:2::1    02:00:00:00:00:11    fd00:0:0:1::9,
//!                       out2 10.0.3.1  fd00:0:0:3::1    02:00:00:00:00:12    02:00:00:00:00:99
//!                                                       MTU 1500 everywhere
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use serde::Deserialize;

use crate::action::{OutputId, PlaneChange, PlaneRule, RuleId};
use crate::api::RuleSpec;
use crate::link::{IfIndex, Link, LinkKind, Links, Mac, NextHop, Route, RouteQuery};
use crate::refusal::{Code, Refusal};
use crate::resolve::resolve;
use crate::wire::checksum::checksum;
use crate::wire::ethernet;
use crate::wire::ip::{Ip, Version};
use crate::wire::ipv4;

/// Name, MAC and addresses of each interface.
pub const INTERFACES: [(&str, Mac, Ipv4Addr, Ipv6Addr); 4] = [
    ("in0", [2, 0, 0, 0, 0, 0x01], Ipv4Addr::new(10, 0, 0, 2), v6(0, 2)),
    ("out0", [2, 0, 0, 0, 0, 0x10], Ipv4Addr::new(10, 0, 1, 1), v6(1, 1)),
    ("out1", [2, 0, 0, 0, 0, 0x11], Ipv4Addr::new(10, 0, 2, 1), v6(2, 1)),
    ("out2", [2, 0, 0, 0, 0, 0x12], Ipv4Addr::new(10, 0, 3, 1), v6(3, 1)),
];
/// A host on the network of `out0`.
pub const HOST_MAC: Mac = [2, 0, 0, 0, 0, 0x99];
/// Its addresses.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 9);
/// Likewise.
pub const HOST_V6: Ipv6Addr = v6(1, 9);

const fn v6(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, network, 0, 0, 0, host)
}

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// What it shows.
    pub about: String,
    /// The rules in force.
    #[serde(default)]
    pub rule: Vec<RuleSpec>,
    /// The frames, in the order in which they come.
    pub frame: Vec<VectorFrame>,
}

/// One frame, and what becomes of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorFrame {
    /// What it shows.
    pub about: String,
    /// The frame that arrives on `in0`, in hexadecimal; white space is for the reader.
    pub hex: String,
    /// `forwarded`, or the name of a reason.
    pub verdict: String,
    /// Datagrams in it, when it is a super-packet, and their payload size.
    #[serde(default)]
    pub gso: Option<Gso>,
    /// What becomes of it at each output of the rule, in order.
    #[serde(default)]
    pub out: Vec<VectorOutput>,
    /// Whether the host's stack gets it, unchanged.
    pub stack: bool,
}

/// A super-packet.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gso {
    /// Datagrams.
    pub segments: u16,
    /// UDP payload bytes of each but the last.
    pub size: u16,
}

/// A frame that leaves, or the reason why none does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorOutput {
    /// The interface.
    pub on: String,
    /// The frame.
    pub hex: Option<String>,
    /// Its identification is made anew, and that of `hex` says nothing; see [`FreshIds`].
    #[serde(default)]
    pub fresh_id: bool,
    /// The name of the reason.
    pub dropped: Option<String>,
}

impl Vector {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The rules as a data plane gets them, rule and output ids counted from 0.
    pub fn change(&self, links: &Links) -> Result<PlaneChange, Refusal> {
        let mut change = PlaneChange::default();
        for (spec, number) in self.rule.iter().zip(0..) {
            let resolved = resolve(&spec.check()?, links);
            let unresolved = || Refusal::new(Code::Machine, "a rule of a vector is missing", "");
            let mut plane: PlaneRule = resolved.plane.ok_or_else(unresolved)?;
            plane.id = RuleId(number);
            change.fresh_rules.push(plane.id);
            for output in &mut plane.outputs {
                output.id = OutputId(change.fresh_outputs.len() as u32);
                change.fresh_outputs.push(output.id);
                change.own.extend(output.source.filter(|a| links.is_local(*a)));
            }
            change.inputs.insert(plane.take.interface);
            change.install.push(plane);
        }
        Ok(change)
    }
}

/// The identifications that datagrams got, by the addresses they left with and by what came in: the
/// same for all fragments of one datagram, and another for every other datagram.
#[derive(Debug, Default)]
pub struct FreshIds(BTreeMap<(Addresses, Came), u32>);

/// Source and destination.
type Addresses = (IpAddr, IpAddr);

/// What came in: a fragment of a datagram, by its addresses and its identification, or a whole one,
/// by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    Part(Addresses, u32),
    Whole(usize),
}

impl FreshIds {
    /// The frame that was expected, with the identification of the one that was sent, and the
    /// checksum of an IPv4 header made again. Refused when that identification does not fit to those
    /// before, or there is none.
    pub fn expected(
        &mut self,
        came: &[u8],
        sent: &[u8],
        mut expected: Vec<u8>,
    ) -> Result<Vec<u8>, Refusal> {
        let refuse = |what: &str| Refusal::new(Code::Malformed, what, "");
        let none = || refuse("no IP packet with an identification");
        let whole = self.0.len();
        let (came, ..) = datagram(came, whole).ok_or_else(none)?;
        let (_, addresses, at) = datagram(&expected, whole).ok_or_else(none)?;
        let (Some(id), Some(place)) = (sent.get(at.clone()), expected.get_mut(at)) else {
            return Err(refuse("shorter than what was expected"));
        };
        place.copy_from_slice(id);
        let number = id.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let taken =
            |((there, _), id): (&(Addresses, Came), &u32)| *there == addresses && *id == number;
        match self.0.get(&(addresses, came)) {
            Some(before) if *before != number => {
                return Err(refuse("fragments of one datagram have different identifications"));
            }
            None if self.0.iter().any(taken) => {
                return Err(refuse("two datagrams have one identification"));
            }
            Some(_) | None => {}
        }
        self.0.insert((addresses, came), number);
        if expected.get(ethernet::HEADER_LEN).is_some_and(|byte| byte >> 4 == 4) {
            let length = usize::from(expected[ethernet::HEADER_LEN] & 0xf) * 4;
            let header = &mut expected[ethernet::HEADER_LEN..][..length];
            header[ipv4::CHECKSUM..][..2].fill(0);
            let made = checksum(header).to_be_bytes();
            header[ipv4::CHECKSUM..][..2].copy_from_slice(&made);
        }
        Ok(expected)
    }
}

/// Which datagram a frame is of, its addresses, and where its identification stands.
fn datagram(frame: &[u8], place: usize) -> Option<(Came, Addresses, Range<usize>)> {
    let (_, packet) = ethernet::parse(frame)?;
    let ip = Ip::parse(packet)?;
    let length = if ip.version() == Version::V4 { 2 } else { 4 };
    let addresses = (ip.source(), ip.destination());
    let (came, at) = match ip.fragment() {
        Some(part) => (Came::Part(addresses, part.id), part.id_at),
        None => (Came::Whole(place), ip.needs_id()?),
    };
    let at = ethernet::HEADER_LEN + at;
    Some((came, addresses, at..at + length))
}

/// The bytes of a frame.
pub fn bytes(hex: &str) -> Result<Vec<u8>, Refusal> {
    let digits: String = hex.split_whitespace().collect();
    let wrong = || Refusal::new(Code::Malformed, format!("{hex:?} is not hexadecimal"), "");
    let pair = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..digits.len()).step_by(2).map(|at| pair(at).ok_or_else(wrong)).collect()
}

/// The topology, with these indexes for [`INTERFACES`].
pub fn links(indexes: [IfIndex; 4]) -> Links {
    let link = |((name, mac, v4, v6), index): ((&str, Mac, Ipv4Addr, Ipv6Addr), IfIndex)| {
        let link = Link {
            index,
            kind: LinkKind::Ethernet,
            up: true,
            carrier: true,
            no_arp: false,
            mac,
            mtu: 1500,
            addresses: [v4.into(), v6.into()].map(|address: IpAddr| address.into()).into(),
            shared: false,
            mc_forwarding: false,
        };
        Some((name.parse().ok()?, link))
    };
    let interfaces = INTERFACES.into_iter().zip(indexes).filter_map(link).collect();
    let [_, out0, ..] = indexes;
    let host = |address: IpAddr| {
        let interface = Some(INTERFACES[1].0.parse().ok()?);
        let via = Route::Via { interface: interface.clone()?, next_hop: address, source: None };
        Some((RouteQuery { destination: address, interface }, via))
    };
    let hosts: [IpAddr; 2] = [HOST_V4.into(), HOST_V6.into()];
    let neighbour = |address: IpAddr| (NextHop { interface: out0, address }, HOST_MAC);
    Links {
        interfaces,
        routes: hosts.into_iter().filter_map(host).collect(),
        neighbours: hosts.into_iter().map(neighbour).collect(),
    }
}
