//! A reader that dies at any moment, and what the next one makes of it. The ring is a file in
//! memory, filled by the test as the kernel would.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;

/// Where the kernel of these tests puts the frame, from the header on.
const MAC: usize = 96;
/// From one frame of a block to the next.
const STRIDE: usize = 112;
const BLOCK_HEADER: usize = 48;

thread_local! {
    /// What the reader may still do before it dies.
    static STEPS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Before everything that the reader does to others: it may die here.
pub(crate) fn step() {
    match STEPS.get() {
        Some(0) => {
            STEPS.set(None);
            resume_unwind(Box::new("killed"));
        }
        Some(left) => STEPS.set(Some(left - 1)),
        None => {}
    }
}

/// A ring, its kernel, and what has been read of it.
struct World {
    layout: RingLayout,
    memory: File,
    place: Place,
    /// The slot or block that the kernel fills next, counted without wrapping.
    head: u64,
    /// Frames that it has delivered; each has its number as payload.
    delivered: u64,
    seen: Vec<u64>,
}

impl World {
    fn new(layout: RingLayout) -> Self {
        let memory = File::from(memfd_create("ring", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(layout.bytes()).unwrap();
        let place = Place::new().unwrap();
        Self { layout, memory, place, head: 0, delivered: 0, seen: Vec::new() }
    }

    fn write(&self, bytes: &[u8], at: usize) {
        self.memory.write_all_at(bytes, at as u64).unwrap();
    }

    /// Where the status is of what the kernel fills next, and whether it may.
    fn next(&self) -> (usize, bool) {
        let RingLayout { blocks, slots, slot_bytes, .. } = self.layout;
        let at = (self.head % u64::from(slots)) as usize * slot_bytes as usize;
        let mut status = [0; 4];
        let offset = if blocks { BLOCK_STATUS } else { 0 };
        self.memory.read_exact_at(&mut status, (at + offset) as u64).unwrap();
        (at, u32::from_ne_bytes(status) == KERNEL)
    }

    /// Frames one by one into slots, or so many into one block; whether there was room for all.
    fn deliver(&mut self, frames: u64) -> bool {
        if self.layout.blocks {
            return self.deliver_block(frames);
        }
        (0..frames).all(|_| self.deliver_frame())
    }

    /// Like tpacket_rcv() of net/packet/af_packet.c.
    fn deliver_frame(&mut self) -> bool {
        let (at, free) = self.next();
        if free {
            let mut slot = [0; MAC + 8];
            slot[4..8].copy_from_slice(&8_u32.to_ne_bytes());
            slot[8..12].copy_from_slice(&8_u32.to_ne_bytes());
            slot[12..14].copy_from_slice(&(MAC as u16).to_ne_bytes());
            slot[MAC..].copy_from_slice(&self.delivered.to_ne_bytes());
            self.write(&slot[4..], at + 4);
            self.write(&USER.to_ne_bytes(), at);
            self.head += 1;
            self.delivered += 1;
        }
        free
    }

    /// Like prb_close_block().
    fn deliver_block(&mut self, frames: u64) -> bool {
        let (at, free) = self.next();
        if free {
            for number in 0..frames as usize {
                let mut frame = [0; STRIDE];
                frame[..4].copy_from_slice(&(STRIDE as u32).to_ne_bytes());
                frame[12..16].copy_from_slice(&8_u32.to_ne_bytes());
                frame[16..20].copy_from_slice(&8_u32.to_ne_bytes());
                frame[24..26].copy_from_slice(&(MAC as u16).to_ne_bytes());
                let payload = self.delivered + number as u64;
                frame[MAC..MAC + 8].copy_from_slice(&payload.to_ne_bytes());
                self.write(&frame, at + BLOCK_HEADER + number * STRIDE);
            }
            self.write(&(frames as u32).to_ne_bytes(), at + BLOCK_FRAMES);
            self.write(&(BLOCK_HEADER as u32).to_ne_bytes(), at + BLOCK_FIRST);
            // The first block of a ring has number 1 (init_prb_bdqc).
            self.write(&(self.head + 1).to_ne_bytes(), at + BLOCK_SEQUENCE);
            self.write(&USER.to_ne_bytes(), at + BLOCK_STATUS);
            self.head += 1;
            self.delivered += frames;
        }
        free
    }

    /// A reader's life: until the ring is empty, or until it has done so many steps. Whether it has
    /// died.
    fn live(&mut self, steps: Option<u32>) -> bool {
        let place = self.place.descriptor().as_fd().try_clone_to_owned().unwrap();
        let place = Place::open(place).unwrap();
        STEPS.set(steps);
        let life = AssertUnwindSafe(|| {
            let mut ring = Ring::open(&self.memory, self.layout, place).unwrap();
            loop {
                let frames = ring.ready();
                if frames == 0 {
                    return;
                }
                for number in 0..frames {
                    if let Some(frame) = ring.frame(number) {
                        step();
                        self.seen.push(u64::from_ne_bytes(frame.bytes.try_into().unwrap()));
                    }
                }
                ring.done(frames);
            }
        });
        let died = catch_unwind(life).is_err();
        STEPS.set(None);
        died
    }

    /// Every frame was seen, in order, and at most the batches in hand twice.
    fn is_whole(&self, deaths: usize) {
        let mut first = BTreeSet::new();
        let order: Vec<u64> = self.seen.iter().copied().filter(|n| first.insert(*n)).collect();
        assert_eq!(order, (0..self.delivered).collect::<Vec<_>>());
        let twice = self.seen.len() - order.len();
        assert!(twice <= deaths * BATCH, "{twice} twice after {deaths} deaths");
    }

    /// Goes round twice, so that a slot that nobody gives back is met.
    fn goes_round(&mut self) {
        for _ in 0..2 {
            for _ in 0..self.layout.slots {
                assert!(self.deliver(1), "a slot is not the kernel's: {}", self.head);
            }
            assert!(!self.live(None));
        }
    }
}

/// More slots than a batch, so that there is something behind it; and fewer.
const FRAMES: [RingLayout; 2] = [
    RingLayout { blocks: false, bare: false, slots: 80, slot_bytes: 256 },
    RingLayout { blocks: false, bare: false, slots: 8, slot_bytes: 256 },
];
/// A block holds more than two batches.
const BLOCKS: [RingLayout; 2] = [
    RingLayout { blocks: true, bare: false, slots: 2, slot_bytes: 16384 },
    RingLayout { blocks: true, bare: false, slots: 3, slot_bytes: 16384 },
];

/// One death at every step, then one more in what the next reader does, with what the kernel
/// delivers in between.
fn dies_at_every_step(layout: RingLayout, before: &[u64], waiting: &[u64], refills: &[u64]) {
    for refill in refills {
        for first in 0.. {
            let mut second = 0;
            let died = loop {
                let mut world = World::new(layout);
                for frames in before {
                    assert!(world.deliver(*frames));
                    assert!(!world.live(None));
                }
                for frames in waiting {
                    assert!(world.deliver(*frames));
                }
                let died = world.live(Some(first));
                // Into whatever has been given back; there may be no room.
                let _ = world.deliver(*refill);
                let again = world.live(Some(second));
                let _ = world.deliver(*refill);
                assert!(!world.live(None));
                world.is_whole(usize::from(died) + usize::from(again));
                world.goes_round();
                world.is_whole(usize::from(died) + usize::from(again));
                // All steps at the beginning, where it recovers, and some later.
                second = if second < 3 { second + 1 } else { second * 4 };
                if !again {
                    break died;
                }
            };
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_frame_ring_is_read_on_where_its_reader_died() {
    let [large, small] = FRAMES;
    dies_at_every_step(small, &[], &[1], &[0, 1]);
    dies_at_every_step(small, &[5], &[8], &[0, 1, 3, 8]);
    dies_at_every_step(large, &[70], &[70], &[7, 64]);
}

#[test]
fn a_frame_that_is_marked_is_not_seen_again() {
    let [_, small] = FRAMES;
    for marked in 0..=8 {
        let mut world = World::new(small);
        assert!(world.deliver(8));
        assert!(world.live(Some(8 + marked)));
        assert!(!world.live(None));
        assert_eq!(world.seen.len() as u32, 8 + (8 - marked), "{marked} marked");
    }
}

#[test]
fn a_block_ring_is_read_on_where_its_reader_died() {
    let [two, three] = BLOCKS;
    dies_at_every_step(two, &[], &[1], &[0, 1]);
    dies_at_every_step(two, &[3], &[2, 3], &[0, 5]);
    dies_at_every_step(three, &[3, 4], &[140, 1, 70], &[140]);
}

#[test]
fn a_block_ring_tells_how_full_it_is() {
    for layout in BLOCKS {
        let mut world = World::new(layout);
        for blocks in (1..=layout.slots).cycle().take(20) {
            (0..blocks).for_each(|_| assert!(world.deliver(3)));
            let place = world.place.descriptor().try_clone_to_owned().unwrap();
            let mut ring = Ring::open(&world.memory, layout, Place::open(place).unwrap()).unwrap();
            assert_eq!((ring.ready(), world.place.blocks()), (3, blocks.into()));
            ring.done(1);
            drop(ring);
            assert!(!world.live(None));
            assert_eq!((world.place.blocks(), world.place.frames()), (0, world.delivered));
        }
    }
}

/// A ring that is full and a reader that dies again and again at the same step.
#[test]
fn a_reader_that_dies_again_and_again_gets_on() {
    for layout in FRAMES.into_iter().chain(BLOCKS) {
        let mut world = World::new(layout);
        let mut deaths = 0;
        // A batch takes at most so many steps: sent, marked, given back.
        let steps = 3 * BATCH as u32 + 4;
        for turn in 0..200 {
            while world.deliver(1 + turn % 9) {}
            deaths += usize::from(world.live(Some(steps + turn as u32 % 60)));
        }
        assert!(deaths > 50 || layout.slots < 64, "{deaths} deaths");
        assert!(!world.live(None));
        world.is_whole(deaths);
        world.goes_round();
    }
}

/// A frame of a bare interface begins at its IP header, whatever the kernel has put before it.
#[test]
fn a_header_before_a_bare_frame_is_skipped() {
    let layout = RingLayout { bare: true, ..FRAMES[1] };
    for (before, expected) in [(0, Some(0)), (4, Some(4)), (8, Some(8)), (9, None)] {
        let mut world = World::new(layout);
        assert!(world.deliver(1));
        world.write(&(MAC as u16 + before).to_ne_bytes(), 14);
        let mut ring = Ring::open(&world.memory, layout, Place::new().unwrap()).unwrap();
        assert_eq!(ring.ready(), 1);
        let frame = ring.frame(0).unwrap();
        assert!(frame.bare);
        let whole = frame.bytes.len() == frame.length;
        assert_eq!(whole.then_some(8 - frame.length), expected, "{before} bytes before it");
        assert_eq!(frame.before, expected.unwrap_or(0));
    }
}
