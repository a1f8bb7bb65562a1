//! Events, as `GET /v1/events` tells them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number: one more than that of the event before it. Those of a later process are larger.
    pub id: u64,
    /// When it was told (RFC 3339, UTC, milliseconds).
    pub time: String,
    /// `info`, `warning` or `error`.
    pub level: String,
    /// As in [`crate::event::Kind::name`].
    pub kind: String,
    /// The rule that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The interface that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The worker that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// For people.
    pub message: String,
    /// What belongs to its kind alone.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl EventView {
    /// Whether it is about the rule of that name: a change of so many rules that it names none of
    /// them may be.
    pub fn concerns(&self, rule: &str) -> bool {
        match (&self.rule, self.more.get("rules")) {
            (Some(one), _) => one == rule,
            (None, Some(Value::Array(some))) => some.iter().any(|one| one == rule),
            (None, _) => self.kind == crate::event::Kind::RulesChanged.name(),
        }
    }
}
