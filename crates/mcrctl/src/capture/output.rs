//! Where a capture goes.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Bytes that are written at once.
const BUFFER: usize = 64 << 10;

pub(super) enum Output {
    /// Lines on standard output.
    Lines,
    /// The file on standard output.
    Stdout,
    /// A file, opened when the capture begins: one that is refused leaves what was there.
    Waiting(PathBuf),
    File {
        file: File,
        path: PathBuf,
        pending: Vec<u8>,
        /// Bytes of the file that end with a whole packet.
        written: u64,
    },
}

impl Output {
    pub(super) fn check(write: Option<&Path>) -> Result<Self, Failure> {
        match write {
            None => Ok(Self::Lines),
            Some(path) if path != Path::new("-") => Ok(Self::Waiting(path.into())),
            Some(_) if io::stdout().is_terminal() => Err(Failure::refused(
                "output",
                "standard output is a terminal, which cannot show a capture file",
                "pipe it (mcrctl capture ... -w - | tcpdump -nr -), write it to a file (-w FILE), or \
                 leave -w out for a line a packet",
            )),
            Some(_) => Ok(Self::Stdout),
        }
    }

    /// The header of the file.
    pub(super) fn begin(&mut self, header: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Lines => Ok(()),
            Self::Waiting(path) => {
                let path = std::mem::take(path);
                let file = File::create(&path).map_err(|error| unwritten(&path, &error))?;
                *self = Self::File { file, path, pending: header.to_vec(), written: 0 };
                self.flush()
            }
            Self::Stdout | Self::File { .. } => self.write(header).and_then(|()| self.flush()),
        }
    }

    /// A packet.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let full = match self {
            Self::Lines | Self::Stdout => {
                return io::stdout().lock().write_all(bytes).map_err(|e| closed(&e));
            }
            Self::Waiting(_) => false,
            Self::File { pending, .. } => {
                pending.extend_from_slice(bytes);
                pending.len() >= BUFFER
            }
        };
        if full { self.flush() } else { Ok(()) }
    }

    /// Whole packets, so that what reads along sees them.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Lines | Self::Stdout => io::stdout().lock().flush().map_err(|e| closed(&e)),
            Self::Waiting(_) => Ok(()),
            Self::File { file, path, pending, written } => match file.write_all(pending) {
                Ok(()) => {
                    *written += pending.len() as u64;
                    pending.clear();
                    Ok(())
                }
                Err(error) => {
                    pending.clear();
                    // Without what was half written it can be read. A device has no length to set.
                    let _ = file.set_len(*written);
                    Err(unwritten(path, &error))
                }
            },
        }
    }

    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.flush()
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot write {}: {error}", path.display());
    let hint = if error.kind() == ErrorKind::StorageFull {
        "free some space; the packets before are in the file. --snap and --count keep it small"
    } else {
        "check the path, its folder and their permissions"
    };
    Failure::refused("file", message, hint)
}

fn closed(error: &io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        return Failure::StdoutClosed;
    }
    Failure::refused("output", format!("cannot write to standard output: {error}"), "")
}
