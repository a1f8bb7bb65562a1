//! What a worker has to send by one interface: a queue that goes out by one sendmmsg(2).
//!
//! A message has two parts: the headers, rewritten in memory of the queue, and the payload, where
//! it came in. So a frame in a ring stays as it came, whatever is sent of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libc::{c_uint, iovec, mmsghdr};
use mcr_core::action::{OutputId, PlaneOutput, Volume};
use mcr_core::forward::Match;
use mcr_core::verdict::OutputDrop;
use mcr_core::wire::{checksum, ethernet, ipv4, udp};

use super::ring::BATCH;
use super::shared::CounterMemory;
use super::vnet::{self, VnetHeader};

/// Messages in a queue; it is sent when it is full, or when a batch ends.
const MESSAGES: usize = 2 * BATCH;
/// Offload header, Ethernet, the longest IPv4 header, UDP; rounded up.
const HEADERS: usize = 96;

/// The queue of one interface.
pub(crate) struct SendQueue {
    socket: OwnedFd,
    /// Goes past the queueing discipline. Super-packets cannot.
    bypass: Option<OwnedFd>,
    entries: Vec<Entry>,
    headers: Box<[[u8; HEADERS]]>,
    parts: Box<[[iovec; 2]]>,
    messages: Box<[mmsghdr]>,
}

/// What a message is counted as.
struct Entry {
    output: OutputId,
    volume: Volume,
    super_packet: bool,
}

