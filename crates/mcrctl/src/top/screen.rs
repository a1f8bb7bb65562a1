//! The terminal: taken for the screen, and given back as it was, however that ends.

use std::io;

use ratatui::DefaultTerminal;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::ink::Ink;
use super::model::Model;
use super::view;
use crate::failure::Failure;

/// A terminal that shows the screen, until this is dropped or a panic is reported.
pub(crate) struct Screen {
    terminal: DefaultTerminal,
    ink: Ink,
    /// Giving it back twice would put the cursor where it was before.
    taken: bool,
}

impl Screen {
    /// Takes the terminal; a panic will give it back before it is reported.
    pub(crate) fn enter(ink: Ink) -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(|error| {
            // It may have been taken in part.
            let _ = ratatui::try_restore();
            broken(&error)
        })?;
        Ok(Self { terminal, ink, taken: true })
    }

    pub(crate) fn draw(&mut self, model: &mut Model) -> Result<(), Failure> {
        let drawn = self.terminal.draw(|frame| view::draw(frame, model, self.ink));
        drawn.map(drop).map_err(|error| broken(&error))
    }

    /// The next drawing draws all of it.
    pub(crate) fn forget(&mut self) -> Result<(), Failure> {
        self.erase().map_err(|error| broken(&error))
    }

    /// Not by `Terminal::clear`, which asks the terminal for its cursor and waits for the answer,
    /// that [`Typed`] gets.
    fn erase(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Gives the terminal to somebody else.
    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.taken) {
            // Where it has gone away there is nothing to give back.
            let _ = self.terminal.show_cursor();
            let _ = ratatui::try_restore();
        }
    }

    /// Takes it again, whatever others have made of it.
    pub(crate) fn take_again(&mut self) -> Result<(), Failure> {
        self.leave();
        self.taken = true;
        let taken = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen))
            .and_then(|()| self.terminal.hide_cursor())
            .and_then(|()| self.erase());
        taken.map_err(|error| broken(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // What reports a panic has given it back.
        self.taken &= !std::thread::panicking();
        self.leave();
    }
}

/// What is typed, read by a thread of its own; the process does not wait for its end.
pub(crate) struct Typed(mpsc::Receiver<Vec<u8>>);

impl Typed {
    pub(crate) fn new() -> Self {
        // A user who types faster than the screen is drawn waits for it.
        let (sender, receiver) = mpsc::channel(16);
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = read(&mut bytes)
                && sender.blocking_send(bytes[..count].to_vec()).is_ok()
            {}
        });
        Self(receiver)
    }

    /// The next bytes; none when the terminal has gone.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await
    }
}

/// Past the buffer of the standard library, again where a signal came between.
fn read(bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(io::stdin(), &mut *bytes) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::refused(
        "output",
        format!("cannot draw on the terminal: {error}"),
        "use `mcrctl stats --watch`",
    )
}
