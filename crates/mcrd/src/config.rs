//! The configuration: `mcr.toml` and the files of `mcr.d`, read as one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mcr_core::api::{MetricsOptions, ParsedConfig, check_rules, parse_config};
use mcr_core::packet::PacketOptions;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::Limits;
use mcr_core::rule::Rule;

/// What the files say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    pub(crate) rules: Vec<Rule>,
    pub(crate) limits: Limits,
    pub(crate) packet: PacketOptions,
    pub(crate) metrics: MetricsOptions,
    /// What may not be meant.
    pub(crate) warnings: Vec<String>,
}

/// Reads FILE, and `*.toml` of the folder beside it in the order of their names.
pub(crate) fn load(file: &Path) -> Result<Config, Refusal> {
    let ParsedConfig { mut rules, mut places, limits, packet, metrics } = parse(file)?;
    let (limits, packet) = (limits.unwrap_or_default(), packet.unwrap_or_default());
    for file in further_files(&file.with_extension("d"))? {
        let further = parse(&file)?;
        if further.limits.is_some() {
            return Err(main_file_only(&file, "[limits] belongs"));
        }
        if further.packet.is_some() {
            return Err(main_file_only(&file, "[packet] and [interface.NAME] belong"));
        }
        if further.metrics.is_some() {
            return Err(main_file_only(&file, "[metrics] belongs"));
        }
        rules.extend(further.rules);
        places.extend(further.places);
    }
    let warnings =
        check_rules(&rules).map_err(|(position, refusal)| refusal.about(&places[position]))?;
    let outputs: usize = rules.iter().map(|rule| rule.outputs.len()).sum();
    limits.check(rules.len(), outputs).map_err(|refusal| refusal.about(file.display()))?;
    Ok(Config { rules, limits, packet, metrics: metrics.unwrap_or_default(), warnings })
}

fn parse(file: &Path) -> Result<ParsedConfig, Refusal> {
    let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    parse_config(&file.display().to_string(), &text)
        .map_err(|error| Refusal::new(Code::Invalid, error.to_string(), ""))
}

fn further_files(folder: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(folder, &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn main_file_only(file: &Path, what: &str) -> Refusal {
    let message = format!("{}: {what} into the main file", file.display());
    Refusal::new(Code::Invalid, message, "move it there")
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(
        Code::Invalid,
        format!("cannot read {}: {error}", path.display()),
        "check the path given with --config and its permissions",
    )
}
