//! What a supervisor and its workers say to each other: messages on a `SOCK_SEQPACKET` pair, with
//! descriptors beside them (`SCM_RIGHTS`).
//!
//! Both ends are the same program, so the encoding (postcard) needs no versions. A message is
//! small; the change of a table, which may be large, is in memory whose descriptor goes with it.
//! So the supervisor never waits for a worker to read: a channel that is full has a worker that
//! does not.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use mcr_core::action::PlaneChange;
use mcr_core::link::IfIndex;
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use super::socket::RingLayout;

/// The largest message in bytes; one with all interfaces of a large host is smaller.
const MESSAGE_MAX: usize = 64 << 10;
/// For about 10,000 messages.
const BUFFER: usize = 8 << 20;
/// The most descriptors beside a message.
const DESCRIPTORS_MAX: usize = 2;

/// To a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// First of all: the worker's counters, for ids below these, and what all workers share. With the
    /// memory of both.
    Setup { rules: u32, outputs: u32 },
    /// Receive on this interface. With the socket and the memory of its place.
    Input { interface: IfIndex, layout: RingLayout },
    /// Send by this interface. With the socket, and one that bypasses the queue if it is wanted.
    Output { interface: IfIndex },
    /// With the change; afterwards only these interfaces are used. The first one is the whole table
    /// and is answered by `Synced`, the others by their number.
    Table { change: u64, outputs: BTreeSet<IfIndex> },
    /// Answer with this number.
    Ping(u64),
}

/// From a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// The whole table is there, and forwarding begins.
    Synced,
    /// The change, or ping, of this number has been carried out.
    Answered(u64),
    /// What the operator should know.
    Warned(String),
    /// The last words.
    Failed(String),
}

/// Both ends: the supervisor's, which does not block, and the worker's.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (flags, kind) = (SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, SocketType::SEQPACKET);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
    // The default holds 278 messages, and a worker that starts is handed one for each interface.
    let _ = set_socket_send_buffer_size_force(&ours, BUFFER)
        .or_else(|_| set_socket_send_buffer_size(&ours, BUFFER));
    Ok((ours, theirs))
}

/// Sends a message with descriptors.
pub(crate) fn send<M: Serialize>(
    channel: BorrowedFd<'_>,
    message: &M,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        if !fits {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
    sendmsg(channel, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message with its descriptors; `None` when the other end is closed.
pub(crate) fn receive<M: for<'de> Deserialize<'de>>(
    channel: BorrowedFd<'_>,
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(channel, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = postcard::from_bytes(&bytes[..received.bytes]).map_err(io::Error::other)?;
    let mut descriptors = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = part {
            descriptors.extend(more);
        }
    }
    Ok(Some((message, descriptors)))
}

/// A change, in memory that can be handed to any number of workers.
pub(crate) fn write_change(change: &PlaneChange) -> io::Result<OwnedFd> {
    let bytes = postcard::to_stdvec(change).map_err(io::Error::other)?;
    let file = File::from(memfd_create("mcr-change", MemfdFlags::CLOEXEC)?);
    file.write_all_at(&bytes, 0)?;
    Ok(file.into())
}

/// What [`write_change`] wrote.
pub(crate) fn read_change(descriptor: OwnedFd) -> io::Result<PlaneChange> {
    let length = fstat(descriptor.as_fd())?.st_size;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    File::from(descriptor).read_exact_at(&mut bytes, 0)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}
