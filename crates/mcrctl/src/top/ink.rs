//! What the terminal can show: its characters and its colours.

use ratatui::style::{Color, Modifier, Style};

/// What may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ink {
    /// Characters beyond ASCII.
    pub(crate) unicode: bool,
    pub(crate) colours: bool,
}

impl Ink {
    /// As the environment says: the locale (POSIX: LC_ALL before LC_CTYPE before LANG, an empty one
    /// counts as none), and NO_COLOR (<https://no-color.org>).
    pub(crate) fn of(environment: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            unicode: ["utf-8", "utf8"].iter().any(|name| locale.contains(name)),
            colours: set("NO_COLOR").is_none(),
        }
    }

    pub(crate) fn good(self) -> Style {
        self.coloured(Color::Green, Modifier::empty())
    }

    pub(crate) fn warning(self) -> Style {
        self.coloured(Color::Yellow, Modifier::BOLD)
    }

    pub(crate) fn bad(self) -> Style {
        self.coloured(Color::Red, Modifier::BOLD)
    }

    pub(crate) fn graph(self) -> Style {
        self.coloured(Color::Cyan, Modifier::empty())
    }

    /// In a colour, or else as far as text can.
    fn coloured(self, colour: Color, else_by: Modifier) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new().add_modifier(else_by) }
    }

    pub(crate) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(crate) fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Of a rule's state.
    pub(crate) fn state(self, state: &str) -> Style {
        match state {
            "forwarding" => self.good(),
            "waiting" => self.warning(),
            "failed" => self.bad(),
            _ => self.dim(),
        }
    }

    /// Says that text is cut.
    pub(crate) fn more(self) -> char {
        if self.unicode { '…' } else { '~' }
    }

    pub(crate) fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    /// The sort column's direction.
    pub(crate) fn sorted(self, reversed: bool) -> char {
        match (self.unicode, reversed) {
            (true, false) => '▾',
            (true, true) => '▴',
            (false, false) => 'v',
            (false, true) => '^',
        }
    }

    /// From the lowest to the full one.
    pub(crate) fn levels(self) -> [char; 8] {
        if self.unicode {
            ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            ['_', '.', ':', '-', '=', '+', '*', '#']
        }
    }

    /// As much of a text as can be shown: one character for each that cannot.
    pub(crate) fn plain(self, text: &str) -> String {
        let shown =
            |c: char| if c.is_control() || !(self.unicode || c.is_ascii()) { '?' } else { c };
        text.chars().map(shown).collect()
    }
}
