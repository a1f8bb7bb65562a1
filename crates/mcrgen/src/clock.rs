//! Time, and being asked to stop: every wait of `mcrgen` ends early on SIGINT or SIGTERM.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::{TimeSpec, TimeVal};

/// CLOCK_REALTIME in nanoseconds: the clock of the kernel's receive time stamps.
pub(crate) fn realtime() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// CPU seconds, user and system, that this process has used. What interrupts do on its behalf,
/// such as the delivery of its packets over a veth pair, is charged to it as system time.
pub(crate) fn cpu_seconds() -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// SIGINT and SIGTERM, taken as a request to report and end.
pub(crate) struct Interrupt {
    signals: SignalFd,
}

impl Interrupt {
    /// Takes both signals over from now on, and makes this thread's sleeps precise to 1 µs
    /// (the default timer slack is 50 µs).
    pub(crate) fn catch() -> Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        signals.thread_block().context("cannot block SIGINT and SIGTERM")?;
        prctl::set_timerslack(1000).context("cannot set the timer slack")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&signals, flags).context("cannot open a signalfd")?;
        Ok(Self { signals })
    }

    /// Sleeps; true if interrupted, also by a signal that came before.
    pub(crate) fn sleep(&self, duration: Duration) -> bool {
        wait(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], duration) == Ok(1)
    }

    /// Whether a signal has come.
    pub(crate) fn pending(&self) -> bool {
        self.sleep(Duration::ZERO)
    }

    /// Readable once a signal has come.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// Waits until a descriptor is ready or `timeout` is over; returns how many are ready.
pub(crate) fn wait(descriptors: &mut [PollFd<'_>], timeout: Duration) -> nix::Result<i32> {
    match ppoll(descriptors, Some(TimeSpec::from_duration(timeout)), None) {
        Err(Errno::EINTR) => Ok(0),
        result => result,
    }
}
