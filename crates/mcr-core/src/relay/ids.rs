//! Small numbers for counters: the lowest free one is given out, so that what is read in batches
//! stays dense.

use std::collections::BTreeSet;

/// The numbers in use and free, from 0.
#[derive(Debug, Default)]
pub(super) struct IdPool {
    free: BTreeSet<u32>,
    next: u32,
}

impl IdPool {
    pub(super) fn allocate(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    pub(super) fn release(&mut self, id: u32) {
        self.free.insert(id);
    }

    pub(super) fn in_use(&self) -> usize {
        self.next as usize - self.free.len()
    }

    /// One more than the highest number in use.
    pub(super) fn bound(&self) -> u32 {
        let trailing = (0..self.next).rev().take_while(|id| self.free.contains(id)).count();
        self.next - trailing as u32
    }
}
