//! `mcrgen`, the test tool of MCR: sends many sequence-numbered multicast streams (`mcrgen send`)
//! and receives them again (`mcrgen recv`), reporting loss, duplicates, order and latency.
//!
//! It depends on no other crate of MCR, so that a bug in the relay's parser cannot hide here.
//! Exit codes: 0 done, 1 failed or any loss, 2 usage.

mod args;
mod clock;
mod drops;
mod pace;
mod payload;
mod recv;
mod report;
mod send;
mod socket;
mod streams;
mod tally;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match args::parse().command {
        args::Command::Send(args) => send::run(&args),
        args::Command::Recv(args) => recv::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A closed stderr leaves nobody to tell; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "mcrgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}
