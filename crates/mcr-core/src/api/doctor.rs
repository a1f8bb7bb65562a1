//! `GET /v1/doctor`, as replies show it.

use serde::{Deserialize, Serialize};

use crate::doctor::Check;

/// `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// Now (RFC 3339, UTC).
    pub time: String,
    /// How long the wire was watched, as in `3s`.
    pub duration: String,
    /// Rules that were looked at.
    pub rules: usize,
    /// The checks, the worst first.
    pub checks: Vec<CheckReport>,
}

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// `problem`, `warning`, `unknown` or `ok`.
    pub result: String,
    /// The name of the check.
    pub check: String,
    /// Of which rule, output or interface, or `host`.
    pub subject: String,
    /// What was found.
    pub evidence: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl From<Check> for CheckReport {
    fn from(Check { level, topic, subject, evidence, remedy }: Check) -> Self {
        let (result, check) = (level.name().into(), topic.name().into());
        Self { result, check, subject, evidence, remedy }
    }
}
