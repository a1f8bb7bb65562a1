//! A look at packets as they come and go, from user space, without touching them: an `AF_PACKET` socket
//! with a ring of its own.
//!
//! ```text
//!   in:  interface -> [tap] -> TCX or clsact hook, rings of the packet plane, stack
//!   out: eBPF plane, packet plane, stack -> queue -> [tap] -> interface
//! ```
//!
//! A tap joins no group and makes no interface promiscuous; whoever wants the card's filter of groups
//! open says so ([`Tap::open_to_all_groups`]). What it is too slow for is lost to it
//! alone, and [`Tap::lost`] counts it. A super-packet (GSO, GRO) is one frame, longer than the MTU.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use libc::sock_filter;
use mcr_core::flow::{AddressBlock, PortRange};
use mcr_core::link::IfIndex;
use mcr_core::refusal::Refusal;
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::packet::filter::taps;
use crate::packet::ring::Ring;
use crate::packet::shared::Place;
use crate::packet::socket::{self, RingLayout};

/// What a tap is to see.
#[derive(Debug, Clone)]
pub struct TapOptions {
    /// Frames of one interface, or of all interfaces of the namespace.
    pub interface: Option<IfIndex>,
    /// Which of them.
    pub catch: Catch,
    /// Bytes kept of each frame, from its link header on; at least 1. A frame without its IP and UDP
    /// headers (up to 126 bytes) can hardly be judged.
    pub snap: u32,
    /// Bytes of the ring, more or less: 128 KiB at least.
    pub ring_bytes: u32,
}

/// What the kernel lets through to a tap, coming or going. The rest costs the tap nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Catch {
    /// UDP and its fragments to these addresses. It may be more: ports are not looked at (later
    /// fragments have none), and of many blocks the closest are joined.
    Flows(Vec<(AddressBlock, PortRange)>),
    /// UDP and its fragments to groups: 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// IGMP (RFC 3376), and MLD (RFC 2710, RFC 3810).
    Membership,
}

/// A frame that a tap has seen.
#[derive(Debug, Clone, Copy)]
pub struct Caught<'r> {
    /// What was kept of it, from its link header on, or from the IP header where it has none.
    pub bytes: &'r [u8],
    /// How long it is, in bytes.
    pub length: usize,
    /// It has no link header.
    pub bare: bool,
    /// The interface that it came in or goes out by.
    pub interface: IfIndex,
    /// This host sends it.
    pub outgoing: bool,
    /// `PACKET_*` of linux/if_packet.h: 0 to this host, 1 broadcast, 2 multicast, 3 to another host (seen
    /// where the interface is promiscuous), 4 outgoing.
    pub packet_type: u8,
    /// The VLAN tag (its TCI) that is not in `bytes`.
    pub tag: Option<u16>,
    /// When the kernel has seen it, in nanoseconds since 1970 (UTC).
    pub time: u64,
    /// UDP payload bytes of each datagram of a super-packet; 0 in an ordinary frame.
    pub segment_size: u16,
    /// A checksum of it is still to be made, by the interface or by nobody (veth).
    pub partial: bool,
}

/// The tap. It ends when it is dropped.
#[derive(Debug)]
pub struct Tap {
    ring: Ring,
    socket: Socket,
    snap: u32,
    blocks: u64,
    lost: u64,
}

impl Tap {
    /// Begins to see. Needs `CAP_NET_RAW`. An interface that does not exist is `ENODEV`.
    pub fn open(options: &TapOptions) -> io::Result<Self> {
        let snap = options.snap.max(1);
        let program = program(&options.catch, snap)?;
        let layout = RingLayout::tap(snap, options.ring_bytes);
        let socket = socket::tap(options.interface, layout, &program)?;
        let ring = Ring::open(&socket, layout, Place::new()?)?;
        Ok(Self { ring, socket, snap, blocks: layout.slots.into(), lost: 0 })
    }

    /// Sees something else from now on. What it saw before and sees after is seen without a gap.
    pub fn catch(&self, catch: &Catch) -> io::Result<()> {
        socket::set_filter(&self.socket, &program(catch, self.snap)?)
    }

