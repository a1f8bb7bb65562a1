//! The page of the keys.

use ratatui::text::{Line, Span};

use super::super::ink::Ink;

pub(super) fn lines(ink: Ink) -> Vec<Line<'static>> {
    let line = |(keys, meaning): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!("  {keys:<20}"), ink.head()), Span::raw(*meaning)])
    };
    KEYS.iter().map(line).collect()
}

const KEYS: [(&str, &str); 20] = [
    ("Up Down, k j", "one rule up or down"),
    ("PgUp PgDn Home End", "a page up or down, the first, the last"),
    ("Enter", "all about one rule; Esc goes back"),
    ("/", "show only what has these words in its name, input,"),
    ("", "outputs or state; Enter keeps the filter, Esc clears it"),
    ("s, < >, Left Right", "sort by the next or the previous column"),
    ("r", "the other way round"),
    ("p", "pause: the screen stays as it is"),
    ("Ctrl-L, Ctrl-Z", "draw anew; suspend (fg goes on)"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("PACKETS/S, BITS/S", "what arrives for the rule, UDP payload; the graph: its"),
    ("", "packets/s at the last looks, up to the highest of them"),
    ("LOSS/DROPS", "the main reason: packets since the rule exists, and how"),
    ("", "many a second now; (+N): there are N other reasons;"),
    ("", "rtp-lost, ts-errors: came so, of a rule that is inspected"),
    ("LAST", "how long ago the last packet came"),
    ("lost before MCR", "nic: by the card and its driver; ring: for want of room in"),
    ("", "rings of the packet plane; softnet: of the host, for want"),
    ("", "of CPU. All traffic counts; a page of a rule says more"),
];
