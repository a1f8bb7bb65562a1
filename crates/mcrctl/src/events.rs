//! `mcrctl events`: what happens, a line each, as it happens.

use std::io;

use mcr_core::api::EventView;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::EventsArgs;
use crate::client::{Question, Reply, encoded};
use crate::failure::Failure;
use crate::{Session, terminal};

/// Until interrupted, or as many as were asked for.
pub(crate) fn follow(session: &Session, args: &EventsArgs) -> Result<(), Failure> {
    end_when_told().map_err(|error| {
        Failure::refused("internal", format!("cannot wait for signals: {error}"), "")
    })?;
    let mut left = args.count;
    let mut last = args.since;
    let followed = session.client.follow(&Question::get(page(args)), |data| {
        let event = Reply { text: data.to_owned() };
        let view: EventView = event.read()?;
        terminal::print(&if session.json { format!("{data}\n") } else { line(&view) })?;
        last = Some(view.id);
        left = left.map(|left| left.saturating_sub(1));
        Ok(left != Some(0))
    });
    match (followed, last) {
        (Err(Failure::Refused(mut error)), Some(id)) if error.code == "broken-off" => {
            error.hint = format!("{}; --since {id} goes on from here", error.hint);
            Err(Failure::Refused(error))
        }
        (followed, _) => followed,
    }
}

fn page(args: &EventsArgs) -> String {
    let since = args.since.map(|id| format!("since={id}"));
    let rule = args.name.as_ref().map(|name| format!("rule={}", encoded(name)));
    let kinds = (!args.kinds.is_empty()).then(|| format!("kind={}", args.kinds.join(",")));
    let query: Vec<String> = [since, rule, kinds].into_iter().flatten().collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/v1/events{mark}{}", query.join("&"))
}

fn line(EventView { time, level, message, .. }: &EventView) -> String {
    format!("{time}  {level:<7}  {message}\n")
}

/// A signal, and the end of whoever reads the output, end the program by themselves, and at once:
/// also while nothing happens, and while a write to a full pipe hangs.
fn end_when_told() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        std::process::exit(0);
    });
    std::thread::spawn(|| {
        let output = io::stdout();
        // Errors are told without being asked for; a file has none.
        let mut output = [PollFd::new(&output, PollFlags::empty())];
        loop {
            match poll(&mut output, None) {
                Ok(_) => std::process::exit(0),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    });
    Ok(())
}
