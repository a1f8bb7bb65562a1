//! The columns of the results, each defined once: the report shows the same texts as the CSV.

use serde_json::{Map, Value};

use crate::rows::{Repeat, Row};
use crate::runs::Run;

/// A column.
pub(crate) struct Column {
    /// In `results.csv` and `results.json`.
    pub(crate) key: &'static str,
    /// In the report.
    pub(crate) heading: &'static str,
    /// Empty when nothing is known.
    pub(crate) text: fn(&Row) -> String,
}

/// All columns, in the order of the CSV.
pub(crate) const COLUMNS: &[Column] = &[
    column("streams", "streams", |row| row.streams.to_string()),
    column("asked_rate", "asked/s", |row| (row.streams * row.rate).to_string()),
    column("relay", "relay", |row| row.relay.clone()),
    column("runs", "runs", |row| row.repeats.len().to_string()),
    column("marks", "marks", marks),
    column("rules", "rules", |row| median(row, 0, |run| Some(run.rules as f64))),
    column("sent", "sent", |row| median(row, 0, |run| Some(run.sent as f64))),
    column("achieved_rate", "sent/s", |row| median(row, 0, |run| Some(run.achieved_rate))),
    column("received", "received", |row| median(row, 0, |run| Some(run.received as f64))),
    column("delivered_rate", "arrived/s", |row| median(row, 0, |run| Some(run.delivered_rate()))),
    column("lost", "lost", |row| median(row, 0, |run| Some(run.lost as f64))),
    column("lost_worst", "worst", |row| worst(row, 0, |run| Some(run.lost as f64))),
    column("loss_percent", "loss %", |row| median(row, 4, |run| Some(run.loss_percent()))),
    column("loss_percent_worst", "worst %", |row| worst(row, 4, |run| Some(run.loss_percent()))),
    column("duplicated_worst", "duplicated", |row| worst(row, 0, |run| count(run.duplicated))),
    column("reordered_worst", "reordered", |row| worst(row, 0, |run| count(run.reordered))),
    column("worst_stream_lost", "worst stream lost", |row| worst(row, 0, worst_stream)),
    column("worst_stream_percent", "worst stream %", |row| {
        worst(row, 4, |run| worst_stream(run).map(|lost| lost / run.packets as f64 * 100.0))
    }),
    column("p50_us", "p50 µs", |row| median(row, 1, |run| run.p50_us)),
    column("p99_us", "p99 µs", |row| median(row, 1, |run| run.p99_us)),
    column("relay_cpu", "relay's processes", |row| {
        median(row, 3, |run| {
            run.relay_cpu_s.filter(|_| !run.is_bare()).and_then(|cpu| run.per_million(cpu))
        })
    }),
    column("system_cpu", "whole machine", |row| {
        median(row, 3, |run| run.per_million(run.system_cpu_s))
    }),
    column("added_cpu", "beyond bare path", |row| number(row.added_cpu(), 3)),
    column("bare_spread", "± bare path", |row| number(row.bare_spread, 3)),
    column("times_less_than_socat", "times less than socat", |row| {
        number(row.times_less_than_socat(), 1)
    }),
    column("others_percent", "others' CPU %", |row| worst(row, 1, |run| Some(run.others_percent))),
    column("rss_mib", "resident MiB", |row| of_relay(row, 1, |run| run.rss_kib as f64 / 1024.0)),
    column("pss_mib", "shared once MiB", |row| of_relay(row, 1, |run| run.pss_kib as f64 / 1024.0)),
    column("processes", "processes", |row| of_relay(row, 0, |run| run.processes as f64)),
    column("sockets", "sockets", |row| of_relay(row, 0, |run| run.sockets as f64)),
    column("slab_kib_per_stream", "kernel KiB a stream", |row| {
        number(row.slab_kib_per_stream(), 2)
    }),
    column("start_s", "start s", |row| of_relay(row, 3, |run| run.start_s)),
    column("configure_s", "configure s", |row| of_relay(row, 3, |run| run.configure_s)),
];

/// `results.csv`.
pub(crate) fn csv(rows: &[Row]) -> String {
    let line = |texts: Vec<String>| texts.join(",") + "\n";
    let mut csv = line(COLUMNS.iter().map(|column| column.key.into()).collect());
    for row in rows {
        csv += &line(COLUMNS.iter().map(|column| (column.text)(row)).collect());
    }
    csv
}

/// A row of `results.json`: numbers where the CSV has numbers, null where it has nothing.
pub(crate) fn json(row: &Row) -> Value {
    let value = |text: String| match text.parse() {
        _ if text.is_empty() => Value::Null,
        Ok(number) => Value::Number(number),
        Err(_) => Value::String(text),
    };
    let entry = |column: &Column| (column.key.to_owned(), value((column.text)(row)));
    Value::Object(COLUMNS.iter().map(entry).collect::<Map<_, _>>())
}

/// The column with this key.
pub(crate) fn by_key(key: &str) -> &'static Column {
    COLUMNS.iter().find(|column| column.key == key).expect("the keys are those of the list")
}

const fn column(key: &'static str, heading: &'static str, text: fn(&Row) -> String) -> Column {
    Column { key, heading, text }
}

/// What has to be known to judge the row, with how many of its runs it holds for.
fn marks(row: &Row) -> String {
    let mark = |name: &str, count: usize| (count > 0).then(|| format!("{name} {count}"));
    [
        mark("path-limited", row.count(Repeat::is_path_limited)),
        mark("sender-limited", row.count(Repeat::is_sender_limited)),
        mark("slowed", row.count(Repeat::is_slowed)),
        mark("behind", row.count(Repeat::is_behind)),
        mark("disturbed", row.count(Repeat::is_disturbed)),
        mark("apart", row.count(Repeat::is_apart)),
        mark("corrupt", row.count(|repeat| repeat.run.corrupt.is_some_and(|n| n > 0))),
        mark("foreign", row.count(|repeat| repeat.run.foreign.is_some_and(|n| n > 0))),
        mark("send errors", row.count(|repeat| repeat.run.send_errors > 0)),
        mark("ended", row.count(|repeat| repeat.run.living < repeat.run.processes)),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join("; ")
}

fn worst_stream(run: &Run) -> Option<f64> {
    Some(run.worst_stream.as_ref().map_or(0, |worst| worst.lost) as f64)
}

fn count(packets: Option<u64>) -> Option<f64> {
    packets.map(|packets| packets as f64)
}

fn median(row: &Row, digits: usize, value: impl Fn(&Run) -> Option<f64>) -> String {
    number(row.median(|repeat| value(&repeat.run)), digits)
}

fn worst(row: &Row, digits: usize, value: impl Fn(&Run) -> Option<f64>) -> String {
    number(row.worst(|repeat| value(&repeat.run)), digits)
}

/// A median that means nothing on the bare path.
fn of_relay(row: &Row, digits: usize, value: impl Fn(&Run) -> f64) -> String {
    median(row, digits, |run| (!run.is_bare()).then(|| value(run)))
}

fn number(value: Option<f64>, digits: usize) -> String {
    let text = value.map(|value| format!("{value:.digits$}")).unwrap_or_default();
    // A small negative number is rounded to "-0.000".
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}
