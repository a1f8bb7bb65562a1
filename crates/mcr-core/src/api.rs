//! The types of the control API and of the configuration file: what crosses a border as JSON or
//! TOML. Requests refuse unknown fields; replies may grow, and clients ignore what they do not know.
//!
//! Core types are not a wire format: [`RuleSpec`] is, and [`RuleSpec::check`] is the way from one to
//! the other.

mod config;
mod output;
mod stats;
#[cfg(test)]
mod tests;
mod workers;

use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

pub use config::{
    ConfigError, ConfigFile, Defaults, InterfaceSpec, LimitsSpec, PacketSpec, ParsedConfig, Place,
    check_rules, parse_config, render_config,
};
pub use output::{OutputSpec, Setting};
pub use stats::{
    Count, Dropped, InterfaceStatus, OutputStats, ProgramCost, Rate, RuleStats, SenderStats, Stats,
    Status,
};
pub use workers::{RingStatus, SendBuffer, WorkerStatus};

use crate::flow::Input;
use crate::refusal::{Code, Refusal};
use crate::rule::{Local, Origin, Output, Rule};
use crate::watch::Silence;

/// The largest request body in bytes.
pub const BODY_MAX: usize = 32 << 20;

/// A rule as files and requests write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct RuleSpec {
    /// The name; without one the rule is addressed by its input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A remark for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// `[SOURCE@]ADDRESS:PORT@INTERFACE`.
    pub input: String,
    /// Who may send, beside a `SOURCE@` of the input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Where it goes.
    pub outputs: Vec<OutputSpec>,
    /// Whether it forwards.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub enabled: bool,
    /// `auto`, `yes` or `no`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// `yes` or `no`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// The most that it takes, as in `5000pps` or `20mbit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<String>,
    /// How long a pause is no event, as in `5s`, or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<String>,
    /// `rtp`, `ts` or `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<String>,
}

impl Serialize for RuleSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// From an object only: the derived code would take a list of values too.
impl<'de> Deserialize<'de> for RuleSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = RuleSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule: { input = \"...\", outputs = [...] }")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RuleSpec, A::Error> {
                RuleSpec::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl RuleSpec {
    /// The rule this text means, or what is wrong with it.
    pub fn check(&self) -> Result<Rule, Refusal> {
        let label = self.name.clone().unwrap_or_else(|| self.input.clone());
        self.build().and_then(Rule::check).map_err(|r| r.about(format_args!("rule {label}")))
    }

    fn build(&self) -> Result<Rule, Refusal> {
        let mut input = self
            .input
            .parse::<Input>()
            .map_err(|r| r.about(format_args!("input {}", self.input)))?;
        for source in &self.sources {
            let address = source.parse().map_err(|_| {
                Refusal::new(
                    Code::Invalid,
                    format!("source {source:?} is not an IP address"),
                    "write addresses alone, as in sources = [\"10.0.0.1\"]",
                )
            })?;
            input.sources.push(address);
        }
        input.sources.sort_unstable();
        input.sources.dedup();
        let outputs =
            self.outputs.iter().map(OutputSpec::build).collect::<Result<Vec<Output>, _>>()?;
        let local = self.local.as_deref().map_or(Ok(Local::Auto), local)?;
        let join = match self.join.as_deref() {
            None | Some("yes") => true,
            Some("no") => false,
            Some(other) => return Err(unknown_choice("join", other, "yes, no")),
        };
        let max_rate = self.max_rate.as_deref().map(str::parse).transpose()?;
        let silence = self.silence.as_deref().map(str::parse).transpose()?.unwrap_or_default();
        let inspect = self.inspect.as_deref().map(str::parse).transpose()?;
        Ok(Rule {
            name: self.name.clone(),
            comment: self.comment.clone(),
            input,
            outputs,
            enabled: self.enabled,
            local,
            join,
            max_rate,
            silence,
            inspect,
        })
    }
}

fn local(text: &str) -> Result<Local, Refusal> {
    match text {
        "auto" => Ok(Local::Auto),
        "yes" => Ok(Local::Yes),
        "no" => Ok(Local::No),
        other => Err(unknown_choice("local", other, "auto, yes, no")),
    }
}

fn unknown_choice(field: &str, value: &str, choices: &str) -> Refusal {
    let message = format!("{field} = {value:?} is not known");
    Refusal::new(Code::Invalid, message, format!("use one of: {choices}"))
}

impl From<&Rule> for RuleSpec {
    fn from(rule: &Rule) -> Self {
        let local = match rule.local {
            Local::Auto => None,
            Local::Yes => Some("yes".into()),
            Local::No => Some("no".into()),
        };
        let many = rule.input.sources.len() > 1;
        let mut input = rule.input.clone();
        let sources = if many { std::mem::take(&mut input.sources) } else { Vec::new() };
        Self {
            name: rule.name.clone(),
            comment: rule.comment.clone(),
            input: input.to_string(),
            sources: sources.iter().map(ToString::to_string).collect(),
            outputs: rule.outputs.iter().map(OutputSpec::from).collect(),
            enabled: rule.enabled,
            local,
            join: (!rule.join).then(|| "no".into()),
            max_rate: rule.max_rate.map(|rate| rate.to_string()),
            silence: (rule.silence != Silence::default()).then(|| rule.silence.to_string()),
            inspect: rule.inspect.map(|inspect| inspect.name().into()),
        }
    }
}

impl FromStr for Origin {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "file" => Ok(Self::File),
            "runtime" => Ok(Self::Runtime),
            _ => Err(Refusal::new(Code::Malformed, format!("{text:?} is no origin"), "")),
        }
    }
}

