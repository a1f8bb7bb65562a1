//! What a worker has to send by one interface: a queue that goes out by one sendmmsg(2).
//!
//! A message has two parts: the headers, rewritten in memory of the queue, and the payload, where
//! it came in. So a frame in a ring stays as it came, whatever is sent of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libc::{c_uint, iovec, mmsghdr, sockaddr_ll};
use mcr_core::action::{LinkHeader, OutputId, PlaneOutput, Volume};
use mcr_core::forward::{HEADERS_MAX, Match, Shared};
use mcr_core::link::IfIndex;
use mcr_core::verdict::OutputDrop;
use mcr_core::wire::ip::PROTOCOL_UDP;
use mcr_core::wire::{checksum, ethernet, ipv4, ipv6, udp};

use super::ring::BATCH;
use super::shared::CounterMemory;
use super::vnet::{self, VnetHeader};

/// Messages in a queue; it is sent when it is full, or when a batch ends.
const MESSAGES: usize = 2 * BATCH;
/// Offload header, and the frame's.
const HEADERS: usize = vnet::LEN + HEADERS_MAX;

/// The queue of one interface.
pub(crate) struct SendQueue {
    socket: OwnedFd,
    /// Goes past the queueing discipline. Super-packets cannot.
    bypass: Option<OwnedFd>,
    /// Where a packet without link header goes, of either version: the header would have said so.
    names: Box<[sockaddr_ll; 2]>,
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
    pub(crate) fn new(interface: IfIndex, socket: OwnedFd, bypass: Option<OwnedFd>) -> Self {
        let name = |protocol: u16| sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: interface.0.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
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
            names: [name(ethernet::TYPE_IPV4), name(ethernet::TYPE_IPV6)].into(),
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
        (output, shared): (&PlaneOutput, Shared<'_>),
        frame: &[u8],
        vnet: VnetHeader,
    ) -> Result<(), OutputDrop> {
        let number = self.entries.len();
        let header = &mut self.headers[number];
        let length = found.rewrite(output, shared, frame, &mut header[vnet::LEN..])?;
        if !output.carrier {
            // The kernel would take it, say nothing and drop it (noop_qdisc).
            return Err(OutputDrop::QueueFull);
        }
        // The UDP header has the same place behind the link header, which may be another.
        let (came, udp) = (found.headers_len(), found.udp_offset(output));
        let came_udp = came + udp - length;
        let mut vnet = vnet;
        if vnet.segment_size() != 0 && !vnet.is_partial(came_udp) {
            // From GRO by lists (rx-gro-list): each datagram had its own, and the kernel cuts only
            // what it may make checksums for.
            unfinish_checksum(&mut header[vnet::LEN..][..length], link_len(output), udp);
            vnet = vnet.partial(came_udp);
        }
        vnet.write(header, came_udp, udp);
        let payload = &frame[came..];
        let [first, second] = &mut self.parts[number];
        first.iov_base = header.as_mut_ptr().cast();
        first.iov_len = vnet::LEN + length;
        second.iov_base = payload.as_ptr().cast_mut().cast();
        second.iov_len = payload.len();
        let message = &mut self.messages[number].msg_hdr;
        message.msg_iov = self.parts[number].as_mut_ptr();
        (message.msg_name, message.msg_namelen) = match output.header {
            LinkHeader::Ethernet { .. } => (ptr::null_mut(), 0),
            LinkHeader::Bare => {
                let name = &self.names[usize::from(header[vnet::LEN] >> 4 == 6)];
                let length = size_of::<sockaddr_ll>() as libc::socklen_t;
                (ptr::from_ref(name).cast_mut().cast(), length)
            }
        };
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

/// Bytes before the IP header.
fn link_len(output: &PlaneOutput) -> usize {
    match output.header {
        LinkHeader::Bare => 0,
        LinkHeader::Ethernet { .. } => ethernet::HEADER_LEN,
    }
}

/// Puts the sum of the pseudo-header into the checksum field, as whoever finishes it expects.
fn unfinish_checksum(headers: &mut [u8], ip: usize, udp: usize) {
    let [high, low] = [headers[udp + 4], headers[udp + 5]];
    let addresses = match headers[ip] >> 4 {
        4 => ip + ipv4::SOURCE..ip + ipv4::SOURCE + 8,
        _ => ip + ipv6::SOURCE..ip + ipv6::SOURCE + 32,
    };
    let sum = checksum::sum(&headers[addresses]) + checksum::sum(&[0, PROTOCOL_UDP, high, low]);
    headers[udp + udp::CHECKSUM..][..2].copy_from_slice(&checksum::fold(sum).to_be_bytes());
}

/// Sends messages until one fails; the number sent, or why the first failed.
fn send(socket: BorrowedFd<'_>, messages: &mut [mmsghdr]) -> io::Result<usize> {
    let (first, count) = (messages.as_mut_ptr(), messages.len() as c_uint);
    // SAFETY: there are `count` messages, whose two parts point to a header of the queue and to a
    // payload that `push` was promised to stay, and whose name is none or one of the queue's, of the
    // length that is said; the kernel reads them, and writes `msg_len`.
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
        let v4 = (0x45, ipv4::SOURCE, 8, ipv4::HEADER_LEN);
        let v6 = (0x60, ipv6::SOURCE, 32, ipv6::HEADER_LEN);
        for ((first, at, count, header), options, link) in
            [(v4, 0, 14), (v4, 8, 14), (v4, 0, 0), (v6, 0, 14), (v6, 8, 0)]
        {
            let start = link + header + options;
            let mut frame = vec![0; start + udp::HEADER_LEN];
            frame[link] = first;
            let addresses: Vec<u8> = (200..200 + count).collect();
            frame[link + at..][..addresses.len()].copy_from_slice(&addresses);
            frame[start..][..4].copy_from_slice(&[0x0f, 0xa0, 0x17, 0x70]);
            frame[start + 4..][..2].copy_from_slice(&length.to_be_bytes());
            unfinish_checksum(&mut frame, link, start);
            frame.extend(payload);
            let finished = checksum::checksum(&frame[start..]);
            frame[start + udp::CHECKSUM..][..2].copy_from_slice(&finished.to_be_bytes());
            let pseudo = [&addresses[..], &[0, PROTOCOL_UDP], &length.to_be_bytes()].concat();
            let all = checksum::sum(&pseudo) + checksum::sum(&frame[start..]);
            assert_eq!(checksum::fold(all), 0xffff, "RFC 768, {options} bytes of options");
        }
    }
}
