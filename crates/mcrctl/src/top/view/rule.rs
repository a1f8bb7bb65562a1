//! The page of one rule: everything that is known about it.

use mcr_core::api::{Dropped, OutputStats, RuleStats, SenderStats};
use mcr_core::flow::{Destination, Input};
use mcr_core::loss::Loss;
use mcr_core::verdict::{OutputDrop, RuleDrop};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::super::ink::Ink;
use super::super::model::Model;
use super::super::row::{Pace, Row};
use super::super::text::{age, between, graph, grouped, si, wrapped};
use super::{head, list};
use crate::show::counted;

pub(super) fn lines(model: &Model, width: usize, ink: Ink) -> Vec<Line<'static>> {
    let mut page = Page { lines: Vec::new(), width, ink };
    match model.selected() {
        Some(row) => page.rule(model, row),
        None => {
            let text = format!("the rule {} is gone; Esc goes back", model.selected_name());
            page.text("", &text, ink.warning());
        }
    }
    page.lines
}

struct Page {
    lines: Vec<Line<'static>>,
    width: usize,
    ink: Ink,
}

impl Page {
    fn rule(&mut self, model: &Model, row: &Row) {
        let stats = &row.stats;
        self.about(model, row);
        self.count("received", stats.received.packets, stats.received.bytes, Some(row.pace));
        self.count("matched", stats.matched.packets, stats.matched.bytes, None);
        let rule = |reason: &str| RuleDrop::ALL.into_iter().find(|drop| drop.name() == reason);
        self.reasons("dropped", &stats.dropped, |reason| rule(reason).map(RuleDrop::help));
        self.text("last", &last_packet(model, row), Style::new());
        self.senders(model, &stats.senders);
        for line in figures(&row.found.inspect) {
            self.text("inspected", &line, Style::new());
        }
        self.lines.push(Line::default());
        self.graph(row);
        for output in &stats.outputs {
            self.lines.push(Line::default());
            self.output(row, output);
        }
    }

    /// What it is and how it is.
    fn about(&mut self, model: &Model, row: &Row) {
        let (stats, ink) = (&row.stats, self.ink);
        let RuleStats { name, state, reason, since, .. } = stats;
        self.lines.push(Line::from(vec![
            Span::styled(ink.plain(name), ink.head()),
            Span::raw("  "),
            Span::styled(ink.plain(state), ink.state(state)),
            Span::styled(format!("  since {}", ink.plain(since)), ink.dim()),
        ]));
        if let Some(reason) = reason {
            self.text("reason", reason, ink.state(state));
        }
        let Some(view) = model.view(row) else { return };
        for warning in &view.warnings {
            self.text("warning", warning, ink.warning());
        }
        if let Some(comment) = &view.rule.comment {
            self.text("comment", comment, Style::new());
        }
        let sources = view.rule.sources.join(", ");
        let from = if sources.is_empty() { sources } else { format!("  from {sources}") };
        let of = &view.origin;
        self.text("input", &format!("{}{from}  ({of})", view.rule.input), Style::new());
        let Ok(Input { interface, .. }) = view.rule.input.parse::<Input>() else { return };
        let mut inputs = model.status.interfaces.iter();
        if let Some(input) = inputs.find(|input| input.name == interface.as_str()) {
            let loss = |reason: &str| Loss::ALL.into_iter().find(|loss| loss.name() == reason);
            self.reasons("lost before", &input.lost_before, |reason| loss(reason).map(Loss::help));
        }
    }

    fn graph(&mut self, row: &Row) {
        let ink = self.ink;
        let values = row.history.last(self.width);
        let highest = row.history.last(self.width).flatten().fold(0.0, f32::max);
        let (looks, highest) = (counted(values.len(), "look"), head::unit(highest.into()));
        let text = format!("{highest}pps at most, in the last {looks}");
        self.lines.push(Line::styled(text, ink.dim()));
        let drawn = graph(values, (self.width, GRAPH), ink);
        self.lines.extend(drawn.into_iter().map(|row| Line::styled(row, ink.graph())));
    }