/// One step of `PATCH /v1/rules`. The steps of a request are taken together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// A new rule.
    Add(RuleSpec),
    /// A rule in the place of the one called `name`, which it may rename.
    Replace {
        /// Name or input text of the rule there is.
        name: String,
        /// The rule it becomes.
        rule: RuleSpec,
    },
    /// Takes the rule of this name, or input text, out.
    Remove(String),
}

/// `PUT /v1/rules`: these rules and no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSet {
    /// All rules.
    pub rules: Vec<RuleSpec>,
}

/// The reply to every change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change {
    /// Grows with every change of the rules.
    pub generation: u64,
    /// Whether anything was changed.
    pub changed: bool,
    /// Rules that are new.
    pub added: Vec<String>,
    /// Rules that are not what they were.
    pub replaced: Vec<String>,
    /// Rules that are gone.
    pub removed: Vec<String>,
    /// What may not be meant.
    pub warnings: Vec<String>,
}

/// One rule of `GET /v1/rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// What the rule is addressed by.
    pub name: String,
    /// Whether that name was given, or is the text of the input.
    pub named: bool,
    /// `file` or `runtime`.
    pub origin: String,
    /// `forwarding`, `idle`, `disabled`, `waiting` or `failed`.
    pub state: String,
    /// What it waits for, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What of it has no effect here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The rule as a request would write it.
    #[serde(deserialize_with = "rule_of_any_version")]
    pub rule: RuleSpec,
}

/// A rule in a reply, of which a later version may say more than this one knows.
fn rule_of_any_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RuleSpec, D::Error> {
    const RULE: [&str; 11] = [
        "name", "comment", "input", "sources", "outputs", "enabled", "local", "join", "max_rate",
        "silence", "inspect",
    ];
    const OUTPUT: [&str; 3] = ["to", "ttl", "dscp"];
    let mut rule = serde_json::Map::deserialize(deserializer)?;
    rule.retain(|field, _| RULE.contains(&field.as_str()));
    if let Some(Value::Array(outputs)) = rule.get_mut("outputs") {
        for output in outputs.iter_mut().filter_map(Value::as_object_mut) {
            output.retain(|field, _| OUTPUT.contains(&field.as_str()));
        }
    }
    serde_json::from_value(Value::Object(rule)).map_err(serde::de::Error::custom)
}

/// `GET /v1/rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleList {
    /// Of these rules.
    pub generation: u64,
    /// All rules, by name.
    pub rules: Vec<RuleView>,
}

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// What went wrong.
    pub error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs; see [`Code::name`].
    pub code: String,
    /// What was refused and why.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl From<&Refusal> for ErrorReply {
    fn from(refusal: &Refusal) -> Self {
        let Refusal { code, message, hint } = refusal;
        let code = code.name().into();
        Self { error: ErrorBody { code, message: message.clone(), hint: hint.clone() } }
    }
}
