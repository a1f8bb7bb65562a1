//! What a survey has found, named and sorted.

use std::time::Duration;

use super::stream::{Span, Stream};
use super::{Key, LeftOut, Survey};
use crate::api::{Count, Discovery, Dropped, Range, Rate, RtpLook, StreamSeen};
use crate::flow::InterfaceName;
use crate::forward::FlowKey;
use crate::link::IfIndex;
use crate::relay::Takers;
use crate::verdict::{Pass, RuleDrop};

impl Survey {
    /// After `listened`, with the rules and interfaces of a moment. An interface that was not there then
    /// has its number for a name.
    pub fn report(self, listened: Duration, missed: u64, takers: &Takers) -> Discovery {
        let Self { interfaces, streams, left_out, .. } = self;
        let name = |index| name(takers, index);
        let mut sorted: Vec<(String, Key, Stream)> =
            streams.into_iter().map(|(key, stream)| (name(key.interface), key, stream)).collect();
        sorted.sort_by(|(a, a_key, _), (b, b_key, _)| (a, a_key).cmp(&(b, b_key)));
        let seen = |(interface, key, stream): (String, Key, Stream)| {
            seen(interface, key, &stream, (listened, takers))
        };
        let mut interfaces: Vec<String> = interfaces.into_iter().map(name).collect();
        interfaces.sort();
        Discovery {
            interfaces,
            seconds: listened.as_millis() as f64 / 1000.0,
            streams: sorted.into_iter().map(seen).collect(),
            left_out: reasons(left_out),
            missed,
            warnings: Vec::new(),
        }
    }
}

fn seen(
    interface: String,
    key: Key,
    stream: &Stream,
    (listened, takers): (Duration, &Takers),
) -> StreamSeen {
    let Key { vlan, group, port, source, .. } = key;
    let Stream { packets, bytes, fragments, ttl, size, looks } = stream;
    let (rule, state, pass) = match taker(takers, &key) {
        Ok((rule, state)) => (Some(rule), Some(state), None),
        Err(pass) => (None, None, Some(pass.to_owned())),
    };
    let rtp = looks.rtp().map(|look| RtpLook { payload_type: look.payload_type, ssrc: look.ssrc });
    StreamSeen {
        interface,
        vlan,
        group,
        port,
        source,
        received: Count { packets: *packets, bytes: *bytes },
        rate: Rate {
            packets: per_second(*packets, listened),
            bits: per_second(bytes * 8, listened),
        },
        fragments: *fragments,
        ttl: range(*ttl),
        size: range(*size),
        rtp,
        ts: looks.ts(),
        rule,
        state,
        pass,
    }
}

/// The rule that has the stream as its input with its state, or the name of the reason why none.
fn taker(takers: &Takers, key: &Key) -> Result<(String, String), &'static str> {
    if key.vlan.is_some() {
        return Err(Pass::Tagged.name());
    }
    let flow = FlowKey { interface: key.interface, address: key.group, port: key.port };
    let found = takers.table.taker(&flow, key.source);
    let rule = found.ok().and_then(|id| takers.rules.get(&id));
    match (rule, found) {
        (Some((rule, state)), _) => Ok((rule.to_string(), state.name().to_owned())),
        _ if takers.table.is_own(key.source, key.interface) => Err(RuleDrop::Own.name()),
        (None, Err(pass)) => Err(pass.name()),
        (None, Ok(_)) => Err(Pass::NoRule.name()),
    }
}

fn name(takers: &Takers, index: IfIndex) -> String {
    takers.name(index).map_or_else(|| index.to_string(), InterfaceName::to_string)
}

fn per_second(count: u64, listened: Duration) -> u64 {
    let nanoseconds = listened.as_nanos().max(1);
    let rounded = (u128::from(count) * 1_000_000_000 + nanoseconds / 2) / nanoseconds;
    rounded.try_into().unwrap_or(u64::MAX)
}

fn range(span: Span) -> Range {
    let (min, max) = span.ends();
    Range { min, max }
}

/// Only what is not 0.
fn reasons(left_out: LeftOut) -> Dropped {
    let LeftOut { link_local, fragment, malformed, too_many } = left_out;
    let all = [
        ("link-local", link_local),
        (Pass::Fragment.name(), fragment),
        (Pass::Malformed.name(), malformed),
        ("too-many", too_many),
    ];
    let present = all.into_iter().filter(|(_, count)| *count > 0);
    present.map(|(name, count)| (name.to_owned(), count)).collect()
}
