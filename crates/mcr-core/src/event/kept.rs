//! The last events, for those who come later and those who are slow.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Event;
use crate::api::EventView;
use crate::relay::Now;

/// The last events of a process. Their ids have no gaps.
#[derive(Debug)]
pub struct Kept {
    room: usize,
    /// The id of the first event of this process.
    first: u64,
    /// The id of the next one.
    next: u64,
    events: VecDeque<Arc<EventView>>,
}

/// What comes after an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This one.
    Event(Arc<EventView>),
    /// Some that are not kept any more. The ids up to this one are of them.
    Missed {
        /// How many; `None` when those of an earlier process are among them.
        count: Option<u64>,
        /// The last of them.
        last: u64,
    },
    /// Nothing yet.
    Nothing,
}

impl Kept {
    /// Keeps at most `room` events; their ids begin with `first`, which should be larger than any of
    /// an earlier process of the instance.
    pub fn new(room: usize, first: u64) -> Self {
        Self { room, first, next: first, events: VecDeque::with_capacity(room) }
    }

    /// Keeps an event, and returns it with its id.
    pub fn push(&mut self, event: &Event, now: Now) -> Arc<EventView> {
        if self.events.len() == self.room {
            self.events.pop_front();
        }
        let view = Arc::new(event.view(self.next, now));
        self.events.push_back(Arc::clone(&view));
        self.next += 1;
        view
    }

    /// What comes after the event of that id. After 0 comes the oldest that is kept.
    pub fn after(&self, id: u64) -> Next {
        let oldest = self.next - self.events.len() as u64;
        if id != 0 && id + 1 < oldest {
            let ours = id + 1 >= self.first;
            return Next::Missed { count: ours.then(|| oldest - 1 - id), last: oldest - 1 };
        }
        let position = (id + 1).saturating_sub(oldest) as usize;
        self.events.get(position).map_or(Next::Nothing, |event| Next::Event(Arc::clone(event)))
    }

    /// The id of the last event; of one of an earlier process as long as there is none.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// All events, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &EventView> {
        self.events.iter().map(|event| &**event)
    }
}
