//! A worker process: takes frames from its rings, sends what the rules make of them, and answers
//! its supervisor. One thread, no lock; no allocation and no log line for a packet.

mod relay;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use mcr_core::action::PlaneChange;
use mcr_core::link::IfIndex;
use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, recv};
use rustix::thread::nanosleep;
use socket2::Socket;

use super::channel::{self, FromWorker, ToWorker};
use super::confine;
use super::rhythm::{self, Rhythm};
use super::ring::{Received, Ring};
use super::send::SendQueue;
use super::shared::{CounterMemory, Place, SharedMemory};
use super::socket;
use super::vnet::{self, VnetHeader};
use crate::sys;
use relay::Relay;

/// While frames keep coming, messages wait for so many rounds: a millisecond or two.
const ROUNDS: u32 = 16;
/// The largest super-packet, an IP packet, with what comes before it; rounded up.
const COPY: usize = 66_000;
/// See [`Input::drop_stale_copy`].
const STALE: Duration = Duration::from_secs(1);
/// A socket holds one error at a time.
const TRIES: u32 = 4;
/// What epoll says at a time.
const EVENTS: usize = 16;
/// What epoll says of the channel; inputs are numbered by their interface.
const CHANNEL: u64 = 0;

/// Runs a worker until its supervisor is gone. `channel` leads there; `cpu` is the worker's own.
///
/// # Errors
///
/// What it cannot go on after. The supervisor has been told.
pub fn run(channel: OwnedFd, cpu: usize) -> io::Result<()> {
    let words = channel.try_clone()?;
    let hook = move |info: &std::panic::PanicHookInfo<'_>| {
        let _ = channel::send(words.as_fd(), &FromWorker::Failed(info.to_string()), &[]);
    };
    std::panic::set_hook(Box::new(hook));
    let last = channel.try_clone()?;
    confine::prepare();
    let warn = |why| drop(channel::send(last.as_fd(), &FromWorker::Warned(why), &[]));
    if let Err(error) = confine::pin(cpu) {
        warn(format!("not pinned to CPU {cpu}: {error}"));
    }
    let result = confine::confine().and_then(|kept| {
        kept.into_iter().for_each(warn);
        serve(channel)
    });
    if let Err(error) = &result {
        let _ = channel::send(last.as_fd(), &FromWorker::Failed(error.to_string()), &[]);
    }
    result
}

/// The worker's loop.
fn serve(channel: OwnedFd) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    watch(&poll, channel.as_fd(), CHANNEL)?;
    let Some((counters, shared)) = wait_for_setup(&poll, channel.as_fd())? else { return Ok(()) };
    let mut worker = Worker {
        channel,
        poll,
        synced: false,
        inputs: Vec::new(),
        relay: Relay::new(counters, shared),
        copy: vec![0; COPY].into(),
    };
    let (mut rhythm, mut round) = (Rhythm::default(), 0_u32);
    loop {
        let frames = if worker.synced { worker.receive() } else { 0 };
        rhythm.found(frames);
        round = round.wrapping_add(1);
        let told = if round.is_multiple_of(ROUNDS) {
            worker.wait(true)?
        } else if frames > 0 {
            false
        } else if rhythm.pauses() {
            pause();
            false
        } else {
            let begin = Instant::now();
            let told = worker.wait(false)?;
            rhythm.waited(begin.elapsed());
            told
        };
        if told && !worker.obey()? {
            return Ok(());
        }
    }
}

fn pause() {
    let time = Timespec { tv_sec: 0, tv_nsec: rhythm::PAUSE.subsec_nanos().into() };
    // Interrupted, it is short; that does not matter.
    let _ = nanosleep(&time);
}

