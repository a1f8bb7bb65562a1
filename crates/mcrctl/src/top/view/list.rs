//! The list of rules: as many columns as fit, a line each, and a note about the selected one.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span, Text};

use super::super::ink::Ink;
use super::super::model::Model;
use super::super::row::Row;
use super::super::sort::Sort;
use super::super::text::{age, between, cut, graph, short, si};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &mut Model, ink: Ink) {
    let [heading, list, note] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
            .areas(area);
    let columns = Columns::of(model, usize::from(area.width));
    frame.render_widget(columns.heading(model, ink), heading);
    let window = model.window(usize::from(list.height));
    if window.is_empty() {
        frame.render_widget(Line::styled(nothing(model), ink.dim()), list);
        return;
    }
    let selected = model.place();
    let line = |place: usize| {
        let line = columns.line(model, model.at(place)?, ink);
        Some(if place == selected { line.patch_style(ink.selected()) } else { line })
    };
    frame.render_widget(Text::from_iter(window.filter_map(line)), list);
    frame.render_widget(about(model, usize::from(note.width), ink), note);
}

fn nothing(model: &Model) -> &'static str {
    if model.counts().1 == 0 {
        "no rules; `mcrctl add` makes one"
    } else {
        "no rule has that in its name, input, outputs or state; Esc shows all"
    }
}

/// Why the selected rule does not run, or where it leads.
fn about(model: &Model, width: usize, ink: Ink) -> Line<'static> {
    let Some(row) = model.selected() else { return Line::default() };
    if let Some(reason) = &row.stats.reason {
        let text = format!("{}: {reason}", row.stats.name);
        return Line::styled(cut(&ink.plain(&text), width, ink), ink.state(&row.stats.state));
    }
    let to: Vec<&str> = row.stats.outputs.iter().map(|output| output.to.as_str()).collect();
    let text = format!("{} {} {}", input(model, row), ink.arrow(), to.join(", "));
    Line::styled(cut(&text, width, ink), ink.dim())
}

fn input<'m>(model: &'m Model, row: &'m Row) -> &'m str {
    model.view(row).map_or("", |view| &view.rule.input)
}

/// Widths; a column with none is not there.
#[derive(Default)]
struct Columns {
    name: usize,
    bits: usize,
    graph: usize,
    missing: usize,
    last: usize,
    input: usize,
    output: usize,
}

impl Columns {
    /// What matters most comes first.
    fn of(model: &Model, width: usize) -> Self {
        let mut columns = Self::default();
        let mut left = width.saturating_sub(NAME + 1 + STATE + 1 + NUMBER);
        let mut take = |column: &mut usize, wanted: usize| {
            if left > wanted {
                *column = wanted;
                left -= wanted + 1;
            }
        };
        take(&mut columns.bits, BITS);
        take(&mut columns.missing, MISSING);
        take(&mut columns.last, LAST);
        take(&mut columns.graph, GRAPH);
        if width >= WIDE {
            take(&mut columns.input, FLOW);
            take(&mut columns.output, FLOW);
            take(&mut columns.graph, MINUTE - GRAPH - 1);
            columns.graph = if columns.graph > GRAPH { MINUTE } else { GRAPH };
        }
        columns.name = NAME;
        columns.share(model.longest(), left);
        columns
    }

    /// Gives what is left, a character at a time, to those that need more; the rest to what is missing.
    fn share(&mut self, [name, input, output]: [usize; 3], mut left: usize) {
        let mut needs = [
            (&mut self.name, name),
            (&mut self.input, input),
            (&mut self.output, output),
            (&mut self.missing, MISSING_IN_FULL),
        ];
        let needs = &mut needs;
        loop {
            let before = left;
            for (width, need) in &mut *needs {
                if left > 0 && **width > 0 && **width < *need {
                    **width += 1;
                    left -= 1;
                }
            }
            if left == before {
                break;
            }
        }
        if self.missing > 0 {
            self.missing += left;
        }
    }

