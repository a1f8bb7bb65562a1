//! What a worker gives up before it touches a packet: its user, its capabilities, the right to get
//! any back, and all system calls that it does not need.
//!
//! It needs no privilege: its sockets were opened by the supervisor.

use std::io;
use std::num::NonZeroU64;

use rustix::process::{Gid, Signal, Uid, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, CpuSet, remove_capability_from_bounding_set, sched_setaffinity,
    set_capabilities, set_current_timer_slack, set_name, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// `nobody`, on every Linux.
const NOBODY: u32 = 65534;

/// The system calls of a worker.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// Stays on one CPU from here on.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

/// Makes the process one that its supervisor alone ends: a service manager that signals all
/// processes of the service means the supervisor.
pub(crate) fn prepare() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: no handler is installed: the signal is ignored.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // For people, and so that pauses end when they are due (by default the kernel may round them up
    // by 50 µs). Neither is worth ending for.
    let _ = set_name(c"mcrd-worker");
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

/// Gives everything up; what could not be given up. The process has one thread.
pub(crate) fn confine() -> io::Result<Option<String>> {
    let mut kept = None;
    if rustix::process::geteuid().is_root() {
        for capability in CapabilitySet::all().iter() {
            // Unknown to an older kernel, or CAP_SETPCAP is missing: then it can be had by nobody,
            // since no new privileges are.
            let _ = remove_capability_from_bounding_set(capability);
        }
        if let Err(error) = become_nobody() {
            // In a user namespace without such a user, or without CAP_SETUID: root of little use.
            kept = Some(format!("it stays root, without capabilities: cannot be nobody: {error}"));
        }
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).map_err(|e| named("cannot drop capabilities", &e))?;
    // Only now: a change of the user clears it.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| named("cannot die with its supervisor", &e))?;
    set_no_new_privs(true).map_err(|e| named("cannot renounce privileges", &e))?;
    let program = program().map_err(|e| named("no filter for system calls", &e))?;
    seccompiler::apply_filter(&program).map_err(|e| named("cannot filter system calls", &e))?;
    Ok(kept)
}

fn named(what: &str, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

fn become_nobody() -> rustix::io::Result<()> {
    let (group, user) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// The filter: what is not allowed ends the process.
fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: std::collections::BTreeMap<_, _> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Memory, but none to execute.
    let no_exec = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64),
        0,
    )?;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![no_exec.clone()])?]);
    }
    // Itself, when it aborts; other workers run as the same user.
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let own = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(pid.cast_unsigned()),
    )?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![own])?]);
    // Duplicates of a descriptor, and whether it is one.
    let command = |command: libc::c_int| {
        let (length, operator) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        let is = SeccompCondition::new(1, length, operator, u64::from(command.cast_unsigned()))?;
        SeccompRule::new(vec![is])
    };
    let commands = [command(libc::F_DUPFD_CLOEXEC)?, command(libc::F_GETFD)?];
    rules.insert(libc::SYS_fcntl, commands.into());
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    SeccompFilter::new(rules, kill, allow, std::env::consts::ARCH.try_into()?)?.try_into()
}
