//! The columns that the list can be sorted by.

use std::cmp::Ordering;

use super::row::Row;

/// A column. Numbers sort the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Name,
    /// What needs somebody first.
    State,
    Packets,
    Bits,
    /// By what goes missing now, then by what has.
    Missing,
    /// The longest silence first, and first of all those that have never seen a packet.
    Last,
}

impl Sort {
    pub(crate) const ALL: [Self; 6] =
        [Self::Name, Self::State, Self::Packets, Self::Bits, Self::Missing, Self::Last];

    pub(crate) fn next(self) -> Self {
        self.step(1)
    }

    pub(crate) fn previous(self) -> Self {
        self.step(Self::ALL.len() - 1)
    }

    fn step(self, by: usize) -> Self {
        let place = Self::ALL.iter().position(|column| *column == self).unwrap_or_default();
        Self::ALL[(place + by) % Self::ALL.len()]
    }

    /// Rules that are equal stay in their order.
    pub(crate) fn compare(self, a: &Row, b: &Row) -> Ordering {
        match self {
            Self::Name => a.stats.name.cmp(&b.stats.name),
            Self::State => urgency(&a.stats.state).cmp(&urgency(&b.stats.state)),
            Self::Packets => b.pace.packets.total_cmp(&a.pace.packets),
            Self::Bits => b.pace.bits.total_cmp(&a.pace.bits),
            Self::Missing => {
                let now = b.pace.missing.total_cmp(&a.pace.missing);
                now.then(b.missing.cmp(&a.missing))
            }
            // RFC 3339 in UTC sorts as text.
            Self::Last => a.stats.last_packet.cmp(&b.stats.last_packet),
        }
    }
}

fn urgency(state: &str) -> usize {
    let states = ["failed", "waiting", "idle", "forwarding", "disabled"];
    states.iter().position(|known| *known == state).unwrap_or(states.len())
}