    fn output(&mut self, row: &Row, output: &OutputStats) {
        let ink = self.ink;
        self.lines
            .push(Line::styled(format!("{} {}", ink.arrow(), ink.plain(&output.to)), ink.head()));
        let pace = row.output_pace(output);
        self.count("offered", output.offered.packets, output.offered.bytes, None);
        self.count("forwarded", output.forwarded.packets, output.forwarded.bytes, pace);
        let drop = |reason: &str| OutputDrop::ALL.into_iter().find(|drop| drop.name() == reason);
        self.reasons("dropped", &output.dropped, |reason| drop(reason).map(OutputDrop::help));
        if let Some(pace) = pace.filter(|pace| pace.missing > 0.0) {
            self.text("", &format!("{} dropped a second", si(pace.missing)), ink.warning());
        }
        if output.interface_dropped > 0 {
            let to = output.to.parse::<Destination>().ok().and_then(|to| to.interface);
            let name = to.map_or_else(|| "the interface".into(), |name| name.to_string());
            let dropped = grouped(output.interface_dropped);
            let text = format!("{name} itself has dropped {dropped} packets, of all its traffic");
            self.text("", &text, ink.warning());
        }
    }

    fn count(&mut self, label: &str, packets: u64, bytes: u64, pace: Option<Pace>) {
        let (packets, bytes) = (grouped(packets), grouped(bytes));
        let mut text = format!("{packets:>15} packets{bytes:>20} B");
        if let Some(pace) = pace {
            text += &format!("  {}pps {}bit/s", head::unit(pace.packets), head::unit(pace.bits));
        }
        self.lines.push(Line::from(format!("{label:<LABEL$}{text}")));
    }

    /// A line for each reason, and what it means.
    fn reasons(
        &mut self,
        label: &str,
        reasons: &Dropped,
        help: impl Fn(&str) -> Option<&'static str>,
    ) {
        let ink = self.ink;
        let mut present = reasons.iter().filter(|(_, count)| **count > 0).peekable();
        let line = |count: &str| format!("{label:<LABEL$}{count:>15}");
        if present.peek().is_none() {
            self.lines.push(Line::styled(line("0"), ink.dim()));
        }
        for (reason, count) in present {
            let text = format!("{} {}", line(&grouped(*count)), ink.plain(reason));
            self.lines.push(Line::styled(text, ink.warning()));
            if let Some(help) = help(reason) {
                self.text("", help, ink.dim());
            }
        }
    }

    fn senders(&mut self, model: &Model, senders: &[SenderStats]) {
        for SenderStats { address, packets, last_seen } in senders {
            let seen = between(last_seen, &model.time);
            let seen = seen.map_or_else(String::new, |seen| format!("  {} ago", age(seen)));
            let text = format!("{address}  {} packets{seen}", grouped(*packets));
            self.text("sender", &text, Style::new());
        }
    }

    /// A label and a text in as many lines as it needs.
    fn text(&mut self, label: &str, text: &str, style: Style) {
        let text = self.ink.plain(text);
        for (place, part) in
            wrapped(&text, self.width.saturating_sub(LABEL)).into_iter().enumerate()
        {
            let label = if place == 0 { label } else { "" };
            let label = Span::raw(format!("{label:<LABEL$}"));
            self.lines.push(Line::from(vec![label, Span::styled(part, style)]));
        }
    }
}

fn last_packet(model: &Model, row: &Row) -> String {
    match &row.stats.last_packet {
        None => "no packet has come yet".into(),
        Some(at) => format!("{at}  {} ago", list::last(model, row)),
    }
}

/// Each number and word of an object, a line for each object in it.
fn figures(found: &Value) -> Vec<String> {
    let (mut own, mut inner) = (Vec::new(), Vec::new());
    let mut below = |key: &str, value: &Value| {
        inner.extend(figures(value).into_iter().map(|line| format!("{key}: {line}")));
    };
    for (key, value) in found.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => below(key, value),
            Value::Array(list) => list.iter().for_each(|value| below(key, value)),
            Value::String(word) => own.push(format!("{key} {word}")),
            Value::Number(_) | Value::Bool(_) => own.push(format!("{key} {value}")),
            Value::Null => {}
        }
    }
    let own = (!own.is_empty()).then(|| own.join(", "));
    own.into_iter().chain(inner).collect()
}

/// Room for a label.
const LABEL: usize = 12;
/// Lines of the graph.
const GRAPH: usize = 4;
