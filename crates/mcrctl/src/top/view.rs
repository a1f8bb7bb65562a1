//! Draws the model: a head of two lines, the list or a page, a note, and the keys.

mod head;
mod help;
mod list;
mod rule;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

use super::ink::Ink;
use super::model::{Model, Screen};
use super::text::cut;

pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model, ink: Ink) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(head::lines(model, usize::from(head.width), ink), head);
    match model.screen {
        Screen::Rules | Screen::Filter => list::draw(frame, body, model, ink),
        Screen::Rule => page(frame, body, model, rule::lines(model, body.width.into(), ink)),
        Screen::Help => page(frame, body, model, help::lines(ink)),
    }
    frame.render_widget(foot_line(model, usize::from(foot.width), ink), foot);
}

/// As many lines as fit, from where it is scrolled to.
fn page(frame: &mut Frame<'_>, area: Rect, model: &mut Model, lines: Vec<Line<'static>>) {
    let height = usize::from(area.height);
    let first = model.scroll_within(lines.len(), height);
    let seen: Vec<Line<'_>> = lines.into_iter().skip(first).take(height).collect();
    frame.render_widget(ratatui::text::Text::from(seen), area);
}

/// The keys, or what is typed.
fn foot_line(model: &Model, width: usize, ink: Ink) -> Line<'static> {
    let (shown, all) = model.counts();
    let right = match (model.filter.is_empty(), model.screen) {
        (_, Screen::Rule | Screen::Help) => {
            let read = model.read_so_far();
            read.map(|(line, all)| format!("line {line} of {all}")).unwrap_or_default()
        }
        (true, Screen::Rules | Screen::Filter) => {
            format!("{}/{all}", all.min(model.place() + 1))
        }
        (false, Screen::Rules | Screen::Filter) => format!("{shown} of {all}"),
    };
    let filter = ink.plain(&model.filter);
    let left = match model.screen {
        Screen::Filter => {
            return Line::from(vec![
                Span::styled(format!("/{filter}_"), ink.head()),
                Span::styled("  Enter keeps it, Esc clears it  ", ink.dim()),
                Span::raw(right),
            ]);
        }
        Screen::Rules if !model.filter.is_empty() => {
            format!("filter: {filter}  Esc clears it  / changes it  h help  q quit")
        }
        Screen::Rules => {
            "q quit  h help  / filter  s sort  r reverse  Enter one rule  p pause".to_owned()
        }
        Screen::Rule => "q quit  h help  Esc back  Up, Down scroll  p pause".to_owned(),
        Screen::Help => "any key: back".to_owned(),
    };
    let left = cut(&left, width.saturating_sub(right.chars().count() + 1), ink);
    let gap = width.saturating_sub(left.chars().count() + right.chars().count());
    Line::styled(format!("{left}{}{right}", " ".repeat(gap)), ink.dim())
}
