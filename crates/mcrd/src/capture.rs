//! The capture of one rule's packets: taps, read by a thread of its own, whose packets become the
//! frames of a reply.
//!
//! ```text
//! tap of each interface ─▶ thread: Matcher, pcap ─▶ Frames ─▶ connection of the client
//!                             ▲
//! control: the rule has changed, the client has seen enough
//! ```
//!
//! A thread, because opening and closing a tap waits for the kernel, and because the event loop has
//! better things to do. A client that reads too slowly holds it up; then the rings fill, and the
//! kernel counts what they have no room for.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body, Bytes, Frame};
use mcr_core::capture::{self, HEADERS, Matcher, Plan, pcap};
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};
use mcr_dataplane::tap::{Catch, Caught, Tap, TapOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{SemaphorePermit, mpsc, oneshot};

/// Trailers of the reply: packets that were missed, and why the daemon has ended it.
pub(crate) const MISSED: HeaderName = HeaderName::from_static("mcr-missed");
pub(crate) const ENDED: HeaderName = HeaderName::from_static("mcr-ended");

/// Of all rings of a capture, in bytes: 0.1 s of 1 Gbit/s; and of each at least.
const RINGS: u32 = 16 << 20;
const RING_MIN: u32 = 1 << 20;
/// Pieces that wait for the client. When there are more the thread waits too.
const PIECES: usize = 2;
/// Bytes of a piece, more or less: what one look at a ring has given.
const PIECE: usize = 256 << 10;
/// How often the thread looks for orders when no packet comes.
const LOOK: Duration = Duration::from_millis(50);
/// What was sent before the end was asked for is seen within this time.
const LAST: Duration = Duration::from_millis(60);
/// `PACKET_OTHERHOST` of linux/if_packet.h.
const OTHER_HOST: u8 = 3;

/// What a capture is to do.
pub(crate) enum Order {
    /// Go on by this plan, which has the same places.
    Follow(Plan),
    /// End, for this reason if the client does not know it.
    End(Option<String>),
}

/// A capture that has begun.
pub(crate) struct Capture {
    /// Its file, piece by piece.
    pub(crate) frames: Frames,
    pub(crate) orders: Sender<Order>,
    /// Closed when it has ended.
    pub(crate) ended: oneshot::Receiver<()>,
}

/// The body of a reply.
pub(crate) struct Frames(mpsc::Receiver<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

/// Begins a capture of `snap` bytes of each frame. It holds `place` until it has ended.
pub(crate) async fn begin(
    plan: Plan,
    snap: u32,
    place: SemaphorePermit<'static>,
) -> Result<Capture, Refusal> {
    let (pieces, frames) = mpsc::channel(PIECES);
    let (orders, ordered) = channel();
    let (opened, opens) = oneshot::channel();
    let (ends, ended) = oneshot::channel::<()>();
    let work = move || {
        let _held = (place, ends);
        match Work::open(plan, snap, pieces, ordered) {
            Ok(work) => {
                if opened.send(Ok(())).is_ok() {
                    work.run();
                }
            }
            // A client that has gone away takes no answer.
            Err(error) => drop(opened.send(Err(error))),
        }
    };
    let spawned = std::thread::Builder::new().name("mcr-capture".into()).spawn(work);
    let result = match spawned {
        Ok(_) => opens.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())),
        Err(error) => Err(error),
    };
    result.map_err(|error| unusable(&error))?;
    Ok(Capture { frames: Frames(frames), orders, ended })
}

/// What the thread has.
struct Work {
    taps: Vec<Tap>,
    matcher: Matcher,
    snap: u32,
    piece: Vec<u8>,
    packets: u64,
    pieces: mpsc::Sender<Frame<Bytes>>,
    orders: Receiver<Order>,
}

