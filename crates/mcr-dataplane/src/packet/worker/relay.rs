//! What a worker does with a frame: decides, counts, and queues what is to be sent of it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use mcr_core::forward::{ForwardTable, Fragments, Frame, PacketType, Verdict, forward};
use mcr_core::link::IfIndex;
use mcr_core::verdict::OutputDrop;
use mcr_core::wire::ethernet;
use mcr_core::wire::ip::Ip;

use super::super::ring::Received;
use super::super::send::SendQueue;
use super::super::shared::{CounterMemory, Place, SharedMemory};

/// What a frame needs on its way through.
pub(super) struct Relay {
    pub(super) table: ForwardTable,
    pub(super) queues: HashMap<IfIndex, SendQueue, RandomState>,
    /// When the batch in hand was taken, by `CLOCK_MONOTONIC`: all workers share what depends on it.
    pub(super) now_ns: u64,
    fragments: Fragments,
    counters: CounterMemory,
    shared: SharedMemory,
}

impl Relay {
    pub(super) fn new(counters: CounterMemory, shared: SharedMemory) -> Self {
        Self {
            table: ForwardTable::default(),
            queues: HashMap::default(),
            now_ns: 0,
            fragments: Fragments::default(),
            counters,
            shared,
        }
    }

    /// Queues what becomes of a frame.
    ///
    /// # Safety
    ///
    /// The frame must stay as it is until the next [`Relay::flush`] has returned.
    pub(super) unsafe fn frame(
        &mut self,
        interface: IfIndex,
        place: &Place,
        received: &Received<'_>,
    ) {
        let Received { bytes, length, bare, packet_type, tag, vnet, .. } = *received;
        if bytes.len() < length || !vnet.is_known() {
            return place.add_unusable();
        }
        let frame = Frame {
            bytes,
            bare,
            interface,
            packet_type: match packet_type {
                libc::PACKET_HOST | libc::PACKET_BROADCAST | libc::PACKET_MULTICAST => {
                    PacketType::Here
                }
                _ => PacketType::OtherHost,
            },
            tagged: tag.is_some_and(|tag| tag & 0xfff != 0),
            segment_size: vnet.segment_size(),
            partial_checksum: vnet.needs_checksum()
                && udp_offset(bytes, bare).is_some_and(|udp| vnet.is_partial(udp)),
        };
        let shared = self.shared.shared();
        let kept = (&mut self.fragments, shared);
        let found = match forward(&self.table, kept, &frame, self.now_ns) {
            Verdict::Pass(reason) => return place.add_passed(reason),
            Verdict::Drop(rule, reason, volume, sender) => {
                if let Some(sender) = sender {
                    self.counters.sent_by(rule.id, sender, volume.packets, self.now_ns);
                }
                return self.counters.rule_dropped(rule.id, reason, volume);
            }
            Verdict::Match(found) => found,
        };
        self.counters.matched(found.rule.id, found.volume);
        self.counters.sent_by(found.rule.id, found.source, found.volume.packets, self.now_ns);
        for output in &found.rule.outputs {
            let Some(queue) = self.queues.get_mut(&output.interface) else {
                let reason = output.absent.unwrap_or(OutputDrop::InterfaceGone);
                self.counters.offered(output.id, found.volume, Err(reason));
                continue;
            };
            if queue.is_full() {
                queue.flush(&self.counters);
            }
            // SAFETY: promised by the caller, up to a later flush than the queue's.
            let queued = unsafe { queue.push(&found, (output, shared), bytes, vnet) };
            if queued.is_err() {
                self.counters.offered(output.id, found.volume, queued);
            }
        }
    }

    /// Relays a frame that is too large for its slot, if it could be had.
    pub(super) fn copied(
        &mut self,
        interface: IfIndex,
        place: &Place,
        whole: Option<&Received<'_>>,
    ) {
        match whole {
            // SAFETY: the copy is not written before the flush that follows.
            Some(frame) => unsafe { self.frame(interface, place, frame) },
            None => place.add_unusable(),
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        for queue in self.queues.values_mut() {
            queue.flush(&self.counters);
        }
    }
}

/// Where a UDP header begins in a frame, if it is one.
fn udp_offset(frame: &[u8], bare: bool) -> Option<usize> {
    let packet = if bare { 0 } else { ethernet::HEADER_LEN };
    Some(packet + Ip::parse(frame.get(packet..)?)?.header_len())
}
