//! What happens and is worth telling: in the log, and to whoever follows `GET /v1/events`.
//!
//! The relay and the data plane tell an [`Event`]; the daemon gives it a number and the time, which
//! makes it an [`EventView`], logs it once and keeps the last ones ([`Kept`]).

mod kept;
#[cfg(test)]
mod tests;
mod words;

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

pub use kept::{Kept, Next};

use crate::api::EventView;
use crate::flow::InterfaceName;
use crate::link::IfIndex;
use crate::refusal::{Code, Refusal};
use crate::relay::State;
use crate::rule::RuleKey;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A rule is in another state, or there for another reason.
    RuleState {
        /// The rule.
        rule: RuleKey,
        /// The state that was told last; `None` of a new rule.
        from: Option<State>,
        /// The state it is in.
        to: State,
        /// Why it waits or has failed.
        reason: Option<String>,
    },
    /// Packets of a rule come: the first ones, or again after a silence that was told.
    StreamStarted {
        /// The rule.
        rule: RuleKey,
        /// How long none came before; `None` when these are the first.
        silent_for: Option<Duration>,
    },
    /// No packet of a rule has come for as long as its `silence` says.
    StreamSilent {
        /// The rule.
        rule: RuleKey,
        /// How long none has come.
        silent_for: Duration,
        /// When the last one came.
        last_packet: Instant,
    },
    /// A second sender on the flow of a rule that takes anybody's packets: the outputs carry both,
    /// and nothing can tell them apart any more.
    SecondSender {
        /// The rule.
        rule: RuleKey,
        /// Two or more that send at once, the latest first.
        senders: Vec<IpAddr>,
        /// What is wrong and what to do.
        advice: String,
    },
    /// An output is sent from another address than before.
    Source {
        /// The rule.
        rule: RuleKey,
        /// The destination of the output.
        output: String,
        /// The address before.
        from: IpAddr,
        /// The address from here on.
        to: IpAddr,
    },
    /// An interface that a rule names, or that a route of one goes by, has changed.
    Interface {
        /// The interface.
        interface: InterfaceName,
        /// How.
        change: InterfaceChange,
    },
    /// A worker process of the packet plane.
    Worker {
        /// Its number, from 1.
        worker: u32,
        /// Its process, if there is or was one.
        pid: Option<u32>,
        /// What became of it.
        change: WorkerChange,
    },
    /// The rules are others.
    RulesChanged {
        /// Of the rules as they are now.
        generation: u64,
        /// How many were added.
        added: usize,
        /// How many are not what they were.
        replaced: usize,
        /// How many are gone.
        removed: usize,
        /// Which, when they are at most [`NAMES`].
        rules: Vec<String>,
    },
    /// A follower gets no events that came before the next one it gets.
    Missed {
        /// How many; `None` when those of an earlier process are among them.
        count: Option<u64>,
    },
}

/// The most rules that [`Event::RulesChanged`] names.
pub const NAMES: usize = 16;

/// How an interface has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceChange {
    /// It is there.
    Appeared(IfIndex, LinkState),
    /// It is gone.
    Gone,
    /// It is up or down.
    State(LinkState),
    /// Another interface has its name.
    Index {
        /// The index before.
        from: IfIndex,
        /// The index now.
        to: IfIndex,
    },
    /// It has these addresses, of those that can be used.
    Addresses(Vec<IpAddr>),
}

/// Whether an interface can receive and send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It can.
    Up,
    /// Administratively up, and nothing at the other end.
    NoCarrier,
    /// Administratively down.
    Down,
}

