//! `report.md`, and the table on the terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::columns::by_key;
use crate::rows::{DISTURBED_PERCENT, Repeat, Row};
use crate::runs::{BARE, Test};

/// What arrived.
const TRAFFIC: &[&str] = &[
    "streams",
    "asked_rate",
    "relay",
    "achieved_rate",
    "sent",
    "received",
    "delivered_rate",
    "lost",
    "lost_worst",
    "loss_percent",
    "loss_percent_worst",
    "duplicated_worst",
    "reordered_worst",
    "worst_stream_lost",
    "p50_us",
    "p99_us",
    "marks",
];
/// What it cost.
const COST: &[&str] = &[
    "streams",
    "asked_rate",
    "relay",
    "relay_cpu",
    "system_cpu",
    "added_cpu",
    "bare_spread",
    "times_less_than_socat",
    "others_percent",
    "rss_mib",
    "pss_mib",
    "processes",
    "sockets",
    "slab_kib_per_stream",
    "start_s",
    "configure_s",
];
/// What fits a terminal.
const SHORT: &[&str] = &[
    "streams",
    "asked_rate",
    "relay",
    "achieved_rate",
    "delivered_rate",
    "lost",
    "lost_worst",
    "loss_percent",
    "p50_us",
    "p99_us",
    "relay_cpu",
    "added_cpu",
    "marks",
];

/// The whole report.
pub(crate) fn markdown(test: &Test, rows: &[Row]) -> String {
    let rows_of_relays = rows.iter().filter(|row| row.relay != BARE).collect::<Vec<_>>();
    let mut text = String::new();
    let mut section = |heading: &str, body: &str| {
        if !body.is_empty() {
            let _ = write!(text, "{heading}\n\n{}\n\n", body.trim_end());
        }
    };
    section("# Multi-stream scaling test", &machine(test));
    section("## Method", &method(test));
    section("## In short", &summary(rows));
    section("## Loss", "![loss against streams](loss.svg)");
    section("", "![packets a second that arrived against streams](rate.svg)");
    section("", RATE);
    section("", &table(rows.iter(), TRAFFIC));
    section("", MARKS);
    section("## Cost", "![CPU a packet against streams](cpu.svg)");
    section("", &table(rows.iter(), COST));
    section("", COSTS);
    section("## Where packets were dropped", &drops(rows));
    section("## Buffers", &buffers(&rows_of_relays));
    section("## Repeat it", &command(test));
    while text.ends_with('\n') {
        text.pop();
    }
    // A section without a heading goes on in the one before.
    text.replace("\n\n\n\n", "\n\n") + "\n"
}

/// The table on the terminal.
pub(crate) fn terminal(rows: &[Row]) -> String {
    let columns = SHORT.iter().map(|key| by_key(key)).collect::<Vec<_>>();
    let mut lines = vec![columns.iter().map(|column| column.heading.to_owned()).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|c| cell(&(c.text)(row))).collect()));
    let width = |column: usize| {
        lines.iter().map(|line: &Vec<String>| line[column].chars().count()).max().unwrap_or(0)
    };
    let widths = (0..columns.len()).map(width).collect::<Vec<_>>();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    let _ = write!(text, "\n{}", summary(rows).replace("**", ""));
    text
}

