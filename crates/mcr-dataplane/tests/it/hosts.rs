//! Network namespaces without anything in them, several for one test, and what was said in them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::namespace::{await_running, ip};

/// A namespace, which ends when nothing is left in it.
pub(crate) struct Host {
    namespace: OwnedFd,
}

impl Host {
    /// A new one, which the calling thread is in from here on.
    pub(crate) fn enter_new() -> Self {
        // SAFETY: only this thread changes its namespace; it shares no descriptor that depends on
        // it with another thread.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(unshared, 0, "{}", io::Error::last_os_error());
        // Nothing shall happen by itself.
        for of in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{of}/accept_dad"), "0").unwrap();
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{of}/router_solicitations"), "0")
                .unwrap();
        }
        ip("link set lo up");
        Self::current()
    }

    /// The one that the calling thread is in.
    pub(crate) fn current() -> Self {
        Self { namespace: File::open("/proc/thread-self/ns/net").unwrap().into() }
    }

    /// The calling thread is in it from here on.
    pub(crate) fn enter(&self) {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.namespace.as_fd(), kind).unwrap();
    }

    /// Where `ip link set netns` finds it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }
}

/// Runs a test on a thread of its own, which may change its namespace.
pub(crate) fn run(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "in CI this test must run as root");
        // Not by a macro, whose text the test runner keeps to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: needs root for network namespaces");
        return;
    }
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A veth pair: `near` here with the addresses, `far` on another host with the others. The calling
/// thread is `here`.
pub(crate) fn connect(here: &Host, there: &Host, near: [&str; 3], far: [&str; 3]) {
    ip(&format!("link add {} type veth peer name {} netns {}", near[0], far[0], there.path()));
    for (host, [name, v4, v6]) in [(there, far), (here, near)] {
        host.enter();
        ip(&format!("address add {v4} dev {name}"));
        ip(&format!("address add {v6} dev {name} nodad"));
        ip(&format!("link set {name} up"));
    }
    await_running(near[0]);
}

/// What a program has said.
pub(crate) fn said(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
