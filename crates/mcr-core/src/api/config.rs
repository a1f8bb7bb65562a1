//! The configuration file, and its place-keeping errors: `FILE:LINE:COLUMN: what`.

mod metrics;
mod packet;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Spanned;

pub use metrics::{MetricsOptions, MetricsSpec};
pub use packet::{InterfaceSpec, PacketSpec};

use super::{RuleSpec, Setting, output};
use crate::link::Links;
use crate::packet::PacketOptions;
use crate::refusal::Refusal;
use crate::relay::Limits;
use crate::rule::{Origin, Rule};
use crate::table::{Edit, Entry, RuleTable};

/// `mcr.toml`, or a file of `mcr.d`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// For the rules of this file that do not say otherwise.
    pub defaults: Option<Spanned<Defaults>>,
    /// The rules.
    #[serde(default)]
    pub rule: Vec<Spanned<RuleSpec>>,
    /// What the data plane must hold.
    pub limits: Option<LimitsSpec>,
    /// Of the packet plane.
    pub packet: Option<PacketSpec>,
    /// For Prometheus.
    pub metrics: Option<MetricsSpec>,
    /// Of interfaces, by name.
    #[serde(default)]
    pub interface: BTreeMap<Spanned<String>, InterfaceSpec>,
}

impl Defaults {
    /// Whether a rule could use them.
    fn check(&self) -> Result<(), Refusal> {
        self.ttl.as_ref().map(output::ttl).transpose()?;
        self.dscp.as_ref().map(output::dscp).transpose()?;
        self.local.as_deref().map(super::local).transpose()?;
        Ok(())
    }
}

/// `[limits]`: memory is set aside for as much, on each CPU.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// The most rules, 1 to 1,000,000.
    pub max_rules: u32,
    /// The most outputs of all rules together, 1 to 1,000,000.
    pub max_outputs: u32,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        let Limits { rules, outputs } = Limits::default();
        Self { max_rules: rules, max_outputs: outputs }
    }
}

/// A file's rules and settings.
#[derive(Debug, Clone)]
pub struct ParsedConfig {
    /// Each checked by itself.
    pub rules: Vec<Rule>,
    /// Where each of them stands.
    pub places: Vec<Place>,
    /// Absent when the file does not say.
    pub limits: Option<Limits>,
    /// Absent when the file does not say.
    pub packet: Option<PacketOptions>,
    /// Absent when the file does not say.
    pub metrics: Option<MetricsOptions>,
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

/// A place in a configuration file; prints as `FILE:LINE:COLUMN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Finds the place of a byte; a file may have thousands of rules, so its lines are counted once.
struct Text<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self { file, text, lines: std::iter::once(0).chain(starts).collect() }
    }

    fn place(&self, at: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        let column = self.text.get(start..at).unwrap_or_default().chars().count() + 1;
        Place { file: self.file.into(), line, column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where.
    pub place: Place,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The TOML text of `file`, its rules each checked by itself.
pub fn parse_config(file: &str, text: &str) -> Result<ParsedConfig, ConfigError> {
    let lines = Text::new(file, text);
    let error = |at, message| ConfigError { place: lines.place(at), message };
    let config: ConfigFile = toml::from_str(text)
        .map_err(|e| error(e.span().map_or(0, |span| span.start), e.message().into()))?;
    let limits =
        config.limits.map(|spec| Limits { rules: spec.max_rules, outputs: spec.max_outputs });
    let sensible = |limit: u32| (1..=1_000_000).contains(&limit);
    if limits.is_some_and(|limits| !(sensible(limits.rules) && sensible(limits.outputs))) {
        let at = text.find("[limits]").unwrap_or(0);
        return Err(error(at, "max_rules and max_outputs go from 1 to 1000000".into()));
    }
    let packet = packet::packet_options(config.packet, config.interface)
        .map_err(|(at, refusal)| error(at, refusal.to_string()))?;
    let metrics = metrics::metrics_options(config.metrics)
        .map_err(|(at, refusal)| error(at, refusal.to_string()))?;
    let defaults = match config.defaults {
        None => Defaults::default(),
        Some(spanned) => {
            let at = spanned.span().start;
            let defaults = spanned.into_inner();
            defaults.check().map_err(|refusal| error(at, refusal.to_string()))?;
            defaults
        }
    };
    let (mut rules, mut places) = (Vec::new(), Vec::new());
    for spanned in config.rule {
        let at = spanned.span().start;
        let mut spec = spanned.into_inner();
        spec.local = spec.local.or_else(|| defaults.local.clone());
        for output in &mut spec.outputs {
            output.ttl = output.ttl.take().or_else(|| defaults.ttl.clone());
            output.dscp = output.dscp.take().or_else(|| defaults.dscp.clone());
        }
        places.push(lines.place(at));
        rules.push(spec.check().map_err(|refusal| error(at, refusal.to_string()))?);
    }
    Ok(ParsedConfig { rules, places, limits, packet, metrics })
}

/// What rules show wrong together. Returns what may not be meant, or the position of the first rule that does not fit those before it, and why.
pub fn check_rules(rules: &[Rule]) -> Result<Vec<String>, (usize, Refusal)> {
    let (mut table, links) = (RuleTable::default(), Links::default());
    let mut all = Vec::with_capacity(rules.len());
    for (position, rule) in rules.iter().enumerate() {
        let blame = |refusal| (position, refusal);
        let entry = Entry { rule: rule.clone(), origin: Origin::File };
        all.extend(table.change(vec![Edit::Add(entry)]).map_err(blame)?);
    }
    Ok(table.warnings(&all, &links))
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
