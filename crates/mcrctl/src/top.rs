//! `mcrctl top`: all rules on a live screen. One loop waits for keys, signals, answers of `mcrd` and
//! the clock, tells the model, and draws it. `mcrd` may go away and come back meanwhile.
//!
//! ```text
//! reply --> Look --+
//! keys ----> Key --+--> Model --> view --> Screen
//! time ------------+
//! ```

mod ink;
mod keys;
mod model;
mod reply;
mod row;
mod screen;
mod sort;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::{self, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::Session;
use crate::client::{Client, Question};
use crate::failure::Failure;
use ink::Ink;
use keys::Keys;
use model::{Model, Then};
use reply::Look;
use screen::{Screen, Typed};

/// Until the user or a signal ends it. That nobody answers ends it only at the start.
pub(crate) fn run(session: &Session, every: Duration) -> Result<(), Failure> {
    session.client.run(async {
        let first = look(&session.client, None).await?;
        let model = Model::new(first, Instant::now());
        let ink = Ink::of(|name| std::env::var(name).ok());
        let signals = Signals::new()?;
        let screen = Screen::enter(ink)?;
        let top = Top { client: &session.client, model, screen, keys: Keys::default() };
        top.go(Typed::new(), signals, every).await
    })
}

struct Top<'s> {
    client: &'s Client,
    model: Model,
    screen: Screen,
    keys: Keys,
}

/// What the loop waits for.
enum Event {
    /// None when the terminal has gone.
    Typed(Option<Vec<u8>>),
    /// Nothing has followed the beginning of a key.
    Quiet,
    Signal(Sign),
    Answer(Box<Result<Look, Failure>>),
    /// Time to ask `mcrd`.
    Ask,
    /// Time is shown by the second.
    Clock,
}

type Asking<'s> = Option<Pin<Box<dyn Future<Output = Result<Look, Failure>> + 's>>>;

impl<'s> Top<'s> {
    async fn go(
        mut self,
        mut typed: Typed,
        mut signals: Signals,
        every: Duration,
    ) -> Result<(), Failure> {
        let (mut ask, mut clock) = (steady(every), steady(SECOND));
        let mut asking: Asking<'s> = None;
        // When a key that has begun was the Escape key, unless more comes.
        let mut quiet_at = None;
        loop {
            self.screen.draw(&mut self.model)?;
            let quiet = quiet_at.unwrap_or_else(time::Instant::now);
            let event = tokio::select! {
                bytes = typed.next() => Event::Typed(bytes),
                () = sleep_until(quiet), if quiet_at.is_some() => Event::Quiet,
                sign = signals.next() => Event::Signal(sign),
                answer = answered(&mut asking) => Event::Answer(Box::new(answer)),
                _ = ask.tick() => Event::Ask,
                _ = clock.tick() => Event::Clock,
            };
            if matches!(event, Event::Typed(_) | Event::Quiet) {
                quiet_at = None;
            }
            match event {
                Event::Answer(answer) => {
                    asking = None;
                    self.answer(*answer);
                }
                Event::Ask if asking.is_none() && !self.model.paused => {
                    self.model.handle_asked(Instant::now());
                    asking = Some(Box::pin(look(self.client, self.model.generation())));
                }
                Event::Ask => {}
                Event::Clock => self.model.handle_time(Instant::now()),
                Event::Typed(_) | Event::Quiet | Event::Signal(_) => {
                    if self.handle(event)? == Then::Quit {
                        return Ok(());
                    }
                }
            }
            if quiet_at.is_none() && self.keys.has_begun() {
                quiet_at = Some(time::Instant::now() + KEY);
            }
        }
    }

    fn answer(&mut self, answer: Result<Look, Failure>) {
        match answer {
            // What was asked before a pause would change what it holds still.
            Ok(_) if self.model.paused => {}
            Ok(look) => self.model.handle_look(look, Instant::now()),
            Err(failure) => self.model.handle_failure(failure.message(), Instant::now()),
        }
    }

    /// What may end it.
    fn handle(&mut self, event: Event) -> Result<Then, Failure> {
        let keys = match event {
            Event::Typed(None) => return Ok(Then::Quit),
            Event::Typed(Some(bytes)) => self.keys.feed(&bytes),
            Event::Quiet => self.keys.handle_quiet().into_iter().collect(),
            Event::Signal(Sign::End) => return Ok(Then::Quit),
            Event::Signal(Sign::Resize) => Vec::new(),
            Event::Signal(Sign::Suspend) => vec![keys::Key::Suspend],
            Event::Signal(Sign::Continue) => {
                self.screen.take_again()?;
                Vec::new()
            }
            Event::Answer(_) | Event::Ask | Event::Clock => Vec::new(),
        };
        for key in keys {
            match self.model.handle_key(key) {
                Then::Go => {}
                Then::Quit => return Ok(Then::Quit),
                Then::Redraw => self.screen.forget()?,
                Then::Suspend => {
                    self.screen.leave();
                    // Goes on here when it is continued, and SIGCONT is the next event.
                    let _ = kill_process(getpid(), Signal::STOP);
                }
            }
        }
        Ok(Then::Go)
    }
}

/// One look at the daemon; the rules are asked for when they are others than those known.
async fn look(client: &Client, known: Option<u64>) -> Result<Look, Failure> {
    let ask = async |page: &str| client.answer(ANSWER, &Question::get(page)).await;
    let (stats, status) = (ask("/v1/stats").await?, ask("/v1/status").await?);
    let generation = status.read::<mcr_core::api::Status>()?.generation;
    let rules = if known == Some(generation) { None } else { Some(ask("/v1/rules").await?) };
    Look::read(&stats, &status, rules.as_ref())
}

/// The answer to what is asked; never, where nothing is.
async fn answered(asking: &mut Asking<'_>) -> Result<Look, Failure> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Every so often from then on; what was missed is not made up for.
fn steady(every: Duration) -> Interval {
    let mut interval = interval_at(time::Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    End,
    Resize,
    Suspend,
    Continue,
}

struct Signals(Vec<(unix::Signal, Sign)>);

impl Signals {
    fn new() -> Result<Self, Failure> {
        let raw = |signal: Signal| SignalKind::from_raw(signal.as_raw());
        let signals = [
            (SignalKind::terminate(), Sign::End),
            (SignalKind::interrupt(), Sign::End),
            (SignalKind::quit(), Sign::End),
            (SignalKind::hangup(), Sign::End),
            (SignalKind::window_change(), Sign::Resize),
            (raw(Signal::TSTP), Sign::Suspend),
            (raw(Signal::CONT), Sign::Continue),
        ];
        let signals = signals.map(|(kind, sign)| signal(kind).map(|signal| (signal, sign)));
        let signals: io::Result<_> = signals.into_iter().collect();
        signals.map(Self).map_err(|error| {
            Failure::refused("internal", format!("cannot wait for signals: {error}"), "")
        })
    }

    async fn next(&mut self) -> Sign {
        std::future::poll_fn(|context| {
            let come = self
                .0
                .iter_mut()
                .find_map(|(signal, sign)| signal.poll_recv(context).is_ready().then_some(*sign));
            come.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// The longest that the rest of a key is waited for.
const KEY: Duration = Duration::from_millis(50);
/// The longest that an answer is waited for before it is asked anew.
const ANSWER: Duration = Duration::from_secs(10);
