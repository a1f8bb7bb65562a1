//! What one daemon has to itself: its lock, its socket, and the file that keeps the rules that are
//! in no configuration file.
//!
//! ```text
//! /run/mcr/NAME.lock    held while the daemon lives; released by the kernel when it dies
//! /run/mcr/NAME.sock    the control socket
//! /run/mcr/NAME.rules   runtime rules (JSON), for the start after a crash
//! ```

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mcr_core::api::{RuleSet, RuleSpec};
use mcr_core::refusal::{Code, Refusal};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::UnixListener;

const RUN: &str = "/run/mcr";

/// The instance that this process is.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    socket: PathBuf,
    rules: PathBuf,
    lock_path: PathBuf,
    /// Whether the socket file is ours to remove.
    listens: Cell<bool>,
    _lock: File,
}

impl Instance {
    /// Takes the lock, or says who holds it.
    pub(crate) fn acquire(name: &str, socket: Option<&Path>) -> Result<Self, Refusal> {
        let run = Path::new(RUN);
        fs::create_dir_all(run).map_err(|e| unusable(run, &e))?;
        let lock_path = run.join(format!("{name}.lock"));
        let mut lock = loop {
            // 0600: whoever can open the file can hold the lock.
            let mut options = File::options();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let lock = options.open(&lock_path).map_err(|e| unusable(&lock_path, &e))?;
            if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                if error != Errno::WOULDBLOCK {
                    return Err(unusable(&lock_path, &error.into()));
                }
                let holder = io::read_to_string(&lock).unwrap_or_default();
                return Err(Refusal::new(
                    Code::Conflict,
                    format!("instance {name} is running already (process {})", holder.trim()),
                    "stop it first, or choose another name with --instance",
                ));
            }
            // A daemon that stopped meanwhile has removed the file, and the next would lock a new one.
            let inode = |metadata: io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
            if inode(lock.metadata()) == inode(fs::metadata(&lock_path)) {
                break lock;
            }
        };
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|e| unusable(&lock_path, &e))?;
        Ok(Self {
            name: name.to_owned(),
            socket: socket.map_or_else(|| run.join(format!("{name}.sock")), Path::to_owned),
            rules: run.join(format!("{name}.rules")),
            lock_path,
            listens: Cell::new(false),
            _lock: lock,
        })
    }

    /// Listens on the control socket; mode 0660. The socket file of a dead daemon is replaced.
    pub(crate) fn listen(&self) -> Result<UnixListener, Refusal> {
        let path = &self.socket;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(path, &error)),
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(Refusal::new(
                    Code::Conflict,
                    format!("{} is there and is no socket", path.display()),
                    "move it away, or choose another path with --socket",
                ));
            }
            Ok(_) => match is_dead(path) {
                Ok(true) => fs::remove_file(path).map_err(|e| unusable(path, &e))?,
                Ok(false) => {
                    return Err(Refusal::new(
                        Code::Conflict,
                        format!("another daemon listens on {}", path.display()),
                        "stop it first, or choose another path with --socket",
                    ));
                }
                Err(error) => {
                    return Err(Refusal::new(
                        Code::Conflict,
                        format!("{} is a socket of somebody else: {error}", path.display()),
                        "move it away, or choose another path with --socket",
                    ));
                }
            },
        }
        let umask = rustix::process::umask(Mode::from_raw_mode(0o117));
        let listener = UnixListener::bind(path);
        rustix::process::umask(umask);
        self.listens.set(listener.is_ok());
        listener.map_err(|e| unusable(path, &e))
    }

    /// Where clients connect.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Keeps the rules for the next start, whole or not at all.
    pub(crate) fn save_rules(&self, rules: Vec<RuleSpec>) -> io::Result<()> {
        let new = self.rules.with_extension("rules.new");
        let mut file = BufWriter::new(File::create(&new)?);
        serde_json::to_writer(&mut file, &RuleSet { rules })?;
        file.into_inner()?.sync_all()?;
        fs::rename(&new, &self.rules)
    }

    /// The rules that an earlier process has kept, which did not stop cleanly.
    pub(crate) fn kept_rules(&self) -> Vec<RuleSpec> {
        let Ok(text) = fs::read_to_string(&self.rules) else { return Vec::new() };
        match serde_json::from_str::<RuleSet>(&text) {
            Ok(RuleSet { rules }) => rules,
            Err(error) => {
                tracing::error!(file = %self.rules.display(), %error, "kept rules are unreadable");
                Vec::new()
            }
        }
    }

    /// Forgets the kept rules: the end of a clean stop.
    pub(crate) fn forget_rules(&self) {
        // What is not there needs no removing.
        let _ = fs::remove_file(&self.rules);
    }
}

/// Also when a start is refused: only a crash leaves these files.
impl Drop for Instance {
    fn drop(&mut self) {
        if self.listens.get() {
            let _ = fs::remove_file(&self.socket);
        }
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Whether nobody listens on a socket any more. Does not wait, however many others do.
fn is_dead(path: &Path) -> rustix::io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(false),
        Err(Errno::CONNREFUSED) => Ok(true),
        Err(error) => Err(error),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(
        Code::Internal,
        format!("cannot use {}: {error}", path.display()),
        "the folder must be there, and mcrd's user be allowed to write to it and to /run/mcr",
    )
}
