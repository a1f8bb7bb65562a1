//! The system calls that no crate wraps, one function each.

pub(crate) mod ethtool;
pub(crate) mod groups;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mcr_core::link::LinkKind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `BPF_MAP_LOOKUP_BATCH` and `BPF_MAP_UPDATE_BATCH` of `enum bpf_cmd`; for per-CPU arrays since
/// Linux 5.13.
const LOOKUP_BATCH: libc::c_int = 24;
const UPDATE_BATCH: libc::c_int = 26;
/// `BPF_MAP_CREATE` and `BPF_MAP_UPDATE_ELEM`.
const MAP_CREATE: libc::c_int = 0;
const UPDATE_ELEM: libc::c_int = 2;
/// `BPF_OBJ_GET` and `BPF_LINK_DETACH`.
const OBJ_GET: libc::c_int = 7;
const LINK_DETACH: libc::c_int = 34;
/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_ARRAY_OF_MAPS` of `enum bpf_map_type`.
const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

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

/// What `BPF_MAP_CREATE` reads of `union bpf_attr`, as far as it matters.
#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// What `BPF_MAP_UPDATE_ELEM` reads of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct ifreq`, whose second half is a union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    answer: [u8; 24],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// What `BPF_OBJ_GET` reads of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Ends a pinned link at once (`BPF_LINK_DETACH`, Linux 5.9). Without it the kernel ends it some time
/// after its pin is gone.
pub(crate) fn detach_link(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..ObjectAttr::default() };
    let size = size_of::<ObjectAttr>();
    // SAFETY: the kernel reads `size` bytes of `attr`, which is that large, and a string that ends
    // with 0 at `path`; both live until the call returns.
    let got = done(unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &raw mut attr, size) })?;
    // SAFETY: a successful BPF_OBJ_GET returns a new descriptor that nobody else owns.
    let link = unsafe { OwnedFd::from_raw_fd(got as i32) };
    let mut attr = link.as_raw_fd() as u32;
    let size = size_of::<u32>();
    // SAFETY: the kernel reads `size` bytes of `attr`, the descriptor of the link.
    done(unsafe { libc::syscall(libc::SYS_bpf, LINK_DETACH, &raw mut attr, size) }).map(drop)
}

/// Reads the elements 0 to `keys.len()` of an array map. `keys` and `values` are overwritten;
/// `values` has `words` u64s for each key, which is what the map has for an
/// element: for a per-CPU map those of all possible CPUs.
pub(crate) fn lookup_batch(
    map: BorrowedFd<'_>,
    keys: &mut [u32],
    values: &mut [u64],
    words: usize,
) -> io::Result<()> {
    check_lengths(keys, values, words)?;
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
pub(crate) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u32],
    values: &[u64],
    words: usize,
) -> io::Result<()> {
    check_lengths(keys, values, words)?;
    let attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        ..BatchAttr::default()
    };
    batch(UPDATE_BATCH, map, attr, keys.len())
}

/// Whether there is a value for each key.
fn check_lengths(keys: &[u32], values: &[u64], words: usize) -> io::Result<()> {
    let right = keys.len().checked_mul(words) == Some(values.len());
    if right { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
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
    // this call, and have checked that there is a value of the map's size for each key.
    done(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size) }).map(drop)
}

/// Waits until every program that runs now has ended: one RCU grace period, about 10 ms.
///
/// An update of a map of maps waits just so before it returns (`maybe_wait_bpf_programs` in
/// kernel/bpf/syscall.c). `membarrier(MEMBARRIER_CMD_GLOBAL)` would be simpler, but refuses on
/// kernels with `nohz_full` CPUs and does not wait on a machine with one CPU.
#[derive(Debug)]
pub(crate) struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    pub(crate) fn open() -> io::Result<Self> {
        let inner = create_array(ARRAY, None)?;
        let outer = create_array(ARRAY_OF_MAPS, Some(inner.as_fd()))?;
        Ok(Self { outer, inner })
    }

    pub(crate) fn wait(&self) -> io::Result<()> {
        let (key, value) = (0u32, self.inner.as_raw_fd());
        let mut attr = ElementAttr {
            map_fd: self.outer.as_raw_fd() as u32,
            key: &raw const key as u64,
            value: &raw const value as u64,
            ..ElementAttr::default()
        };
        let size = size_of::<ElementAttr>();
        // SAFETY: the kernel reads `size` bytes of `attr`, which is that large, and 4 bytes each at
        // `key` and `value`, the sizes that the map was made with; all live until the call returns.
        done(unsafe { libc::syscall(libc::SYS_bpf, UPDATE_ELEM, &raw mut attr, size) }).map(drop)
    }
}

/// A map of one element, keys and values of 4 bytes; of maps like `inner` if there is one.
fn create_array(map_type: u32, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attr = CreateAttr {
        map_type,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: inner.map_or(0, |inner| inner.as_raw_fd() as u32),
    };
    let size = size_of::<CreateAttr>();
    // SAFETY: the kernel reads `size` bytes of `attr`, which is that large, and nothing else.
    let created = done(unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, &raw mut attr, size) });
    // SAFETY: a successful BPF_MAP_CREATE returns a new descriptor that nobody else owns.
    created.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn done(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The MTU of an interface (`SIOCGIFMTU`, netdevice(7)).
pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    let [a, b, c, d, ..] = interface(name, libc::SIOCGIFMTU)?;
    Ok(i32::from_ne_bytes([a, b, c, d]).unsigned_abs())
}

/// What kind of frames an interface carries (`SIOCGIFHWADDR`, whose `sa_family` is an `ARPHRD_*`).
pub(crate) fn link_kind(name: &str) -> io::Result<LinkKind> {
    let [a, b, ..] = interface(name, libc::SIOCGIFHWADDR)?;
    Ok(LinkKind::from_arphrd(u16::from_ne_bytes([a, b])))
}

/// Asks for a property of an interface.
fn interface(name: &str, property: libc::Ioctl) -> io::Result<[u8; 24]> {
    let family = rustix::net::AddressFamily::INET;
    let socket = rustix::net::socket(family, rustix::net::SocketType::DGRAM, None)?;
    let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], answer: [0; 24] };
    let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    // SAFETY: both properties are asked for with a `struct ifreq` at the address, which is that
    // large; the kernel reads and writes it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), property, &raw mut request) };
    done(result.into())?;
    Ok(request.answer)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which is the same for all processes.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel, or its vDSO, writes a timespec to where there is one. It cannot fail: the
    // clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Raises the limit of open files to the hard limit: every 20 groups take a socket.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Lower than wished is no reason to stop: a join that finds no descriptor says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
