//! The configuration file, and its place-keeping errors: `FILE:LINE:COLUMN: what`.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{RuleSpec, Setting};
use crate::rule::Rule;

/// `mcr.toml`, or a file of `mcr.d`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// For the rules of this file that do not say otherwise.
    #[serde(default)]
    pub defaults: Defaults,
    /// The rules.
    #[serde(default)]
    pub rule: Vec<Spanned<RuleSpec>>,
}

/// Options of all rules and outputs of a file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// As in an output.
    pub ttl: Option<Setting>,
    /// As in an output.
    pub dscp: Option<Setting>,
    /// As in a rule.
    pub local: Option<String>,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The rules of the TOML text of `file`, each checked by itself.
pub fn parse_config(file: &str, text: &str) -> Result<Vec<Rule>, ConfigError> {
    let error = |at: usize, message: String| {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError {
            file: file.into(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    };
    let config: ConfigFile = toml::from_str(text)
        .map_err(|e| error(e.span().map_or(0, |span| span.start), e.message().into()))?;
    let mut rules = Vec::with_capacity(config.rule.len());
    for spanned in config.rule {
        let at = spanned.span().start;
        let mut spec = spanned.into_inner();
        spec.local = spec.local.or_else(|| config.defaults.local.clone());
        for output in &mut spec.outputs {
            output.ttl = output.ttl.take().or_else(|| config.defaults.ttl.clone());
            output.dscp = output.dscp.take().or_else(|| config.defaults.dscp.clone());
        }
        rules.push(spec.check().map_err(|refusal| error(at, refusal.to_string()))?);
    }
    Ok(rules)
}

/// The text of a file that [`parse_config`] reads back as the same rules.
pub fn render_config<'a>(rules: impl Iterator<Item = &'a RuleSpec>) -> String {
    #[derive(Serialize)]
    struct File<'a> {
        rule: Vec<&'a RuleSpec>,
    }

    let file = File { rule: rules.collect() };
    toml::to_string(&file).expect("rules are strings, numbers and lists, which TOML can write")
}
