//! Commands about files of rules: `check`, `apply` and `save`.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mcr_core::api::{
    ParsedConfig, RuleList, RuleSet, RuleSpec, check_rules, parse_config, render_config,
};
use mcr_core::refusal::{Code, Refusal};
use serde_json::json;

use crate::args::ApplyArgs;
use crate::client::Question;
use crate::failure::Failure;
use crate::{Session, change, show, terminal};

/// Needs neither a daemon nor privileges.
pub(crate) fn check(session: &Session, file: &Path) -> Result<(), Failure> {
    let (name, text) = read(file)?;
    let ParsedConfig { rules, places, .. } = parse(&name, &text)?;
    let warnings = check_rules(&rules)
        .map_err(|(position, refusal)| Failure::from(refusal.about(&places[position])))?;
    let count = rules.len();
    if session.json {
        return terminal::print(&format!("{}\n", json!({"rules": count, "warnings": warnings})));
    }
    terminal::warn(&warnings);
    terminal::print(&format!("{}, no mistakes found\n", show::counted(count, "rule")))
}

/// Makes the running rules equal to those of the file.
pub(crate) fn apply(session: &Session, args: &ApplyArgs) -> Result<(), Failure> {
    let ApplyArgs { file, dry_run, allow_empty, wait } = args;
    let (name, text) = read(file)?;
    let ParsedConfig { rules, limits, packet, metrics, .. } = parse(&name, &text)?;
    if limits.is_some() {
        terminal::warn(&["[limits] is for the start of mcrd; apply takes the rules alone".into()]);
    }
    if packet.is_some() {
        terminal::warn(&[
            "[packet] and [interface] are for the start of mcrd; apply takes the rules alone"
                .into(),
        ]);
    }
    if metrics.is_some() {
        terminal::warn(&["[metrics] is for the start of mcrd; apply takes the rules alone".into()]);
    }
    let set = RuleSet { rules: rules.iter().map(RuleSpec::from).collect() };
    let page = format!("/v1/rules?dry_run={dry_run}&allow_empty={allow_empty}&wait={wait}");
    let reply = session.client.ask(&Question::put(page).with(&set))?;
    change::report(session, &reply, |change| show::difference(change, *dry_run))
}

/// Writes the running rules.
pub(crate) fn save(session: &Session, to: Option<&Path>) -> Result<(), Failure> {
    let list: RuleList = session.client.ask(&Question::get("/v1/rules"))?.read()?;
    let text = render_config(list.rules.iter().map(|view| &view.rule));
    let Some(path) = to else { return terminal::print(&text) };
    replace(path, &text).map_err(|error| {
        let message = format!("cannot write {}: {error}", path.display());
        Failure::refused("file", message, "check the path, its folder and their permissions")
    })?;
    let count = list.rules.len();
    if session.json {
        let report = json!({"rules": count, "file": path.display().to_string()});
        return terminal::print(&format!("{report}\n"));
    }
    let rules = show::counted(count, "rule");
    terminal::print(&format!("saved {rules} to {}\n", path.display()))
}

/// The text of a file, or of standard input when it is `-`, with the name to call it by.
pub(crate) fn read(file: &Path) -> Result<(String, String), Failure> {
    let (name, text) = if file == Path::new("-") {
        ("stdin".to_owned(), io::read_to_string(io::stdin().lock()))
    } else {
        (file.display().to_string(), fs::read_to_string(file))
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(Failure::refused(
            "file",
            format!("cannot read {name}: {error}"),
            "check the path and its permissions",
        )),
    }
}

fn parse(name: &str, text: &str) -> Result<ParsedConfig, Failure> {
    parse_config(name, text)
        .map_err(|error| Refusal::new(Code::Invalid, error.to_string(), "").into())
}

/// Writes beside the file, then puts the new one in its place: whoever reads it finds the old text
/// or the new. A symbolic link stays, and so do the permissions.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let mode = fs::metadata(&path).ok().map(|metadata| metadata.permissions());
    // The umask takes its bits from these.
    let readable = Permissions::from_mode(0o666);
    let mut file =
        tempfile::Builder::new().prefix(".mcrctl-").permissions(readable).tempfile_in(&folder)?;
    if let Some(mode) = mode {
        file.as_file().set_permissions(mode)?;
    }
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    File::open(&folder)?.sync_all()
}
