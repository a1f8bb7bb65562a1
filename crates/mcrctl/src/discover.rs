//! `discover`: the streams on the wire, and the rules to add for those that no rule takes.

mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use mcr_core::api::Discovery;

use crate::args::DiscoverArgs;
use crate::client::{Question, encoded};
use crate::failure::Failure;
use crate::{Session, show, terminal, view};

pub(crate) fn run(session: &Session, args: &DiscoverArgs) -> Result<(), Failure> {
    let DiscoverArgs { interface, duration, to, rules: _ } = args;
    let time = humantime::format_duration(*duration).to_string();
    let mut page = format!("/v1/discover?duration={}", encoded(&time));
    if let Some(interface) = interface {
        page = format!("{page}&interface={}", encoded(interface));
    }
    let reply = session.client.ask_slow(*duration, &Question::get(page))?;
    if session.json {
        return view::present(session, &reply, show::discovery);
    }
    let found: Discovery = reply.read()?;
    terminal::warn(&found.warnings);
    if found.streams.is_empty() {
        terminal::note(&nothing(&found, *duration));
    }
    terminal::print(&match to {
        Some(to) => rules::rules(&found, to),
        None => show::discovery(&found),
    })
}

/// That nothing was seen does not say that nothing is sent.
fn nothing(found: &Discovery, time: Duration) -> String {
    format!(
        "nothing on {} in {}: behind a snooping switch a group is sent here only when somebody on \
         this port has joined it, and discover joins nothing; a rule for the group joins it",
        found.interfaces.join(", "),
        humantime::format_duration(time),
    )
}
