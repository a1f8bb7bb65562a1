//! Questions that the kernel answers at once, in the system call that sends them: nothing waits
//! here.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

/// An answer that is not there by now has found no memory.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A socket for questions.
pub(super) struct Asker {
    socket: Socket,
    sequence: u32,
}

impl Asker {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        SockRef::from(&socket).set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request with NLM_F_ACK or NLM_F_DUMP, and hands over the answers before the closing
    /// one.
    pub(super) fn ask(
        &mut self,
        payload: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let received = match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?.0,
            };
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length.max(1)..];
                // What came too late for an earlier question.
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                if let NetlinkPayload::Error(error) = answer.payload {
                    return if error.raw_code() == 0 { Ok(()) } else { Err(error.to_io()) };
                }
                if let NetlinkPayload::Done(_) = answer.payload {
                    return Ok(());
                }
                if let NetlinkPayload::InnerMessage(answer) = answer.payload {
                    each(answer);
                }
            }
        }
    }
}
