//! `mcrgen send`: one thread and one socket send all streams in turn.
//!
//! Message m belongs to stream m modulo the number of streams, so the streams are interleaved packet
//! by packet and sequences follow from m alone. What is due goes out in batches of [`BATCH`] by
//! sendmmsg. A packet that the kernel does not take (ENOBUFS) is one lost packet: counted, reported,
//! never sent again. Nothing is allocated per packet.
//!
//! One unconnected socket with an address per message, because a batch can then hold many streams.
//! Measured over veth (kernel 6.18 with retpolines in a busy virtual machine; ns of CPU per 1 KB
//! packet, delivery in the peer's namespace included): connected sockets, one call per packet, 3000
//! to 4600; connected, bursts of 3 to 8 packets of one stream, 3100 to 4400; unconnected 3100 to
//! 3700, and 2600 to 3000 where a route to 224.0.0.0/4 lets the kernel cache its lookups. 98 % of it
//! is the kernel's; to spend less a sender must hand over super-packets (`--gso`).

use std::array;
use std::io::{Error, IoSlice};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg as _;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use socket2::Socket;

use crate::args::SendArgs;
use crate::clock::{Interrupt, cpu_seconds, realtime};
use crate::pace::Pace;
use crate::payload::{Bodies, Header};
use crate::report::{Progress, SendReport};
use crate::socket::{Interface, open_sender};
use crate::streams;

/// Sends as asked and reports; true if every packet was taken.
pub(crate) fn run(args: &SendArgs) -> Result<bool> {
    let interrupt = Interrupt::catch()?;
    let mut sender = Sender::new(args)?;
    if let Some(moment) = args.start_at {
        // A signal ends this too, and is still there for the sender to see.
        interrupt.sleep(moment.saturating_sub(Duration::from_nanos(realtime())));
    }
    let started = realtime() as f64 / 1e9;
    let elapsed = sender.send(&interrupt)?;
    let report = SendReport {
        started,
        streams: args.streams.streams,
        sent: sender.sent,
        send_errors: sender.errors,
        last_error: sender.last_error.map(|errno| Error::from(errno).to_string()),
        bytes: sender.sent * args.size as u64,
        seconds: elapsed.as_secs_f64(),
        rate: sender.sent as f64 / elapsed.as_secs_f64(),
        asked_rate: u64::from(args.rate) * u64::from(args.streams.streams),
        cpu_seconds: cpu_seconds(),
    };
    report.print(args.json)?;
    Ok(sender.errors == 0)
}

/// Messages per system call. More saves little (the call is a tenth of a packet's cost, shared),
/// and the send time is taken once per batch: the last packet waits for those before it.
const BATCH: usize = 16;

struct Sender<'a> {
    args: &'a SendArgs,
    socket: Socket,
    /// Where message 0, 1, ... goes: all streams, then the first ones again, so that every batch is
    /// a slice.
    targets: Vec<SocketAddrAny>,
    streams: u64,
    run: u64,
    bodies: Bodies,
    /// [`BATCH`] buffers, each as long as a message.
    buffers: Vec<u8>,
    sent: u64,
    errors: u64,
    last_error: Option<Errno>,
}

impl<'a> Sender<'a> {
    fn new(args: &'a SendArgs) -> Result<Self> {
        let interface = Interface::find(&args.streams.interface)?;
        let addresses = streams::addresses(&args.streams)?;
        let scoped = addresses.iter().map(|address| interface.scope(*address).as_any());
        Ok(Self {
            args,
            socket: open_sender(args, &interface)?,
            targets: scoped.cycle().take(addresses.len() + BATCH).collect(),
            streams: addresses.len() as u64,
            run: args.run.unwrap_or_else(random),
            bodies: Bodies::new(args.size),
            buffers: vec![0; BATCH * args.size * usize::from(args.gso)],
            sent: 0,
            errors: 0,
            last_error: None,
        })
    }

    /// Sends until all is sent, the duration is over or a signal comes; returns the time it took.
    fn send(&mut self, interrupt: &Interrupt) -> Result<Duration> {
        let pace = Pace::new(u64::from(self.args.rate) * self.streams, self.args.gso);
        let messages = self.messages();
        let end = self.args.duration.unwrap_or(Duration::MAX);
        let mut progress = Progress::new();
        let mut next_check = Duration::ZERO;
        let mut next = 0;
        let start = Instant::now();
        while next < messages {
            let elapsed = start.elapsed();
            if elapsed >= next_check {
                next_check = elapsed + LOOK_AROUND;
                progress.show(|| format!("sent {} packets, {} errors", self.sent, self.errors));
                if interrupt.pending() {
                    break;
                }
            }
            if elapsed >= end {
                break;
            }
            let due = pace.due(elapsed).min(messages).saturating_sub(next);
            if due > 0 {
                let number = due.min(BATCH as u64);
                self.batch(next, number as usize)?;
                next += number;
            } else if interrupt.sleep(pace.wake(next, elapsed).min(end).saturating_sub(elapsed)) {
                break;
            }
        }
        Ok(start.elapsed())
    }

