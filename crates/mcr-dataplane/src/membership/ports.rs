//! Unicast ports that are held, so that the kernel does not tell a sender that nobody is there.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use mcr_core::refusal::Refusal;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::refusals::not_held;

/// The mark (`SO_MARK`) of a socket that only holds a port: nobody listens there. "MCR!".
pub const HELD_MARK: u32 = 0x4d43_5221;

/// `BPF_RET | BPF_K`: the packet is cut to that many bytes, and dropped at none.
const RETURN: u16 = 0x06;

/// The held ports.
#[derive(Default)]
pub(super) struct Ports {
    /// Without a socket where somebody else has bound the port: the kernel answers nobody then.
    held: BTreeMap<SocketAddr, Option<Socket>>,
}

impl Ports {
    pub(super) fn hold(&mut self, address: SocketAddr) -> Result<(), Refusal> {
        if self.held.contains_key(&address) {
            return Ok(());
        }
        let socket = bind(address).map_err(|error| not_held(address, &error))?;
        if socket.is_none() {
            tracing::info!(%address, "somebody listens there already; the port is left to them");
        }
        self.held.insert(address, socket);
        Ok(())
    }

    pub(super) fn give_up(&mut self, address: SocketAddr) {
        self.held.remove(&address);
    }

    pub(super) fn bind_again(&mut self) {
        for (address, socket) in self.held.iter_mut().filter(|(_, socket)| socket.is_none()) {
            match bind(*address) {
                Ok(Some(bound)) => {
                    tracing::info!(%address, "nobody listens there any more; the port is held");
                    *socket = Some(bound);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%address, %error, "port not held"),
            }
        }
    }
}

/// A socket that takes what comes to `address` and drops it; none where somebody is bound.
fn bind(address: SocketAddr) -> io::Result<Option<Socket>> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
    // The kernel takes the least that it allows.
    socket.set_recv_buffer_size(0)?;
    match socket.set_mark(HELD_MARK) {
        Err(error) if error.raw_os_error() != Some(libc::EPERM) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The address may be tentative (RFC 4862 §5.4), or go and come back.
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
        result => result?,
    }
    // Not before: of sockets that share an address the kernel takes the youngest, and who was
    // there first shall have the packets. Who comes later shall be able to.
    socket.set_reuse_address(true)?;
    Ok(Some(socket))
}
