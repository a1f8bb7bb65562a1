//! Memory that a worker shares with its supervisor: counters, and the place it has reached in each
//! ring; and what all workers share. It belongs to the supervisor, so it survives the worker.
//!
//! Nobody takes a lock. Each counter has one writer, the worker; the supervisor sets those of ids to 0
//! that no worker uses.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use mcr_core::action::{OutputCounters, OutputId, RuleCounters, RuleId, Volume};
use mcr_core::forward::Shared;
use mcr_core::senders::{self, Sender};
use mcr_core::verdict::{OutputDrop, Pass, RuleDrop};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};

const WORD: usize = size_of::<u64>();
/// Words of a rule: received, matched (packets and bytes of each), dropped by reason; its senders.
const RULE_WORDS: usize = RULE_SUMS + senders::WORDS;
const RULE_SUMS: usize = 4 + RuleDrop::ALL.len();
/// Words of an output: offered, forwarded, dropped by reason.
const OUTPUT_WORDS: usize = 4 + OutputDrop::ALL.len();

/// A number of u64 words in memory that has a descriptor.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    map: MmapRaw,
    words: usize,
}

impl Memory {
    /// New memory, all zero. Its size is sealed, so that nobody who has the descriptor can take
    /// pages away from under the others.
    fn new(words: usize) -> io::Result<Self> {
        let file = memfd_create("mcr", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, (words * WORD) as u64)?;
        fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Self::map(file, words)
    }

    fn map(file: OwnedFd, words: usize) -> io::Result<Self> {
        if fstat(&file)?.st_size.cast_unsigned() < (words * WORD) as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let file = File::from(file);
        let map = MmapOptions::new().len(words * WORD).map_raw(&file)?;
        Ok(Self { file, map, words })
    }

