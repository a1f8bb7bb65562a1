//! The figures of one stream.

use super::looks::Looks;
use crate::wire::ip::Ip;

/// A datagram, a super-packet of several, or the first fragment of one.
pub(super) struct Datagram<'a> {
    pub(super) ttl: u8,
    /// UDP payload bytes that came.
    pub(super) here: usize,
    /// UDP payload bytes by the length field: of a first fragment more than came.
    pub(super) whole: usize,
    /// As in [`super::Sight`].
    pub(super) segment_size: usize,
    pub(super) fragment: bool,
    /// What was kept of the payload.
    pub(super) start: &'a [u8],
}

/// The least and the most; nothing before the first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span(Option<(u32, u32)>);

impl Span {
    pub(super) fn add(&mut self, value: u32) {
        let (min, max) = self.0.unwrap_or((value, value));
        self.0 = Some((min.min(value), max.max(value)));
    }

    pub(super) fn ends(self) -> (u32, u32) {
        self.0.unwrap_or_default()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Stream {
    pub(super) packets: u64,
    /// UDP payload bytes.
    pub(super) bytes: u64,
    pub(super) fragments: u64,
    pub(super) ttl: Span,
    pub(super) size: Span,
    pub(super) looks: Looks,
}

impl Stream {
    pub(super) fn add(&mut self, datagram: &Datagram<'_>) {
        let Datagram { ttl, here, whole, segment_size, fragment, start } = *datagram;
        let segment = if segment_size == 0 { whole } else { segment_size.min(whole) };
        let packets = if segment_size == 0 { 1 } else { here.div_ceil(segment_size).max(1) };
        self.packets += packets as u64;
        self.bytes += here as u64;
        self.fragments += u64::from(fragment);
        self.ttl.add(ttl.into());
        self.size.add(segment as u32);
        if packets > 1 {
            // The last one is what the others leave.
            self.size.add((here - (packets - 1) * segment_size) as u32);
        }
        self.looks.add(&start[..start.len().min(segment)], segment);
    }

    /// A later fragment.
    pub(super) fn add_rest(&mut self, ip: &Ip<'_>) {
        self.packets += 1;
        self.bytes += ip.payload_len() as u64;
        self.fragments += 1;
        self.ttl.add(ip.ttl().into());
    }
}
