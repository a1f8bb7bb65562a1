//! What `mcrgen` prints: one JSON object, or a few lines for people, on stdout; and a progress line
//! on stderr if that is a terminal.

use std::cmp::Reverse;
use std::io::{IsTerminal as _, Write, stderr, stdout};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::tally::{Arrivals, Tally, WINDOW_US, latencies};

#[cfg(test)]
mod tests;

/// What a sender did.
#[derive(Debug, Serialize)]
pub(crate) struct SendReport {
    /// Seconds since 1970.
    pub(crate) started: f64,
    pub(crate) streams: u32,
    /// Packets that the kernel took.
    pub(crate) sent: u64,
    /// Packets that it did not take, each lost.
    pub(crate) send_errors: u64,
    pub(crate) last_error: Option<String>,
    /// UDP payload.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Packets per second, all streams; `asked_rate` 0 is unpaced.
    pub(crate) rate: f64,
    pub(crate) asked_rate: u64,
    pub(crate) cpu_seconds: f64,
}

impl SendReport {
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        let mut out = stdout().lock();
        if json {
            return print_json(&mut out, self);
        }
        let Self {
            streams, sent, send_errors, bytes, seconds, rate, asked_rate, cpu_seconds, ..
        } = self;
        writeln!(out, "{streams} streams: sent {sent} packets, {bytes} bytes in {seconds:.3} s")?;
        writeln!(out, "{rate:.0} packets/s (asked: {asked_rate}), {cpu_seconds:.2} s of CPU")?;
        if let Some(error) = &self.last_error {
            writeln!(out, "{send_errors} packets could not be sent, the last: {error}")?;
        }
        Ok(())
    }
}

/// What came of all streams.
#[derive(Debug, Serialize)]
pub(crate) struct RecvReport {
    pub(crate) streams: usize,
    /// Packets expected in total.
    pub(crate) expected: Option<u64>,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// Bytes of receive buffer granted to each socket.
    pub(crate) rcvbuf: usize,
    /// From the first to the last packet.
    pub(crate) seconds: f64,
    /// Packets per second in that time.
    pub(crate) rate: f64,
    pub(crate) longest_burst: Burst,
    /// The stream that lost most, if any lost.
    pub(crate) worst_stream: Option<StreamReport>,
    /// Whether every packet has come.
    pub(crate) complete: bool,
    pub(crate) cpu_seconds: f64,
    pub(crate) per_stream: Vec<StreamReport>,
}

/// The most packets, of all streams, whose receive stamps fall in one window of a fixed grid.
#[derive(Debug, Serialize)]
pub(crate) struct Burst {
    packets: u32,
    window_us: u64,
}

/// What came of one stream.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StreamReport {
    stream: u32,
    address: SocketAddr,
    #[serde(flatten)]
    counts: Counts,
}

/// Counts of packets, of one stream or the sum of all; the fields of [`Tally`].
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counts {
    received: u64,
    lost: u64,
    loss_percent: f64,
    duplicated: u64,
    reordered: u64,
    corrupt: u64,
    foreign: u64,
    surplus: u64,
    socket_drops: u64,
    bytes: u64,
    latency_us: Option<Latency>,
    /// p99.9 - min (RFC 5481 section 4.2).
    delay_variation_us: Option<f64>,
}

/// Microseconds from the sender's stamp to the kernel's receive stamp.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    min: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl RecvReport {
    /// Sums up the streams; what they have not in common is for the caller to fill in.
    pub(crate) fn new(streams: Vec<StreamReport>, tallies: &[Tally], arrivals: &Arrivals) -> Self {
        let mut latency = latencies();
        for tally in tallies {
            latency.add(&tally.latency).expect("all histograms have the same bounds");
        }
        let counts = Counts::sum(streams.iter().map(|stream| &stream.counts), &latency);
        let seconds = arrivals.seconds();
        let packets = counts.received + counts.duplicated;
        Self {
            streams: streams.len(),
            expected: None,
            rcvbuf: 0,
            seconds,
            rate: if seconds > 0.0 { packets.saturating_sub(1) as f64 / seconds } else { 0.0 },
            longest_burst: Burst { packets: arrivals.longest_burst(), window_us: WINDOW_US },
            worst_stream: worst(&streams).first().map(|stream| (*stream).clone()),
            complete: counts.lost == 0 && counts.received > 0,
            cpu_seconds: 0.0,
            per_stream: streams,
            counts,
        }
    }

    /// Nothing lost, duplicate, corrupt or foreign. Order is not judged.
    pub(crate) fn is_good(&self) -> bool {
        let Counts { duplicated, corrupt, foreign, .. } = self.counts;
        self.complete && duplicated + corrupt + foreign == 0
    }

    pub(crate) fn print(&self, json: bool, every_stream: bool) -> Result<()> {
        let mut out = stdout().lock();
        if json { print_json(&mut out, self) } else { self.write_text(&mut out, every_stream) }
    }

    fn write_text(&self, out: &mut impl Write, every_stream: bool) -> Result<()> {
        let Self { streams, counts, seconds, rate, longest_burst, rcvbuf, cpu_seconds, .. } = self;
        let expected = self.expected.map_or(String::new(), |expected| format!(" of {expected}"));
        writeln!(out, "{streams} streams{expected}: {}", counts.text())?;
        writeln!(out, "{seconds:.3} s, {rate:.0} packets/s, {} bytes", counts.bytes)?;
        if let (Some(latency), Some(variation)) = (&counts.latency_us, counts.delay_variation_us) {
            let Latency { min, p50, p99, p999, max } = latency;
            writeln!(
                out,
                "latency in µs: min {min:.1}, p50 {p50:.1}, p99 {p99:.1}, p99.9 {p999:.1}, \
                 max {max:.1}; variation (p99.9 - min) {variation:.1}"
            )?;
        }
        let Burst { packets, window_us } = longest_burst;
        writeln!(out, "longest burst: {packets} packets within {window_us} µs")?;
        writeln!(
            out,
            "this receiver: {} dropped at its sockets, {rcvbuf} bytes of buffer each, \
             {cpu_seconds:.2} s of CPU",
            counts.socket_drops
        )?;
        let listed = if every_stream {
            self.per_stream.iter().collect()
        } else {
            let mut worst = worst(&self.per_stream);
            worst.truncate(LISTED);
            worst
        };
        for StreamReport { stream, address, counts } in listed {
            writeln!(out, "stream {stream} {address}: {}", counts.text())?;
        }
        Ok(())
    }
}