    fn words(&self) -> &[AtomicU64] {
        let first = self.map.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping starts at a page, has `words` words, whose file is sealed against
        // shrinking, and lives as long as `self`; everybody accesses them as atomics only.
        unsafe { std::slice::from_raw_parts(first, self.words) }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

/// Adds to a counter whose only writer is the caller.
fn add(word: &AtomicU64, count: u64) {
    word.store(read(word).wrapping_add(count), Ordering::Relaxed);
}

fn add_volume(words: &[AtomicU64], volume: Volume) {
    add(&words[0], volume.packets);
    add(&words[1], volume.bytes);
}

fn volume(words: &[AtomicU64]) -> Volume {
    Volume { packets: read(&words[0]), bytes: read(&words[1]) }
}

/// Counters of rules and outputs, of one worker.
#[derive(Debug)]
pub(crate) struct CounterMemory {
    memory: Memory,
    rules: usize,
}

impl CounterMemory {
    /// For ids below these.
    pub(crate) fn new(rules: u32, outputs: u32) -> io::Result<Self> {
        let words = rules as usize * RULE_WORDS + outputs as usize * OUTPUT_WORDS;
        Ok(Self { memory: Memory::new(words)?, rules: rules as usize })
    }

    /// In a worker: what the supervisor made by [`CounterMemory::new`].
    pub(crate) fn open(file: OwnedFd, rules: u32, outputs: u32) -> io::Result<Self> {
        let words = rules as usize * RULE_WORDS + outputs as usize * OUTPUT_WORDS;
        Ok(Self { memory: Memory::map(file, words)?, rules: rules as usize })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.descriptor()
    }

    fn rule(&self, id: RuleId) -> &[AtomicU64] {
        &self.memory.words()[id.0 as usize * RULE_WORDS..][..RULE_WORDS]
    }

    fn output(&self, id: OutputId) -> &[AtomicU64] {
        let outputs = &self.memory.words()[self.rules * RULE_WORDS..];
        &outputs[id.0 as usize * OUTPUT_WORDS..][..OUTPUT_WORDS]
    }

    /// A packet of a rule that its outputs are offered.
    pub(crate) fn matched(&self, id: RuleId, volume: Volume) {
        let words = self.rule(id);
        add_volume(&words[..2], volume);
        add_volume(&words[2..4], volume);
    }

    /// A packet of a rule that its outputs are not offered.
    pub(crate) fn rule_dropped(&self, id: RuleId, reason: RuleDrop, volume: Volume) {
        let words = self.rule(id);
        add_volume(&words[..2], volume);
        add(&words[4 + reason as usize], volume.packets);
    }

    /// A packet that was offered to an output, and what became of it.
    pub(crate) fn offered(&self, id: OutputId, volume: Volume, sent: Result<(), OutputDrop>) {
        let words = self.output(id);
        add_volume(&words[..2], volume);
        match sent {
            Ok(()) => add_volume(&words[2..4], volume),
            Err(reason) => add(&words[4 + reason as usize], volume.packets),
        }
    }

    /// Who sent a packet of a rule, at `now` by `CLOCK_MONOTONIC`.
    pub(crate) fn sent_by(&self, id: RuleId, source: IpAddr, packets: u64, now: u64) {
        if let Some(table) = self.senders(id) {
            table.note(source, packets, now);
        }
    }

    fn senders(&self, id: RuleId) -> Option<senders::Table<'_>> {
        self.rule(id)[RULE_SUMS..].try_into().ok().map(senders::Table::new)
    }

    pub(crate) fn clear_rule(&self, id: RuleId) {
        self.rule(id).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    pub(crate) fn clear_output(&self, id: OutputId) {
        self.output(id).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Adds what is counted for a rule to `sum`, but for its senders.
    pub(crate) fn add_rule(&self, id: RuleId, sum: &mut RuleCounters) {
        let words = self.rule(id);
        sum.received += volume(&words[..2]);
        sum.matched += volume(&words[2..4]);
        for (sum, word) in sum.dropped.iter_mut().zip(&words[4..RULE_SUMS]) {
            *sum += read(word);
        }
    }

    /// Who this worker has seen sending to a rule.
    pub(crate) fn senders_of(&self, id: RuleId) -> impl Iterator<Item = Sender> {
        self.senders(id).into_iter().flat_map(senders::Table::senders)
    }

    /// Adds what is counted for an output to `sum`.
    pub(crate) fn add_output(&self, id: OutputId, sum: &mut OutputCounters) {
        let words = self.output(id);
        sum.offered += volume(&words[..2]);
        sum.forwarded += volume(&words[2..4]);
        for (sum, word) in sum.dropped.iter_mut().zip(&words[4..]) {
            *sum += read(word);
        }
    }
}

/// What all workers of a relay share: the words of [`Shared`].
#[derive(Debug)]
pub(crate) struct SharedMemory(Memory);

impl SharedMemory {
    /// For ids below `rules`.
    pub(crate) fn new(rules: u32) -> io::Result<Self> {
        let memory = Self(Memory::new(Shared::words(rules))?);
        let (random, mut number) = (RandomState::new(), 0_u32);
        memory.shared().begin(|| {
            number += 1;
            random.hash_one(number)
        });
        Ok(memory)
    }

    /// In a worker: what the supervisor made by [`SharedMemory::new`].
    pub(crate) fn open(file: OwnedFd, rules: u32) -> io::Result<Self> {
        Memory::map(file, Shared::words(rules)).map(Self)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.descriptor()
    }

    pub(crate) fn shared(&self) -> Shared<'_> {
        Shared::new(self.0.words())
    }
}

/// The place that a worker has reached in a ring, and what it counted there beside rules.
///
/// `reached` is the slot to look at next, counted from the ring's beginning without wrapping; all
/// before it are given back to the kernel. What is before `sent` must not be sent again. In between
/// lie the slots that are being given back.
#[derive(Debug)]
pub(crate) struct Place(Memory);

const REACHED: usize = 0;
const SENT: usize = 1;
const TAKEN: usize = 2;
const SEQUENCE: usize = 3;
const UNUSABLE: usize = 4;
const EMPTY: usize = 5;
const PASSED: usize = 6;
const PLACE_WORDS: usize = PASSED + Pass::COUNTED.len();

impl Place {
    pub(crate) fn new() -> io::Result<Self> {
        Memory::new(PLACE_WORDS).map(Self)
    }

    /// In a worker: what the supervisor made by [`Place::new`].
    pub(crate) fn open(file: OwnedFd) -> io::Result<Self> {
        Memory::map(file, PLACE_WORDS).map(Self)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.descriptor()
    }

    pub(crate) fn reached(&self) -> u64 {
        read(&self.0.words()[REACHED])
    }

    pub(crate) fn sent(&self) -> u64 {
        read(&self.0.words()[SENT])
    }

    /// Released: whoever reads this after a crash sees what was done before it.
    pub(crate) fn set_reached(&self, slot: u64) {
        self.set(REACHED, slot);
    }

    pub(crate) fn set_sent(&self, slot: u64) {
        self.set(SENT, slot);
    }

    /// Frames of the block in hand that have been sent (block rings).
    pub(crate) fn taken(&self) -> u64 {
        read(&self.0.words()[TAKEN])
    }

    pub(crate) fn set_taken(&self, frames: u64) {
        self.set(TAKEN, frames);
    }

    /// The kernel's number of the last block that was sent whole (block rings).
    pub(crate) fn sequence(&self) -> u64 {
        read(&self.0.words()[SEQUENCE])
    }

    pub(crate) fn set_sequence(&self, number: u64) {
        self.set(SEQUENCE, number);
    }

    fn set(&self, word: usize, value: u64) {
        #[cfg(test)]
        super::ring::tests::step();
        self.0.words()[word].store(value, Ordering::Release);
    }

    /// A frame that the kernel handed over only in part, or with an offload that is not known.
    pub(crate) fn add_unusable(&self) {
        add(&self.0.words()[UNUSABLE], 1);
    }

    pub(crate) fn unusable(&self) -> u64 {
        read(&self.0.words()[UNUSABLE])
    }

    /// The ring was found empty.
    pub(crate) fn add_empty(&self) {
        add(&self.0.words()[EMPTY], 1);
    }

    /// How often the ring was found empty.
    pub(crate) fn empty(&self) -> u64 {
        read(&self.0.words()[EMPTY])
    }

    /// A packet that no rule takes.
    pub(crate) fn add_passed(&self, reason: Pass) {
        if reason != Pass::NotOurs {
            add(&self.0.words()[PASSED + reason as usize], 1);
        }
    }

    /// Adds what is counted to `sum`.
    pub(crate) fn sum_passed(&self, sum: &mut [u64; Pass::COUNTED.len()]) {
        for (sum, word) in sum.iter_mut().zip(&self.0.words()[PASSED..]) {
            *sum += read(word);
        }
    }
}
