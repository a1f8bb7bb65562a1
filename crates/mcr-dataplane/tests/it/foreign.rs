//! A frame with an offload that the kernel cannot describe to a ring, as a virtual machine sends it:
//! a datagram larger than the MTU that is still to be fragmented (UFO), through a tap.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mcr_core::link::{IfIndex, Link, LinkKind};
use mcr_core::vectors::{Vector, bytes};

use crate::namespace::{frames_until, index_of, ip, run, wait_for};
use crate::plane::{Kind, TestPlane};

const RULE: &str = "about = ''\nframe = []\n[[rule]]\ninput = \"239.1.1.1:5000@tap0\"\n\
                    outputs = [\"239.10.1.1:6000@out0\"]\n";
/// 239.1.1.1:5000 without payload.
const PLAIN: &str = "01005e010101 02000000000a 0800 4500001c000040002011608e0a000001\
                     ef010101 0fa0138800080000";

/// `_IOW('T', 202, int)` and `_IOW('T', 208, unsigned int)` of linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_UFO: libc::c_ulong = 0x10;

/// A tap whose frames come behind a `struct virtio_net_hdr`.
fn tap(name: &str) -> File {
    let tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request[16..18].copy_from_slice(&(flags as u16).to_ne_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq` of 40 bytes, and that is what there is.
    let made = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
    // SAFETY: the argument is a number.
    let set = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_UFO) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    tap
}

/// 4,000 bytes to 239.1.1.1:5000, to be cut into fragments of 1,480.
fn unfragmented() -> Vec<u8> {
    let mut frame = bytes(PLAIN).unwrap();
    frame.extend([b'x'; 4000]);
    frame[16..18].copy_from_slice(&4028_u16.to_be_bytes());
    frame[20] = 0;
    frame[38..40].copy_from_slice(&4008_u16.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = mcr_core::wire::checksum::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    // NEEDS_CSUM, GSO_UDP, hdr_len 42, gso_size 1480, csum_start 34, csum_offset 6.
    let mut header = vec![1, 3];
    for field in [42_u16, 1480, 34, 6] {
        header.extend(field.to_ne_bytes());
    }
    [header, frame].concat()
}

#[test]
fn a_ring_that_the_kernel_blocks_is_replaced() {
    run(|namespace| {
        let mut tap = tap("tap0");
        ip("link set tap0 up");
        let mut links = namespace.links();
        let (index, kind) = (index_of("tap0"), LinkKind::Ethernet);
        assert_ne!(index, IfIndex(0));
        let tap_link = Link { index, kind, ..links.0.values().next().unwrap().clone() };
        links.0.insert("tap0".parse().unwrap(), tap_link);
        let mut plane = TestPlane::open(Kind::Packet);
        plane.apply(&Vector::parse(RULE).unwrap().change(&links).unwrap()).unwrap();
        let out = namespace.tap("out0p");
        let relayed = |frame: &[u8]| frame.len() >= 38 && frame[30..34] == [239, 10, 1, 1];
        let plain = [vec![0; 10], bytes(PLAIN).unwrap()].concat();

        tap.write_all(&plain).unwrap();
        frames_until(&out, relayed);
        tap.write_all(&unfragmented()).unwrap();
        // From here on the ring takes nothing, until somebody looks.
        let mut sent = 0;
        wait_for("a frame", || {
            tap.write_all(&plain).unwrap();
            sent += 1;
            plane.idle(Duration::from_millis(100));
            plane.counters((1, 1)).outputs[0].forwarded.packets > 1
        });
        frames_until(&out, relayed);
        let forwarded = plane.counters((1, 1)).outputs[0].forwarded.packets;
        // A kernel that takes the frame after all, or drops it without harm, lets all others through.
        assert!(sent == 1 || forwarded < 1 + sent, "{forwarded} of {sent}");
    });
}