    /// For a task that waits for frames, within a tokio runtime.
    pub fn watched(self) -> io::Result<Watched> {
        // SAFETY: the descriptor is open, and the same one, as long as the tap is there, and
        // `Watched` lets nobody put another tap in its place.
        let watched = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        Ok(Watched(watched?))
    }

    /// Spares it what this host sends.
    pub fn ignore_outgoing(&self) -> io::Result<()> {
        socket::ignore_outgoing(&self.socket)
    }

    /// Lets the card of an interface pass frames to all groups while the tap is there
    /// (`IFF_ALLMULTI`), not only to those that somebody on this host has joined. It joins none.
    pub fn open_to_all_groups(&self, interface: IfIndex) -> io::Result<()> {
        socket::open_to_all_groups(&self.socket, interface)
    }

    /// Shows what is there, in the kernel's order, and says how much it was; never waits. The kernel
    /// hands frames over 20 ms after they were seen at the latest, and makes the descriptor readable
    /// then. As long as this is not 0 there may be more: no more than a ring is read at once, however
    /// much comes meanwhile.
    pub fn read(&mut self, mut each: impl FnMut(&Caught<'_>)) -> usize {
        let (end, mut seen) = (self.ring.place().reached() + self.blocks, 0);
        while self.ring.place().reached() < end {
            let ready = self.ring.ready();
            if ready == 0 {
                break;
            }
            for received in (0..ready).filter_map(|number| self.ring.frame(number)) {
                // Given up half-way by the kernel, which counts it as lost.
                if received.bytes.is_empty() {
                    continue;
                }
                each(&Caught {
                    bytes: received.bytes,
                    length: received.length,
                    bare: received.bare,
                    interface: received.interface,
                    outgoing: received.packet_type == libc::PACKET_OUTGOING,
                    packet_type: received.packet_type,
                    tag: received.tag,
                    time: received.time,
                    segment_size: received.vnet.segment_size(),
                    partial: received.vnet.needs_checksum(),
                });
                seen += 1;
            }
            self.ring.done(ready);
        }
        if seen == 0 {
            // That the interface is down, say: poll(2) would report it for ever.
            let _ = socket::take_error(self.socket.as_fd());
        }
        seen
    }

    /// How much was lost to this tap so far: no room in its ring (`tp_drops`).
    pub fn lost(&mut self) -> u64 {
        self.lost += socket::arrived(&self.socket).map_or(0, |(_, lost)| lost.into());
        self.lost
    }
}

/// A tap that a task waits for. It gives the tap to nobody: with another in its place the runtime would
/// wait for a descriptor that somebody else may have by then.
#[derive(Debug)]
pub struct Watched(AsyncFd<Tap>);

impl Watched {
    /// Waits until there is something, and shows it as [`Tap::read`] does. May be dropped and called again
    /// at any time.
    pub async fn read(&mut self, each: impl FnMut(&Caught<'_>)) -> io::Result<usize> {
        let mut ready = self.0.readable_mut().await?;
        let count = ready.get_inner_mut().read(each);
        if count == 0 {
            ready.clear_ready();
        }
        Ok(count)
    }

    /// As [`Tap::read`].
    pub fn read_now(&mut self, each: impl FnMut(&Caught<'_>)) -> usize {
        self.0.get_mut().read(each)
    }

    /// As [`Tap::lost`].
    pub fn lost(&mut self) -> u64 {
        self.0.get_mut().lost()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What the kernel runs on each frame.
fn program(catch: &Catch, snap: u32) -> io::Result<Vec<sock_filter>> {
    Ok(match catch {
        Catch::Flows(flows) => {
            taps::udp(&flows.iter().map(|(addresses, _)| *addresses).collect(), snap)
        }
        Catch::Multicast => taps::udp(&groups().map_err(io::Error::other)?, snap),
        Catch::Membership => taps::membership(snap),
    })
}

/// All groups.
fn groups() -> Result<BTreeSet<AddressBlock>, Refusal> {
    let v4 = AddressBlock::new(Ipv4Addr::new(224, 0, 0, 0).into(), 4)?;
    let v6 = AddressBlock::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8)?;
    Ok([v4, v6].into())
}
