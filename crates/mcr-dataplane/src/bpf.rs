//! The eBPF plane: `bpf/relay.bpf.c` on the ingress hook of every input interface.
//!
//! [`probe`] says whether it can run here, and if not why, apart from anything failing later.
//! Exactly one thread, the owner of [`BpfPlane`], writes the maps.

mod abi;
mod extents;
mod hooks;
mod maps;
mod pins;
mod ranges;
mod stats;
mod tables;

use std::os::fd::OwnedFd;

use aya::maps::MapData;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use mcr_core::action::{Counters, PlaneChange, PlaneRefusal};
use mcr_core::api::ProgramCost;
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::Limits;
use mcr_core::vectors::Gso;
use rustix::thread::CapabilitySet;

use crate::sys::Grace;
use crate::{DataPlane, Description, News, Progress, netlink};
use hooks::Hooks;
use maps::{Maps, Sizes};
use pins::Pins;

pub use hooks::Attach;

/// The name of the program in the kernel; that for interfaces without a link header begins so.
const PROGRAM: &str = "mcr_relay";
const BARE_PROGRAM: &str = "mcr_relay_bare";

/// Size and offsets of `struct __sk_buff` in `linux/bpf.h`, which is part of the kernel's ABI.
const SKB_CONTEXT: usize = 192;
const SKB_IFINDEX: usize = 40;
const SKB_GSO_SEGS: usize = 164;
const SKB_GSO_SIZE: usize = 176;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/relay.bpf.o"));

/// How the plane is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The instance, which names the folder of pins.
    pub instance: String,
    /// How to get at packets.
    pub attach: Attach,
    /// What it must hold.
    pub limits: Limits,
    /// Whether to measure the program's cost; adds about 20 ns a packet.
    pub measure: bool,
}

/// The plane. Dropping it leaves forwarding on; [`DataPlane::stop`] ends it.
pub struct BpfPlane {
    ebpf: Ebpf,
    maps: Maps,
    hooks: Hooks,
    stats: Option<OwnedFd>,
}

/// Whether the eBPF plane can run here, and if not why and what to do.
pub fn probe() -> Result<(), Refusal> {
    let capabilities = rustix::thread::capabilities(None)
        .map_err(|error| Refusal::new(Code::Internal, format!("capabilities: {error}"), ""))?
        .effective;
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let bpf = capabilities.contains(bpf) || capabilities.contains(CapabilitySet::SYS_ADMIN);
    if !bpf || !capabilities.contains(CapabilitySet::NET_ADMIN) {
        return Err(Refusal::new(
            Code::Plane,
            "no privileges for eBPF: CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed",
            "run mcrd as root, or give it these capabilities",
        ));
    }
    match aya::sys::is_program_supported(aya::programs::ProgramType::SchedClassifier) {
        Ok(true) => Ok(()),
        Ok(false) => Err(no_bpf("it does not know traffic control programs")),
        Err(error) => Err(no_bpf(&chain(&error))),
    }
}

/// Ends the forwarding that an eBPF plane of the instance has left behind, when it died.
pub fn end_left(instance: &str) {
    if let Some(pins) = Pins::left_by(instance) {
        tracing::info!("ending what an eBPF plane of this instance has left");
        Hooks::new(Attach::Tcx, instance, pins).remove_all();
    }
}

impl BpfPlane {
    /// Loads the program and makes its maps. Nothing is attached until a rule needs it.
    pub fn open(options: &Options) -> Result<Self, Refusal> {
        let sizes = Sizes {
            rules: options.limits.rules.saturating_mul(2).min(abi::RULES_MAX),
            outputs: options.limits.outputs.saturating_mul(2).min(abi::OUTPUTS_MAX),
        };
        let mut loader = EbpfLoader::new();
        for (map, size) in [
            ("flows", sizes.rules),
            ("sources", sizes.sources()),
            ("prefixes", sizes.rules),
            ("slots", sizes.slots()),
            ("nodes", sizes.rules),
            ("ranges", sizes.ranges()),
            ("rates", sizes.rules),
            ("rule_stats", sizes.rules),
            ("outputs", sizes.outputs),
            ("output_stats", sizes.outputs),
        ] {
            loader.map_max_entries(map, size);
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| unloadable(&e))?;
        for name in [PROGRAM, BARE_PROGRAM] {
            program(&mut ebpf, name)?.load().map_err(|e| unloadable(&e))?;
        }
        let stats = if options.measure {
            let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime);
            Some(stats.map_err(|e| no_bpf(&chain(&e)))?)
        } else {
            None
        };
        let grace = Grace::open().map_err(|e| no_bpf(&e.to_string()))?;
        let attach = options.attach.resolve()?;
        // Last, so that a start refused so far has touched no pin.
        let pins = Pins::open(&options.instance)?;
        for (name, map) in ebpf.maps() {
            pins.pin_map(name, map)?;
        }
        let maps = Maps::take(&mut ebpf, sizes, grace)?;
        let hooks = Hooks::new(attach, &options.instance, pins);
        Ok(Self { ebpf, maps, hooks, stats })
    }
}

