//! What the kernel counts of each interface (`IFLA_STATS64`).

use std::collections::BTreeMap;
use std::io;

use mcr_core::link::IfIndex;
use mcr_core::loss::LinkCounts;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, Stats64};

use super::ask::Asker;

/// The counters of an interface since it exists.
pub(super) struct Counts {
    pub(super) name: String,
    pub(super) lost: LinkCounts,
    pub(super) transmit_dropped: u64,
}

/// Of all interfaces of the calling thread's network namespace.
pub(super) fn read() -> io::Result<BTreeMap<IfIndex, Counts>> {
    let mut counts = BTreeMap::new();
    let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
    Asker::open()?.ask(all, NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewLink(link) = answer {
            counts.extend(of(&link).map(|counts| (IfIndex(link.header.index), counts)));
        }
    })?;
    Ok(counts)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "netlink has attributes without number")]
fn of(link: &LinkMessage) -> Option<Counts> {
    let (mut name, mut stats) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Stats64(all) => stats = Some(*all),
            _ => {}
        }
    }
    let stats: Stats64 = stats?;
    Some(Counts {
        name: name?,
        lost: [
            stats.rx_dropped,
            stats.rx_missed_errors,
            stats.rx_fifo_errors,
            stats.rx_over_errors,
            stats.rx_errors,
        ],
        transmit_dropped: stats.tx_dropped,
    })
}
