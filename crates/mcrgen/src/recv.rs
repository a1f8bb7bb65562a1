//! `mcrgen recv`: one thread and one socket per stream receive and check all streams.
//!
//! Wakes up at most once per [`TICK`] while packets come and reads every ready socket in batches by
//! recvmmsg; in between, packets wait in the socket buffers. That loses nothing and distorts
//! nothing, since every packet carries the kernel's own receive stamp, and it keeps the sender's CPU
//! free of wake-ups. Nothing is allocated per packet.

use std::array;
use std::io::{IoSliceMut, Write as _, stderr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use nix::sys::time::TimeSpec;
use socket2::Socket;

use crate::args::RecvArgs;
use crate::clock::{Interrupt, cpu_seconds, realtime, wait};
use crate::report::{Progress, RecvReport, StreamReport};
use crate::socket::{Interface, allow_files, granted_buffer, open_receiver};
use crate::tally::{Arrivals, Tally};
use crate::{drops, streams};

/// Receives as asked and reports; true if nothing was lost, duplicate, corrupt or foreign.
pub(crate) fn run(args: &RecvArgs) -> Result<bool> {
    let interrupt = Interrupt::catch()?;
    let interface = Interface::find(&args.streams.interface)?;
    let addresses = streams::addresses(&args.streams)?;
    allow_files(addresses.len() as u64 + SPARE_FILES)?;
    let open = |(index, address)| {
        open_receiver(address, &interface, args).with_context(|| format!("stream {}", index + 1))
    };
    let sockets: Vec<Socket> =
        addresses.iter().copied().enumerate().map(open).collect::<Result<_>>()?;
    let rcvbuf = sockets.iter().map(granted_buffer).min().unwrap_or(0);
    announce(args, rcvbuf)?;

    let mut receiver = Receiver::new(args, &sockets);
    receiver.receive(&interrupt)?;

    let drops = drops::count(&sockets);
    let per_stream = addresses.iter().zip(&receiver.tallies).zip(drops).enumerate();
    let per_stream = per_stream.map(|(index, ((address, tally), drops))| {
        StreamReport::new(args.streams.first_stream + index as u32, *address, tally, drops)
    });
    let mut report = RecvReport::new(per_stream.collect(), &receiver.tallies, &receiver.arrivals);
    report.expected = args.expect.map(|expect| expect * addresses.len() as u64);
    report.rcvbuf = rcvbuf;
    report.cpu_seconds = cpu_seconds();
    report.print(args.json, args.per_stream)?;
    Ok(report.is_good())
}

/// Says "ready" on stderr, which is not buffered: scripts wait for this line before they send.
fn announce(args: &RecvArgs, rcvbuf: usize) -> Result<()> {
    let asked = args.rcvbuf;
    if rcvbuf < asked as usize {
        writeln!(
            stderr(),
            "mcrgen: a receive buffer of {rcvbuf} bytes was granted, not {asked}: raise sysctl \
             net.core.rmem_max or run with CAP_NET_ADMIN"
        )?;
    }
    writeln!(stderr(), "ready")?;
    Ok(())
}

struct Receiver<'a> {
    args: &'a RecvArgs,
    sockets: &'a [Socket],
    tallies: Vec<Tally>,
    arrivals: Arrivals,
    /// Streams that have all they expect.
    complete: usize,
    /// Packets of our streams, duplicates too.
    packets: u64,
    inbox: Inbox,
}

impl<'a> Receiver<'a> {
    fn new(args: &'a RecvArgs, sockets: &'a [Socket]) -> Self {
        let number = |index| args.streams.first_stream + index as u32;
        Self {
            args,
            sockets,
            tallies: (0..sockets.len()).map(|i| Tally::new(number(i), args.expect)).collect(),
            arrivals: Arrivals::new(),
            complete: 0,
            packets: 0,
            inbox: Inbox::new(),
        }
    }

    /// Receives until one of the ends in [`Self::left`] or a signal.
    fn receive(&mut self, interrupt: &Interrupt) -> Result<()> {
        let sockets =
            self.sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        let mut ready: Vec<_> = sockets.collect();
        ready.push(PollFd::new(interrupt.as_fd(), PollFlags::POLLIN));
        let start = Instant::now();
        let mut last_packet = None;
        let mut completed = None;
        let mut progress = Progress::new();
        loop {
            let now = Instant::now();
            if completed.is_none() && self.complete == self.sockets.len() {
                completed = Some(now);
            }
            let Some(left) = self.left(now, [Some(start), last_packet, completed]) else {
                return Ok(());
            };
            let count = wait(&mut ready, left.min(LOOK_AROUND)).context("cannot poll")?;
            let before = self.packets;
            if count > 0 {
                let (signal, sockets) = ready.split_last().context("no descriptors")?;
                self.read_ready(sockets)?;
                if signal.any() == Some(true) {
                    return Ok(());
                }
            }
            progress.show(|| format!("received {} packets", self.packets));
            if self.packets > before {
                last_packet = Some(Instant::now());
            }
            if count > 0 && self.complete < self.sockets.len() && interrupt.sleep(TICK) {
                return Ok(());
            }
        }
    }