impl BpfPlane {
    /// Runs the program on a frame as if it had arrived on `interface` (`BPF_PROG_TEST_RUN`):
    /// what the program returns, and the frame as the stack would get it. Copies for outputs are
    /// really sent. For tests.
    pub fn test_run(
        &mut self,
        interface: IfIndex,
        frame: &[u8],
        gso: Option<Gso>,
    ) -> Result<(i32, Vec<u8>), Refusal> {
        let mut context = [0; SKB_CONTEXT];
        context[SKB_IFINDEX..][..4].copy_from_slice(&interface.0.to_ne_bytes());
        if let Some(Gso { segments, size }) = gso {
            context[SKB_GSO_SEGS..][..4].copy_from_slice(&u32::from(segments).to_ne_bytes());
            context[SKB_GSO_SIZE..][..4].copy_from_slice(&u32::from(size).to_ne_bytes());
        }
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result =
            program(&mut self.ebpf, PROGRAM)?.test_run(options).map_err(|e| unloadable(&e))?;
        let length = result.data_size_out as usize;
        out.truncate(length);
        Ok((result.return_value.cast_signed(), out))
    }
}

impl DataPlane for BpfPlane {
    fn describe(&self) -> Description {
        Description { plane: "ebpf", attach: self.hooks.attach().name(), tap: false }
    }

    fn apply(&mut self, change: &PlaneChange) -> Progress {
        Progress::Done(self.change(change).map(|()| Vec::new()))
    }

    async fn next(&mut self) -> News {
        std::future::pending().await
    }

    fn counters(&mut self, bounds: (u32, u32)) -> Result<Counters, Refusal> {
        self.maps.stats().counters(bounds)
    }

    async fn settle(&mut self) -> Result<(), Refusal> {
        self.hooks.settle();
        Ok(())
    }

    async fn stop(&mut self) {
        self.detach();
    }

    fn cost(&self) -> Option<ProgramCost> {
        self.stats.as_ref()?;
        let mut cost = ProgramCost { runs: 0, nanoseconds: 0 };
        for name in [PROGRAM, BARE_PROGRAM] {
            let program: &SchedClassifier = self.ebpf.program(name)?.try_into().ok()?;
            let info = program.info().ok()?;
            cost.runs += info.run_count();
            cost.nanoseconds += u64::try_from(info.run_time().as_nanos()).ok()?;
        }
        Some(cost)
    }
}

impl BpfPlane {
    /// Takes the program off every interface, and removes all that is pinned.
    pub fn detach(&mut self) {
        self.hooks.remove_all();
    }

    /// Rules first, hooks after: a program that takes an interface over finds its rules there.
    fn change(&mut self, change: &PlaneChange) -> Result<(), PlaneRefusal> {
        let blame = |interface| move |refusal| PlaneRefusal { interface, refusal };
        let pending = self.maps.install(change).map_err(blame(None))?;
        let new: Vec<IfIndex> = self.hooks.missing(&change.inputs);
        // All are asked before any is touched: what a crash has left goes on until it is taken over.
        let asked = new
            .iter()
            .try_for_each(|index| self.hooks.check(*index).map_err(|refusal| (*index, refusal)));
        let added = asked.and_then(|()| {
            new.iter().try_for_each(|index| {
                let mut add = || {
                    self.maps.stats_mut().watch(*index)?;
                    let bare = netlink::is_bare(*index)?;
                    let name = if bare { BARE_PROGRAM } else { PROGRAM };
                    self.hooks.add(program(&mut self.ebpf, name)?, *index)
                };
                add().map_err(|refusal| (*index, refusal))
            })
        });
        if let Err((index, refusal)) = added {
            for index in new {
                self.hooks.remove(index);
                self.maps.stats_mut().unwatch(index);
            }
            self.maps.take_back(pending);
            return Err(PlaneRefusal { interface: Some(index), refusal });
        }
        for index in self.hooks.surplus(&change.inputs) {
            self.hooks.remove(index);
            self.maps.stats_mut().unwatch(index);
        }
        self.maps.complete(pending, change);
        Ok(())
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier, Refusal> {
    let wrong = || Refusal::new(Code::Internal, "the eBPF object has no program", "rebuild mcrd");
    ebpf.program_mut(name).ok_or_else(wrong)?.try_into().map_err(|_| wrong())
}

/// The data of any of the program's maps.
fn map_data(map: &aya::maps::Map) -> Option<&MapData> {
    use aya::maps::Map;
    #[expect(clippy::wildcard_enum_match_arm, reason = "aya's map types, of which we use six")]
    match map {
        Map::HashMap(data) | Map::LruHashMap(data) | Map::Array(data) => Some(data),
        Map::LpmTrie(data) => Some(data),
        Map::PerCpuArray(data) | Map::PerCpuHashMap(data) => Some(data),
        _ => None,
    }
}

/// The verifier's log, which can have thousands of lines, is for developers.
fn unloadable(error: &dyn std::error::Error) -> Refusal {
    let text = chain(error);
    let (why, log) = text.split_once("Verifier output:").unwrap_or((&text, ""));
    tracing::debug!(log, "verifier");
    Refusal::new(
        Code::Plane,
        format!("the kernel refused the eBPF program: {why}"),
        "MCR needs Linux 5.15 or newer with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, and the \
         memory that max_rules and max_outputs under [limits] ask for",
    )
}

fn no_bpf(why: &str) -> Refusal {
    Refusal::new(
        Code::Plane,
        format!("the kernel does not run eBPF here: {why}"),
        "a kernel with CONFIG_BPF_SYSCALL=y is needed, and bpf(2) allowed by the container",
    )
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
