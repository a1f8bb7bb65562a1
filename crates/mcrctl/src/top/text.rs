//! Numbers, times, graphs and long lines as text of a given width. Pure.

use std::time::Duration;

use super::ink::Ink;

/// With three digits and a prefix of the SI: `0`, `1.5`, `999`, `1.23 k`, `12.3 M`, `123 G`.
pub(crate) fn si(value: f64) -> String {
    let (mut value, mut prefix) = (value.max(0.0), 0);
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        (value, prefix) = (value / 1000.0, prefix + 1);
    }
    let decimals = match (prefix, value) {
        (0, value) if !(0.05..9.95).contains(&value) => 0,
        (0, _) => 1,
        (_, value) if value < 9.995 => 2,
        (_, value) if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", PREFIXES[prefix])
}

/// A whole number, in as little room: `999`, `1.23k`.
pub(crate) fn short(number: u64) -> String {
    if number < 1000 { number.to_string() } else { si(number as f64).replace(' ', "") }
}

/// With groups of three digits, as in `1 234 567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// In the largest unit that is not 0: `0s`, `59s`, `59m`, `23h`, `400d`.
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400.. => format!("{}d", seconds / 86_400),
    }
}

/// From one time of a reply to a later one (RFC 3339).
pub(crate) fn between(from: &str, to: &str) -> Option<Duration> {
    let [from, to] = [from, to].map(|text| humantime::parse_rfc3339(text).ok());
    // A clock that was set back makes no time negative.
    Some(to?.duration_since(from?).unwrap_or_default())
}

/// The time of day of a time of a reply.
pub(crate) fn clock(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, clock)| clock.trim_end_matches('Z'))
}

/// Cut to a width; what is cut is marked.
pub(crate) fn cut(text: &str, width: usize, ink: Ink) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain((width > 0).then_some(ink.more())).collect()
}

/// In lines of at most this width, broken at spaces; a longer word is broken where the line ends.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is always a line");
            let used = line.chars().count();
            let space = usize::from(used > 0);
            if used + space + word.len() <= width {
                line.extend(std::iter::repeat_n(' ', space).chain(word));
                break;
            }
            if used == 0 {
                line.extend(word.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines
}

/// A graph, its rows from the top; the highest value fills it. Values that are none leave gaps.
pub(crate) fn graph(
    values: impl ExactSizeIterator<Item = Option<f32>>,
    (width, height): (usize, usize),
    ink: Ink,
) -> Vec<String> {
    let start = width.saturating_sub(values.len());
    let values: Vec<Option<f32>> = values.collect();
    let highest = values.iter().flatten().copied().fold(0.0, f32::max);
    let levels = ink.levels();
    let row = |row: usize| {
        let cell = |value: &Option<f32>| {
            let Some(value) = value else { return ' ' };
            let share = if highest > 0.0 { value / highest } else { 0.0 };
            // In eighths of a cell, from the bottom of this row; what there is shows.
            let eighths = (share * (height * levels.len()) as f32).ceil() as usize;
            let below = (height - 1 - row) * levels.len();
            match eighths.saturating_sub(below).min(levels.len()) {
                0 if below == 0 => levels[0],
                0 => ' ',
                here => levels[here - 1],
            }
        };
        " ".repeat(start).chars().chain(values.iter().map(cell)).collect()
    };
    (0..height).map(row).collect()
}

const PREFIXES: [&str; 6] = ["", " k", " M", " G", " T", " P"];
