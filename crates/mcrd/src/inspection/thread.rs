//! The thread that reads the mirrors.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{PoisonError, mpsc};
use std::time::{Duration, Instant};

use mcr_core::action::Take;
use mcr_core::forward::{Frame, PacketType};
use mcr_core::inspect::{Inspector, WatchList};
use mcr_core::link::IfIndex;
use mcr_dataplane::tap::{Catch, Caught, Tap, TapOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Order, Results};

/// Results are copied this often while packets come.
const PUBLISH: Duration = Duration::from_millis(250);
/// A mirror that could not be opened is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);
/// Frames are kept whole: of a super-packet each datagram is looked at, of a transport stream each
/// packet.
const SNAP: u32 = 65_535;
/// Of each mirror: the packets of a tenth of a second at 1 Gbit/s.
const RING_BYTES: u32 = 16 << 20;

/// What the thread owns.
pub(super) struct Watcher {
    orders: mpsc::Receiver<Order>,
    wake: OwnedFd,
    results: Results,
    inspector: Inspector,
    list: WatchList,
    mirrors: BTreeMap<IfIndex, Mirror>,
    /// Why there is no mirror of an interface.
    problems: BTreeMap<IfIndex, String>,
    retry: Option<Instant>,
    published: Instant,
    /// Something has come since.
    stale: bool,
}

struct Mirror {
    tap: Tap,
    catch: Catch,
    lost: u64,
}

impl Watcher {
    pub(super) fn new(orders: mpsc::Receiver<Order>, wake: OwnedFd, results: Results) -> Self {
        Self {
            orders,
            wake,
            results,
            inspector: Inspector::default(),
            list: WatchList::default(),
            mirrors: BTreeMap::new(),
            problems: BTreeMap::new(),
            retry: None,
            published: Instant::now(),
            stale: false,
        }
    }

    /// Until the event loop has ended.
    pub(super) fn run(mut self) {
        loop {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "rules are no longer inspected");
                return;
            }
            loop {
                match self.orders.try_recv() {
                    Ok(order) => self.follow(order),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.read();
            if self.retry.is_some_and(|at| at <= Instant::now()) {
                self.open_mirrors();
            }
            if self.stale && self.published.elapsed() >= PUBLISH {
                self.publish();
            }
        }
    }

    /// For an order, packets, or the time to do something.
    fn wait(&self) -> rustix::io::Result<()> {
        let publish = self.stale.then_some(self.published + PUBLISH);
        let until = publish.into_iter().chain(self.retry).min();
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        // Rounded up, not to turn round in the last moment.
        let left = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
        let mut all: Vec<PollFd<'_>> = vec![PollFd::new(&self.wake, PollFlags::IN)];
        let taps = self.mirrors.values().map(|mirror| mirror.tap.as_fd());
        all.extend(taps.map(|tap| PollFd::from_borrowed_fd(tap, PollFlags::IN)));
        match poll(&mut all, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut count = [0; 8];
        match rustix::io::read(&self.wake, &mut count) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn follow(&mut self, Order(list, done): Order) {
        // What has come so far is of the rules as they were.
        self.read();
        self.list = list.clone();
        self.inspector.watch(list);
        self.open_mirrors();
        self.publish();
        // Nobody waits any longer after some time.
        let _ = done.send(());
    }

    /// One for each interface with inspected rules that run.
    fn open_mirrors(&mut self) {
        let takes = self.list.takes();
        self.mirrors.retain(|interface, _| takes.contains_key(interface));
        self.problems.retain(|interface, _| takes.contains_key(interface));
        for (interface, takes) in &takes {
            match mirror(self.mirrors.get_mut(interface), *interface, takes) {
                Ok(opened) => {
                    self.mirrors.extend(opened.map(|mirror| (*interface, mirror)));
                    self.problems.remove(interface);
                }
                Err(error) => {
                    let problem = format!(
                        "the packets cannot be mirrored (an AF_PACKET socket, which needs \
                         CAP_NET_RAW, and {} MiB of memory): {error}",
                        RING_BYTES >> 20
                    );
                    if self.problems.insert(*interface, problem.clone()).is_none() {
                        tracing::warn!(%interface, "rules are not inspected: {problem}");
                    }
                }
            }
        }
        self.retry = (!self.problems.is_empty()).then(|| Instant::now() + RETRY);
    }

    /// What is there now, of each interface.
    fn read(&mut self) {
        for (interface, mirror) in &mut self.mirrors {
            let inspector = &mut self.inspector;
            let seen = mirror.tap.read(|caught| {
                if let Some(frame) = frame(caught) {
                    inspector.observe(&frame, caught.time);
                }
            });
            // After the read: what has found no room until now is before the next packet.
            let lost = mirror.tap.lost();
            self.inspector.settle(*interface, lost - mirror.lost);
            self.stale |= seen > 0 || lost != mirror.lost;
            mirror.lost = lost;
        }
    }

    fn publish(&mut self) {
        let mut all: BTreeMap<String, _> = BTreeMap::new();
        for (key, stats) in self.inspector.stats() {
            all.insert(key.to_string(), stats);
        }
        for rule in &self.list.rules {
            let interface = rule.take.as_ref().map(|take| take.interface);
            let problem = interface.and_then(|interface| self.problems.get(&interface));
            if let (Some(problem), Some(stats)) = (problem, all.get_mut(rule.key.as_str())) {
                stats.problem = Some(problem.clone());
            }
        }
        *self.results.lock().unwrap_or_else(PoisonError::into_inner) = all;
        self.published = Instant::now();
        self.stale = false;
    }
}

/// Opens a mirror, unless there is one: that one shows something else from now on.
fn mirror(
    there: Option<&mut Mirror>,
    interface: IfIndex,
    takes: &[&Take],
) -> std::io::Result<Option<Mirror>> {
    let catch = Catch::Flows(takes.iter().map(|take| (take.addresses, take.ports)).collect());
    match there {
        Some(mirror) if mirror.catch == catch => Ok(None),
        Some(mirror) => {
            mirror.tap.catch(&catch)?;
            mirror.catch = catch;
            Ok(None)
        }
        None => {
            let interface = Some(interface);
            let options =
                TapOptions { interface, catch: catch.clone(), snap: SNAP, ring_bytes: RING_BYTES };
            Ok(Some(Mirror { tap: Tap::open(&options)?, catch, lost: 0 }))
        }
    }
}

/// What has arrived for this host.
fn frame<'f>(caught: &Caught<'f>) -> Option<Frame<'f>> {
    (caught.packet_type <= MULTICAST).then_some(Frame {
        bytes: caught.bytes,
        bare: caught.bare,
        interface: caught.interface,
        packet_type: PacketType::Here,
        tagged: caught.tag.is_some_and(|tag| tag & VID != 0),
        segment_size: caught.segment_size,
        partial_checksum: caught.partial,
    })
}

/// `PACKET_MULTICAST`; less are `PACKET_HOST` and `PACKET_BROADCAST`.
const MULTICAST: u8 = 2;
/// The VLAN identifier in a tag; 0 is a priority alone.
const VID: u16 = 0xfff;