    /// How many messages there are to send.
    fn messages(&self) -> u64 {
        match self.args.count {
            0 => u64::MAX,
            count => count.div_ceil(u64::from(self.args.gso)).saturating_mul(self.streams),
        }
    }

    /// Sends `number` messages, at most [`BATCH`], from message `first` on.
    fn batch(&mut self, first: u64, number: usize) -> Result<()> {
        let now = realtime();
        let mut lengths = [0; BATCH];
        for (index, length) in lengths[..number].iter_mut().enumerate() {
            *length = self.fill(index, first + index as u64, now);
        }
        let stride = self.stride();
        let slices: [[IoSlice<'_>; 1]; BATCH] = array::from_fn(|index| {
            [IoSlice::new(&self.buffers[index * stride..][..lengths[index]])]
        });
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
            array::from_fn(|_| Default::default());
        let targets = &self.targets[(first % self.streams) as usize..];
        let mut control = controls.iter_mut();
        let mut headers: [MMsgHdr<'_>; BATCH] = array::from_fn(|index| {
            let control = control.next().expect("as many as headers");
            MMsgHdr::new_with_addr(&targets[index], &slices[index], control)
        });
        let mut done = 0;
        while done < number {
            match sendmmsg(&self.socket, &mut headers[done..number], SendFlags::empty()) {
                Ok(taken) => {
                    let packets = |length: &usize| length / self.args.size;
                    self.sent +=
                        lengths[done..done + taken].iter().map(packets).sum::<usize>() as u64;
                    done += taken;
                }
                Err(Errno::INTR) => {}
                Err(errno) if is_fatal(errno) => return Err(self.explain(errno)),
                Err(errno) => {
                    self.errors += (lengths[done] / self.args.size) as u64;
                    self.last_error = Some(errno);
                    done += 1;
                }
            }
        }
        Ok(())
    }

    /// Writes message `message` into buffer `index`; returns its length.
    fn fill(&mut self, index: usize, message: u64, now: u64) -> usize {
        let (round, stream) = (message / self.streams, message % self.streams);
        let begin = round * u64::from(self.args.gso);
        let left = if self.args.count == 0 { u64::MAX } else { self.args.count - begin };
        let packets = left.min(u64::from(self.args.gso)) as usize;
        let stride = self.stride();
        let buffer = &mut self.buffers[index * stride..][..packets * self.args.size];
        for (sequence, packet) in (begin..).zip(buffer.chunks_exact_mut(self.args.size)) {
            let header = Header {
                run: self.run,
                stream: self.args.streams.first_stream + stream as u32,
                sequence: self.args.first_sequence + sequence,
                sent: now,
            };
            header.write(&self.bodies, packet);
            if self.args.corrupt_every.is_some_and(|every| (sequence + 1) % every == 0) {
                packet[self.args.size - 1] ^= 1;
            }
        }
        buffer.len()
    }

    fn stride(&self) -> usize {
        self.args.size * usize::from(self.args.gso)
    }

    fn explain(&self, errno: Errno) -> anyhow::Error {
        let (size, interface) = (self.args.size, &self.args.streams.interface);
        let what = if self.args.gso > 1 {
            format!(
                "super-packets: {size} bytes and the headers must fit the MTU of {interface}, \
                 which must offload checksums"
            )
        } else {
            format!("payloads of {size} bytes from {interface}")
        };
        anyhow::Error::new(Error::from(errno)).context(format!("the kernel refuses {what}"))
    }
}

/// Errors that the next packet would meet again because of what was asked for. All others (no
/// buffer, interface down, no route, a firewall) may pass and cost one message.
fn is_fatal(errno: Errno) -> bool {
    [Errno::INVAL, Errno::MSGSIZE, Errno::AFNOSUPPORT, Errno::ACCESS, Errno::NODEV, Errno::IO]
        .contains(&errno)
}

/// A number that no other sender has.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish()
}

/// How often a sender that never sleeps looks for signals.
const LOOK_AROUND: Duration = Duration::from_millis(10);
