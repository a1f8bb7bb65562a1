//! The command line of `mcrgen`.
//!
//! Owns every option, its default and its range, and refuses (exit code 2) what the text alone
//! shows to be wrong. What depends on the machine is refused later, by the module that meets it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::payload::{HEADER, MAX_PAYLOAD};
use crate::streams;

#[cfg(test)]
mod tests;

/// Reads the command line; exits with code 2 and says why if it is wrong.
pub(crate) fn parse() -> Args {
    let args = Args::parse();
    let checked = match &args.command {
        Command::Send(send) => send.check(),
        Command::Recv(recv) => recv.check(),
    };
    if let Err(message) = checked {
        Args::command().error(ErrorKind::ValueValidation, message).exit();
    }
    args
}

/// Send or receive many sequence-numbered multicast streams.
///
/// Stream k counts up from the given group and port: the group k-1 steps on, skipping host parts
/// 0 and 255, the port + k-1.
#[derive(Debug, Parser)]
#[command(name = "mcrgen", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send streams. Exits 1 if a packet could not be sent.
    Send(SendArgs),
    /// Receive streams. Exits 1 on any lost, duplicate, corrupt or foreign packet.
    ///
    /// Prints the line "ready" on stderr once every group is joined: wait for it before sending.
    /// Ends when everything expected has come, --idle after the last packet, at --duration, or on
    /// SIGINT or SIGTERM, and reports in every case.
    ///
    /// Latency is from the sender's time stamp to the kernel's receive time stamp. The longest burst
    /// is the most packets, of all streams, stamped within one window of 100 µs. The delay variation
    /// is p99.9 - min. Reordered (RFC 4737) packets are reported but are no failure.
    Recv(RecvArgs),
}

/// Which streams: the same for sender and receiver.
#[derive(Debug, clap::Args)]
pub(crate) struct StreamArgs {
    /// Interface to send from or to receive on
    #[arg(long, value_name = "IF")]
    pub(crate) interface: String,
    /// Address of stream 1: a multicast group, IPv4 or IPv6, or a unicast address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) group: IpAddr,
    /// UDP port of stream 1
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Number of streams
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub(crate) streams: u32,
    /// Every stream has the same group; only the port counts up
    #[arg(long, conflicts_with = "same_port")]
    pub(crate) same_group: bool,
    /// Every stream has the same port; only the group counts up
    #[arg(long)]
    pub(crate) same_port: bool,
    /// Number that stream 1 has in the payload
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) first_stream: u32,
}

impl StreamArgs {
    fn check(&self) -> Result<(), String> {
        streams::addresses(self).map(drop).map_err(|error| error.to_string())
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) streams: StreamArgs,
    /// Packets per second and stream; 0 sends as fast as it can
    #[arg(long, value_name = "PPS", default_value_t = 1000)]
    pub(crate) rate: u32,
    /// Packets per stream; 0 sends until --duration or SIGINT
    #[arg(long, default_value_t = 0)]
    pub(crate) count: u64,
    /// Stop after this time, e.g. 500ms, 2s, 1m
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// UDP payload bytes, 40 (the header) to 65507
    #[arg(long, default_value_t = 1024, value_parser = parse_size)]
    pub(crate) size: usize,
    /// TTL or hop limit
    #[arg(long, default_value_t = 8)]
    pub(crate) ttl: u8,
    /// DSCP, 0 to 63
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=63))]
    pub(crate) dscp: u8,
    /// Address, and port if given, to send from
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_source)]
    pub(crate) source: Option<SocketAddr>,
    /// Hand the kernel super-packets of N datagrams of one stream (UDP_SEGMENT)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) gso: u16,
    /// UDP checksum: "none" sends the value 0 (IPv4 only)
    #[arg(long, value_enum, default_value_t = Checksum::Full)]
    pub(crate) checksum: Checksum,
    /// Let receivers on this host have the packets too (IP_MULTICAST_LOOP)
    #[arg(long = "loop")]
    pub(crate) local: bool,
    /// First sequence number of every stream
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..MAX_EXPECT))]
    pub(crate) first_sequence: u64,
    /// Wait for this moment, in seconds since 1970, so that several senders start together
    #[arg(long, value_name = "UNIXTIME", value_parser = parse_moment)]
    pub(crate) start_at: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// For tests: the run in the payload, so that a second sender repeats a first
    #[arg(long, hide = true)]
    pub(crate) run: Option<u64>,
    /// For tests: flip a bit of every Nth packet
    #[arg(long, hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) corrupt_every: Option<u64>,
}

