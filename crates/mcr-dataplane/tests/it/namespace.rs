//! A network namespace with the interfaces of the vectors, and raw sockets in it.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use mcr_core::link::{IfIndex, Links};
use mcr_core::vectors::{INTERFACES, links};
use socket2::{Domain, Protocol, Socket, Type};

/// `ETH_P_*` of linux/if_ether.h.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Runs a test in a new namespace on a thread of its own.
///
/// The thread stays on one CPU: frames sent by one CPU over veth arrive in their order.
pub(crate) fn run(test: impl FnOnce(&Namespace) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "in CI this test must run as root");
        // Not by a macro, whose text the test runner keeps to itself.
        let _ = writeln!(io::stderr(), "SKIPPED: needs root for network namespaces and eBPF");
        return;
    }
    let result = std::thread::spawn(move || test(&Namespace::enter())).join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// The namespace of this thread.
pub(crate) struct Namespace {
    pub(crate) indexes: [IfIndex; 4],
}

impl Namespace {
    fn enter() -> Self {
        // SAFETY: only this thread changes its namespace; it shares no descriptor that depends on
        // it with another thread.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(unshared, 0, "{}", io::Error::last_os_error());
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(rustix::thread::sched_getcpu());
        rustix::thread::sched_setaffinity(None, &cpus).unwrap();
        ip("link set lo up");
        for (name, mac, v4, v6) in INTERFACES {
            let [a, b, c, d, e, f] = mac;
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            ip(&format!("link add {name} address {mac} type veth peer name {name}p"));
            ip(&format!("address add {v4}/24 dev {name}"));
            ip(&format!("address add {v6}/64 dev {name} nodad"));
            if name == "in0" {
                ip("link set in0 mtu 9000");
                ip("link set in0p mtu 9000");
            }
            ip(&format!("link set {name} up"));
            ip(&format!("link set {name}p up"));
        }
        for (name, ..) in INTERFACES {
            await_running(name);
            await_running(&format!("{name}p"));
        }
        Self { indexes: INTERFACES.map(|(name, ..)| index_of(name)) }
    }

    pub(crate) fn links(&self) -> Links {
        links(self.indexes)
    }

    /// A raw socket that gets the IPv4 frames of an interface, after traffic control.
    pub(crate) fn tap(&self, name: &str) -> Socket {
        tap(name, ETH_P_IP)
    }

    /// The same for IPv6.
    pub(crate) fn tap_v6(&self, name: &str) -> Socket {
        tap(name, ETH_P_IPV6)
    }

    /// A raw socket that sends frames by the far end of an interface.
    pub(crate) fn far_end(&self, name: &str) -> Socket {
        raw(&format!("{name}p"), ETH_P_IP)
    }

    /// The same for IPv6.
    pub(crate) fn far_end_v6(&self, name: &str) -> Socket {
        raw(&format!("{name}p"), ETH_P_IPV6)
    }

    /// Makes a far end send super-packets: each frame is sent behind a `struct virtio_net_hdr`.
    pub(crate) fn with_offload(&self, socket: Socket) -> Socket {
        let (one, length) = (1_i32, size_of::<i32>() as libc::socklen_t);
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_VNET_HDR);
        let value = std::ptr::from_ref(&one).cast();
        // SAFETY: the kernel reads the `length` bytes of `one`.
        let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        socket
    }
}

/// Frames until `last` arrives, which is not among them.
pub(crate) fn frames_until(tap: &Socket, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    let mut buffer = vec![MaybeUninit::uninit(); 65536];
    loop {
        assert!(Instant::now() < deadline, "the last frame did not come: {frames:02x?}");
        let length = tap.recv(&mut buffer).expect("a frame before the deadline");
        let frame: Vec<u8> =
            // SAFETY: recv has written the first `length` bytes.
            buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
        if last(&frame) {
            return frames;
        }
        frames.push(frame);
    }
}

/// Frames that have arrived.
pub(crate) fn frames_there(tap: &Socket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![MaybeUninit::uninit(); 65536];
    while let Ok(length) = tap.recv_with_flags(&mut buffer, libc::MSG_DONTWAIT) {
        // SAFETY: recv has written the first `length` bytes.
        frames.push(buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect());
    }
    frames
}

/// Waits for a condition.
#[expect(clippy::disallowed_methods, reason = "polls a condition, with a deadline")]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn tap(name: &str, protocol: u16) -> Socket {
    let socket = raw(name, protocol);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn raw(name: &str, ethertype: u16) -> Socket {
    let protocol = Protocol::from(i32::from(ethertype.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    let IfIndex(index) = index_of(name);
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll fits into the storage, which is zeroed and aligned for every address.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage holds a sockaddr_ll of that length.
    let address = unsafe { socket2::SockAddr::new(storage, length) };
    socket.bind(&address).unwrap();
    socket
}

pub(crate) fn index_of(name: &str) -> IfIndex {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    IfIndex(rustix::net::netdevice::name_to_index(socket, name).unwrap())
}

/// The kernel starts an interface's queue some time after it is set up; until then it drops.
pub(crate) fn await_running(name: &str) {
    let end = Instant::now() + DEADLINE;
    loop {
        let shown = Command::new("ip").args(["-o", "link", "show", "dev", name]).output().unwrap();
        if String::from_utf8_lossy(&shown.stdout).contains("state UP") {
            return;
        }
        assert!(Instant::now() < end, "{name} does not come up");
    }
}

pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}
