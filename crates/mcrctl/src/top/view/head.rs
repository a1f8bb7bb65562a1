//! The head: what the daemon is and does, and what was lost before MCR could see it.

use mcr_core::api::Dropped;
use ratatui::text::{Line, Span, Text};

use super::super::ink::Ink;
use super::super::model::Model;
use super::super::reply::lost_before;
use super::super::text::{clock, cut, grouped, si};

pub(super) fn lines(model: &Model, width: usize, ink: Ink) -> Text<'static> {
    Text::from(vec![daemon(model, width, ink), inputs(model, width, ink)])
}

/// In the longest form that fits.
fn daemon(model: &Model, width: usize, ink: Ink) -> Line<'static> {
    let status = &model.status;
    let mut start = vec![
        Span::styled(ink.plain(&status.instance), ink.head()),
        Span::raw(format!(" {}/{}", status.plane, status.attach)),
    ];
    if model.paused {
        start.push(Span::styled("  PAUSED", ink.warning()));
    }
    let (packets, bits) = model.total();
    start.push(Span::raw(format!("  {}pps {}bit/s in  ", unit(packets), unit(bits))));
    let time = Span::styled(format!("  {}", clock(&model.time)), ink.dim());
    let version = Span::styled(format!("  {}", ink.plain(&status.version)), ink.dim());
    let end = [time, version];
    let form = |short, end: &[Span<'static>]| {
        Line::from([&start, states(model, short, ink).as_slice(), end].concat())
    };
    let forms = [form(false, &end), form(true, &end), form(true, &end[..1])];
    let fits = forms.into_iter().find(|line| line.width() <= width);
    fits.unwrap_or_else(|| form(true, &[]))
}

/// With a space before the unit where there is no prefix: `0 `, `1.23 k`.
pub(super) fn unit(value: f64) -> String {
    let text = si(value);
    if text.ends_with(|c: char| c.is_ascii_digit()) { text + " " } else { text }
}

/// `5 rules: 1 failed 4 forwarding`; those that need somebody first.
fn states(model: &Model, short: bool, ink: Ink) -> Vec<Span<'static>> {
    let (_, all) = model.counts();
    let mut spans = vec![Span::raw(crate::show::counted(all, "rule"))];
    let states = [
        ("failed", "fail"),
        ("waiting", "wait"),
        ("forwarding", "fwd"),
        ("idle", "idle"),
        ("disabled", "off"),
    ];
    let count = |state: &str| model.status.states.get(state).copied().filter(|count| *count > 0);
    let present = states.into_iter().filter_map(|(long, brief)| Some((long, brief, count(long)?)));
    for (place, (long, brief, count)) in present.enumerate() {
        spans.push(Span::raw(if place == 0 { ": " } else { " " }));
        let name = if short { brief } else { long };
        spans.push(Span::styled(format!("{count} {name}"), ink.state(long)));
    }
    spans
}

/// That nobody answers, or what was lost before each input.
fn inputs(model: &Model, width: usize, ink: Ink) -> Line<'static> {
    if let Some((silent, why)) = model.silence() {
        let text = format!("no answer for {} s: {}", silent.as_secs(), ink.plain(why));
        return Line::styled(cut(&text, width, ink), ink.bad());
    }
    let interfaces = &model.status.interfaces;
    if lost_before(&model.status) == 0 {
        let names: Vec<&str> = interfaces.iter().map(|input| input.name.as_str()).collect();
        let text = match names.as_slice() {
            [] => "no inputs".to_owned(),
            names => format!("inputs: {}; nothing lost before MCR", names.join(", ")),
        };
        return Line::styled(cut(&text, width, ink), ink.dim());
    }
    let softnet = model.status.softnet_dropped.unwrap_or_default();
    let softnet = Dropped::from([("softnet".to_owned(), softnet)]);
    let places = interfaces.iter().map(|input| (input.name.as_str(), &input.lost_before));
    let parts: Vec<String> = places
        .chain([("host", &softnet)])
        .filter(|(_, reasons)| reasons.values().any(|count| *count > 0))
        .map(|(name, reasons)| format!("{name} {}", reason_list(reasons)))
        .collect();
    let pace =
        if model.lost_pace > 0.0 { format!(" ({}/s)", si(model.lost_pace)) } else { String::new() };
    let text = format!("lost before MCR{pace}: {}", parts.join(", "));
    Line::styled(cut(&text, width, ink), ink.warning())
}

/// `nic-missed=12 ring=1 234`.
fn reason_list(reasons: &Dropped) -> String {
    let present = reasons.iter().filter(|(_, count)| **count > 0);
    let parts: Vec<String> =
        present.map(|(reason, count)| format!("{reason}={}", grouped(*count))).collect();
    parts.join(" ")
}