fn machine(test: &Test) -> String {
    let machine = &test.setting["machine"];
    let text = |value: &serde_json::Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    let list = |value: &serde_json::Value| {
        let entries = value.as_object().into_iter().flatten();
        entries
            .map(|(name, value)| format!("{name} {}", text(value)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!(
        "{}, {} CPUs, {} MiB, {}, {}{}.\nVersions: {}.\nLimits, as a fresh namespace has them where it \
         has its own{}: {}.\n\
         Measured {}. Settings: {}.",
        text(&machine["cpu"]),
        machine["cpus"],
        machine["memory_mib"],
        text(&machine["kernel"]),
        text(&machine["system"]),
        match text(&machine["virtual"]).as_str() {
            "" | "none" => String::new(),
            kind => format!(", virtual ({kind})"),
        },
        list(&machine["versions"]),
        if test.setting("lab_command").is_empty() { ", none changed" } else { "" },
        list(&machine["sysctl"]),
        test.setting("date"),
        list(&settings(test)),
    )
}

fn settings(test: &Test) -> serde_json::Value {
    let mut settings = test.setting["settings"].clone();
    if let Some(settings) = settings.as_object_mut() {
        settings.retain(|name, value| name != "date" && value != "");
    }
    settings
}

fn method(test: &Test) -> String {
    let setting = |name| test.setting(name);
    let workers = setting("num_workers");
    let senders = match setting("senders") {
        "1" => "one process sends all streams",
        _ => "one process sends each stream, all from the same moment on",
    };
    let sink = match setting("sink") {
        "socat" => "one socat for each stream, which counts bytes; order and latency are not known",
        _ => "one mcrgen, which checks the sequence number of every packet",
    };
    let changed = match setting("lab_command") {
        "" => "No sysctl is changed, for nobody.",
        _ => {
            "The script changes no sysctl; what `LAB_COMMAND` (see Settings) changes in the chain, it \
              changes for every relay and for the bare path."
        }
    };
    format!(
        "- A chain of three network namespaces, made anew for every run: sender (10.0.0.1) – relay \
         (10.0.0.2, 10.0.1.1) – sink (10.0.1.2). Stream N goes from 239.1.X.Y:5000+N to \
         239.10.X.Y:6000+N. {} packets of {} bytes on each stream; {senders}, {} datagrams at once; \
         the sink is {sink}.\n\
         - **The bare path comes first.** In every repeat the same load is run without a relay, the \
         sink in its place. When the bare path loses, the runs beside it are marked `path-limited`, \
         and not blamed on a relay. (The bare path is one veth pair; relays have a second behind them.)\n\
         - **The rate that the sender reached stands beside the one asked for**, and is the rate of \
         the loss shown. Sender and sink run at nice {}, relays at 0, so that a relay that takes much \
         CPU does not hide its loss by slowing the sender down; runs where it still does are marked \
         `slowed`. The eBPF plane works inside the sender's system call, as softirqs of a network card \
         would, and so has the sender's priority; `INSTRUMENT_NICE=0` lets all share alike.\n\
         - Relays take turns (A B C A B C …). Median and worst of {} runs.\n\
         - **The machine should have nothing else to do**, and each run says whether it had: the CPU time \
         that processes outside the test and the hypervisor took while it ran, in percent of what all \
         CPUs can do. Above {DISTURBED_PERCENT} % the run is marked `disturbed`, and what it shows may be \
         their doing. (Seen are the processes of this machine, not those of other containers.)\n\
         - One socat process for each stream, as its users run it, with {} of receive buffer asked for \
         each. {} The packet plane's send buffers come on top (all sizes stand below, in Buffers). The \
         eBPF plane has no buffer.\n\
         - **Buffers hide a loss in a short run**: a relay that passes on less than comes in loses \
         nothing until they are full. Such runs are marked `behind`; more `PER_STREAM_PACKETS` show it.\n\
         - Configured streams are counted at the relay before each load; a missing one is an error.\n\
         - {changed}\n\
         - CPU of the machine is the time in which no CPU was idle. What a relay costs is that, less \
         the bare path's for every packet sent (median of its runs), for every packet that arrived. \
         Work that the kernel does in the sender's time counts to the relay that way.",
        setting("per_stream_packets"),
        setting("packet_size"),
        setting("gso"),
        setting("instrument_nice"),
        setting("repeats"),
        match setting("socat_rcvbuf") {
            "default" => "the system's default".to_owned(),
            bytes => format!("{bytes} bytes"),
        },
        match setting("socat_rcvbuf") {
            "default" => format!(
                "So has the packet plane its own: 64 MiB of receive ring for each of {workers} workers."
            ),
            _ => format!(
                "The receive rings of the packet plane ({workers} workers) get no more together than all \
                 socats are granted together, but 1 MiB for each worker at least, which is more with \
                 few streams, and 64 MiB for each worker at most."
            ),
        },
    )
}

/// What each relay comes to: over the series of stream counts, and on the row at a rate of its own.
fn summary(rows: &[Row]) -> String {
    let mut relays = Vec::new();
    for row in rows.iter().filter(|row| !row.is_bare()) {
        if !relays.contains(&&row.relay) {
            relays.push(&row.relay);
        }
    }
    let mut text = String::new();
    for relay in relays {
        let rows = rows.iter().filter(|row| row.relay == *relay);
        let (series, others): (Vec<_>, Vec<_>) = rows.partition(|row| row.in_series);
        let mut facts = Vec::new();
        if let (Some(first), Some(last)) = (series.first(), series.last()) {
            facts.push(match series.iter().find(|row| row.has_lost()) {
                Some(row) => format!(
                    "first loses at {} streams: {}{}",
                    row.streams,
                    loss(row),
                    if row.has_lost_disturbed() { ", in disturbed runs only" } else { "" },
                ),
                None => format!(
                    "lost nothing that the path carried, {} to {} streams, at up to {:.0} packets/s",
                    first.streams,
                    last.streams,
                    series.iter().filter_map(|row| rate(row)).fold(0.0, f64::max),
                ),
            });
            facts.extend(from(&series, Repeat::is_path_limited, "the path itself loses"));
            facts.extend(from(
                &series,
                Repeat::is_behind,
                "it is behind, and a longer run would lose",
            ));
            facts.extend(from(&series, Repeat::is_slowed, "it slows the sender down"));
        }
        let all = series.iter().chain(&others);
        let (disturbed, runs) = all.fold((0, 0), |(disturbed, runs), row| {
            (disturbed + row.count(Repeat::is_disturbed), runs + row.repeats.len())
        });
        if disturbed > 0 {
            facts.push(format!("{disturbed} of its {runs} runs were disturbed from outside"));
        }
        facts.extend(others.iter().map(|row| {
            format!(
                "asked for {}/s on {} streams: {}",
                row.streams * row.rate,
                row.streams,
                loss(row)
            )
        }));
        let _ = writeln!(text, "- **{relay}** {}.", facts.join("; "));
    }
    text
}

fn loss(row: &Row) -> String {
    format!(
        "{} % lost (worst {} %) at {:.0}/s",
        (by_key("loss_percent").text)(row),
        (by_key("loss_percent_worst").text)(row),
        rate(row).unwrap_or_default(),
    )
}

fn rate(row: &Row) -> Option<f64> {
    row.median(|repeat| Some(repeat.run.achieved_rate))
}

/// The count from which on something holds for most runs of every row.
fn from(series: &[&Row], condition: fn(&Repeat) -> bool, what: &str) -> Option<String> {
    let holds = |row: &&&Row| row.count(condition) * 2 > row.repeats.len();
    let first = series.iter().rev().take_while(holds).last()?;
    Some(format!("from {} streams on {what}", first.streams))
}

fn table<'a>(rows: impl Iterator<Item = &'a Row>, keys: &[&str]) -> String {
    let columns = keys.iter().map(|key| by_key(key)).collect::<Vec<_>>();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.iter().map(|column| column.heading.to_owned()).collect());
    text += &line(columns.iter().map(|_| "---".to_owned()).collect());
    for row in rows {
        text += &line(columns.iter().map(|column| cell(&(column.text)(row))).collect());
    }
    text
}

fn cell(text: &str) -> String {
    if text.is_empty() { "–".into() } else { text.into() }
}

/// For every row that lost or dropped: where, summed up over its runs.
fn drops(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut places: BTreeMap<&str, u64> = BTreeMap::new();
        for (place, count) in row.repeats.iter().flat_map(|repeat| &repeat.run.drops) {
            *places.entry(place).or_default() += count;
        }
        let lost = row.repeats.iter().map(|repeat| repeat.run.lost).sum::<u64>();
        if places.is_empty() && lost == 0 {
            continue;
        }
        let places = places.iter().map(|(place, count)| format!("{place} {count}"));
        let places = places.collect::<Vec<_>>().join("; ");
        let _ = writeln!(
            text,
            "- {} streams, {}/s, {}: {lost} lost in all runs; {}",
            row.streams,
            row.streams * row.rate,
            row.relay,
            if places.is_empty() { "no counter of the kernel says where" } else { &places },
        );
    }
    if text.is_empty() {
        return "Nowhere: no packet was lost, and no counter moved.".into();
    }
    text + "\nOne packet may stand in two counters: a full socket is also an error of its UDP stack \
            (`RcvbufErrors`). `softnet_stat` is that of the whole host."
}

