//! Turns the runs of `tests/performance/multi_stream_scaling.sh` into its results: `results.csv`,
//! `results.json`, `report.md`, the pictures `loss.svg`, `rate.svg` and `cpu.svg`, and a table on the terminal.
//! Also of a test that was broken off: of the runs that are there.

mod columns;
mod plot;
mod report;
mod rows;
mod runs;

use std::fs;
use std::io::{Write as _, stdout};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: scaling-report FOLDER")?);
    let test = runs::Test::read(&folder)?;
    let rows = rows::rows(&test);
    if rows.is_empty() {
        bail!("{}: no runs", folder.display());
    }
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    write("results.csv", columns::csv(&rows))?;
    let values = rows.iter().map(columns::json).collect::<Vec<_>>();
    let results = json!({"setting": test.setting, "rows": values, "runs": test.runs});
    write("results.json", serde_json::to_string_pretty(&results)? + "\n")?;
    write("loss.svg", plot::loss(&rows)?)?;
    write("rate.svg", plot::rate(&rows)?)?;
    write("cpu.svg", plot::cpu(&rows)?)?;
    write("report.md", report::markdown(&test, &rows))?;
    write!(stdout(), "\n{}", report::terminal(&rows))?;
    Ok(())
}
