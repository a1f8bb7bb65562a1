//! Receive rings in memory shared with the kernel (`PACKET_RX_RING`,
//! Documentation/networking/packet_mmap.rst), and the only pointer arithmetic of the packet plane.
//!
//! ```text
//! frames (TPACKET_V2)   slot:  tpacket2_hdr | sockaddr_ll | ... virtio_net_hdr | frame
//! blocks (TPACKET_V3)   block: tpacket_block_desc | tpacket3_hdr | ... | frame | tpacket3_hdr ...
//! ```
//!
//! A slot, or a block, belongs to the kernel or to us, by its status word. What is taken from it is
//! taken in batches: [`Ring::ready`] says how many frames are at hand, [`Ring::frame`] shows each,
//! and [`Ring::done`] gives them back. How far that has come is kept in a [`Place`] that outlives
//! the process: whoever maps the ring next goes on there, and at most the batch in hand is seen
//! twice.

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{sockaddr_ll, tpacket2_hdr, tpacket3_hdr};
use mcr_core::link::{IfIndex, LinkKind};
use memmap2::{MmapOptions, MmapRaw};

use super::shared::Place;
use super::socket::RingLayout;
use super::vnet::{self, VnetHeader};

/// The most frames in a batch.
pub(crate) const BATCH: usize = 64;

const KERNEL: u32 = libc::TP_STATUS_KERNEL;
const USER: u32 = libc::TP_STATUS_USER;
/// A byte of `tp_padding`, which the kernel clears with each frame and never reads: whether this
/// frame has been sent.
const MARK: usize = offset_of!(tpacket2_hdr, tp_padding);
/// Offsets in `struct tpacket_block_desc`.
const BLOCK_STATUS: usize = 8;
const BLOCK_FRAMES: usize = 12;
const BLOCK_FIRST: usize = 16;
const BLOCK_LEN: usize = 20;
const BLOCK_SEQUENCE: usize = 24;

/// A frame in a ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'r> {
    /// What there is of it, from the Ethernet header on, or from the IP header where the interface
    /// has no link header.
    pub(crate) bytes: &'r [u8],
    pub(crate) bare: bool,
    /// Bytes that the kernel has put before `bytes`: a header that an interface without link header
    /// has after all.
    pub(crate) before: usize,
    /// How long it is.
    pub(crate) length: usize,
    /// `PACKET_*` of linux/if_packet.h.
    pub(crate) packet_type: u8,
    /// The VLAN tag that the kernel has taken off.
    pub(crate) tag: Option<u16>,
    pub(crate) vnet: VnetHeader,
    /// The whole frame waits in the socket's queue.
    pub(crate) copied: bool,
    /// When it was seen, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// The interface that it came in or goes out by.
    pub(crate) interface: IfIndex,
}

/// What the two kinds of headers say of a frame: where they are, where its address is, the offsets of
/// the frame and of its IP header from them, its bytes there, and its length.
struct Header {
    at: usize,
    address: usize,
    mac: usize,
    net: usize,
    there: usize,
    length: usize,
    tag: Option<u16>,
    copied: bool,
    time: u64,
}

/// A ring of either kind.
#[derive(Debug)]
pub(crate) struct Ring {
    map: MmapRaw,
    layout: RingLayout,
    place: Place,
    /// Where the frames of the batch in hand are: offsets of their headers.
    batch: Vec<usize>,
    /// The next frame of the block in hand: its block, its number in it, and where it is.
    next: (u64, u64, usize),
}