/// What was asked for and granted: a line for each relay and kind.
fn buffers(rows: &[&Row]) -> String {
    let text = |value: &serde_json::Value| value.to_string().replace('"', "");
    let mut lines: BTreeMap<String, BTreeSet<(u64, String)>> = BTreeMap::new();
    for row in rows {
        for (what, buffer) in row.repeats.iter().flat_map(|repeat| &repeat.run.buffers) {
            let sizes = format!("{} / {}", text(&buffer.asked), text(&buffer.granted));
            let line = lines.entry(format!("{}, {what}", row.relay)).or_default();
            line.insert((row.streams, sizes));
        }
    }
    let mut text = String::new();
    for (what, counts) in lines {
        let list = counts.iter().map(|(streams, sizes)| format!("{streams} streams {sizes}"));
        let list = list.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "- {what}, all together, asked / granted: {list}");
    }
    let sink = rows.iter().flat_map(|row| &row.repeats).find_map(|repeat| repeat.run.sink_rcvbuf);
    if let Some(bytes) = sink {
        let _ = writeln!(text, "- sink, receive buffer of each socket: {bytes} bytes granted");
    }
    text
}

fn command(test: &Test) -> String {
    let settings = settings(test);
    let max = test.setting("max_streams");
    let argument = if max.is_empty() { String::new() } else { format!(" {max}") };
    let words =
        settings.as_object().into_iter().flatten().filter(|(name, _)| *name != "max_streams");
    let words = words.map(|(name, value)| {
        let value = value.as_str().unwrap_or_default();
        let name = name.to_uppercase();
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        // For a shell, which ends a quotation at any quote.
        let quoted = || format!("'{}'", value.replace('\'', r"'\''"));
        format!("{name}={}", if plain { value.to_owned() } else { quoted() })
    });
    format!(
        "As root, on a machine with nothing else to do:\n\n```sh\n{} \\\n    \
         tests/performance/multi_stream_scaling.sh{argument}\n```",
        words.collect::<Vec<_>>().join(" ")
    )
}

