//! The command line of `mcrctl`, and of a line of a batch: the commands of [`Change`] are the same
//! in both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use mcr_core::api::Setting;
use mcr_core::capture::pcap::SNAP_MAX;
use mcr_core::discover::{TIME_DEFAULT, listening_time};
use mcr_core::event::Kind;
use mcr_core::flow::InterfaceName;
use mcr_core::relay::State;

use crate::terminal;

/// Controls a running mcrd: adds, changes and removes rules, and shows what becomes of packets.
///
/// NAME is the name of a rule. A rule without one is called by its input: 239.1.1.1:5000@eth0.
#[derive(Debug, Parser)]
#[command(name = "mcrctl", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no daemon, 4 timed out"
)]
pub(crate) struct Args {
    /// The control socket of mcrd [default: /run/mcr/INSTANCE.sock]
    #[arg(long, value_name = "PATH", global = true, help_heading = GLOBAL,
          conflicts_with = "instance")]
    pub(crate) socket: Option<PathBuf>,
    /// The mcrd to talk to, among others on the host
    #[arg(long, value_name = "NAME", global = true, help_heading = GLOBAL,
          default_value = "mcr", value_parser = instance)]
    pub(crate) instance: String,
    /// Print JSON: what mcrd replies, one object a line
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// For tests: how long to wait for an answer of mcrd
    #[arg(long, hide = true, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) answer_timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Exits with code 2 when options do not fit each other in a way that clap cannot see.
    pub(crate) fn checked(self) -> Self {
        if self.json && matches!(self.command, Command::Save { to: None }) {
            let message = "save writes TOML; for JSON use `mcrctl list --json`";
            Self::command().error(ErrorKind::ArgumentConflict, message).exit();
        }
        if let Command::Discover(args) = &self.command
            && let Some(message) = args.mistake(self.json)
        {
            Self::command().error(ErrorKind::ArgumentConflict, message).exit();
        }
        if matches!(self.command, Command::Top { .. }) {
            if self.json {
                let message = "top draws a screen; for JSON use `mcrctl stats --watch --json`";
                Self::command().error(ErrorKind::ArgumentConflict, message).exit();
            }
            if let Err(why) = terminal::is_interactive() {
                let message = format!("top cannot draw: {why}; use `mcrctl stats --watch`");
                Self::command().error(ErrorKind::Io, message).exit();
            }
        }
        self
    }

    pub(crate) fn socket_path(&self) -> PathBuf {
        let default = || Path::new("/run/mcr").join(format!("{}.sock", self.instance));
        self.socket.clone().unwrap_or_else(default)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Change(Box<Change>),
    /// List the rules with their states, or one of them
    List {
        /// Only this rule
        name: Option<String>,
    },
    /// Show one rule with all its options
    Show {
        /// The rule
        name: String,
    },
    /// Show the counters of all rules, or of one
    Stats {
        /// Only this rule
        name: Option<String>,
        /// Show them again and again
        #[arg(long)]
        watch: bool,
        /// How often, with --watch
        #[arg(long, value_name = "T", default_value = "1s", requires = "watch",
              value_parser = interval)]
        interval: Duration,
    },
    /// Show all rules live, with rates and drops; h shows the keys
    Top {
        /// How often to ask mcrd
        #[arg(long, value_name = "T", default_value = "1s", value_parser = interval)]
        interval: Duration,
    },
    /// Show what mcrd is and does
    Status {
        /// Show each worker of the packet plane too
        #[arg(long)]
        workers: bool,
    },
    /// Print what happens as it happens, a line each, until interrupted
    ///
    /// States of rules, streams that start or fall silent, changes of rules and interfaces, workers.
    Events(EventsArgs),
    /// Look for what stops streams, and say what to do; exits 1 when there is a problem
    ///
    /// Shows what is not well, each with its evidence. Warnings alone are no failure.
    ///
    /// docs/troubleshooting.md explains each check.
    Doctor {
        /// Only this rule, and what it needs of the host
        #[arg(value_name = "RULE")]
        name: Option<String>,
        /// How long to watch the wire, at most 20s
        #[arg(long, value_name = "T", default_value = "3s",
              value_parser = humantime::parse_duration)]
        duration: Duration,
        /// Show what is well too
        #[arg(long)]
        all: bool,
    },
    /// Wait until a rule is in a state; exits 4 if it does not get there in time
    Wait {
        /// The rule
        name: String,
        /// The state to wait for
        #[arg(long = "for", value_name = "STATE", default_value = "forwarding",
              value_parser = PossibleValuesParser::new(State::ALL.map(State::name)))]
        state: String,
        /// How long, e.g. 500ms, 10s, 1m
        #[arg(long, value_name = "T", default_value = "10s",
              value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// List the multicast streams on the wire now, and which rule takes each
    ///
    /// Listens on INTERFACE, or on all that are up but lo. It joins no group, so it sees what arrives by
    /// itself: behind a switch with IGMP or MLD snooping only the groups that somebody on this
    /// port has joined, by a rule for instance. Groups of one link (224.0.0.0/24, ff02::/16) are
    /// left out.
    Discover(DiscoverArgs),
    /// Show or keep the packets of a rule, as they come in or as they leave, until interrupted
    ///
    /// Prints a line for each packet: when, from whom, to whom, UDP payload bytes, TTL. The stream is
    /// not touched. It says on standard error how many packets it has captured, and missed.
    Capture(CaptureArgs),
    /// Make the running rules equal to FILE and print the difference; whole or not at all
    ///
    /// Prints a line for each rule that differs: + added, ~ changed, - removed.
    Apply(ApplyArgs),
    /// Carry out commands, one a line, whole or not at all
    ///
    /// The commands are add, set, remove, output, enable and disable, as on the command line, with or
    /// without the word mcrctl in front.
    ///
    /// Empty lines, and what follows a #, are skipped.
    Batch {
        /// The commands; - reads standard input
        file: PathBuf,
        #[arg(long, help = WAIT)]
        wait: bool,
    },
    /// Let mcrd read its configuration files again
    Reload,
    /// Check a file of rules; needs no mcrd and no privileges
    Check {
        /// Rules as in /etc/mcr/mcr.toml; - reads standard input
        file: PathBuf,
    },
    /// Write the running rules as a file that apply accepts
    Save {
        /// Replace FILE, atomically, instead of writing to standard output
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// Only of this rule
    pub(crate) name: Option<String>,
    /// First what came after the event of this id, as far as mcrd still has it; 0 for all it has
    #[arg(long, value_name = "ID")]
    pub(crate) since: Option<u64>,
    /// Only of these kinds, separated by commas
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(Kind::ALL.map(Kind::name)))]
    pub(crate) kinds: Vec<String>,
    /// End after this many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DiscoverArgs {
    /// Where to listen
    pub(crate) interface: Option<String>,
    /// How long to listen, 1s to 5m
    #[arg(long, value_name = "T", default_value = TIME_DEFAULT, value_parser = listening_time)]
    pub(crate) duration: Duration,
    /// Print commands that add a rule for each stream that no rule takes; needs --to
    ///
    /// They are lines for a shell, or for `mcrctl batch`.
    #[arg(long)]
    pub(crate) rules: bool,
    /// Where these rules send to: the same group and port on this interface
    #[arg(long, value_name = "INTERFACE", requires = "rules",
          value_parser = str::parse::<InterfaceName>)]
    pub(crate) to: Option<InterfaceName>,
}

