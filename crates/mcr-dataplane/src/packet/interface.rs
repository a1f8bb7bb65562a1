//! The supervisor's side of an interface: a ring for each worker where packets come in, a socket
//! for each worker where they go out. The supervisor keeps them all, so they survive a worker, with
//! what the rings hold.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use mcr_core::api::{RingStatus, SendBuffer};
use mcr_core::flow::{AddressBlock, InterfaceName};
use mcr_core::link::{IfIndex, LinkKind};
use mcr_core::packet::{InterfaceOptions, PacketOptions};
use mcr_core::refusal::{Code, Refusal};
use mcr_core::verdict::Pass;
use socket2::Socket;

use super::channel::{self, ToWorker};
use super::shared::Place;
use super::socket::{self, RingLayout};
use super::{Channel, filter};
use crate::{netlink, sys};

/// Asked for each sending socket: more than the queue of an interface holds (fq_codel: 32 MiB for
/// all senders), so that the queue decides what is dropped, and says so.
const SEND_BUFFER: u64 = 32 << 20;

/// An interface that packets come in by.
pub(super) struct Input {
    index: IfIndex,
    name: String,
    options: InterfaceOptions,
    layout: RingLayout,
    rings: Vec<InputRing>,
    /// What no rule took in rings that were replaced.
    passed: [u64; Pass::COUNTED.len()],
}

/// One worker's.
struct InputRing {
    socket: Socket,
    place: Place,
    /// Packets that were put into it, as far as the kernel has been asked.
    filled: u64,
    /// Packets that found no room.
    dropped: u64,
    /// Of rings that were replaced.
    unusable: u64,
    /// The place reached, and how often the ring was found empty, when it was last asked.
    seen: (u64, u64),
}

impl Input {
    /// Opens a ring for each worker. Their filters drop everything until [`Input::admit`].
    pub(super) fn open(
        index: IfIndex,
        options: &PacketOptions,
        workers: u32,
    ) -> Result<Self, Refusal> {
        let name = netlink::name_of(index)?;
        let parsed: InterfaceName = name.parse()?;
        let (interface, mib) = (options.interface(&parsed), options.ring_mib(&parsed));
        let about = |refusal: Refusal| refusal.about(format_args!("interface {name}"));
        let mtu = sys::mtu(&name).map_err(|error| about(unusable("its MTU", &error)))?;
        let kind = sys::link_kind(&name).map_err(|error| about(unusable("its kind", &error)))?;
        let layout = RingLayout::new(interface.receive, kind == LinkKind::Bare, mtu, mib);
        let too_large = |why: String| {
            let message = format!("receive rings of {workers} × {mib} MiB cannot be had: {why}");
            let hint = format!(
                "lower ring_mib under [packet] or [interface.{name}] in the configuration, or start \
                 mcrd with fewer --workers"
            );
            about(Refusal::new(Code::Plane, message, hint))
        };
        let wanted = layout.bytes() * u64::from(workers);
        // The kernel would try, and take the memory of others.
        if let Some(available) = available_memory().filter(|available| wanted > available / 2) {
            let why =
                format!("{} MiB of memory are available, and half of it stays", available >> 20);
            return Err(too_large(why));
        }
        let mut rings = Vec::new();
        for _ in 0..workers {
            let socket = socket::receiver(index, layout).map_err(|error| {
                let memory = error.raw_os_error() == Some(libc::ENOMEM);
                if memory {
                    too_large(error.to_string())
                } else {
                    about(unusable("a ring", &error))
                }
            })?;
            let place = Place::new().map_err(|error| about(unusable("shared memory", &error)))?;
            rings.push(InputRing {
                socket,
                place,
                filled: 0,
                dropped: 0,
                unusable: 0,
                seen: (0, 0),
            });
        }
        socket::share(rings.iter().map(|ring| &ring.socket))
            .map_err(|error| about(unusable("a fanout group", &error)))?;
        tracing::info!(
            interface = name,
            receive = interface.receive.name(),
            slots = layout.slots,
            slot_bytes = layout.slot_bytes,
            workers,
            "receiving"
        );
        let passed = [0; Pass::COUNTED.len()];
        Ok(Self { index, name, options: interface, layout, rings, passed })
    }

    /// Lets in what is for these addresses, and little else.
    pub(super) fn admit(&self, blocks: &BTreeSet<AddressBlock>) -> Result<(), Refusal> {
        let program = if blocks.is_empty() {
            filter::nothing()
        } else {
            filter::blocks(blocks, self.layout.bare)
        };
        for ring in &self.rings {
            socket::set_filter(&ring.socket, &program).map_err(|error| {
                unusable("a filter", &error).about(format_args!("interface {}", self.name))
            })?;
        }
        Ok(())
    }

    /// Hands a worker its ring.
    pub(super) fn hand(&self, worker: usize, channel: &Channel) -> io::Result<()> {
        let InputRing { socket, place, .. } = &self.rings[worker];
        let message = ToWorker::Input { interface: self.index, layout: self.layout };
        channel::send(channel.as_fd(), &message, &[socket.as_fd(), place.descriptor()])
    }

