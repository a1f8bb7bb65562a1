//! The planes of a test, each with an instance of its own.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mcr_core::action::{Counters, PlaneChange};
use mcr_core::packet::PacketOptions;
use mcr_core::relay::Limits;
use mcr_dataplane::bpf::{self, Attach, BpfPlane};
use mcr_dataplane::packet::{self, PacketPlane, worker};
use mcr_dataplane::{Applied, DataPlane, News, Progress};
use tokio::runtime::{Builder, Runtime};

use crate::namespace::DEADLINE;

const LIMITS: Limits = Limits { rules: 1024, outputs: 1024 };
/// What makes this program a worker: a run of one test, by the main thread. The CPU follows, which
/// is a filter to the test runner, and one that finds nothing.
const WORKER: [&str; 4] = ["--nocapture", "--test-threads=1", "--exact", "plane::is_a_worker"];
/// How a worker process is called.
const WORKER_NAME: &str = "mcrd: worker ";

/// Which plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bpf(Attach),
    /// By one worker, so that frames of different streams stay in order.
    Packet,
}

/// Every plane.
pub(crate) const KINDS: [Kind; 3] =
    [Kind::Bpf(Attach::Tcx), Kind::Bpf(Attach::Clsact), Kind::Packet];

enum Plane {
    Bpf(Box<BpfPlane>),
    Packet(Box<PacketPlane>),
}

fn instance() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

/// A plane of its own, stopped and cleaned when dropped.
pub(crate) struct TestPlane {
    plane: Plane,
    runtime: Runtime,
}

impl TestPlane {
    pub(crate) fn open(kind: Kind) -> Self {
        let Kind::Bpf(attach) = kind else { return Self::open_packet(1, PacketOptions::default()) };
        let instance = instance();
        let options = bpf::Options { instance, attach, limits: LIMITS, measure: false };
        let plane = Plane::Bpf(Box::new(BpfPlane::open(&options).unwrap()));
        Self { plane, runtime: Builder::new_current_thread().enable_all().build().unwrap() }
    }

    /// A packet plane with so many workers.
    pub(crate) fn open_packet(workers: u32, packet: PacketOptions) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let plane = {
            let _entered = runtime.enter();
            PacketPlane::open(packet::Options {
                instance: instance(),
                workers: Some(workers),
                limits: LIMITS,
                packet,
                worker_arguments: WORKER.map(Into::into).into(),
            })
        };
        Self { plane: Plane::Packet(Box::new(plane.unwrap())), runtime }
    }

    /// A change, until every worker has it.
    pub(crate) fn apply(&mut self, change: &PlaneChange) -> Applied {
        match &mut self.plane {
            Plane::Bpf(plane) => match plane.apply(change) {
                Progress::Done(applied) => applied,
                Progress::Pending => panic!("the eBPF plane waits for nobody"),
            },
            Plane::Packet(plane) => {
                let Self { runtime, .. } = self;
                let _entered = runtime.enter();
                let applied = match plane.apply(change) {
                    Progress::Done(applied) => applied,
                    Progress::Pending => runtime
                        .block_on(async { tokio::time::timeout(DEADLINE, ended(plane)).await })
                        .expect("an answer before the deadline"),
                };
                assert!(!matches!(&applied, Ok(warnings) if !warnings.is_empty()), "{applied:?}");
                applied
            }
        }
    }

    /// Lets the plane do for a while what it does by itself.
    pub(crate) fn idle(&mut self, time: Duration) {
        let Self { plane, runtime } = self;
        if let Plane::Packet(plane) = plane {
            let idle = runtime.block_on(async { tokio::time::timeout(time, ended(plane)).await });
            assert!(idle.is_err(), "no change is pending: {idle:?}");
        }
    }

    pub(crate) fn counters(&mut self, bounds: (u32, u32)) -> Counters {
        match &mut self.plane {
            Plane::Bpf(plane) => plane.counters(bounds),
            Plane::Packet(plane) => plane.counters(bounds),
        }
        .unwrap()
    }

    /// The eBPF plane that it is.
    pub(crate) fn bpf(&mut self) -> &mut BpfPlane {
        match &mut self.plane {
            Plane::Bpf(plane) => plane,
            Plane::Packet(_) => panic!("the packet plane has no program"),
        }
    }
}

impl Drop for TestPlane {
    fn drop(&mut self) {
        match &mut self.plane {
            Plane::Bpf(plane) => self.runtime.block_on(plane.stop()),
            Plane::Packet(plane) => self.runtime.block_on(plane.stop()),
        }
    }
}

/// Not a test but what a worker process runs, as in production: confined, its channel the standard
/// input. To everybody else it is an empty test.
#[test]
fn is_a_worker() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments[0].starts_with(WORKER_NAME) {
        return;
    }
    let cpu = arguments.last().unwrap().parse().unwrap();
    let channel = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    worker::run(channel, cpu).unwrap();
}

/// The end of the pending change.
async fn ended(plane: &mut PacketPlane) -> Applied {
    loop {
        if let News::Applied(applied) = plane.next().await {
            return applied;
        }
    }
}
