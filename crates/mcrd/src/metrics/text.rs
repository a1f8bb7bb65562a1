//! The two text formats that Prometheus reads: OpenMetrics 1.0 and the older plain one, 0.0.4.
//!
//! They differ in little: which name the head of a family has (in the plain format that of its
//! samples), types that the plain one lacks, units, and the end. What is written here is told once and
//! comes out in either, straight into the text.

use std::fmt::{Display, Write};

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format, 0.0.4.
    Plain,
}

impl Format {
    /// Its media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// What a client gets that accepts this (RFC 9110 §12.5.1): OpenMetrics, unless it likes plain text
    /// better, or is a browser, which would save what it does not know.
    pub(crate) fn accepted(accept: &str) -> Self {
        let (mut open, mut plain, mut any) = (None, None, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            let quality: f64 = quality.unwrap_or(1.0);
            let best = |known: Option<f64>| Some(known.unwrap_or(0.0).max(quality));
            match name.as_str() {
                "application/openmetrics-text" | "application/*" => open = best(open),
                "text/plain" | "text/html" | "text/*" => plain = best(plain),
                "*/*" => any = quality,
                _ => {}
            }
        }
        if plain.is_some_and(|plain| plain > open.unwrap_or(0.0) && plain >= any) {
            Self::Plain
        } else {
            Self::OpenMetrics
        }
    }
}

/// What the values of a metric are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows; its samples are called `..._total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1, for its labels; its samples are called `..._info`.
    Info,
}

/// A metric: everything about it but its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metric {
    /// Of the family: without `_total` and `_info`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// A sentence.
    pub(super) help: &'static str,
}

impl Metric {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    pub(super) const fn info(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Info, help }
    }

    /// What a sample's name has behind that of its family.
    pub(super) fn suffix(self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        }
    }

    fn unit(self) -> Option<&'static str> {
        ["bytes", "seconds"]
            .into_iter()
            .find(|unit| self.name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')))
    }
}

/// A text in the making.
#[derive(Debug)]
pub(super) struct Text {
    format: Format,
    text: String,
}

impl Text {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// All samples of a metric, each with labels and a value. One without samples is left out.
    pub(super) fn family(&mut self, metric: Metric) -> Family<'_> {
        Family { text: self, metric, begun: false }
    }

    /// The only sample of a metric without labels.
    pub(super) fn single(&mut self, metric: Metric, value: impl Display) {
        self.family(metric).put(&[], value);
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn head(&mut self, metric: Metric) {
        let Metric { name, kind, help } = metric;
        let (suffix, kind) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Format::OpenMetrics, Kind::Info) => ("", "info"),
            (Format::Plain, Kind::Counter) => (metric.suffix(), "counter"),
            (Format::Plain, Kind::Info) => (metric.suffix(), "gauge"),
            (_, Kind::Gauge) => ("", "gauge"),
        };
        self.line(format_args!("# HELP {name}{suffix} {help}"));
        self.line(format_args!("# TYPE {name}{suffix} {kind}"));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, metric.unit()) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
    }

    fn line(&mut self, line: impl Display) {
        self.write(line);
        self.text.push('\n');
    }

    fn write(&mut self, value: impl Display) {
        // A String takes everything.
        let _ = write!(self.text, "{value}");
    }

    fn escaped(&mut self, value: &str) {
        if !value.contains(['\\', '"', '\n']) {
            return self.text.push_str(value);
        }
        for letter in value.chars() {
            match letter {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }
}

/// A metric whose samples are being written.
pub(super) struct Family<'t> {
    text: &'t mut Text,
    metric: Metric,
    begun: bool,
}

impl Family<'_> {
    pub(super) fn put(&mut self, labels: &[(&str, &str)], value: impl Display) {
        if !self.begun {
            self.begun = true;
            self.text.head(self.metric);
        }
        self.text.text.push_str(self.metric.name);
        self.text.text.push_str(self.metric.suffix());
        let mut before = '{';
        for (label, value) in labels {
            self.text.text.push(before);
            self.text.text.push_str(label);
            self.text.text.push_str("=\"");
            self.text.escaped(value);
            self.text.text.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.text.text.push('}');
        }
        self.text.text.push(' ');
        self.text.line(value);
    }
}
