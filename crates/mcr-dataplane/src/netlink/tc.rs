//! Traffic control by netlink: filters and qdiscs, asked for and answered at once.

use std::io;

use aya::programs::tc::TcError;
use mcr_core::link::IfIndex;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption, TcStats2,
};

use super::ask::Asker;

/// Whether adding a qdisc failed because there is one.
pub(crate) fn is_exists(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        TcError::NulError(_) | TcError::IoError(_) => false,
        TcError::InvalidTcxAttach(_) | TcError::InvalidLinkOperation => false,
    }
}

/// Removes the clsact qdisc of an interface if it has no filter.
pub(crate) fn remove_empty_clsact(index: IfIndex) {
    let removed = filters(index).and_then(|count| {
        if count > 0 {
            tracing::info!(%index, "clsact qdisc left: it has filters of others");
            return Ok(());
        }
        let mut message = message(index, TcHandle::CLSACT);
        message.attributes.push(TcAttribute::Kind("clsact".into()));
        request(RouteNetlinkMessage::DelQueueDiscipline(message), NLM_F_ACK, |_| ())
    });
    if let Err(error) = removed {
        tracing::debug!(%index, %error, "clsact qdisc not removed; the interface may be gone");
    }
}

/// Number of filters on both sides of the qdisc.
fn filters(index: IfIndex) -> io::Result<usize> {
    let mut count = 0;
    for side in [TcHandle::MIN_INGRESS, TcHandle::MIN_EGRESS] {
        dump(index, side, |_| count += 1)?;
    }
    Ok(count)
}

/// Name and id of the eBPF programs on the ingress side, but for the filter of this handle.
pub(crate) fn programs(index: IfIndex, but: u32) -> io::Result<Vec<(String, u32)>> {
    let mut programs = Vec::new();
    dump(index, TcHandle::MIN_INGRESS, |filter| {
        if u32::from(filter.header.handle) == but {
            return;
        }
        let (mut name, mut id) = (None, None);
        let mut options = Vec::new();
        for attribute in &filter.attributes {
            if let TcAttribute::Options(some) = attribute {
                options.extend(some);
            }
        }
        for option in options {
            if let TcOption::Bpf(TcFilterBpfOption::ProgName(text)) = option {
                name = Some(text.clone());
            } else if let TcOption::Bpf(TcFilterBpfOption::ProgId(number)) = option {
                id = Some(*number);
            }
        }
        programs.extend(name.zip(id));
    })?;
    Ok(programs)
}

fn dump(index: IfIndex, side: u16, mut each: impl FnMut(TcMessage)) -> io::Result<()> {
    let parent = TcHandle { major: u16::MAX, minor: side };
    let dump = RouteNetlinkMessage::GetTrafficFilter(message(index, parent));
    request(dump, NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer {
            each(filter);
        }
    })
}

/// Packets that the root queue of each interface has dropped, by interface.
pub(super) fn queue_drops() -> io::Result<Vec<(IfIndex, u64)>> {
    let mut drops = Vec::new();
    let all = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    request(all, NLM_F_DUMP, |answer| {
        let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = answer else { return };
        if qdisc.header.parent != TcHandle::ROOT {
            return;
        }
        for attribute in &qdisc.attributes {
            let TcAttribute::Stats2(stats) = attribute else { continue };
            for stat in stats {
                if let TcStats2::Queue(queue) = stat {
                    let index = IfIndex(qdisc.header.index.cast_unsigned());
                    drops.push((index, queue.drops.into()));
                }
            }
        }
    })?;
    Ok(drops)
}

fn message(index: IfIndex, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.0.cast_signed());
    message.header.parent = parent;
    message
}

fn request(
    payload: RouteNetlinkMessage,
    flags: u16,
    each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    Asker::open()?.ask(payload, flags, each)
}