impl DiscoverArgs {
    /// What clap cannot say in words of its own.
    fn mistake(&self, json: bool) -> Option<&'static str> {
        let same =
            || self.to.as_ref().is_some_and(|to| self.interface.as_deref() == Some(to.as_str()));
        match self.rules {
            false => None,
            true if self.to.is_none() => Some(
                "--rules needs --to INTERFACE: a rule needs an output, and each is given the group \
                 and port of its stream on that interface",
            ),
            true if same() => Some(
                "--to is the interface that is listened on: a rule cannot send a stream back to \
                 where it comes from; name another",
            ),
            true if json => Some("--rules writes commands; for JSON leave it out"),
            true => None,
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("side").args(["incoming", "outgoing"]).required(true))]
pub(crate) struct CaptureArgs {
    /// The rule
    pub(crate) name: String,
    /// As they come in
    #[arg(long = "in")]
    pub(crate) incoming: bool,
    /// As they leave, by all outputs
    #[arg(long = "out")]
    pub(crate) outgoing: bool,
    /// Only by this output, as list shows it
    #[arg(long, value_name = "TO", conflicts_with = "incoming")]
    pub(crate) output: Option<String>,
    /// Write a capture file (pcap); - writes to standard output
    #[arg(short, long = "write", value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after this time
    #[arg(long, value_name = "T", value_parser = interval)]
    pub(crate) duration: Option<Duration>,
    /// Keep so many bytes of each packet, 64 to 262144 [default: all]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(64..=i64::from(SNAP_MAX)))]
    pub(crate) snap: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// Rules as in /etc/mcr/mcr.toml; - reads standard input
    pub(crate) file: PathBuf,
    /// Only print what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Allow a file without rules, which removes all
    #[arg(long)]
    pub(crate) allow_empty: bool,
    #[arg(long, help = WAIT)]
    pub(crate) wait: bool,
}