impl Ring {
    /// Maps the ring of a socket, and goes on where `place` says.
    pub(crate) fn open(
        socket: &impl AsRawFd,
        layout: RingLayout,
        place: Place,
    ) -> io::Result<Self> {
        let bytes = usize::try_from(layout.bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let map = MmapOptions::new().len(bytes).map_raw(socket.as_raw_fd())?;
        let ring = Self { map, layout, place, batch: Vec::with_capacity(BATCH), next: (0, 0, 0) };
        ring.recover();
        Ok(ring)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Ends what an earlier owner was about when it died: gives back what it had sent.
    fn recover(&self) {
        let (reached, sent) = (self.place.reached(), self.place.sent());
        for slot in reached..sent {
            let at = self.slot(slot);
            if self.status(at).load(Ordering::Acquire) & USER == 0 {
                continue;
            }
            // One that was given back may have been filled again: then it has no mark, or another
            // number, and stays. Only now, with the status, is that there to be read.
            let given = if self.layout.blocks {
                self.u64(at + BLOCK_SEQUENCE) != self.place.sequence()
            } else {
                self.byte(at + MARK) == 0
            };
            if !given {
                give_back(self.status(at));
            }
        }
        if sent > reached {
            self.place.set_taken(0);
            self.place.set_reached(sent);
        }
    }

    /// Takes the next batch in hand: the number of frames in it, at most [`BATCH`].
    pub(crate) fn ready(&mut self) -> usize {
        self.batch.clear();
        if self.layout.blocks {
            self.take_from_block();
        } else {
            self.take_slots();
        }
        self.batch.len()
    }

    fn take_slots(&mut self) {
        let reached = self.place.reached();
        for slot in reached..reached + BATCH.min(self.layout.slots as usize) as u64 {
            let at = self.slot(slot);
            if self.status(at).load(Ordering::Acquire) & USER == 0 {
                return;
            }
            self.batch.push(at);
        }
    }

    fn take_from_block(&mut self) {
        loop {
            let block = self.slot(self.place.reached());
            if self.status(block).load(Ordering::Acquire) & USER == 0 {
                return;
            }
            let frames = u64::from(self.u32(block + BLOCK_FRAMES));
            let taken = self.place.taken();
            if taken >= frames {
                self.finish_block(block);
                continue;
            }
            let mut at = self.frame_of_block(block, taken);
            let end = frames.min(taken + BATCH as u64);
            for _ in taken..end {
                self.batch.push(at);
                at = self.frame_after(at);
            }
            self.next = (self.place.reached(), end, at);
            return;
        }
    }

    /// Where frame `number` of the block in hand is.
    fn frame_of_block(&self, block: usize, number: u64) -> usize {
        let (of, next, at) = self.next;
        if (of, next) == (self.place.reached(), number) && number > 0 {
            return at;
        }
        let first = block + self.u32(block + BLOCK_FIRST) as usize;
        (0..number).fold(first, |at, _| self.frame_after(at))
    }

    fn frame_after(&self, at: usize) -> usize {
        at + self.u32(at + offset_of!(tpacket3_hdr, tp_next_offset)) as usize
    }

    /// A frame of the batch in hand; `None` if it has been sent, by a process that died then.
    pub(crate) fn frame(&self, number: usize) -> Option<Received<'_>> {
        let at = self.batch[number];
        if self.layout.blocks {
            let header: tpacket3_hdr = self.header(at);
            let tagged = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
            return Some(self.received(&Header {
                at,
                address: at + size_of::<tpacket3_hdr>(),
                mac: header.tp_mac.into(),
                net: header.tp_net.into(),
                there: header.tp_snaplen as usize,
                length: header.tp_len as usize,
                tag: tagged.then_some(header.hv1.tp_vlan_tci as u16),
                copied: false,
                time: nanoseconds(header.tp_sec, header.tp_nsec),
            }));
        }
        if self.byte(at + MARK) != 0 {
            return None;
        }
        let header: tpacket2_hdr = self.header(at);
        let tagged = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        Some(self.received(&Header {
            at,
            address: at + size_of::<tpacket2_hdr>(),
            mac: header.tp_mac.into(),
            net: header.tp_net.into(),
            there: header.tp_snaplen as usize,
            length: header.tp_len as usize,
            tag: tagged.then_some(header.tp_vlan_tci),
            copied: header.tp_status & libc::TP_STATUS_COPY != 0,
            time: nanoseconds(header.tp_sec, header.tp_nsec),
        }))
    }

    fn received(&self, header: &Header) -> Received<'_> {
        let Header { at, address, mac, net, there, length, tag, copied, time } = *header;
        let RingLayout { slot_bytes, .. } = self.layout;
        let hardware: u16 = self.header(address + offset_of!(sockaddr_ll, sll_hatype));
        // A ring of all interfaces has frames of both kinds.
        let bare = self.layout.bare || LinkKind::from_arphrd(hardware) == LinkKind::Bare;
        let interface = IfIndex(self.u32(address + offset_of!(sockaddr_ll, sll_ifindex)));
        let slot = slot_bytes as usize;
        let end = at - at % slot + slot;
        let before = if bare { net.wrapping_sub(mac) } else { 0 };
        let whole = mac >= address - at + size_of::<sockaddr_ll>() + vnet::LEN
            && at + mac + there <= end
            && before <= there.min(length);
        if !whole {
            // Given up half-way by the kernel, as it does with offloads that it cannot describe.
            return Received {
                bytes: &[],
                bare,
                before: 0,
                length: 1,
                packet_type: libc::PACKET_HOST,
                tag: None,
                vnet: VnetHeader::default(),
                copied: false,
                time,
                interface,
            };
        }
        let vnet = VnetHeader::read(self.bytes(at + mac - vnet::LEN, vnet::LEN));
        Received {
            bytes: self.bytes(at + mac + before, there - before),
            bare,
            before,
            length: length - before,
            packet_type: self.byte(address + offset_of!(sockaddr_ll, sll_pkttype)),
            tag,
            vnet: vnet.without(before),
            copied,
            time,
            interface,
        }
    }

