//! A frame with an offload that the kernel cannot describe to a ring, as a virtual machine sends it:
//! a datagram larger than the MTU that is still to be fragmented (UFO), through a tap.

use std::io::Write;
use std::time::Duration;

use mcr_core::link::LinkKind;
use mcr_core::vectors::{Vector, bytes};

use crate::namespace::{frames_until, run, wait_for};
use crate::plane::{Kind, TestPlane};
use crate::tun;

const RULE: &str = "about = ''\nframe = []\n[[rule]]\ninput = \"239.1.1.1:5000@tap0\"\n\
                    outputs = [\"239.10.1.1:6000@out0\"]\n";
/// 239.1.1.1:5000 without payload.
const PLAIN: &str = "01005e010101 02000000000a 0800 4500001c000040002011608e0a000001\
                     ef010101 0fa0138800080000";

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
        let offloads = tun::CSUM | tun::UFO;
        let mut tap = tun::open("tap0", libc::IFF_TAP | libc::IFF_VNET_HDR, offloads);
        let mut links = namespace.links();
        tun::add("tap0", LinkKind::Ethernet, &mut links);
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
