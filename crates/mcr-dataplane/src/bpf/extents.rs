//! Which elements of the outputs array are free: runs of neighbours, the lowest that fits first.

use std::collections::BTreeMap;

/// Free runs by their first element.
#[derive(Debug)]
pub(super) struct Extents(BTreeMap<u32, u32>);

impl Extents {
    pub(super) fn new(size: u32) -> Self {
        Self(BTreeMap::from([(0, size)]))
    }

    /// A run of `count` elements.
    pub(super) fn allocate(&mut self, count: u32) -> Option<u32> {
        let (first, size) =
            self.0.iter().map(|(first, size)| (*first, *size)).find(|(_, size)| *size >= count)?;
        self.0.remove(&first);
        if size > count {
            self.0.insert(first + count, size - count);
        }
        Some(first)
    }

    /// Gives a run back, and joins it with its free neighbours.
    pub(super) fn release(&mut self, mut first: u32, mut count: u32) {
        if let Some((before, size)) = self.0.range(..first).next_back().map(|(f, s)| (*f, *s))
            && before + size == first
        {
            self.0.remove(&before);
            (first, count) = (before, size + count);
        }
        if let Some(size) = self.0.remove(&(first + count)) {
            count += size;
        }
        self.0.insert(first, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_reused_and_joined() {
        let mut extents = Extents::new(10);
        let (a, b, c) = (extents.allocate(3), extents.allocate(3), extents.allocate(4));
        assert_eq!((a, b, c), (Some(0), Some(3), Some(6)));
        assert_eq!(extents.allocate(1), None);
        extents.release(0, 3);
        extents.release(6, 4);
        assert_eq!(extents.allocate(5), None);
        extents.release(3, 3);
        assert_eq!(extents.0, BTreeMap::from([(0, 10)]));
        assert_eq!(extents.allocate(10), Some(0));
    }
}
