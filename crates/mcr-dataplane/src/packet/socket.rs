//! `AF_PACKET` sockets (packet(7)): those with a receive ring, and those that send.

use std::ffi::{c_int, c_uint};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::sock_filter;
use mcr_core::link::IfIndex;
use mcr_core::packet::Receive;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::filter;

/// `PACKET_*` options that the libc crate lacks (linux/if_packet.h).
const PACKET_FANOUT: c_int = 18;
const PACKET_FANOUT_DATA: c_int = 22;
const PACKET_FANOUT_CBPF: c_uint = 6;
const PACKET_IGNORE_OUTGOING: c_int = 23;
const PACKET_RX_RING: c_int = 5;
const PACKET_STATISTICS: c_int = 6;
const PACKET_VERSION: c_int = 10;
const TPACKET_V2: c_int = 1;
const TPACKET_V3: c_int = 2;

/// The smallest slot: holds a frame of 1,500 bytes and what the kernel puts before it.
const SLOT_MIN: u32 = 2048;
/// The largest slot: holds a jumbo frame. What is larger comes by the socket's buffer.
const SLOT_MAX: u32 = 16384;
/// What the kernel puts before a frame in its slot, at most: `struct tpacket2_hdr`, the address,
/// `struct virtio_net_hdr`, alignment; and an Ethernet header.
const SLOT_HEAD: u32 = 128;
/// Memory that the kernel allocates in one piece.
const PIECE: u32 = 64 << 10;
/// A block of a block ring; larger than any frame. No larger than need be: the kernel hands over a
/// block each millisecond, however little is in it, so their number is how many milliseconds a
/// worker may be away.
const BLOCK: u32 = 128 << 10;
/// After so many milliseconds the kernel hands over a block that is not full: to a worker.
const BLOCK_TIMEOUT_MS: u32 = 1;
/// The same, to a tap: its readers are in no hurry, and each block is a wake-up.
const TAP_TIMEOUT_MS: u32 = 20;
/// A block of a tap is at least so large, and holds so many of its longest frames.
const TAP_BLOCK: u32 = 32 << 10;
const TAP_FRAMES: u32 = 2;
/// Blocks of a tap, at least: one that is read, one that is filled, and some that wait.
const TAP_BLOCKS: u32 = 4;

/// How a receive ring is laid out: what its reader must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RingLayout {
    pub(crate) blocks: bool,
    /// The interface has no link header: frames begin at the IP header.
    pub(crate) bare: bool,
    /// Slots of a frame each, or blocks of many.
    pub(crate) slots: u32,
    pub(crate) slot_bytes: u32,
}

impl RingLayout {
    /// For an interface with this MTU, of at most `mib` MiB.
    pub(crate) fn new(receive: Receive, bare: bool, mtu: u32, mib: u32) -> Self {
        let blocks = receive == Receive::Block;
        let frame = mtu.saturating_add(SLOT_HEAD).checked_next_power_of_two();
        // The loopback interface's MTU of 65,536 says nothing about what comes.
        let frame = frame.filter(|bytes| *bytes <= SLOT_MAX).unwrap_or(SLOT_MIN).max(SLOT_MIN);
        let slot_bytes = if blocks { BLOCK } else { frame };
        let slots = (u64::from(mib) << 20) / u64::from(slot_bytes);
        Self { blocks, bare, slots: slots as u32, slot_bytes }
    }

    /// Of a tap that keeps `snap` bytes of each frame, in about so many bytes.
    pub(crate) fn tap(snap: u32, bytes: u32) -> Self {
        let frame = snap.saturating_add(SLOT_HEAD).min(BLOCK / TAP_FRAMES);
        let slot_bytes = (frame * TAP_FRAMES).next_power_of_two().max(TAP_BLOCK);
        Self { blocks: true, bare: false, slots: (bytes / slot_bytes).max(TAP_BLOCKS), slot_bytes }
    }

    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.slots) * u64::from(self.slot_bytes)
    }
}

/// Opens a socket with a ring on an interface, whose filter drops everything for now, so that
/// nothing is received twice until all sockets of the interface share a fanout group.
pub(crate) fn receiver(interface: IfIndex, layout: RingLayout) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    let version = if layout.blocks { TPACKET_V3 } else { TPACKET_V2 };
    set(&socket, libc::SOL_PACKET, PACKET_VERSION, &version)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
    if !layout.blocks {
        // Frames larger than a slot are queued whole on the socket as well.
        set(&socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1_i32)?;
        // The kernel takes it twice, and a super-packet in memory is about twice as large as on the wire.
        let bytes = c_int::try_from(2 * layout.bytes()).unwrap_or(c_int::MAX).min(c_int::MAX / 2);
        force(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes)?;
    }
    set_filter(&socket, &filter::nothing())?;
    set_ring(&socket, layout, BLOCK_TIMEOUT_MS)?;
    bind(&socket, interface, libc::ETH_P_ALL as u16)?;
    Ok(socket)
}

/// Opens a socket with a ring of blocks that gets what `program` lets through: of one interface, or of
/// all.
pub(crate) fn tap(
    interface: Option<IfIndex>,
    layout: RingLayout,
    program: &[sock_filter],
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    set(&socket, libc::SOL_PACKET, PACKET_VERSION, &TPACKET_V3)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
    set_filter(&socket, program)?;
    set_ring(&socket, layout, TAP_TIMEOUT_MS)?;
    // 0 stands for all interfaces (packet(7)).
    bind(&socket, interface.unwrap_or(IfIndex(0)), libc::ETH_P_ALL as u16)?;
    Ok(socket)
}