    fn heading(&self, model: &Model, ink: Ink) -> Line<'static> {
        let sorted = |text: &str, column: Sort| {
            let mark = (model.sort == column).then(|| ink.sorted(model.reversed));
            text.chars().chain(mark).collect::<String>()
        };
        let cells = [
            Some(left(&sorted("NAME", Sort::Name), self.name)),
            (self.input > 0).then(|| left("INPUT", self.input)),
            (self.output > 0).then(|| left("OUTPUT", self.output)),
            Some(left(&sorted("STATE", Sort::State), STATE)),
            Some(right(&sorted("PACKETS/S", Sort::Packets), NUMBER)),
            (self.bits > 0).then(|| right(&sorted("BITS/S", Sort::Bits), self.bits)),
            (self.graph > 0).then(|| left("", self.graph)),
            (self.missing > 0).then(|| left(&sorted("LOSS/DROPS", Sort::Missing), self.missing)),
            (self.last > 0).then(|| right(&sorted("LAST", Sort::Last), self.last)),
        ];
        let cells: Vec<String> = cells.into_iter().flatten().collect();
        Line::styled(cells.join(" "), ink.head())
    }

    fn line(&self, model: &Model, row: &Row, ink: Ink) -> Line<'static> {
        let stats = &row.stats;
        let text = |text: &str, width| left(&cut(&ink.plain(text), width, ink), width);
        let mut spans = vec![Span::raw(text(&stats.name, self.name))];
        let mut add = |width: usize, span: Span<'static>| {
            if width > 0 {
                spans.extend([Span::raw(" "), span]);
            }
        };
        add(self.input, Span::raw(text(input(model, row), self.input)));
        add(self.output, Span::raw(text(&row.first_output(), self.output)));
        add(STATE, Span::styled(text(&stats.state, STATE), ink.state(&stats.state)));
        add(NUMBER, Span::raw(right(&si(row.pace.packets), NUMBER)));
        add(self.bits, Span::raw(right(&si(row.pace.bits), self.bits)));
        // Where nothing comes, why is worth more than how much.
        if let Some(reason) = stats.reason.as_ref().filter(|_| row.pace.packets == 0.0) {
            let widths = [self.graph, self.missing, self.last];
            let gaps = widths.iter().filter(|width| **width > 0).count().saturating_sub(1);
            let width = widths.iter().sum::<usize>() + gaps;
            add(width, Span::styled(text(reason, width), ink.state(&stats.state)));
            return Line::from(spans);
        }
        let values = row.history.last(self.graph);
        let drawn = graph(values, (self.graph, 1), ink).concat();
        add(self.graph, Span::styled(drawn, ink.graph()));
        let style = if row.pace.missing > 0.0 { ink.warning() } else { Default::default() };
        add(self.missing, Span::styled(text(&main_reason(row), self.missing), style));
        add(self.last, Span::raw(right(&last(model, row), self.last)));
        Line::from(spans)
    }
}

/// `mtu=12`, `mtu=1.23k 30/s (+1)`, or `-`.
fn main_reason(row: &Row) -> String {
    let Some((reason, count, pace, others)) = row.main_reason() else { return "-".into() };
    let mut text = format!("{reason}={}", short(count));
    if pace > 0.0 {
        text += &format!(" {}/s", si(pace).replace(' ', ""));
    }
    if others > 0 {
        text += &format!(" (+{others})");
    }
    text
}

/// How long ago the last packet came, at the last look.
pub(super) fn last(model: &Model, row: &Row) -> String {
    let silent = row.stats.last_packet.as_ref().map(|last| between(last, &model.time));
    match silent {
        None => "never".into(),
        Some(None) => "?".into(),
        Some(Some(silent)) => age(silent),
    }
}

fn left(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

/// The least that a name gets.
const NAME: usize = 12;
const STATE: usize = 10;
/// A number, or its heading with a mark.
const NUMBER: usize = 10;
const BITS: usize = 7;
const MISSING: usize = 14;
/// `no-neighbour=1.23M 1.23M/s (+1)` is longer, and rare.
const MISSING_IN_FULL: usize = 26;
const LAST: usize = 5;
const GRAPH: usize = 10;
/// A look a second for a minute.
const MINUTE: usize = 60;
/// The least that an input or an output gets.
const FLOW: usize = 20;
/// Where inputs and outputs come in.
const WIDE: usize = 120;