    /// The first frames of the batch in hand are dealt with and given back.
    pub(crate) fn done(&mut self, frames: usize) {
        if self.layout.blocks {
            self.place.set_taken(self.place.taken() + frames as u64);
            self.batch.drain(..frames);
            return;
        }
        let end = self.place.reached() + frames as u64;
        for at in &self.batch[..frames] {
            self.mark(*at + MARK);
        }
        self.place.set_sent(end);
        for at in self.batch.drain(..frames) {
            give_back(status(&self.map, at));
        }
        self.place.set_reached(end);
    }

    fn finish_block(&self, block: usize) {
        let next = self.place.reached() + 1;
        self.place.set_sequence(self.u64(block + BLOCK_SEQUENCE));
        self.place.set_sent(next);
        // What the kernel gives up half-way next time must not show what is here now.
        let first = self.u32(block + BLOCK_FIRST) as usize;
        let length = (self.u32(block + BLOCK_LEN) as usize).min(self.layout.slot_bytes as usize);
        self.clear(block + first, length.saturating_sub(first));
        give_back(self.status(block));
        self.place.set_taken(0);
        self.place.set_reached(next);
    }

    /// The offset of a slot or block.
    fn slot(&self, number: u64) -> usize {
        let RingLayout { slots, slot_bytes, .. } = self.layout;
        (number % u64::from(slots)) as usize * slot_bytes as usize
    }

    /// The status word of the slot or block at `at`.
    fn status(&self, at: usize) -> &AtomicU32 {
        status(&self.map, at + if self.layout.blocks { BLOCK_STATUS } else { 0 })
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes(at, 1)[0]
    }

    fn u32(&self, at: usize) -> u32 {
        self.header(at)
    }

    fn u64(&self, at: usize) -> u64 {
        self.header(at)
    }

    fn mark(&self, at: usize) {
        assert!(at < self.map.len());
        #[cfg(test)]
        tests::step();
        // SAFETY: `at` lies in the mapping.
        let byte = unsafe { self.map.as_mut_ptr().add(at) };
        // SAFETY: the slot is ours, so nobody else accesses this byte, which belongs to no header
        // field or frame.
        unsafe { byte.write(1) }
    }

    fn clear(&self, at: usize, length: usize) {
        assert!(length <= self.map.len() && at <= self.map.len() - length);
        // SAFETY: `at` lies in the mapping, or at its end.
        let start = unsafe { self.map.as_mut_ptr().add(at) };
        // SAFETY: `length` bytes from there lie in the mapping, in a block that is ours, of which no
        // frame is looked at any more: its batches are done.
        unsafe { start.write_bytes(0, length) }
    }

    /// A header, or a field of one, of what is ours.
    fn header<T: Copy>(&self, at: usize) -> T {
        let bytes = self.bytes(at, size_of::<T>());
        // SAFETY: `bytes` has the size of T, one of the kernel's headers or an integer, for which
        // all bytes are valid.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    }

    /// Bytes of a slot or block that is ours.
    fn bytes(&self, at: usize, length: usize) -> &[u8] {
        assert!(length <= self.map.len() && at <= self.map.len() - length);
        // SAFETY: `at` lies in the mapping, or at its end.
        let start = unsafe { self.map.as_ptr().add(at) };
        // SAFETY: `length` bytes from there lie in the mapping, which lives as long as `self`. The
        // kernel writes nothing to a slot or block that is ours, and it is ours until `done`,
        // which takes `self` mutably.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

fn nanoseconds(seconds: u32, rest: u32) -> u64 {
    u64::from(seconds) * 1_000_000_000 + u64::from(rest)
}

/// From here on the kernel may fill it.
fn give_back(status: &AtomicU32) {
    #[cfg(test)]
    tests::step();
    status.store(KERNEL, Ordering::Release);
}

/// The status word at `at`: shared with the kernel, as an atomic.
fn status(map: &MmapRaw, at: usize) -> &AtomicU32 {
    assert!(at + size_of::<AtomicU32>() <= map.len() && at.is_multiple_of(align_of::<AtomicU32>()));
    // SAFETY: `at` lies in the mapping.
    let word = unsafe { map.as_mut_ptr().add(at) };
    // SAFETY: the word lies in the mapping, which lives as long as the reference, is aligned, since
    // mappings start at a page, and is accessed as an atomic by the kernel too.
    unsafe { AtomicU32::from_ptr(word.cast()) }
}
