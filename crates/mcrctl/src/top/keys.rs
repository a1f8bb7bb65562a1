//! Keys, from the bytes that a terminal sends: characters in UTF-8, and the escape sequences of
//! ECMA-48 that xterm, tmux, screen and the Linux console send alike. Pure. What it does not know is
//! skipped.
//!
//! The reader of crossterm is not used: it does not return when the terminal has gone away.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// Bytes that are not a whole key yet.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    begun: Vec<u8>,
}

impl Keys {
    /// The keys that these bytes complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.begun.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut rest = self.begun.as_slice();
        while let Some((key, used)) = first(rest) {
            keys.extend(key);
            rest = &rest[used..];
        }
        self.begun = rest.to_vec();
        keys
    }

    /// Whether a key has begun, which may be the Escape key or a sequence that goes on.
    pub(crate) fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Nothing has followed for a while: an escape was the key of that name.
    pub(crate) fn handle_quiet(&mut self) -> Option<Key> {
        let begun = std::mem::take(&mut self.begun);
        (begun.first() == Some(&ESCAPE)).then_some(Key::Escape)
    }
}

/// The first key, if it is one that we know, and the number of its bytes; none if there are too few.
fn first(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let key = match bytes.first()? {
        &ESCAPE => return escaped(bytes),
        b'\r' | b'\n' => Some(Key::Enter),
        0x08 | 0x7f => Some(Key::Backspace),
        0x03 => Some(Key::Interrupt),
        0x0c => Some(Key::Redraw),
        0x1a => Some(Key::Suspend),
        0..0x20 => None,
        0x20.. => return character(bytes),
    };
    Some((key, 1))
}

/// An escape and what belongs to it.
fn escaped(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match bytes.get(1)? {
        b'O' => Some((moved(*bytes.get(2)?), 3)),
        b'[' => {
            // Parameters, then one final byte (ECMA-48 §5.4).
            let length = bytes[2..].iter().position(|byte| !(0x20..0x40).contains(byte))?;
            let (parameters, end) = (&bytes[2..2 + length], bytes[2 + length]);
            let key = if end == b'~' { numbered(parameters) } else { moved(end) };
            Some((key, length + 3))
        }
        _ => Some((Some(Key::Escape), 1)),
    }
}

fn moved(end: u8) -> Option<Key> {
    match end {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        b'M' => Some(Key::Enter),
        _ => None,
    }
}

/// Those with a number, as in `ESC [ 5 ~`; modifiers after a semicolon do not matter.
fn numbered(parameters: &[u8]) -> Option<Key> {
    match parameters.split(|byte| *byte == b';').next()? {
        b"1" | b"7" => Some(Key::Home),
        b"4" | b"8" => Some(Key::End),
        b"5" => Some(Key::PageUp),
        b"6" => Some(Key::PageDown),
        _ => None,
    }
}

/// A character in UTF-8 (RFC 3629).
fn character(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let length = match bytes[0] {
        0..0x80 => 1,
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        0x80..0xc2 | 0xf5.. => return Some((None, 1)),
    };
    let is_rest = |byte: &&u8| (0x80..0xc0).contains(*byte);
    let there = bytes[1..].iter().take(length - 1).take_while(is_rest).count() + 1;
    if there < length && there == bytes.len() {
        return None;
    }
    let text = std::str::from_utf8(&bytes[..there]).ok();
    Some((text.and_then(|text| text.chars().next()).map(Key::Char), there))
}

const ESCAPE: u8 = 0x1b;
