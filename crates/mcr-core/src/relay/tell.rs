//! What of the rules is told: their states, and whether their streams flow.
//!
//! States are looked at after each change and each reading of the counters, streams after each
//! reading. A stream that falls silent and comes back is told in turns, never one of them twice.

use std::time::{Duration, Instant};

use super::{Problem, Relay, Running, State};
use crate::action::Action;
use crate::event::Event;
use crate::rule::RuleKey;
use crate::watch::Silence;

/// What may pass in a moment is told when it has lasted this long: until the next reading of the
/// counters but one at most.
const MOMENT: Duration = Duration::from_millis(400);

/// What was told of a rule, and what it takes to tell the next thing.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    state: Option<(State, Option<String>)>,
    /// Since when the rule waits for what may pass in a moment.
    sought: Option<Instant>,
    /// Since when its input is there.
    listens: Option<Instant>,
    /// The last packet that was looked at.
    packet: Option<Instant>,
    /// Packets came, and no silence was told since.
    flows: bool,
}

impl Relay {
    /// After a reading of the counters.
    pub(super) fn tell_all(&mut self, now: Instant) {
        for (rule, running) in &mut self.running {
            let sought = matches!(running.problem, Some(Problem::Sought(_))) && running.enabled;
            running.told.sought = sought.then(|| running.told.sought.unwrap_or(now));
            let stream = running.tell_stream(rule, now);
            let state = running.tell_state(rule, now);
            self.actions.extend(state.into_iter().chain(stream).map(Action::Tell));
        }
    }

    /// After a change that began at `began`.
    pub(super) fn tell_states(&mut self, began: Instant) {
        // A change may have begun before the last reading: states do not go back.
        let now = self.read_at.map_or(began, |at| at.max(began));
        for (rule, running) in &mut self.running {
            self.actions.extend(running.tell_state(rule, now).map(Action::Tell));
        }
    }
}

impl Running {
    fn tell_state(&mut self, rule: &RuleKey, now: Instant) -> Option<Event> {
        let (state, reason) = self.state(self.enabled, now);
        let told = self.told.state.as_ref();
        let reason = reason.map(ToString::to_string);
        if told.is_some_and(|told| (told.0, &told.1) == (state, &reason)) {
            return None;
        }
        let passes = self.enabled && matches!(self.problem, Some(Problem::Sought(_)));
        let lasts = |since: Instant| now.saturating_duration_since(since) >= MOMENT;
        if passes && !self.told.sought.is_some_and(lasts) {
            return None;
        }
        let from = told.map(|(state, _)| *state);
        self.told.state = Some((state, reason.clone()));
        // That a new rule is there is told by the change that brought it.
        let news = from.is_some() || state != State::Idle;
        news.then(|| Event::RuleState { rule: rule.clone(), from, to: state, reason })
    }

    fn tell_stream(&mut self, rule: &RuleKey, now: Instant) -> Option<Event> {
        let rule = || rule.clone();
        let told = &mut self.told;
        told.listens = self.listens.then(|| told.listens.unwrap_or(now));
        let last = self.activity.last_packet?;
        if told.packet != Some(last) {
            let before = told.packet.replace(last);
            let silent_for = before.map(|before| last.saturating_duration_since(before));
            let started = !std::mem::replace(&mut told.flows, true);
            return started.then(|| Event::StreamStarted { rule: rule(), silent_for });
        }
        let Silence::After(limit) = self.silence else { return None };
        // What cannot come is no silence, and neither is the time when it could not.
        let quiet = now.saturating_duration_since(last.max(told.listens?));
        let silent_for = now.saturating_duration_since(last);
        let silent = told.flows && quiet >= limit;
        told.flows &= !silent;
        silent.then(|| Event::StreamSilent { rule: rule(), silent_for, last_packet: last })
    }
}
