//! `mcrd`, the relay daemon: one process, one thread, one event loop.
//!
//! A rule crosses these files on its way in: `control` (HTTP), `eventloop` (carries out what the
//! relay asks for), `mcr_core::relay` (decides), `mcr_dataplane` (does), and back with the reply.

mod args;
mod config;
mod control;
mod eventloop;
mod instance;
mod logging;
mod metrics;
mod sources;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use mcr_core::refusal::{Code, Refusal};
use mcr_dataplane::bpf::{self, BpfPlane};

use args::{Args, Plane};
use config::Config;
use eventloop::Socket;
use instance::Instance;
use sources::Signals;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Also when logs go to a file or as JSON: whoever has typed the command reads this.
            let _ = writeln!(std::io::stderr(), "mcrd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.config.as_deref().map(config::load).transpose()?.unwrap_or_default();
    if args.check {
        for warning in &config.warnings {
            writeln!(std::io::stderr(), "warning: {warning}")?;
        }
        let count = config.rules.len();
        let plural = if count == 1 { "" } else { "s" };
        writeln!(std::io::stdout(), "{count} rule{plural}, no mistakes found")?;
        return Ok(());
    }
    logging::start(args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let signals = Signals::catch()?;
    probe_plane(args.dataplane)?;
    let instance = Instance::acquire(&args.instance, args.socket.as_deref())?;
    let listener = instance.listen()?;
    let plane = open_plane(args, &config).map_err(|refusal| name_plane(args.dataplane, refusal))?;
    mcr_dataplane::raise_open_files();
    drop(entered);
    let socket = Socket { instance, listener };
    runtime.block_on(eventloop::run(args, signals, socket, plane, config))
}

/// Whether the plane that was named, or any, can run here.
fn probe_plane(plane: Plane) -> Result<(), Refusal> {
    if plane == Plane::Packet {
        return Err(Refusal::new(
            Code::NotYet,
            "the packet plane is not in this version",
            "use --dataplane ebpf",
        ));
    }
    bpf::probe().map_err(|refusal| name_plane(plane, refusal))
}

fn open_plane(args: &Args, config: &Config) -> Result<BpfPlane, Refusal> {
    BpfPlane::open(&bpf::Options {
        instance: args.instance.clone(),
        attach: args.attach.into(),
        limits: config.limits,
        measure: args.measure,
    })
}

fn name_plane(plane: Plane, refusal: Refusal) -> Refusal {
    match plane {
        Plane::Auto => refusal.about("no data plane can run here: ebpf"),
        Plane::Ebpf | Plane::Packet => refusal.about("the ebpf plane cannot run"),
    }
}