    /// Asks the kernel what it has put into the rings, and what it had no room for. True when a ring takes nothing any more: frames were
    /// dropped though it was found empty and nothing came out of it meanwhile. `tpacket_rcv` of
    /// net/packet/af_packet.c does that for ever after a frame that it cannot describe.
    pub(super) fn read_arrivals(&mut self) -> bool {
        let mut stuck = false;
        for ring in &mut self.rings {
            let seen = (ring.place.reached(), ring.place.empty());
            let (filled, dropped) = socket::arrived(&ring.socket).unwrap_or_else(|error| {
                tracing::debug!(interface = self.name, %error, "ring not asked");
                (0, 0)
            });
            ring.filled += u64::from(filled);
            ring.dropped += u64::from(dropped);
            let (reached, empty) = std::mem::replace(&mut ring.seen, seen);
            stuck |= dropped > 0 && seen.0 == reached && seen.1 > empty && !self.layout.blocks;
        }
        stuck
    }

    /// Goes on with the counters of the rings that these replace.
    pub(super) fn inherit(&mut self, old: &Self) {
        old.sum_passed(&mut self.passed);
        for (new, old) in self.rings.iter_mut().zip(&old.rings) {
            new.dropped = old.dropped;
            new.unusable = old.unusable + old.place.unusable();
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds what no rule took to `sum`.
    pub(super) fn sum_passed(&self, sum: &mut [u64; Pass::COUNTED.len()]) {
        sum.iter_mut().zip(self.passed).for_each(|(sum, passed)| *sum += passed);
        self.rings.iter().for_each(|ring| ring.place.sum_passed(sum));
    }

    pub(super) fn status(&self, worker: usize) -> RingStatus {
        let ring = &self.rings[worker];
        let RingLayout { blocks, slots, .. } = self.layout;
        let given_back = if blocks { ring.place.frames() } else { ring.place.reached() };
        let waiting = ring.filled.saturating_sub(given_back);
        // A frame takes a slot.
        let used = if blocks { ring.place.blocks() } else { waiting };
        let (copy_used, _) = socket::buffers_used(&ring.socket).unwrap_or_default();
        RingStatus {
            interface: self.name.clone(),
            receive: self.options.receive.name().into(),
            slots,
            slot_bytes: self.layout.slot_bytes,
            waiting,
            used_slots: used.min(slots.into()) as u32,
            copy_used,
            bytes: self.layout.bytes(),
            copy_buffer: socket::receive_buffer(&ring.socket).unwrap_or_default(),
            dropped: ring.dropped,
            unusable: ring.unusable + ring.place.unusable(),
        }
    }
}

/// An interface that packets go out by.
pub(super) struct Output {
    index: IfIndex,
    name: String,
    bypass: bool,
    /// One for each worker, with its buffer.
    sockets: Vec<OutputSocket>,
}

struct OutputSocket {
    socket: Socket,
    granted: u64,
    bypass: Option<Socket>,
}

impl Output {
    pub(super) fn open(
        index: IfIndex,
        options: &PacketOptions,
        workers: u32,
    ) -> Result<Self, Refusal> {
        let name = netlink::name_of(index)?;
        let bypass = options.interface(&name.parse()?).qdisc_bypass;
        let open = || -> io::Result<OutputSocket> {
            let (socket, granted) = socket::sender(index, SEND_BUFFER, false)?;
            let bypass = bypass.then(|| socket::sender(index, SEND_BUFFER, true)).transpose()?;
            Ok(OutputSocket { socket, granted, bypass: bypass.map(|(socket, _)| socket) })
        };
        let sockets = (0..workers).map(|_| open()).collect::<io::Result<_>>().map_err(|error| {
            unusable("a socket to send by", &error).about(format_args!("interface {name}"))
        })?;
        Ok(Self { index, name, bypass, sockets })
    }

    /// Hands a worker its socket.
    pub(super) fn hand(&self, worker: usize, channel: &Channel) -> io::Result<()> {
        let OutputSocket { socket, bypass, .. } = &self.sockets[worker];
        let descriptors: Vec<_> =
            [Some(socket), bypass.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect();
        let message = ToWorker::Output { interface: self.index };
        channel::send(channel.as_fd(), &message, &descriptors)
    }

    pub(super) fn status(&self, worker: usize) -> SendBuffer {
        let OutputSocket { socket, granted, bypass } = &self.sockets[worker];
        let all = [Some(socket), bypass.as_ref()].into_iter().flatten();
        let used = all.map(|socket| socket::buffers_used(socket).unwrap_or_default().1).sum();
        SendBuffer {
            interface: self.name.clone(),
            asked: SEND_BUFFER,
            granted: *granted,
            used,
            qdisc_bypass: self.bypass,
        }
    }
}

/// `MemAvailable` of /proc/meminfo in bytes.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn unusable(what: &str, error: &io::Error) -> Refusal {
    let hint = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => {
            "each worker takes two descriptors an input and one an output: raise `ulimit -n` \
             (LimitNOFILE=), or start mcrd with fewer --workers"
        }
        Some(libc::ENOMEM | libc::ENOBUFS) => {
            "raise the sysctl net.core.optmem_max, or free some memory"
        }
        Some(libc::ENODEV | libc::ENXIO) => "the interface is gone: see `ip link`",
        Some(libc::EINVAL) => "before Linux 6.13 the interface must be up: ip link set ... up",
        Some(libc::EPERM) => "give mcrd CAP_NET_RAW",
        _ => "see the log of the kernel",
    };
    Refusal::new(Code::Plane, format!("the kernel refused {what}: {error}"), hint)
}