/// Commands that change rules.
#[derive(Debug, Subcommand)]
pub(crate) enum Change {
    /// Add a rule
    Add(AddArgs),
    /// Change a rule; at least one option is needed
    #[command(override_usage = "mcrctl set [OPTIONS] <NAME>")]
    Set(SetArgs),
    /// Remove rules, all or none
    Remove {
        /// The rules
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Add or remove outputs of a rule, all or none
    #[command(subcommand)]
    Output(OutputChange),
    /// Enable rules, all or none
    Enable {
        /// The rules
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Disable rules, all or none: they stay, and forward nothing
    Disable {
        /// The rules
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

impl Change {
    /// Whether it may bring in what the machine does not have yet.
    pub(crate) fn wait(&self) -> bool {
        match self {
            Self::Add(AddArgs { wait, .. })
            | Self::Set(SetArgs { wait, .. })
            | Self::Output(OutputChange::Add { wait, .. }) => *wait,
            Self::Remove { .. }
            | Self::Output(OutputChange::Remove { .. })
            | Self::Enable { .. }
            | Self::Disable { .. } => false,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// What to receive, in the form of a flow.
    #[arg(help = "What to receive: [SOURCE@]ADDRESS:PORT@INTERFACE")]
    pub(crate) input: String,
    /// Where to send, in the form of the command line.
    #[arg(required = true, value_name = "OUTPUT", help = OUTPUT)]
    pub(crate) outputs: Vec<String>,
    /// Name of the rule; without one it is called by its input
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Of outputs that do not say otherwise: a number, keep or decrement
    #[arg(long, value_name = "TTL")]
    pub(crate) ttl: Option<Setting>,
    /// Of outputs that do not say otherwise: 0 to 63, or keep
    #[arg(long, value_name = "DSCP")]
    pub(crate) dscp: Option<Setting>,
    /// A remark for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Whether programs on this host get the input too
    #[arg(long, value_parser = ["auto", "yes", "no"])]
    pub(crate) local: Option<String>,
    /// Whether to join the group of the input
    #[arg(long, value_parser = ["yes", "no"])]
    pub(crate) join: Option<String>,
    /// Drop what is more, as in 5000pps or 20mbit (of UDP payload)
    #[arg(long, value_name = "RATE")]
    pub(crate) max_rate: Option<String>,
    /// How long a pause of the stream is no event, as in 5s, or never [default: 10s]
    #[arg(long, value_name = "T")]
    pub(crate) silence: Option<String>,
    /// Look into the payload and count what was lost before MCR
    #[arg(long, value_parser = ["rtp", "ts", "auto"])]
    pub(crate) inspect: Option<String>,
    /// Add it switched off
    #[arg(long)]
    pub(crate) disabled: bool,
    #[arg(long, help = WAIT)]
    pub(crate) wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// The rule
    #[arg(value_name = "NAME")]
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[arg(long, help = WAIT)]
    pub(crate) wait: bool,
}

/// What `set` can change.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Settings {
    /// Another name; an empty one takes the name away
    #[arg(long, value_name = "NEW")]
    pub(crate) name: Option<String>,
    /// Another input, with its sources
    #[arg(long, value_name = "FLOW")]
    pub(crate) input: Option<String>,
    /// Another output; may be given several times; takes the place of all there are
    #[arg(long = "output", value_name = "OUTPUT")]
    pub(crate) outputs: Vec<String>,
    /// Of all outputs, or of each --output that does not say otherwise
    #[arg(long, value_name = "TTL")]
    pub(crate) ttl: Option<Setting>,
    /// Of all outputs, or of each --output that does not say otherwise
    #[arg(long, value_name = "DSCP")]
    pub(crate) dscp: Option<Setting>,
    /// Another remark; an empty one takes it away
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Whether programs on this host get the input too
    #[arg(long, value_parser = ["auto", "yes", "no"])]
    pub(crate) local: Option<String>,
    /// Whether to join the group of the input
    #[arg(long, value_parser = ["yes", "no"])]
    pub(crate) join: Option<String>,
    /// Drop what is more, as in 5000pps or 20mbit (of UDP payload); none takes it away
    #[arg(long, value_name = "RATE")]
    pub(crate) max_rate: Option<String>,
    /// How long a pause of the stream is no event, as in 5s, or never
    #[arg(long, value_name = "T")]
    pub(crate) silence: Option<String>,
    /// Look into the payload and count what was lost before MCR; none ends it
    #[arg(long, value_parser = ["rtp", "ts", "auto", "none"])]
    pub(crate) inspect: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OutputChange {
    /// Add outputs to a rule
    Add {
        /// The rule
        name: String,
        /// Where to send, in the form of the command line.
        #[arg(required = true, value_name = "OUTPUT", help = OUTPUT)]
        outputs: Vec<String>,
        #[arg(long, help = WAIT)]
        wait: bool,
    },
    /// Remove outputs from a rule
    Remove {
        /// The rule
        name: String,
        /// The destination, as list shows it; options behind it do not matter
        #[arg(required = true, value_name = "OUTPUT")]
        outputs: Vec<String>,
    },
}

/// One line of a batch.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
pub(crate) struct Line {
    #[command(subcommand)]
    pub(crate) change: Change,
}

fn instance(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') {
        return Err("a name, not a path; for a path use --socket".into());
    }
    Ok(text.to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than 0".into()),
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}

/// The options that every command takes.
const GLOBAL: &str = "Global options";
/// Of all that brings something in.
const WAIT: &str =
    "Take what needs an interface, address or route before it is there: it waits for it";
const OUTPUT: &str = "Where to send: [SOURCE@]ADDRESS[:PORT][@INTERFACE][,ttl=N][,dscp=N]";
