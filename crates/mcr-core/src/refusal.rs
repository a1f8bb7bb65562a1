//! Why something was refused, in words for an operator.
//!
//! One type serves grammar, rules, tables and the machine, because all of them end at the same
//! place: a reply with a code for programs, a message that names the thing, a hint that says what
//! to do.

use std::fmt;

/// A refusal: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The class of the refusal, for programs.
    pub code: Code,
    /// What was refused and why.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Refusal {
    /// A refusal of class `code`.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }

    /// The same refusal with the thing it concerns named in front of the message.
    #[must_use]
    pub fn about(mut self, thing: impl fmt::Display) -> Self {
        self.message = format!("{thing}: {}", self.message);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

impl std::error::Error for Refusal {}

/// The classes of refusals. The name is part of the control API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is not JSON of the right shape, or TOML is broken.
    Malformed,
    /// A flow, name or option does not follow the grammar, or is not allowed.
    Invalid,
    /// The rule, or the page, does not exist.
    NotFound,
    /// A name, an input or an output is already taken, or rules form a circle.
    Conflict,
    /// An interface, address or route that the rule needs is not there.
    Machine,
    /// `If-Match` named another generation.
    Stale,
    /// The request body is larger than allowed.
    TooLarge,
    /// The request took too long to arrive.
    TooSlow,
    /// The HTTP method does not fit the page.
    Method,
    /// The kernel refused to join a group.
    Join,
    /// The data plane refused the change.
    Plane,
    /// Too many rules or outputs.
    Capacity,
    /// MCR cannot go on, or a bug.
    Internal,
}

impl Code {
    /// The name used in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Machine => "machine",
            Self::Stale => "stale",
            Self::TooLarge => "too-large",
            Self::TooSlow => "too-slow",
            Self::Method => "method",
            Self::Join => "join",
            Self::Plane => "plane",
            Self::Capacity => "capacity",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status (RFC 9110) that carries it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::TooSlow => 408,
            Self::Conflict => 409,
            Self::Stale => 412,
            Self::TooLarge => 413,
            Self::Invalid | Self::Machine => 422,
            Self::Internal => 500,
            Self::Join | Self::Plane => 503,
            Self::Capacity => 507,
        }
    }
}