impl Work {
    fn open(
        plan: Plan,
        snap: u32,
        pieces: mpsc::Sender<Frame<Bytes>>,
        orders: Receiver<Order>,
    ) -> io::Result<Self> {
        let interfaces: BTreeSet<IfIndex> =
            plan.points.iter().map(|point| point.interface).collect();
        let ring_bytes = (RINGS / interfaces.len().max(1) as u32).max(RING_MIN);
        let flows = |interface| {
            let here = plan.points.iter().filter(move |point| point.interface == interface);
            here.map(|point| (point.addresses, point.ports)).collect()
        };
        let open = |interface| {
            let catch = Catch::Flows(flows(interface));
            let snap = snap.max(HEADERS);
            Tap::open(&TapOptions { interface: Some(interface), catch, snap, ring_bytes })
        };
        let taps = interfaces.into_iter().map(open).collect::<io::Result<_>>()?;
        let piece = pcap::header(plan.link, snap).to_vec();
        let matcher = Matcher::new(plan);
        Ok(Self { taps, matcher, snap, piece, packets: 0, pieces, orders })
    }

    fn run(mut self) {
        let mut end: Option<(Instant, Option<String>)> = None;
        let mut reason = None;
        // The header is sent at once: a client that has it misses nothing from there on.
        while self.hand_over() {
            match self.orders.try_recv() {
                Ok(Order::Follow(plan)) => self.matcher.follow(plan),
                Ok(Order::End(why)) => end = end.or(Some((Instant::now() + LAST, why))),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
            if let Some((_, why)) = end.take_if(|(at, _)| Instant::now() >= *at) {
                reason = Some(why);
                break;
            }
            self.wait();
            self.look();
        }
        let missed: u64 = self.taps.iter_mut().map(Tap::lost).sum();
        tracing::debug!(captured = self.packets, missed, "capture ended");
        let Some(reason) = reason else { return };
        let mut trailers = HeaderMap::new();
        trailers.insert(MISSED, missed.into());
        trailers
            .extend(reason.and_then(|why| HeaderValue::try_from(why).ok()).map(|why| (ENDED, why)));
        // A client that has gone away needs none.
        let _ = self.pieces.blocking_send(Frame::trailers(trailers));
    }

    /// Whether there is still somebody to take it.
    fn hand_over(&mut self) -> bool {
        if self.piece.is_empty() {
            return !self.pieces.is_closed();
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(Frame::data(piece.into())).is_ok()
    }

    fn wait(&self) {
        let mut taps: Vec<PollFd<'_>> = self
            .taps
            .iter()
            .map(|tap| PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN))
            .collect();
        let limit = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as _ };
        // Interrupted, or out of memory: the look that follows says what there is.
        let _ = poll(&mut taps, Some(&limit));
    }

    fn look(&mut self) {
        let Self { taps, matcher, snap, piece, packets, .. } = self;
        for tap in taps {
            tap.read(|caught| {
                if matcher.takes(&frame(caught)) {
                    let kept = caught.bytes.len().min(*snap as usize);
                    pcap::add_record(piece, caught.time, caught.length, &caught.bytes[..kept]);
                    *packets += 1;
                }
            });
        }
    }
}

fn frame<'c>(caught: &Caught<'c>) -> capture::Frame<'c> {
    capture::Frame {
        bytes: caught.bytes,
        length: caught.length,
        bare: caught.bare,
        interface: caught.interface,
        outgoing: caught.outgoing,
        other_host: caught.packet_type == OTHER_HOST,
        tag: caught.tag,
        time: caught.time,
    }
}

fn unusable(error: &io::Error) -> Refusal {
    use rustix::io::Errno;

    let hint = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => "give mcrd CAP_NET_RAW",
        Some(Errno::NOMEM | Errno::NOBUFS) => "free some memory, or end other captures",
        Some(Errno::NODEV | Errno::NXIO) => "the interface is gone: see `ip link`",
        Some(Errno::MFILE | Errno::NFILE) => "raise `ulimit -n` (LimitNOFILE=) of mcrd",
        Some(_) | None => "see the log of the kernel",
    };
    Refusal::new(Code::Plane, format!("the kernel refused a tap: {error}"), hint)
}