/// What the host sends gets to the socket no more (Linux 4.20).
pub(crate) fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1_i32)
}

/// Lets an interface pass frames to all groups for as long as the socket is there.
pub(crate) fn open_to_all_groups(socket: &Socket, interface: IfIndex) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: interface.0.cast_signed(),
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

fn set_ring(socket: &Socket, layout: RingLayout, timeout_ms: u32) -> io::Result<()> {
    let RingLayout { blocks, bare: _, slots, slot_bytes } = layout;
    if blocks {
        let request = libc::tpacket_req3 {
            tp_block_size: slot_bytes,
            tp_block_nr: slots,
            tp_frame_size: SLOT_MIN,
            tp_frame_nr: slots * (slot_bytes / SLOT_MIN),
            tp_retire_blk_tov: timeout_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        return set(socket, libc::SOL_PACKET, PACKET_RX_RING, &request);
    }
    let request = libc::tpacket_req {
        tp_block_size: PIECE,
        tp_block_nr: slots / (PIECE / slot_bytes),
        tp_frame_size: slot_bytes,
        tp_frame_nr: slots,
    };
    set(socket, libc::SOL_PACKET, PACKET_RX_RING, &request)
}

/// Makes a fanout group of sockets on one interface: each frame gets to one of them, chosen by
/// [`filter::shard`], in the order of the sockets. What the host sends gets to none.
pub(crate) fn share<'s>(sockets: impl Iterator<Item = &'s Socket>) -> io::Result<()> {
    let flags = libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    let argument = |id: c_uint, flags: c_uint| id | (PACKET_FANOUT_CBPF | flags) << 16;
    let mut group = None;
    for socket in sockets {
        let argument = match group {
            None => argument(0, flags | libc::PACKET_FANOUT_FLAG_UNIQUEID),
            Some(id) => argument(id, flags),
        };
        set(socket, libc::SOL_PACKET, PACKET_FANOUT, &argument)?;
        if group.is_none() {
            let said: c_uint = get(socket, libc::SOL_PACKET, PACKET_FANOUT)?;
            group = Some(said & 0xffff);
            let program = filter::shard();
            set(socket, libc::SOL_PACKET, PACKET_FANOUT_DATA, &fprog(&program)?)?;
        }
    }
    Ok(())
}

/// Replaces a socket's filter; no frame is judged by neither.
pub(crate) fn set_filter(socket: &Socket, program: &[sock_filter]) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &fprog(program)?)
}

/// Packets that found no room in the ring since this was last asked (`tp_drops`).
pub(crate) fn dropped(socket: &Socket) -> io::Result<u32> {
    let [_packets, drops]: [u32; 2] = get(socket, libc::SOL_PACKET, PACKET_STATISTICS)?;
    Ok(drops)
}

/// The receive buffer that was granted, for frames larger than a slot.
pub(crate) fn receive_buffer(socket: &Socket) -> io::Result<u64> {
    let shown: c_int = get(socket, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
    // The kernel shows twice what was asked for, since its own overhead counts too (socket(7)).
    Ok(u64::from(shown.unsigned_abs()) / 2)
}

/// A socket that sends frames, each behind a `struct virtio_net_hdr`, by one interface, and its
/// buffer as granted.
pub(crate) fn sender(interface: IfIndex, buffer: u64, bypass: bool) -> io::Result<(Socket, u64)> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
    if bypass {
        set(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32)?;
    }
    let bytes = c_int::try_from(buffer).unwrap_or(c_int::MAX / 2);
    force(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes)?;
    bind(&socket, interface, 0)?;
    let granted: c_int = get(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
    Ok((socket, u64::from(granted.unsigned_abs()) / 2))
}

/// Takes the error that a socket holds, so that poll(2) no longer reports it.
pub(crate) fn take_error(socket: BorrowedFd<'_>) -> io::Result<c_int> {
    get(&socket, libc::SOL_SOCKET, libc::SO_ERROR)
}

/// Asks for a buffer beyond the system's limit; without CAP_NET_ADMIN, for as much as the limit
/// allows.
fn force(socket: &Socket, forced: c_int, plain: c_int, bytes: c_int) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, forced, &bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, plain, &bytes))
}

fn bind(socket: &Socket, interface: IfIndex, protocol: u16) -> io::Result<()> {
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll fits into the storage, which is zeroed and aligned for every address.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface.0.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage holds a sockaddr_ll, which is `length` bytes long.
    let address = unsafe { socket2::SockAddr::new(storage, length) };
    socket.bind(&address)
}

fn fprog(program: &[sock_filter]) -> io::Result<libc::sock_fprog> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel only reads it; the field is not const for historical reasons.
    Ok(libc::sock_fprog { len, filter: program.as_ptr().cast_mut() })
}

/// setsockopt(2) with a value that is plain data; one that points to more data must do so for the
/// time of the call.
fn set<T>(socket: &Socket, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `length` bytes at `value`, the size of what it points to. Behind a
    // sock_fprog it also reads `len` instructions, which its maker took from a slice that lives.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// getsockopt(2) of a value that is plain integers.
fn get<T: Copy + Default>(socket: &impl AsFd, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::new(T::default());
    let mut length = size_of::<T>() as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is that large.
    let result = unsafe {
        libc::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was initialized, and any bytes that the kernel wrote over it are integers too.
    Ok(unsafe { value.assume_init() })
}

/// A socket from a descriptor that was handed over.
pub(crate) fn adopt(descriptor: OwnedFd) -> Socket {
    Socket::from(descriptor)
}
