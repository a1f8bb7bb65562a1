//! One flow of a rule: from one sender's port to one group and port. What it is is decided by its
//! first datagrams, and decided again when many in a row do not fit.

use super::looks::{Kind, begins_like, looks_like};
use super::rtp::{Header, Place, Session};
use super::ts::Stream;
use crate::watch::Inspect;

/// So many datagrams that look alike decide.
const DECIDING: u8 = 4;
/// After so many in a row that do not fit it is open again.
const STRANGE: u8 = 16;

/// See the module's text.
#[derive(Debug, Clone, Default)]
pub(super) struct Flow {
    decided: Option<Kind>,
    /// What the last datagrams looked like, and how many did.
    looked: Option<(Kind, u8)>,
    strange: u8,
    pub(super) rtp: Option<Box<Session>>,
    pub(super) ts: Option<Stream>,
    /// Datagrams that are neither.
    pub(super) other: u64,
    /// Those that have only their beginning here.
    pub(super) cut: u64,
    /// Of its last datagram, in nanoseconds.
    pub(super) heard: u64,
}

impl Flow {
    /// A datagram that arrived at `time`, in nanoseconds.
    pub(super) fn observe(&mut self, inspect: Inspect, payload: &[u8], (time, batch): (u64, u64)) {
        self.heard = time;
        let fits = match self.kind(inspect, || looks_like(payload, payload.len())) {
            Some(Kind::Rtp) => self.rtp(payload, (time, batch)).is_some(),
            Some(Kind::Ts) => self.ts(payload, batch),
            Some(Kind::RtpTs) => match self.rtp(payload, (time, batch)) {
                // A receiver of RTP leaves out what came again, and puts what came late in its place.
                Some((Place::Again | Place::Late, _)) => true,
                Some((Place::Ahead | Place::Astray, start)) => {
                    self.ts(&payload[start..], batch);
                    true
                }
                None => false,
            },
            None => false,
        };
        self.judge(fits);
    }

    /// The first fragment of a datagram: a header of RTP is there, a transport stream is not whole.
    pub(super) fn observe_cut(&mut self, inspect: Inspect, start: &[u8], moment: (u64, u64)) {
        self.heard = moment.0;
        let fits = match self.kind(inspect, || begins_like(start)) {
            Some(Kind::Rtp | Kind::RtpTs) => self.rtp(start, moment).is_some(),
            Some(Kind::Ts) => true,
            None => false,
        };
        if let Some(ts) = &mut self.ts {
            ts.resume();
        }
        self.cut += u64::from(fits && inspect != Inspect::Rtp);
        self.judge(fits);
    }

    fn judge(&mut self, fits: bool) {
        self.other += u64::from(!fits);
        self.strange = if fits { 0 } else { self.strange.saturating_add(1) };
        if self.strange >= STRANGE {
            (self.decided, self.looked, self.strange) = (None, None, 0);
        }
    }

    /// What a datagram is taken for that looks like this.
    fn kind(&mut self, inspect: Inspect, looks: impl Fn() -> Option<Kind>) -> Option<Kind> {
        if inspect == Inspect::Rtp {
            return Some(Kind::Rtp);
        }
        if self.decided.is_some() {
            return self.decided;
        }
        // Asked for a transport stream, RTP alone is strange.
        let looks = looks().filter(|kind| inspect == Inspect::Auto || *kind != Kind::Rtp);
        self.looked = looks.map(|kind| match self.looked {
            Some((before, count)) if before == kind => (kind, count.saturating_add(1)),
            Some(_) | None => (kind, 1),
        });
        self.decided = self.looked.filter(|(_, count)| *count >= DECIDING).map(|(kind, _)| kind);
        looks.or((inspect == Inspect::Ts).then_some(Kind::Ts))
    }

    /// Where it stands and where its payload begins, when it is RTP.
    fn rtp(&mut self, payload: &[u8], (time, batch): (u64, u64)) -> Option<(Place, usize)> {
        let header = Header::parse(payload)?;
        let place = self.rtp.get_or_insert_default().observe(&header, time, batch);
        Some((place, header.header_len))
    }

    fn ts(&mut self, payload: &[u8], batch: u64) -> bool {
        self.ts.get_or_insert_default().observe(payload, batch)
    }

    /// As [`super::rtp::Stream::missed`].
    pub(super) fn missed(&mut self, batch: u64) {
        self.rtp.iter_mut().for_each(|session| session.missed(batch));
        self.ts.iter_mut().for_each(|stream| stream.missed(batch));
    }
}
