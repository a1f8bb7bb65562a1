//! Logs go to standard error, as text or as JSON.

use tracing_subscriber::fmt;

use crate::args::{Args, LogFormat};

/// Starts logging for the whole process.
pub(crate) fn start(args: &Args) {
    let builder = fmt().with_max_level(args.log_level).with_writer(std::io::stderr);
    let builder = builder.with_target(false);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
