//! An event as it is told: its sentence, and its parts as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Event, InterfaceChange, LinkState, WorkerChange};
use crate::api::EventView;
use crate::relay::{Now, State, time_ms, wall};

impl Event {
    /// The event with its number, at the time it is told.
    pub fn view(&self, id: u64, now: Now) -> EventView {
        let (rule, interface, worker) = match self {
            Self::RuleState { rule, .. }
            | Self::StreamStarted { rule, .. }
            | Self::StreamSilent { rule, .. }
            | Self::SecondSender { rule, .. }
            | Self::Source { rule, .. } => (Some(rule.to_string()), None, None),
            Self::Interface { interface, .. } => (None, Some(interface.to_string()), None),
            Self::Worker { worker, .. } => (None, None, Some(*worker)),
            Self::RulesChanged { .. } | Self::Missed { .. } => (None, None, None),
        };
        EventView {
            id,
            time: time_ms(now.wall),
            level: self.level().name().into(),
            kind: self.kind().name().into(),
            rule,
            interface,
            worker,
            message: self.message(),
            more: self.more(now),
        }
    }

    /// One sentence for people.
    fn message(&self) -> String {
        match self {
            Self::RuleState { rule, to, reason, .. } => match (to, reason) {
                (State::Waiting, Some(reason)) => format!("rule {rule} is waiting: {reason}"),
                (State::Failed, Some(reason)) => format!("rule {rule} has failed: {reason}"),
                (state, _) => format!("rule {rule} is {}", state.name()),
            },
            Self::StreamStarted { rule, silent_for: None } => {
                format!("the stream of rule {rule} has started")
            }
            Self::StreamStarted { rule, silent_for: Some(time) } => {
                format!("the stream of rule {rule} is back after {}", span(*time))
            }
            Self::StreamSilent { rule, silent_for, .. } => {
                format!("the stream of rule {rule} has been silent for {}", span(*silent_for))
            }
            Self::SecondSender { rule, advice, .. } => format!("rule {rule}: {advice}"),
            Self::Source { rule, output, from, to } => format!(
                "rule {rule}: what goes to {output} is sent from {to}, and no more from {from}"
            ),
            Self::Interface { interface, change } => format!("interface {interface} {change}"),
            Self::Worker { worker, pid, change } => {
                let process = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                match change {
                    WorkerChange::Runs { restarts: 0 } => format!("worker {worker}{process} runs"),
                    WorkerChange::Runs { .. } => format!("worker {worker}{process} runs again"),
                    WorkerChange::Ended(why) => format!("worker {worker}{process} ended: {why}"),
                    WorkerChange::NotStarted(why) => format!("worker {worker}: {why}"),
                }
            }
            Self::RulesChanged { added, replaced, removed, .. } => {
                format!("rules changed: {added} added, {replaced} replaced, {removed} removed")
            }
            Self::Missed { count: Some(count) } => format!("{count} events were missed"),
            Self::Missed { count: None } => {
                "mcrd has started anew; what it told before is gone".into()
            }
        }
    }

    /// What belongs to the kind alone. What is not known is left out.
    fn more(&self, now: Now) -> Map<String, Value> {
        let more = match self {
            Self::RuleState { from, to, reason, .. } => {
                json!({"from": from.map(State::name), "to": to.name(), "reason": reason})
            }
            Self::StreamStarted { silent_for, .. } => {
                json!({"silent_for": silent_for.map(seconds)})
            }
            Self::StreamSilent { silent_for, last_packet, .. } => json!({
                "silent_for": seconds(*silent_for),
                "last_packet": time_ms(wall(*last_packet, now)),
            }),
            Self::SecondSender { senders, .. } => json!({"senders": senders}),
            Self::Source { output, from, to, .. } => {
                json!({"output": output, "from": from, "to": to})
            }
            Self::Interface { change, .. } => match change {
                InterfaceChange::Appeared(index, state) => {
                    json!({"change": "appeared", "index": index.0, "state": state.name()})
                }
                InterfaceChange::Gone => json!({"change": "gone"}),
                InterfaceChange::State(state) => json!({"change": state.name()}),
                InterfaceChange::Index { from, to } => {
                    json!({"change": "index", "from": from.0, "index": to.0})
                }
                InterfaceChange::Addresses(addresses) => {
                    json!({"change": "addresses", "addresses": addresses})
                }
            },
            Self::Worker { pid, change, .. } => match change {
                WorkerChange::Runs { restarts } => {
                    json!({"change": "runs", "pid": pid, "restarts": restarts})
                }
                WorkerChange::Ended(reason) => {
                    json!({"change": "ended", "pid": pid, "reason": reason})
                }
                WorkerChange::NotStarted(reason) => {
                    json!({"change": "not-started", "reason": reason})
                }
            },
            Self::RulesChanged { generation, added, replaced, removed, rules } => {
                let rules = (!rules.is_empty()).then_some(rules);
                json!({"generation": generation, "added": added, "replaced": replaced,
                       "removed": removed, "rules": rules})
            }
            Self::Missed { count } => json!({"missed": count}),
        };
        let Value::Object(mut more) = more else { return Map::new() };
        more.retain(|_, value| !value.is_null());
        more
    }
}

impl LinkState {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoCarrier => "no-carrier",
            Self::Down => "down",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Up => "is up",
            Self::NoCarrier => "has no carrier",
            Self::Down => "is down",
        }
    }
}

impl std::fmt::Display for InterfaceChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Appeared(_, state) => write!(f, "has appeared, and {}", state.words()),
            Self::Gone => f.write_str("is gone"),
            Self::State(state) => f.write_str(state.words()),
            Self::Index { from, to } => {
                write!(f, "is another one of that name: its index was {from}, and is {to}")
            }
            Self::Addresses(addresses) if addresses.is_empty() => {
                f.write_str("has no address any more")
            }
            Self::Addresses(addresses) => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "has the addresses {}", all.join(", "))
            }
        }
    }
}

/// Seconds, to the millisecond.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// For people: to the tenth of a second below a minute, to the second above.
fn span(time: Duration) -> String {
    if time < Duration::from_secs(60) {
        return format!("{:.1} s", time.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}
