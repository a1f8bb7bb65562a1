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

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mcr_core::refusal::{Code, Refusal};
use mcr_dataplane::bpf::{self, BpfPlane};

use args::{Args, Plane};
use config::Config;
use instance::Instance;

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
        let count = config.rules.len();
        writeln!(std::io::stdout(), "{count} rules, no mistakes found")?;
        return Ok(());
    }
    logging::start(args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let instance = Instance::acquire(&args.instance, args.socket.as_deref())?;
    let plane = open_plane(args, &config)?;
    mcr_dataplane::raise_open_files();
    runtime.block_on(eventloop::run(args, instance, plane, config)).context("stopped")
}

/// The plane that was named, or the first that runs here.
fn open_plane(args: &Args, config: &Config) -> Result<BpfPlane, Refusal> {
    if args.dataplane == Plane::Packet {
        return Err(Refusal::new(
            Code::NotYet,
            "the packet plane is not in this version",
            "use --dataplane ebpf",
        ));
    }
    let options = bpf::Options {
        instance: args.instance.clone(),
        attach: args.attach.into(),
        limits: config.limits,
        measure: args.measure,
    };
    let plane = bpf::probe().and_then(|()| BpfPlane::open(&options));
    plane.map_err(|refusal| match args.dataplane {
        Plane::Auto => refusal.about("no data plane can run here: ebpf"),
        Plane::Ebpf | Plane::Packet => refusal.about("the ebpf plane cannot run"),
    })
}
