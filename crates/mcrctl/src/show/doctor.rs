//! The checks of an examination, a line each with what to do below it. What is well is only counted.

use std::fmt::Write;

use mcr_core::api::{CheckReport, DoctorReport};

use super::counted;

pub(crate) fn doctor(report: &DoctorReport, all: bool) -> String {
    let well = |check: &&CheckReport| check.result == "ok";
    let shown = report.checks.iter().filter(|check| all || !well(check));
    let mut text = String::new();
    for CheckReport { result, check, subject, evidence, remedy } in shown {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{result:<7}  {check:<16}  {subject}: {evidence}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "  → {remedy}");
        }
    }
    let count = report.checks.iter().filter(well).count();
    let of = match report.checks.len() - count {
        0 => "all ".to_owned(),
        _ => String::new(),
    };
    let rules = counted(report.rules, "rule");
    let _ = writeln!(
        text,
        "{of}{} well, {rules} watched for {}",
        counted(count, "check"),
        report.duration
    );
    text
}