impl SendQueue {
    pub(crate) fn new(socket: OwnedFd, bypass: Option<OwnedFd>) -> Self {
        let empty = iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let message = libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: ptr::null_mut(),
            msg_iovlen: 2,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Self {
            socket,
            bypass,
            entries: Vec::with_capacity(MESSAGES),
            headers: vec![[0; HEADERS]; MESSAGES].into(),
            parts: vec![[empty; 2]; MESSAGES].into(),
            messages: vec![mmsghdr { msg_hdr: message, msg_len: 0 }; MESSAGES].into(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() == MESSAGES
    }

    /// Queues what `found` makes of `frame` for an output; counts it at once when nothing is to be
    /// sent. The queue is not full.
    ///
    /// # Safety
    ///
    /// `frame` must stay as it is until [`SendQueue::flush`] has returned, or the queue is dropped.
    pub(crate) unsafe fn push(
        &mut self,
        found: &Match<'_>,
        output: &PlaneOutput,
        frame: &[u8],
        vnet: VnetHeader,
    ) -> Result<(), OutputDrop> {
        let number = self.entries.len();
        let length = found.headers_len();
        let header = &mut self.headers[number];
        header[vnet::LEN..][..length].copy_from_slice(&frame[..length]);
        found.rewrite(output, &mut header[vnet::LEN..][..length])?;
        if !output.carrier {
            // The kernel would take it, say nothing and drop it (noop_qdisc).
            return Err(OutputDrop::QueueFull);
        }
        let udp = length - udp::HEADER_LEN;
        let mut vnet = vnet;
        if vnet.segment_size() != 0 && !vnet.is_partial(udp) {
            // From GRO by lists (rx-gro-list): each datagram had its own, and the kernel cuts only
            // what it may make checksums for.
            unfinish_checksum(&mut header[vnet::LEN..][..length], udp);
            vnet = vnet.partial(udp);
        }
        vnet.write(header, udp);
        let payload = &frame[length..];
        let [first, second] = &mut self.parts[number];
        first.iov_base = header.as_mut_ptr().cast();
        first.iov_len = vnet::LEN + length;
        second.iov_base = payload.as_ptr().cast_mut().cast();
        second.iov_len = payload.len();
        self.messages[number].msg_hdr.msg_iov = self.parts[number].as_mut_ptr();
        let super_packet = vnet.segment_size() != 0;
        self.entries.push(Entry { output: output.id, volume: found.volume, super_packet });
        Ok(())
    }

    /// Sends all, and counts what became of each.
    pub(crate) fn flush(&mut self, counters: &CounterMemory) {
        let mut at = 0;
        while at < self.entries.len() {
            let rest = self.entries[at..].iter();
            let plain = rest.take_while(|entry| !entry.super_packet).count();
            let socket = match &self.bypass {
                Some(bypass) if plain > 0 => bypass.as_fd(),
                Some(_) | None => self.socket.as_fd(),
            };
            // A super-packet alone: sendmmsg(2) keeps the error of a later message to itself, and to
            // try it again could send a part of it twice.
            let run = plain.max(1);
            match send(socket, &mut self.messages[at..at + run]) {
                Ok(sent) => {
                    for Entry { output, volume, .. } in &self.entries[at..at + sent] {
                        counters.offered(*output, *volume, Ok(()));
                    }
                    at += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let Entry { output, volume, .. } = self.entries[at];
                    counters.offered(output, volume, Err(reason(&error)));
                    at += 1;
                }
            }
        }
        self.entries.clear();
    }
}

/// Puts the sum of the pseudo-header into the checksum field, as whoever finishes it expects.
fn unfinish_checksum(headers: &mut [u8], udp: usize) {
    let [high, low] = [headers[udp + 4], headers[udp + 5]];
    let sum = checksum::sum(&headers[ethernet::HEADER_LEN + ipv4::SOURCE..][..8])
        + checksum::sum(&[0, ipv4::PROTOCOL_UDP, high, low]);
    headers[udp + udp::CHECKSUM..][..2].copy_from_slice(&checksum::fold(sum).to_be_bytes());
}

/// Sends messages until one fails; the number sent, or why the first failed.
fn send(socket: BorrowedFd<'_>, messages: &mut [mmsghdr]) -> io::Result<usize> {
    let (first, count) = (messages.as_mut_ptr(), messages.len() as c_uint);
    // SAFETY: there are `count` messages, whose two parts point to a header of the queue and to a
    // payload that `push` was promised to stay; the kernel reads them, and writes `msg_len`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), first, count, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What an error of packet_snd (net/packet/af_packet.c) means.
fn reason(error: &io::Error) -> OutputDrop {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => OutputDrop::Mtu,
        Some(libc::ENETDOWN) => OutputDrop::InterfaceDown,
        Some(libc::ENXIO | libc::ENODEV) => OutputDrop::InterfaceGone,
        // The queueing discipline, and this socket's buffer, which the queue fills.
        Some(libc::ENOBUFS | libc::EAGAIN) => OutputDrop::QueueFull,
        Some(libc::ENOMEM) => OutputDrop::NoMemory,
        _ => OutputDrop::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever finishes the checksum sums up from the UDP header on.
    #[test]
    fn an_unfinished_checksum_can_be_finished() {
        let payload = [7; 11];
        let length = (udp::HEADER_LEN + payload.len()) as u16;
        for options in [0, 8] {
            let start = ethernet::HEADER_LEN + ipv4::HEADER_LEN + options;
            let mut frame = vec![0; start + udp::HEADER_LEN];
            let addresses = [10, 0, 0, 1, 239, 10, 1, 1];
            frame[ethernet::HEADER_LEN + ipv4::SOURCE..][..8].copy_from_slice(&addresses);
            frame[start..][..4].copy_from_slice(&[0x0f, 0xa0, 0x17, 0x70]);
            frame[start + 4..][..2].copy_from_slice(&length.to_be_bytes());
            unfinish_checksum(&mut frame, start);
            frame.extend(payload);
            let finished = checksum::checksum(&frame[start..]);
            frame[start + udp::CHECKSUM..][..2].copy_from_slice(&finished.to_be_bytes());
            let pseudo = [&addresses[..], &[0, ipv4::PROTOCOL_UDP], &length.to_be_bytes()].concat();
            let all = checksum::sum(&pseudo) + checksum::sum(&frame[start..]);
            assert_eq!(checksum::fold(all), 0xffff, "RFC 768, with {options} bytes of options");
        }
    }
}