impl SendArgs {
    /// What clap cannot see: options that do not fit each other.
    fn check(&self) -> Result<(), String> {
        let (group, v6) = (self.streams.group, self.streams.group.is_ipv6());
        if let Some(source) = self.source.filter(|source| source.is_ipv6() != v6) {
            let source = source.ip();
            return Err(format!("--source {source} and --group {group} are of different families"));
        }
        if self.checksum == Checksum::None && v6 {
            return Err("--checksum none needs an IPv4 group (RFC 8200 section 8.1)".to_owned());
        }
        if self.checksum == Checksum::None && self.gso > 1 {
            return Err("--checksum none and --gso exclude each other in the kernel".to_owned());
        }
        if self.size * usize::from(self.gso) > MAX_PAYLOAD {
            return Err(format!("--size times --gso must not exceed {MAX_PAYLOAD} bytes"));
        }
        self.streams.check()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Checksum {
    Full,
    None,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RecvArgs {
    #[command(flatten)]
    pub(crate) streams: StreamArgs,
    /// Join the groups from this sender only (SSM, RFC 4607)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) source: Option<IpAddr>,
    /// Packets expected per stream; ends when all have come
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_EXPECT))]
    pub(crate) expect: Option<u64>,
    /// Ends this long after the last packet
    #[arg(long, value_name = "T", default_value = "2s", value_parser = parse_duration)]
    pub(crate) idle: Duration,
    /// How long to wait for the first packet
    #[arg(long, value_name = "T", default_value = "30s", value_parser = parse_duration)]
    pub(crate) wait_first: Duration,
    /// Ends this long after the start, whatever comes
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Keep receiving this long after all has come, to catch late duplicates
    #[arg(long, value_name = "T", default_value = "0s", value_parser = parse_duration)]
    pub(crate) linger: Duration,
    /// Receive buffer of each stream's socket in bytes; the report says what was granted
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20,
          value_parser = clap::value_parser!(u32).range(4096..=1 << 30))]
    pub(crate) rcvbuf: u32,
    /// List every stream, not only the worst
    #[arg(long)]
    pub(crate) per_stream: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl RecvArgs {
    /// What clap cannot see: options that do not fit each other.
    fn check(&self) -> Result<(), String> {
        let group = self.streams.group;
        match self.source {
            Some(_) if !group.is_multicast() => {
                Err(format!("--source selects a sender to a group, and {group} is none"))
            }
            Some(source) if source.is_ipv6() != group.is_ipv6() => {
                Err(format!("--source {source} and --group {group} are of different families"))
            }
            Some(_) | None => self.streams.check(),
        }
    }
}

/// The most sequences a receiver keeps a bitmap for: 512 MiB a stream.
pub(crate) const MAX_EXPECT: u64 = 1 << 32;

/// A number with a unit: `500ms`, `2s`, `1.5s`, `1m`; also `us` and `h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err(format!("a unit is missing; write {text}s for seconds")),
        _ => return Err(format!("'{unit}' is no unit of time; use us, ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{number}' is no number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// Seconds since 1970, with a fraction if need be.
fn parse_moment(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("'{text}' is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn parse_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (HEADER..=MAX_PAYLOAD).contains(&size) => Ok(size),
        Ok(_) | Err(_) => Err(format!("a payload has {HEADER} to {MAX_PAYLOAD} bytes")),
    }
}

/// `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT`; port 0 lets the kernel choose.
fn parse_source(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0));
    alone.or_else(|_| text.parse()).map_err(|_| {
        format!("'{text}' is no ADDRESS[:PORT], e.g. 10.0.0.1, 10.0.0.1:5000 or [fd00::1]:5000")
    })
}