/// Waits for the memory that everything else needs; `None` when the supervisor is gone.
fn wait_for_setup(
    poll: &OwnedFd,
    channel: BorrowedFd<'_>,
) -> io::Result<Option<(CounterMemory, SharedMemory)>> {
    loop {
        match channel::receive(channel) {
            Ok(None) => return Ok(None),
            Ok(Some((ToWorker::Setup { rules, outputs }, descriptors))) => {
                let [counters, shared] =
                    descriptors.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
                let counters = CounterMemory::open(counters, rules, outputs)?;
                return Ok(Some((counters, SharedMemory::open(shared, rules)?)));
            }
            Ok(Some((other, _))) => return Err(io::Error::other(format!("{other:?} too early"))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(ready(poll, false)?),
            Err(error) => return Err(error),
        }
    }
}

struct Worker {
    channel: OwnedFd,
    poll: OwnedFd,
    /// The whole table is there.
    synced: bool,
    inputs: Vec<Input>,
    relay: Relay,
    /// For frames larger than a slot.
    copy: Box<[u8]>,
}

struct Input {
    interface: IfIndex,
    socket: Socket,
    ring: Ring,
    /// Since when there is something to read, but not in the ring.
    stale: Option<Instant>,
}

impl Worker {
    /// A batch of each ring; the number of frames.
    fn receive(&mut self) -> usize {
        let mut received = 0;
        for Input { interface, socket, ring, stale } in &mut self.inputs {
            let mut frames = ring.ready();
            if frames == 0 {
                ring.place().add_empty();
                continue;
            }
            *stale = None;
            received += frames;
            self.relay.now_ns = sys::monotonic_ns();
            let mut number = 0;
            while number < frames {
                let Some(frame) = ring.frame(number) else {
                    number += 1;
                    continue;
                };
                if !frame.copied {
                    // SAFETY: the slot is given back by `done`, after the queues are flushed.
                    unsafe { self.relay.frame(*interface, ring.place(), &frame) };
                    number += 1;
                    continue;
                }
                // Alone, so that it is taken from the socket's queue exactly when it has been sent.
                self.relay.flush();
                ring.done(number);
                if let Some(frame) = ring.frame(0) {
                    let whole = whole(socket, &frame, &mut self.copy);
                    self.relay.copied(*interface, ring.place(), whole.as_ref());
                    if whole.is_some() {
                        take_copy(socket, &mut [0; vnet::LEN], RecvFlags::DONTWAIT);
                    }
                }
                ring.done(1);
                (frames, number) = (frames - number - 1, 0);
            }
            self.relay.flush();
            ring.done(frames);
        }
        received
    }

    /// Waits for a frame or for the supervisor, or only looks, `now`; whether the supervisor has
    /// said something.
    fn wait(&mut self, now: bool) -> io::Result<bool> {
        let mut told = false;
        for (number, flags) in ready(&self.poll, now)? {
            told |= number == CHANNEL;
            let of = |input: &&mut Input| u64::from(input.interface.0) == number;
            let Some(input) = self.inputs.iter_mut().find(of) else { continue };
            if flags.contains(epoll::EventFlags::ERR) {
                // The interface went down or away; the supervisor hears of it by netlink.
                socket::take_error(input.socket.as_fd())?;
            }
            if flags.contains(epoll::EventFlags::IN) {
                input.drop_stale_copy();
            }
        }
        Ok(told)
    }

    /// Carries out what the supervisor says; false when it is gone.
    fn obey(&mut self) -> io::Result<bool> {
        loop {
            let (message, descriptors) = match channel::receive(self.channel.as_fd()) {
                Ok(None) => return Ok(false),
                Ok(Some(received)) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            };
            let mut descriptors = descriptors.into_iter();
            let mut descriptor = || descriptors.next().ok_or(io::ErrorKind::InvalidData);
            match message {
                ToWorker::Setup { .. } => return Err(io::Error::other("set up twice")),
                ToWorker::Input { interface, layout } => {
                    let socket = socket::adopt(descriptor()?);
                    let ring = Ring::open(&socket, layout, Place::open(descriptor()?)?)?;
                    // In place of a ring that the supervisor has given up.
                    self.forget(|input| input.interface == interface)?;
                    watch(&self.poll, socket.as_fd(), interface.0.into())?;
                    self.inputs.push(Input { interface, socket, ring, stale: None });
                }
                ToWorker::Output { interface } => {
                    let queue = SendQueue::new(interface, descriptor()?, descriptor().ok());
                    self.relay.queues.insert(interface, queue);
                }
                ToWorker::Table { change, outputs } => {
                    self.change(channel::read_change(descriptor()?)?, &outputs)?;
                    let first = !std::mem::replace(&mut self.synced, true);
                    self.say(if first {
                        FromWorker::Synced
                    } else {
                        FromWorker::Answered(change)
                    })?;
                }
                ToWorker::Ping(number) => self.say(FromWorker::Answered(number))?,
            }
        }
    }

    fn change(&mut self, change: PlaneChange, outputs: &BTreeSet<IfIndex>) -> io::Result<()> {
        self.forget(|input| !change.inputs.contains(&input.interface))?;
        self.relay.queues.retain(|interface, _| outputs.contains(interface));
        self.relay.table.apply(change);
        Ok(())
    }

    fn forget(&mut self, gone: impl Fn(&Input) -> bool) -> io::Result<()> {
        for input in self.inputs.extract_if(.., |input| gone(input)) {
            // The supervisor has the socket too, so that closing it here is not enough.
            epoll::delete(&self.poll, input.socket.as_fd())?;
        }
        Ok(())
    }

    /// The channel holds far more than the few answers that are due at a time.
    fn say(&self, message: FromWorker) -> io::Result<()> {
        channel::send(self.channel.as_fd(), &message, &[])
    }
}

impl Input {
    /// A copy in the socket's queue whose slot is gone would stand before all others. One whose slot
    /// is to come appears in the ring a moment later, unless the CPU that fills it is held up.
    fn drop_stale_copy(&mut self) {
        if self.ring.ready() > 0 {
            self.stale = None;
        } else if self.stale.get_or_insert_with(Instant::now).elapsed() > STALE {
            self.stale = None;
            take_copy(&self.socket, &mut [0; vnet::LEN], RecvFlags::DONTWAIT);
        }
    }
}

/// The whole of a frame of which `slot` has the beginning: the first in the socket's queue, where it
/// stays until it is sent. `None` when it is not there: a worker that has died since has taken it.
fn whole<'c>(socket: &Socket, slot: &Received<'_>, copy: &'c mut [u8]) -> Option<Received<'c>> {
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let length = take_copy(socket, copy, peek)?;
    let (vnet, bytes) = copy.get(..length)?.split_at_checked(vnet::LEN)?;
    let bytes = bytes.get(slot.before..)?;
    let same = bytes.len() == slot.length && bytes.starts_with(slot.bytes);
    let vnet = VnetHeader::read(vnet).without(slot.before);
    same.then_some(Received { bytes, vnet, ..*slot })
}

/// Reads from a socket's queue; the length. An interface that went down leaves an error on the
/// socket, which is reported once and says nothing of the queue.
fn take_copy(socket: &Socket, copy: &mut [u8], flags: RecvFlags) -> Option<usize> {
    for _ in 0..TRIES {
        match recv(socket, &mut *copy, flags) {
            Ok((_, length)) => return Some(length),
            Err(rustix::io::Errno::WOULDBLOCK) => return None,
            Err(_) => {}
        }
    }
    None
}

fn watch(poll: &OwnedFd, descriptor: BorrowedFd<'_>, number: u64) -> io::Result<()> {
    let data = epoll::EventData::new_u64(number);
    Ok(epoll::add(poll, descriptor, data, epoll::EventFlags::IN)?)
}

/// What is ready: once anything is, or now.
fn ready(
    poll: &OwnedFd,
    now: bool,
) -> io::Result<impl Iterator<Item = (u64, epoll::EventFlags)> + use<>> {
    const EMPTY: epoll::Event =
        epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut events = [EMPTY; EVENTS];
    let count = match epoll::wait(poll, &mut events[..], now.then_some(&NOW)) {
        Ok(count) => count,
        Err(rustix::io::Errno::INTR) => 0,
        Err(error) => return Err(error.into()),
    };
    Ok(events.into_iter().take(count).map(|event| (event.data.u64(), event.flags)))
}
