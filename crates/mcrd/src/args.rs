//! The command line of `mcrd`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use mcr_dataplane::bpf;

/// Relays UDP multicast streams to other groups, ports and interfaces.
#[derive(Debug, Parser)]
#[command(name = "mcrd", version)]
pub(crate) struct Args {
    /// Read rules from FILE (TOML) and from the *.toml files of the folder beside it: for
    /// /etc/mcr/mcr.toml, /etc/mcr/mcr.d/
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Listen for clients on PATH [default: /run/mcr/INSTANCE.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The name of this daemon among others on the host
    #[arg(long, value_name = "NAME", default_value = "mcr", value_parser = instance_name)]
    pub(crate) instance: String,
    /// What moves packets
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) dataplane: Plane,
    /// Worker processes of the packet plane, 1 to 4 for each CPU [default: 1 for each CPU, at most 4]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<u32>,
    /// Be a worker on this CPU; its supervisor is standard input
    #[arg(long, value_name = "CPU", hide = true)]
    pub(crate) worker_on: Option<usize>,
    /// Check the configuration and exit; needs no privileges
    #[arg(long)]
    pub(crate) check: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log what is at least this important
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: tracing::Level,
    /// Let the kernel measure the eBPF program (about 20 ns a packet); shown by `mcrctl status`
    #[arg(long)]
    pub(crate) measure: bool,
    /// How the eBPF plane gets at packets
    #[arg(long, value_enum, default_value = "auto", hide = true)]
    pub(crate) attach: Attach,
}

/// `--dataplane`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plane {
    /// The first that runs here.
    Auto,
    /// In the kernel (eBPF).
    Ebpf,
    /// In worker processes (AF_PACKET).
    Packet,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `--attach`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attach {
    /// TCX where the kernel has it.
    Auto,
    /// The TCX hook.
    Tcx,
    /// A clsact qdisc.
    Clsact,
}

impl From<Attach> for bpf::Attach {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Self::Auto,
            Attach::Tcx => Self::Tcx,
            Attach::Clsact => Self::Clsact,
        }
    }
}

/// Names a file and a folder of pins; bpffs allows no dots.
fn instance_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= 64 && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 64 letters, digits, '_' or '-', a letter or digit first".into())
}
