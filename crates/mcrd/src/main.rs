//! `mcrd`, the relay daemon: one process, one event loop on one thread.
//!
//! A rule crosses these files on its way in: `control` (HTTP), `eventloop` (carries out what the
//! relay asks for), `mcr_core::relay` (decides), `mcr_dataplane` (does), and back with the reply.

mod args;
mod capture;
mod config;
mod control;
mod doctor;
mod eventloop;
mod events;
mod inspection;
mod instance;
mod logging;
mod metrics;
mod plane;
mod sources;

use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;
use mcr_dataplane::packet::worker;

use args::Args;
use eventloop::Socket;
use instance::Instance;
use plane::{Choice, Opened};
use sources::Signals;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(cpu) = args.worker_on {
        return be_worker(cpu);
    }
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
    let choice = Choice::make(args)?;
    let instance = Instance::acquire(&args.instance, args.socket.as_deref())?;
    let listener = instance.listen()?;
    let metrics = config.metrics.listen.map(control::listen_for_metrics).transpose()?;
    mcr_dataplane::raise_open_files();
    let opened = choice.open(args, &config)?;
    drop(entered);
    let socket = Socket { instance, listener, metrics };
    let result = match opened {
        Opened::Ebpf(plane, why) => {
            runtime.block_on(eventloop::run(args, signals, socket, (*plane, why), config))
        }
        Opened::Packet(plane, why) => {
            runtime.block_on(eventloop::run(args, signals, socket, (*plane, why), config))
        }
    };
    // A thread that makes rings is not waited for.
    runtime.shutdown_background();
    result
}

/// What a supervisor has started.
fn be_worker(cpu: usize) -> ExitCode {
    let channel = std::io::stdin().as_fd().try_clone_to_owned();
    match channel.and_then(|channel| worker::run(channel, cpu)) {
        Ok(()) => ExitCode::SUCCESS,
        // The supervisor has been told.
        Err(_) => ExitCode::FAILURE,
    }
}