    /// The time until the next end: `--duration` after the start, `--linger` after all has come,
    /// `--idle` after the last packet, `--wait-first` while there is none. None if it is over.
    fn left(
        &self,
        now: Instant,
        [start, last, completed]: [Option<Instant>; 3],
    ) -> Option<Duration> {
        let idle = if last.is_some() {
            (last, Some(self.args.idle))
        } else {
            (start, Some(self.args.wait_first))
        };
        [idle, (start, self.args.duration), (completed, Some(self.args.linger))]
            .into_iter()
            .filter_map(|(since, limit)| Some(limit?.saturating_sub(now - since?)))
            .min()
            .filter(|left| !left.is_zero())
    }

    fn read_ready(&mut self, ready: &[PollFd<'_>]) -> Result<()> {
        for (index, descriptor) in ready.iter().enumerate() {
            if descriptor.any() == Some(true) {
                self.read(index)?;
            }
        }
        Ok(())
    }

    /// Reads all that one stream's socket holds, up to [`MAX_BATCHES`] batches.
    fn read(&mut self, index: usize) -> Result<()> {
        let tally = &mut self.tallies[index];
        let was_complete = tally.complete();
        for _ in 0..MAX_BATCHES {
            let received = self.inbox.receive(&self.sockets[index], |payload, stamp| {
                if tally.take(payload, stamp) {
                    self.packets += 1;
                    self.arrivals.take(stamp);
                }
            })?;
            if received < BATCH {
                break;
            }
        }
        self.complete += usize::from(!was_complete && tally.complete());
        Ok(())
    }
}

/// Room for one batch of datagrams of any size.
struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Vec<u8>,
}

impl Inbox {
    fn new() -> Self {
        let headers = MultiHeaders::preallocate(BATCH, Some(cmsg_space!(TimeSpec)));
        Self { headers, buffers: vec![0; BATCH * STRIDE] }
    }

    /// Hands over what one call receives, with the kernel's receive stamps (CLOCK_REALTIME, ns);
    /// returns the number.
    fn receive(&mut self, socket: &Socket, mut take: impl FnMut(&[u8], u64)) -> Result<usize> {
        let mut buffers = self.buffers.chunks_exact_mut(STRIDE);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(buffers.next().expect("there are BATCH buffers"))]);
        let descriptor = socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        // The headers' room for control messages shrinks to what the last call used (nix 0.31); it
        // stays right because the time stamp is the only one and comes with every packet.
        match recvmmsg(descriptor, &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(messages) => {
                let mut number = 0;
                for message in messages {
                    let stamp = message.cmsgs().ok().and_then(|mut all| all.find_map(stamp));
                    take(message.iovs().next().unwrap_or(&[]), stamp.unwrap_or_else(realtime));
                    number += 1;
                }
                Ok(number)
            }
            // ECONNREFUSED and the like belong to packets, not to the socket.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(0),
            Err(Errno::ENETDOWN) => Ok(0),
            Err(errno) => bail!("cannot receive: {}", errno.desc()),
        }
    }
}

fn stamp(message: ControlMessageOwned) -> Option<u64> {
    if let ControlMessageOwned::ScmTimestampns(time) = message {
        Some((time.tv_sec() * 1_000_000_000 + time.tv_nsec()) as u64)
    } else {
        None
    }
}

/// The pause between two rounds of reading. At 500,000 packets/s 500 packets wait, 1 MB of kernel
/// memory, which still fits a second-level cache.
const TICK: Duration = Duration::from_millis(1);
/// Datagrams per system call, and calls per socket and round: no stream keeps others waiting long.
const BATCH: usize = 32;
const MAX_BATCHES: usize = 32;
/// The largest datagram, and some more so that the buffers do not fall on the same cache lines.
const STRIDE: usize = 65_536 + 1_088;
/// How often the progress is shown, at least.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// Descriptors besides the sockets: the standard ones, the signalfd, /proc.
const SPARE_FILES: u64 = 16;
