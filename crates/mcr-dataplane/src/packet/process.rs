//! Worker processes as the supervisor has them: spawned, spoken to, watched, killed and reaped.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use mcr_core::link::IfIndex;
use mcr_core::supervisor::{Incarnation, WorkerId};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::channel::{self, FromWorker};

/// What has happened to a worker.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) worker: WorkerId,
    pub(super) incarnation: Incarnation,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Said(FromWorker),
    Exited(ExitStatus),
}

/// The supervisor's end of the way to a worker.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A worker's process. It is watched, and reaped, by a task that ends with it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) incarnation: Incarnation,
    pub(super) pid: u32,
    pub(super) channel: Channel,
    /// What it has been handed.
    pub(super) inputs: BTreeSet<IfIndex>,
    pub(super) outputs: BTreeSet<IfIndex>,
    /// Its last words.
    pub(super) said: Option<String>,
    descriptor: OwnedFd,
}

impl Process {
    /// Spawns this program again, with `arguments`; the channel is its standard input.
    ///
    /// Must be called by the main thread: the worker dies with the thread that started it
    /// (`PR_SET_PDEATHSIG`).
    pub(super) fn spawn(
        worker: WorkerId,
        incarnation: Incarnation,
        arguments: &[OsString],
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let (ours, theirs) = channel::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("mcrd: worker {}", worker.0 + 1)).args(arguments);
        // A group of its own: an interrupt from the terminal is for the supervisor alone.
        command.process_group(0);
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let watched = ours.try_clone()?;
        // SAFETY: the descriptor is open and owned by the AsyncFd, which nobody replaces it in.
        let watched = unsafe { AsyncFd::register(watched)? };
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let opened = pid
            .ok_or_else(|| io::ErrorKind::NotFound.into())
            .and_then(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
        let (pid, descriptor) = opened.inspect_err(|_: &io::Error| drop(child.start_kill()))?;
        tokio::spawn(watch(worker, incarnation, child, watched, events));
        Ok(Self {
            incarnation,
            pid: pid.as_raw_nonzero().get().cast_unsigned(),
            channel: Channel(ours),
            inputs: BTreeSet::new(),
            outputs: BTreeSet::new(),
            said: None,
            descriptor,
        })
    }

    /// By its descriptor, so that it cannot be a later process of the same number.
    pub(super) fn kill(&self) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
    }
}

/// Passes on what a worker says, then how it ended. When nobody listens any more, nothing is left to
/// be done.
async fn watch(
    worker: WorkerId,
    incarnation: Incarnation,
    mut child: Child,
    channel: AsyncFd<OwnedFd>,
    events: mpsc::Sender<Event>,
) {
    let event = |what| Event { worker, incarnation, what };
    let mut open = true;
    let status = loop {
        tokio::select! {
            message = next(&channel), if open => match message {
                Some(message) => drop(events.send(event(What::Said(message))).await),
                None => open = false,
            },
            status = child.wait() => break status,
        }
    };
    loop {
        match channel::receive(channel.get_ref().as_fd()) {
            Ok(Some((message, _))) => drop(events.send(event(What::Said(message))).await),
            // Once, when it has not read all that it was told.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(None) | Err(_) => break,
        }
    }
    drop(events.send(event(What::Exited(status.unwrap_or_default()))).await);
}

/// The next message; `None` when there will be none.
async fn next(channel: &AsyncFd<OwnedFd>) -> Option<FromWorker> {
    loop {
        let mut ready = channel.readable().await.ok()?;
        match ready.try_io(|channel| channel::receive(channel.get_ref().as_fd())) {
            Ok(Ok(received)) => return received.map(|(message, _)| message),
            Ok(Err(_)) => return None,
            Err(_would_block) => {}
        }
    }
}

/// How a process ended, for people.
pub(super) fn describe(status: ExitStatus, said: Option<&str>) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(libc::SIGKILL)) => "killed (SIGKILL)".into(),
        (None, Some(libc::SIGSYS)) => "killed for a system call that workers may not make".into(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".into(),
    };
    match said {
        Some(said) => format!("{how}: {said}"),
        None => how,
    }
}
