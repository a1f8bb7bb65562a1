//! The system calls that no crate wraps, one function each.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd`; for per-CPU arrays since
/// Linux 5.13.
const LOOKUP_BATCH: libc::c_int = 24;
const UPDATE_BATCH: libc::c_int = 26;
/// `enum membarrier_cmd`.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// The `batch` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads the elements 0 to `keys.len()` of an array map. `keys` and `values` are overwritten;
/// `values` has `value_size` bytes for each key: for a per-CPU map those of all possible CPUs.
pub(crate) fn lookup_batch(
    map: BorrowedFd<'_>,
    keys: &mut [u32],
    values: &mut [u64],
) -> io::Result<()> {
    let mut position = 0u32;
    let attr = BatchAttr {
        out_batch: &raw mut position as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        ..BatchAttr::default()
    };
    batch(LOOKUP_BATCH, map, attr, keys.len())
}

/// Writes elements of an array map, laid out as in [`lookup_batch`].
pub(crate) fn update_batch(map: BorrowedFd<'_>, keys: &[u32], values: &[u64]) -> io::Result<()> {
    let attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        ..BatchAttr::default()
    };
    batch(UPDATE_BATCH, map, attr, keys.len())
}

fn batch(
    command: libc::c_int,
    map: BorrowedFd<'_>,
    mut attr: BatchAttr,
    count: usize,
) -> io::Result<()> {
    attr.count = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    attr.map_fd = map.as_raw_fd() as u32;
    let size = size_of::<BatchAttr>();
    // SAFETY: the kernel reads `size` bytes of `attr`, which is that large, and accesses `count`
    // keys and values at the addresses in it. The two callers take them from slices that outlive
    // this call and that their caller, `maps.rs`, sizes by the map's own key and value size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until every program that runs now has ended: one RCU grace period, about 10 ms.
///
/// `membarrier(MEMBARRIER_CMD_GLOBAL)` is `synchronize_rcu` (kernel/sched/membarrier.c); kernels
/// with `nohz_full` CPUs refuse it.
pub(crate) fn grace_period() -> io::Result<()> {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the limit of open files to the hard limit: every 20 groups take a socket.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Lower than wished is no reason to stop: a join that finds no descriptor says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