/// What became of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerChange {
    /// It forwards.
    Runs {
        /// How often it was started before.
        restarts: u64,
    },
    /// It has ended, for this reason.
    Ended(String),
    /// It could not be started, for this reason.
    NotStarted(String),
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// The name in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What an event is about, for those who want only some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Event::RuleState`].
    RuleState,
    /// [`Event::StreamStarted`].
    StreamStarted,
    /// [`Event::StreamSilent`].
    StreamSilent,
    /// [`Event::SecondSender`].
    SecondSender,
    /// [`Event::Source`].
    Source,
    /// [`Event::Interface`].
    Interface,
    /// [`Event::Worker`].
    Worker,
    /// [`Event::RulesChanged`].
    RulesChanged,
    /// [`Event::Missed`].
    Missed,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::RuleState,
        Self::StreamStarted,
        Self::StreamSilent,
        Self::SecondSender,
        Self::Source,
        Self::Interface,
        Self::Worker,
        Self::RulesChanged,
        Self::Missed,
    ];

    /// The name in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::RuleState => "rule-state",
            Self::StreamStarted => "stream-started",
            Self::StreamSilent => "stream-silent",
            Self::SecondSender => "second-sender",
            Self::Source => "source",
            Self::Interface => "interface",
            Self::Worker => "worker",
            Self::RulesChanged => "rules-changed",
            Self::Missed => "missed",
        }
    }
}

impl FromStr for Kind {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            Refusal::new(
                Code::Invalid,
                format!("there is no kind of event {text:?}"),
                format!("the kinds are {}", Self::ALL.map(Self::name).join(", ")),
            )
        })
    }
}

impl Event {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Self::RuleState { .. } => Kind::RuleState,
            Self::StreamStarted { .. } => Kind::StreamStarted,
            Self::StreamSilent { .. } => Kind::StreamSilent,
            Self::SecondSender { .. } => Kind::SecondSender,
            Self::Source { .. } => Kind::Source,
            Self::Interface { .. } => Kind::Interface,
            Self::Worker { .. } => Kind::Worker,
            Self::RulesChanged { .. } => Kind::RulesChanged,
            Self::Missed { .. } => Kind::Missed,
        }
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::RuleState { to: State::Failed, .. }
            | Self::Worker { change: WorkerChange::NotStarted(_), .. } => Level::Error,
            Self::RuleState { to: State::Waiting, .. }
            | Self::StreamSilent { .. }
            | Self::SecondSender { .. }
            | Self::Interface {
                change:
                    InterfaceChange::Gone
                    | InterfaceChange::State(LinkState::NoCarrier | LinkState::Down),
                ..
            }
            | Self::Worker { change: WorkerChange::Ended(_), .. }
            | Self::Missed { .. } => Level::Warning,
            Self::RuleState { to: State::Forwarding | State::Idle | State::Disabled, .. }
            | Self::StreamStarted { .. }
            | Self::Source { .. }
            | Self::Interface {
                change:
                    InterfaceChange::Appeared(..)
                    | InterfaceChange::State(LinkState::Up)
                    | InterfaceChange::Index { .. }
                    | InterfaceChange::Addresses(_),
                ..
            }
            | Self::Worker { change: WorkerChange::Runs { .. }, .. }
            | Self::RulesChanged { .. } => Level::Info,
        }
    }

    /// Whether it is only that a rule's packets come or pause, which a slow stream does all the
    /// time.
    pub fn is_flip(&self) -> bool {
        use State::{Forwarding, Idle};
        matches!(
            self,
            Self::RuleState { from: Some(Forwarding | Idle) | None, to: Forwarding | Idle, .. }
        )
    }
}

/// What a follower wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this rule alone.
    pub rule: Option<RuleKey>,
    /// Of these kinds alone; empty means all.
    pub kinds: Vec<Kind>,
}

impl Wanted {
    /// Whether it is one of them. That some were missed concerns everybody.
    pub fn takes(&self, event: &EventView) -> bool {
        let kind = self.kinds.iter().any(|kind| kind.name() == event.kind);
        let rule = self.rule.as_ref().is_none_or(|rule| event.concerns(rule.as_str()));
        event.kind == Kind::Missed.name() || (self.kinds.is_empty() || kind) && rule
    }
}
