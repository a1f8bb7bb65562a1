//! What ends a command early: its wording on standard error, and its exit code.

use std::io::Write;
use std::process::ExitCode;

use mcr_core::api::{ErrorBody, ErrorReply};
use mcr_core::refusal::Refusal;

/// Why a command was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// By `mcrd`, or before it was asked.
    Refused(ErrorBody),
    /// Nobody to ask.
    NoDaemon(ErrorBody),
    /// No answer in time, or not the state that was waited for.
    TimedOut(ErrorBody),
    /// What was asked for was shown, and is not well.
    Unwell,
    /// Whoever reads the output has seen enough, as in `mcrctl list | head -1`.
    StdoutClosed,
}

impl Failure {
    pub(crate) fn refused(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused(body(code, message, hint))
    }

    pub(crate) fn no_daemon(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::NoDaemon(body("no-daemon", message, hint))
    }

    pub(crate) fn timed_out(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::TimedOut(body("timed-out", message, hint))
    }

    /// Whether the rules have changed since they were read.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code == "stale")
    }

    /// The same with the place it concerns named in front of the message.
    pub(crate) fn about(mut self, place: &str) -> Self {
        if let Self::Refused(error) = &mut self {
            error.message = format!("{place}: {}", error.message);
        }
        self
    }

    /// What has happened, without what to do.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Refused(error) | Self::NoDaemon(error) | Self::TimedOut(error) => &error.message,
            Self::Unwell => "not all is well",
            Self::StdoutClosed => "nobody reads the output",
        }
    }

    /// Says it on standard error.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        let (code, error) = match self {
            Self::Refused(error) => (1, error),
            Self::NoDaemon(error) => (3, error),
            Self::TimedOut(error) => (4, error),
            Self::Unwell => return ExitCode::FAILURE,
            Self::StdoutClosed => return ExitCode::SUCCESS,
        };
        // A closed stderr leaves nobody to tell; the exit code still says it.
        let _ = writeln!(std::io::stderr().lock(), "{}", text(error, json));
        ExitCode::from(code)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(ErrorReply::from(&refusal).error)
    }
}

fn body(code: &str, message: impl Into<String>, hint: impl Into<String>) -> ErrorBody {
    ErrorBody { code: code.into(), message: message.into(), hint: hint.into() }
}

fn text(error: ErrorBody, json: bool) -> String {
    let plain = |ErrorBody { message, hint, .. }: &ErrorBody| match hint.as_str() {
        "" => format!("mcrctl: {message}"),
        hint => format!("mcrctl: {message}\n  hint: {hint}"),
    };
    let reply = ErrorReply { error };
    let as_json = || serde_json::to_string(&reply).ok();
    json.then(as_json).flatten().unwrap_or_else(|| plain(&reply.error))
}
