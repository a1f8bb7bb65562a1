//! Columns of text, two spaces apart, each as wide as its widest cell; empty ones are left out.

use std::fmt;

/// Where a cell stands in its column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

enum Line<const N: usize> {
    Cells([String; N]),
    /// As it is, whatever the columns.
    Note(String),
}

pub(super) struct Table<const N: usize> {
    sides: [Side; N],
    lines: Vec<Line<N>>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(sides: [Side; N]) -> Self {
        Self { sides, lines: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [&str; N]) {
        self.lines.push(Line::Cells(cells.map(str::to_owned)));
    }

    pub(super) fn note(&mut self, text: String) {
        self.lines.push(Line::Note(text));
    }

    fn widths(&self) -> [usize; N] {
        let mut widths = [0; N];
        for line in &self.lines {
            let Line::Cells(cells) = line else { continue };
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        widths
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for line in &self.lines {
            let text = match line {
                Line::Note(text) => text.clone(),
                Line::Cells(cells) => {
                    let columns = cells.iter().zip(widths).zip(self.sides);
                    let columns = columns.filter(|((_, width), _)| *width > 0);
                    let padded = columns.map(|((cell, width), side)| match side {
                        Side::Left => format!("{cell:<width$}"),
                        Side::Right => format!("{cell:>width$}"),
                    });
                    padded.collect::<Vec<_>>().join("  ")
                }
            };
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}
