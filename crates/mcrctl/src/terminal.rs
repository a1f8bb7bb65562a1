//! Standard output and the warnings on standard error. Whole texts are written at once.

use std::io::{ErrorKind, IsTerminal, Write};

use crate::failure::Failure;

/// Writes `text` to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::StdoutClosed),
        Err(error) => {
            let message = format!("cannot write to standard output: {error}");
            Err(Failure::refused("output", message, ""))
        }
    }
}

/// Writes each warning to standard error.
pub(crate) fn warn(warnings: &[String]) {
    let mut out = std::io::stderr().lock();
    for warning in warnings {
        // What was asked for is done; that nobody reads the warning does not undo it.
        let _ = writeln!(out, "warning: {warning}");
    }
}

/// Writes what is no warning, and no part of the answer, to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether standard output is a terminal, which can be drawn over.
pub(crate) fn is_drawable() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether there is a terminal to draw on and to read keys from, or why not.
pub(crate) fn is_interactive() -> Result<(), &'static str> {
    if !std::io::stdout().is_terminal() {
        Err("standard output is no terminal")
    } else if !std::io::stdin().is_terminal() {
        Err("standard input is no terminal, so no key can be read")
    } else if std::env::var_os("TERM").is_none_or(|kind| kind.is_empty() || kind == "dumb") {
        Err("the terminal is of a kind that cannot be drawn over (TERM)")
    } else {
        Ok(())
    }
}

/// Clears a terminal and starts at its top.
pub(crate) const CLEAR: &str = "\x1b[H\x1b[2J";
