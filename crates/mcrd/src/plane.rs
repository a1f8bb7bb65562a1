//! Which data plane runs: the one that was named, or the first that can.

use mcr_core::refusal::{Code, Refusal};
use mcr_dataplane::bpf::{self, BpfPlane};
use mcr_dataplane::packet::{self, PacketPlane};

use crate::args::{Args, Plane};
use crate::config::Config;

/// What was chosen, before anything is touched.
pub(crate) enum Choice {
    /// Named by the operator.
    Named(Plane),
    Ebpf,
    /// Why not the eBPF plane.
    Packet(Refusal),
}

/// A plane that runs, and why this one, unless it was named.
pub(crate) enum Opened {
    Ebpf(Box<BpfPlane>, Option<String>),
    Packet(Box<PacketPlane>, Option<String>),
}

impl Choice {
    /// Probes what was named; or takes the first that runs.
    pub(crate) fn make(args: &Args) -> Result<Self, Refusal> {
        if let Some(workers) = args.workers {
            packet::check_workers(workers)?;
        }
        match args.dataplane {
            Plane::Ebpf => bpf::probe().map_err(ebpf_cannot)?,
            Plane::Packet => packet::probe().map_err(packet_cannot)?,
            Plane::Auto => {
                return match bpf::probe() {
                    Ok(()) => Ok(Self::Ebpf),
                    Err(why) => packet_instead(why),
                };
            }
        }
        Ok(Self::Named(args.dataplane))
    }

    /// Within a tokio runtime, by the main thread.
    pub(crate) fn open(self, args: &Args, config: &Config) -> Result<Opened, Refusal> {
        let opened = self.open_plane(args, config)?;
        if matches!(opened, Opened::Ebpf(..)) && args.workers.is_some() {
            tracing::warn!("--workers has no effect: the ebpf plane has none");
        }
        Ok(opened)
    }

    fn open_plane(self, args: &Args, config: &Config) -> Result<Opened, Refusal> {
        match self {
            Self::Named(Plane::Packet) => {
                let plane = open_packet(args, config).map_err(packet_cannot)?;
                Ok(Opened::Packet(Box::new(plane), None))
            }
            Self::Named(Plane::Ebpf | Plane::Auto) => {
                let plane = open_ebpf(args, config).map_err(ebpf_cannot)?;
                Ok(Opened::Ebpf(Box::new(plane), None))
            }
            Self::Ebpf => match open_ebpf(args, config) {
                Ok(plane) => {
                    let why = "it runs here, and costs less a packet than the packet plane";
                    Ok(Opened::Ebpf(Box::new(plane), Some(why.into())))
                }
                Err(why) => packet_instead(why)?.open_plane(args, config),
            },
            Self::Packet(why) => {
                let plane = open_packet(args, config).map_err(packet_cannot)?;
                let why = format!("the ebpf plane cannot run: {}", why.message);
                Ok(Opened::Packet(Box::new(plane), Some(why)))
            }
        }
    }
}

fn packet_instead(why: Refusal) -> Result<Choice, Refusal> {
    match packet::probe() {
        Ok(()) => Ok(Choice::Packet(why)),
        Err(also) => Err(Refusal::new(
            Code::Plane,
            format!("no data plane can run here; ebpf: {}; packet: {}", why.message, also.message),
            format!("{}; or for the packet plane: {}", why.hint, also.hint),
        )),
    }
}

fn open_ebpf(args: &Args, config: &Config) -> Result<BpfPlane, Refusal> {
    BpfPlane::open(&bpf::Options {
        instance: args.instance.clone(),
        attach: args.attach.into(),
        limits: config.limits,
        measure: args.measure,
    })
}

fn open_packet(args: &Args, config: &Config) -> Result<PacketPlane, Refusal> {
    PacketPlane::open(packet::Options {
        instance: args.instance.clone(),
        workers: args.workers,
        limits: config.limits,
        packet: config.packet.clone(),
        worker_arguments: vec!["--worker-on".into()],
    })
}

fn ebpf_cannot(refusal: Refusal) -> Refusal {
    refusal.about("the ebpf plane cannot run")
}

fn packet_cannot(refusal: Refusal) -> Refusal {
    refusal.about("the packet plane cannot run")
}
