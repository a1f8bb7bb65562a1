//! Interfaces whose other end is this program (tun and tap, Documentation/networking/tuntap.rst).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use mcr_core::link::{Link, LinkKind, Links};

use crate::namespace::{index_of, ip, wait_for};

/// `TUN_F_*` of linux/if_tun.h: what the other end can do by itself.
pub(crate) const CSUM: libc::c_ulong = 1;
pub(crate) const UFO: libc::c_ulong = 0x10;
pub(crate) const USO4: libc::c_ulong = 0x20;
pub(crate) const USO6: libc::c_ulong = 0x40;

/// `_IOW('T', 202, int)` and `_IOW('T', 208, unsigned int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;

/// Makes an interface, up, whose packets come without the kernel's own header. It ends with the
/// file.
pub(crate) fn open(name: &str, flags: libc::c_int, offloads: libc::c_ulong) -> File {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let tun = options.open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = flags | libc::IFF_NO_PI;
    request[16..18].copy_from_slice(&(flags as u16).to_ne_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq` of 40 bytes, and that is what there is.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
    // SAFETY: the argument is a number.
    let set = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETOFFLOAD, offloads) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    ip(&format!("link set {name} up"));
    tun
}

/// Adds it to what rules know of the machine, with the addresses of another interface.
pub(crate) fn add(name: &str, kind: LinkKind, links: &mut Links) {
    let like = links.interfaces.values().next().unwrap().clone();
    let link = Link { index: index_of(name), kind, ..like };
    links.interfaces.insert(name.parse().unwrap(), link);
}

/// So many packets that are wanted, of all that the kernel sends by the interface.
pub(crate) fn packets(
    tun: &mut File,
    count: usize,
    wanted: impl Fn(&[u8]) -> bool,
) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut buffer = vec![0; 70_000];
    wait_for("packets", || {
        while let Ok(length) = tun.read(&mut buffer) {
            packets.extend(Some(buffer[..length].to_vec()).filter(|packet| wanted(packet)));
        }
        packets.len() >= count
    });
    packets
}