impl StreamReport {
    pub(crate) fn new(stream: u32, address: SocketAddr, tally: &Tally, socket_drops: u64) -> Self {
        let mut counts = Counts {
            received: tally.received,
            lost: tally.lost(),
            duplicated: tally.duplicated,
            reordered: tally.reordered,
            corrupt: tally.corrupt,
            foreign: tally.foreign,
            surplus: tally.surplus,
            socket_drops,
            bytes: tally.bytes,
            ..Counts::default()
        };
        counts.derive(&tally.latency);
        Self { stream, address, counts }
    }
}

impl Counts {
    fn sum<'a>(streams: impl Iterator<Item = &'a Self>, latency: &Histogram<u32>) -> Self {
        let mut sum = Self::default();
        for counts in streams {
            sum.received += counts.received;
            sum.lost += counts.lost;
            sum.duplicated += counts.duplicated;
            sum.reordered += counts.reordered;
            sum.corrupt += counts.corrupt;
            sum.foreign += counts.foreign;
            sum.surplus += counts.surplus;
            sum.socket_drops += counts.socket_drops;
            sum.bytes += counts.bytes;
        }
        sum.derive(latency);
        sum
    }

    fn derive(&mut self, latency: &Histogram<u32>) {
        let all = self.received + self.lost;
        self.loss_percent = if all > 0 { self.lost as f64 * 100.0 / all as f64 } else { 0.0 };
        if !latency.is_empty() {
            let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
            let (min, max) = (latency.min() as f64 / 1000.0, latency.max() as f64 / 1000.0);
            let latency = Latency { min, p50: at(0.5), p99: at(0.99), p999: at(0.999), max };
            self.delay_variation_us = Some(latency.p999 - latency.min);
            self.latency_us = Some(latency);
        }
    }

    /// Everything but order, which is no fault.
    fn faults(&self) -> u64 {
        self.lost + self.duplicated + self.corrupt + self.foreign
    }

    fn text(&self) -> String {
        let Self { received, lost, loss_percent, duplicated, reordered, .. } = self;
        let Self { corrupt, foreign, surplus, .. } = self;
        let mut text = format!(
            "received {received}, lost {lost} ({loss_percent:.4} %), duplicated {duplicated}, \
             reordered {reordered}, corrupt {corrupt}, foreign {foreign}"
        );
        if *surplus > 0 {
            text += &format!(", surplus {surplus}");
        }
        text
    }
}

/// A line on stderr that is written over once a second; nothing if stderr is no terminal.
pub(crate) struct Progress {
    next: Option<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { next: stderr().is_terminal().then(|| Instant::now() + PROGRESS) }
    }

    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        if let Some(next) = self.next.filter(|next| *next <= Instant::now()) {
            self.next = Some(next + PROGRESS);
            // Progress is a courtesy: a closed terminal is no reason to stop.
            let _ = write!(stderr(), "\r{}\x1b[K\r", text());
        }
    }
}

/// The streams with faults, the worst first.
fn worst(streams: &[StreamReport]) -> Vec<&StreamReport> {
    let mut worst: Vec<_> = streams.iter().filter(|stream| stream.counts.faults() > 0).collect();
    worst.sort_by_key(|stream| Reverse((stream.counts.lost, stream.counts.faults())));
    worst
}

fn print_json(out: &mut impl Write, report: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)?;
    Ok(())
}

const PROGRESS: Duration = Duration::from_secs(1);
/// Streams listed in a text report.
const LISTED: usize = 5;
