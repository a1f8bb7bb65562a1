//! `mcrctl doctor`: what stops streams, and what to do.

use std::time::Duration;

use mcr_core::api::DoctorReport;

use crate::client::{Question, encoded};
use crate::failure::Failure;
use crate::{Session, show, terminal};

/// Shows the checks; a failure without words when one of them has found a problem.
pub(crate) fn run(
    session: &Session,
    name: Option<&str>,
    duration: Duration,
    all: bool,
) -> Result<(), Failure> {
    let name = name.map(|name| format!("&name={}", encoded(name))).unwrap_or_default();
    let time = encoded(&humantime::format_duration(duration).to_string());
    let question = Question::get(format!("/v1/doctor?duration={time}{name}"));
    let reply = session.client.ask_slow(duration, &question)?;
    let report: DoctorReport = reply.read()?;
    if session.json {
        terminal::print(&format!("{}\n", reply.text))?;
    } else {
        terminal::print(&show::doctor(&report, all))?;
    }
    let problem = report.checks.iter().any(|check| check.result == "problem");
    if problem { Err(Failure::Unwell) } else { Ok(()) }
}
