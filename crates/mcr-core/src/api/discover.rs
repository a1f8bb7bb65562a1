//! What was seen on the wire, as the reply shows it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Count, Dropped, Rate};

/// The least and the most of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
}

/// What the RTP headers of a stream say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtpLook {
    /// Payload type.
    pub payload_type: u8,
    /// The synchronisation source.
    pub ssrc: u32,
}

/// One stream: what one source sends to a group and port, as an interface received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSeen {
    /// Where it arrives.
    pub interface: String,
    /// The VLAN whose tag it has there; a rule on this interface never takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Its group.
    pub group: IpAddr,
    /// Its destination port.
    pub port: u16,
    /// Who sends it.
    pub source: IpAddr,
    /// What was seen of it.
    pub received: Count,
    /// The same by the time that was listened.
    pub rate: Rate,
    /// Fragments among its packets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fragments: u64,
    /// Time to live, or hop limit.
    pub ttl: Range,
    /// UDP payload bytes of a datagram.
    pub size: Range,
    /// Whether it looks like RTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtp: Option<RtpLook>,
    /// Whether it looks like an MPEG transport stream, within RTP when it looks like that too.
    pub ts: bool,
    /// What the rule is addressed by that has it as its input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The state of that rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why no rule takes it: `no-rule`, `other-source`, `own` or `tagged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<String>,
}

/// `GET /v1/discover`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// The interfaces that were listened on.
    pub interfaces: Vec<String>,
    /// For how long.
    pub seconds: f64,
    /// By interface, group, port and source.
    pub streams: Vec<StreamSeen>,
    /// Packets to groups that are in no stream, by reason.
    pub left_out: Dropped,
    /// Frames that came faster than they could be looked at: all figures are too low by about these.
    pub missed: u64,
    /// What else has to be known to read it right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
