//! The sources of one flow. A source counts once two of its packets have come in order (probation,
//! RFC 3550 A.1), so that what only looks like RTP does not.

use super::stream::{Counts, Place, Stream};
use super::{Header, clock};

/// Sources that are told apart at a time; with more, the one that was silent longest gives way.
const SOURCES_MAX: usize = 8;

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Each with when it was last heard, in nanoseconds.
    sources: Vec<(u32, Stream, u64)>,
    /// One packet of each has come: the source and the number that would follow.
    candidates: Vec<(u32, u16)>,
    /// Of sources that gave way.
    gone: Counts,
    other: u64,
}

/// A source as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its number.
    pub ssrc: u32,
    /// When it was last heard, in nanoseconds.
    pub heard: u64,
    /// Of its last packet.
    pub payload_type: u8,
    /// Units of its timestamp in a second.
    pub clock_rate: u32,
    /// Its packets.
    pub counts: Counts,
    /// In microseconds.
    pub jitter: u64,
}

impl Session {
    /// A packet that arrived at `time`, in nanoseconds.
    pub fn observe(&mut self, header: &Header, time: u64, batch: u64) -> Place {
        let Some(at) = self.sources.iter().position(|(ssrc, ..)| *ssrc == header.ssrc) else {
            return self.on_probation(header, time, batch);
        };
        let (_, stream, heard) = &mut self.sources[at];
        *heard = time;
        let (place, astray) = stream.observe(header, batch);
        self.other += u64::from(astray);
        if matches!(place, Place::Ahead | Place::Late) {
            stream.arrived(header, time);
        }
        place
    }

    fn on_probation(&mut self, header: &Header, time: u64, batch: u64) -> Place {
        let next = header.sequence.wrapping_add(1);
        let candidate = self.candidates.iter_mut().find(|(ssrc, _)| *ssrc == header.ssrc);
        match candidate {
            Some((_, follows)) if *follows == header.sequence => {
                self.candidates.retain(|(ssrc, _)| *ssrc != header.ssrc);
                self.admit(header, time, batch);
                Place::Ahead
            }
            Some((_, follows)) => {
                *follows = next;
                self.other += 1;
                Place::Astray
            }
            None => {
                if self.candidates.len() == SOURCES_MAX {
                    self.candidates.remove(0);
                    self.other += 1;
                }
                self.candidates.push((header.ssrc, next));
                Place::Astray
            }
        }
    }

    fn admit(&mut self, header: &Header, time: u64, batch: u64) {
        if !self.sources.is_empty() {
            self.gone.restarts += 1;
        }
        if self.sources.len() == SOURCES_MAX {
            let oldest = self.sources.iter().enumerate().min_by_key(|(_, (.., heard))| *heard);
            let (_, stream, _) = self.sources.swap_remove(oldest.map_or(0, |(at, _)| at));
            self.gone += Counts { missing: 0, ..stream.counts() };
        }
        let mut stream = Stream::new(header, batch);
        stream.arrived(header, time);
        self.sources.push((header.ssrc, stream, time));
    }

    /// As [`Stream::missed`].
    pub fn missed(&mut self, batch: u64) {
        self.sources.iter_mut().for_each(|(_, stream, _)| stream.missed(batch));
        self.candidates.clear();
    }

    /// Of all sources together. One that comes beside or after another is a restart.
    pub fn counts(&self) -> Counts {
        let mut counts = self.gone;
        self.sources.iter().for_each(|(_, stream, _)| counts += stream.counts());
        counts
    }

    /// Packets that were in no source's order.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// Those that are told apart.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        self.sources.iter().map(|(ssrc, stream, heard)| Source {
            ssrc: *ssrc,
            heard: *heard,
            payload_type: stream.payload_type(),
            clock_rate: clock::clock_rate(stream.payload_type()),
            counts: stream.counts(),
            jitter: stream.jitter(),
        })
    }
}
