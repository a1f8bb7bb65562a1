//! How closely a rule's stream is looked at: when its silence is worth telling, and whether its
//! payload is looked into. Neither changes what becomes of a packet.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::refusal::{Code, Refusal};

/// The shortest silence that is told of: counters are read twice a second.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// The longest.
const SILENCE_MAX: Duration = Duration::from_secs(86_400);

/// How long a stream may pause before that is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// This long, 1 s to a day.
    After(Duration),
    /// For ever.
    Never,
}

impl Default for Silence {
    fn default() -> Self {
        Self::After(Duration::from_secs(10))
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(time) => humantime::format_duration(*time).fmt(f),
            Self::Never => f.write_str("never"),
        }
    }
}

impl FromStr for Silence {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let time = humantime::parse_duration(text).ok();
        let known = time.filter(|time| (SILENCE_MIN..=SILENCE_MAX).contains(time));
        known.map(Self::After).ok_or_else(|| {
            Refusal::new(
                Code::Invalid,
                format!("silence = {text:?} is not a time from 1s to 1day"),
                "write it as in 5s, 1m or 1h 30m, or never",
            )
        })
    }
}

/// As what the payload of a stream is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inspect {
    /// RTP (RFC 3550).
    Rtp,
    /// MPEG transport stream (ISO/IEC 13818-1) in UDP, with or without RTP.
    Ts,
    /// Whichever it looks like.
    Auto,
}

impl Inspect {
    /// All.
    pub const ALL: [Self; 3] = [Self::Rtp, Self::Ts, Self::Auto];

    /// The name in files, requests and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtp => "rtp",
            Self::Ts => "ts",
            Self::Auto => "auto",
        }
    }
}

impl FromStr for Inspect {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|inspect| inspect.name() == text).ok_or_else(|| {
            Refusal::new(
                Code::Invalid,
                format!("inspect = {text:?} is not known"),
                "use one of: rtp, ts, auto; leave it out to look at nothing",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_time_or_never() {
        for (text, shown) in [("5s", "5s"), ("90s", "1m 30s"), ("1day", "1day"), ("never", "never")]
        {
            let silence: Silence = text.parse().unwrap();
            assert_eq!(silence.to_string(), shown);
            assert_eq!(shown.parse::<Silence>(), Ok(silence));
        }
        for text in ["", "0s", "999ms", "2days", "5", "none", "-1s"] {
            let refusal = text.parse::<Silence>().expect_err(text);
            assert!(refusal.message.contains(&format!("silence = {text:?}")), "{refusal}");
        }
    }

    #[test]
    fn inspect_has_three_names() {
        for inspect in Inspect::ALL {
            assert_eq!(inspect.name().parse::<Inspect>(), Ok(inspect));
        }
        assert!("RTP".parse::<Inspect>().is_err());
    }
}