const RATE: &str = "Read the two together: where a relay takes so much CPU that the sender cannot send, it \
loses little, and little arrives.";

const MARKS: &str = "Sent and received are medians; `worst` is the worst run. Marks, with the number \
of runs: `path-limited`: the bare path itself lost; `sender-limited`: the sender did not reach 95 % of \
the rate asked for, relay or not; `slowed`: with this relay the sender reached less than 95 % of what it \
reached without one; `behind`: one packet in a hundred took more than 100 ms, because the relay passes on \
less than comes in and its buffers were filling when the run ended; `disturbed`: processes outside the test, or \
the hypervisor, took more than 5 % of the machine; `apart`: more than 0.1 s passed between the start of the first \
sender and that of the last; `ended`: processes of the relay ended by themselves.";

const COSTS: &str = "CPU in seconds for a million packets, which is microseconds for each. `relay's processes` \
is what user space shows, next to nothing for the eBPF plane, which works in the sender's time: \
`beyond bare path` has all of it. `± bare path` is half the range of the bare path's runs; where less than \
that was added there is no factor, nor where a relay has a single run, whose noise is not known; points at or below 0 are not in the picture. `others' CPU %` is what processes outside the test and the hypervisor took of the \
machine, in the worst run. `resident` counts memory \
that processes share once for each of them, `shared once` does not; the packet plane's rings are part of \
both. Kernel memory is the growth of the slab of the whole machine while the relay started and was configured, \
read when it stands still, the relay's processes included; the eBPF plane's maps are no part of it. It is \
shown where it is more in every run than the slab moved in any run of the bare path, which needs none; \
`–` is below this noise. `start` is from \
nothing to a relay that answers, `configure` from there to all streams in place; a socat does both at once.";
