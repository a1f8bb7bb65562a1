//! Listens to what hosts and queriers say of memberships on all interfaces, for as long as the daemon
//! runs: a few packets a minute. The tap sees what arrives; the raw sockets get what the kernel itself
//! gets, behind its firewall and its look at the route back.
//!
//! The tap spares what the host sends: to show that, the kernel would copy every packet.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mcr_core::doctor::Known;
use mcr_core::doctor::heard::Hearing;
use mcr_dataplane::machine::only_mld_queries;
use mcr_dataplane::tap::{Catch, Caught, Tap, TapOptions, Watched};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with};
use tokio::task::yield_now;

use super::wire::frame;

/// Large enough for a report of any length.
const SNAP: u32 = 9216;
const RING_BYTES: u32 = 256 << 10;

/// What was heard so far, or why nothing can be.
#[derive(Clone)]
pub(crate) struct Listener {
    heard: Arc<Mutex<Known<Hearing>>>,
    since: Instant,
}

/// What is listened with.
struct Ears {
    tap: Watched,
    igmp: tokio::net::UdpSocket,
    /// None where the kernel has no IPv6.
    icmpv6: Option<tokio::net::UdpSocket>,
}

impl Listener {
    /// Begins to listen, within a tokio runtime.
    pub(crate) fn begin() -> Self {
        let ears = Ears::open().map_err(|error| cannot(&error));
        let (ears, heard) = match ears {
            Ok(ears) => (Some(ears), Ok(Hearing::default())),
            Err(why) => {
                tracing::info!("{why}");
                (None, Err(why))
            }
        };
        let listener = Self { heard: Arc::new(Mutex::new(heard)), since: Instant::now() };
        if let Some(ears) = ears {
            tokio::spawn(listener.clone().listen(ears));
        }
        listener
    }

    /// Everything up to now.
    pub(crate) fn hearing(&self) -> Known<Hearing> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Ok(heard) = &mut heard {
            heard.now = self.since.elapsed();
        }
        heard
    }

    async fn listen(self, mut ears: Ears) {
        let error = loop {
            if let Err(error) = self.hear(&mut ears).await {
                break error;
            }
            // However much comes, the event loop on this thread has its turn.
            yield_now().await;
        };
        tracing::warn!("{}", cannot(&error));
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Err(cannot(&error));
    }

    /// What comes next.
    async fn hear(&self, ears: &mut Ears) -> io::Result<()> {
        let Ears { tap, igmp, icmpv6 } = ears;
        let (mut packet, mut other) = ([0; 64], [0; 64]);
        let mld = async {
            match icmpv6 {
                Some(socket) => socket.recv_from(&mut other).await,
                None => std::future::pending().await,
            }
        };
        let (bytes, by) = tokio::select! {
            read = tap.read(|caught| self.arrived(caught)) => return read.map(|_| ()),
            // With its IP header: the type is behind it.
            received = igmp.recv_from(&mut packet) => {
                let (length, by) = received?;
                let header = usize::from(packet[0] & 0xf) * 4;
                (packet.get(header..length).unwrap_or_default(), by.ip())
            }
            received = mld => {
                let (length, by) = received?;
                (&other[..length], by.ip())
            }
        };
        // Queries, of IGMP and of MLD.
        if matches!((bytes.first(), by), (Some(0x11), IpAddr::V4(_)) | (Some(130), IpAddr::V6(_))) {
            self.with(|heard| heard.delivered(by, self.since.elapsed()));
        }
        Ok(())
    }

    fn arrived(&self, caught: &Caught<'_>) {
        if let Some(frame) = frame(caught) {
            self.with(|heard| heard.observe(&frame, self.since.elapsed()));
        }
    }

    fn with(&self, change: impl FnOnce(&mut Hearing)) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing Err is the last thing that this task does.
        if let Ok(heard) = heard.as_mut() {
            change(heard);
        }
    }
}

impl Ears {
    fn open() -> io::Result<Self> {
        let options = TapOptions {
            interface: None,
            catch: Catch::Membership,
            snap: SNAP,
            ring_bytes: RING_BYTES,
        };
        let tap = Tap::open(&options)?;
        tap.ignore_outgoing()?;
        let icmpv6 = raw(AddressFamily::INET6, ipproto::ICMPV6).ok();
        // Without it every ping wakes the task, which looks at the type itself.
        let _ = icmpv6.as_ref().map(only_mld_queries);
        Ok(Self { tap: tap.watched()?, igmp: raw(AddressFamily::INET, ipproto::IGMP)?, icmpv6 })
    }
}

/// A raw socket. Reading datagrams with their senders is what it has in common with a UDP socket.
fn raw(family: AddressFamily, protocol: Protocol) -> io::Result<tokio::net::UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
    tokio::net::UdpSocket::from_std(UdpSocket::from(socket))
}

fn cannot(error: &io::Error) -> String {
    format!("IGMP and MLD are not listened to: {error} (needs CAP_NET_RAW)")
}
