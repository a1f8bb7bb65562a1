//! `batch`: many commands as one change, so that all of them are carried out or none. A refusal
//! names the line, as far as it can be told.

#[cfg(test)]
mod tests;

use std::path::Path;

use clap::Parser;
use mcr_core::api::{RuleList, Step};

use crate::args::{Change, Line};
use crate::edit::Draft;
use crate::failure::Failure;
use crate::{Session, change, files, show};

pub(crate) fn run(session: &Session, file: &Path, wait: bool) -> Result<(), Failure> {
    let (_, text) = files::read(file)?;
    let commands = parse(&text)?;
    let mut planned = Vec::new();
    let result = change::edit(session, wait, |list| {
        planned = plan(&commands, list)?;
        Ok(planned.iter().map(|(_, step)| step.clone()).collect())
    });
    let reply = result.map_err(|failure| {
        let Failure::Refused(error) = &failure else { return failure };
        match line_of(&planned, &error.message) {
            Some(line) => failure.about(&format!("line {line}")),
            None => failure,
        }
    })?;
    change::report(session, &reply, show::done)
}

/// Each command with the number of its line, from 1.
fn parse(text: &str) -> Result<Vec<(usize, Change)>, Failure> {
    let mut commands = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let refused = |message: String| {
            let hint = "a line holds add, set, remove, output, enable or disable, and what they \
                        take; see `mcrctl help batch`";
            Failure::refused("malformed", format!("line {number}: {message}"), hint)
        };
        let mut words = shell_words::split(line).map_err(|error| refused(error.to_string()))?;
        if words.is_empty() {
            continue;
        }
        // As `mcrctl discover --rules` prints them, for a shell too.
        if words.first().is_some_and(|word| word == "mcrctl") {
            words.remove(0);
        }
        let parsed = Line::try_parse_from(words);
        let Line { change } = parsed.map_err(|error| refused(first_paragraph(&error)))?;
        if change.wait() {
            return Err(Failure::refused(
                "malformed",
                format!("line {number}: --wait is not for one line, since all are taken together"),
                "say it of all: `mcrctl batch --wait`",
            ));
        }
        commands.push((number, change));
    }
    Ok(commands)
}

/// What is wrong, without the usage behind it.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    let words: Vec<&str> = first.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

/// The steps of all commands, each with its line.
fn plan(commands: &[(usize, Change)], list: RuleList) -> Result<Vec<(usize, Step)>, Failure> {
    let mut draft = Draft::new(list);
    let mut planned: Vec<(usize, Step)> = Vec::new();
    for (line, change) in commands {
        let made = draft.make(change);
        made.map_err(|refusal| refusal.about(format_args!("line {line}")))?;
        let fresh = draft.steps().iter().skip(planned.len());
        planned.extend(fresh.map(|step| (*line, step.clone())));
    }
    Ok(planned)
}

/// The last line that made the rule which a refusal of `mcrd` begins with.
fn line_of(planned: &[(usize, Step)], message: &str) -> Option<usize> {
    let concerns = |step: &Step| match step {
        Step::Add(rule) | Step::Replace { rule, .. } => {
            let key = rule.check().ok().map(|rule| rule.key());
            key.is_some_and(|key| message.starts_with(&format!("rule {key}: ")))
        }
        Step::Remove(_) => false,
    };
    planned.iter().rfind(|(_, step)| concerns(step)).map(|(line, _)| *line)
}
