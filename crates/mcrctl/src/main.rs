//! `mcrctl`, the control client of MCR: changes the rules of a running `mcrd`, shows what it does,
//! and checks and saves rule files.
//!
//! A command line becomes [`args::Args`]; `change`, `batch` and `files` change rules, `view`, `top`,
//! `events`, `discover`, `doctor` and `capture` show what there is. All of them ask `mcrd` through
//! [`client::Client`], and most leave the wording to `show`. It links
//! no data plane, builds without clang and runs without root.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no daemon, 4 timed out.

mod args;
mod batch;
mod capture;
mod change;
mod client;
mod discover;
mod doctor;
mod edit;
mod events;
mod failure;
mod files;
mod show;
mod terminal;
mod top;
mod view;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use client::Client;
use failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse().checked();
    let json = args.json;
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let session =
        Session { client: Client::new(args.socket_path(), args.answer_timeout)?, json: args.json };
    match args.command {
        Command::Change(change) => change::run(&session, &change),
        Command::Apply(args) => files::apply(&session, &args),
        Command::Batch { file, wait } => batch::run(&session, &file, wait),
        Command::Reload => change::reload(&session),
        Command::Check { file } => files::check(&session, &file),
        Command::Save { to } => files::save(&session, to.as_deref()),
        Command::List { name } => view::list(&session, name.as_deref()),
        Command::Show { name } => view::show(&session, &name),
        Command::Stats { name, watch, interval } => {
            view::stats(&session, name.as_deref(), watch.then_some(interval))
        }
        Command::Top { interval } => top::run(&session, interval),
        Command::Status { workers } => view::status(&session, workers),
        Command::Events(args) => events::follow(&session, &args),
        Command::Discover(args) => discover::run(&session, &args),
        Command::Doctor { name, duration, all } => {
            doctor::run(&session, name.as_deref(), duration, all)
        }
        Command::Capture(args) => capture::run(&session, &args),
        Command::Wait { name, state, timeout } => view::wait(&session, &name, &state, timeout),
    }
}

/// What every command needs.
struct Session {
    client: Client,
    /// Whether replies are shown as they come.
    json: bool,
}
