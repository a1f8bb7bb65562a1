//! `struct virtio_net_hdr` (linux/virtio_net.h), which tells of offloads beside a frame, both ways
//! (`PACKET_VNET_HDR`). In the host's byte order.

/// Its bytes.
pub(crate) const LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE` and `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_NONE: u8 = 0;
const GSO_UDP_L4: u8 = 5;
/// Where UDP has its checksum.
const UDP_CHECKSUM: u16 = 6;

/// What the kernel says of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VnetHeader {
    needs_checksum: bool,
    gso_type: u8,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

impl VnetHeader {
    /// From the first [`LEN`] bytes of `bytes`.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let [flags, gso_type, _, _, g0, g1, s0, s1, o0, o1, ..] = *bytes else {
            return Self::default();
        };
        Self {
            needs_checksum: flags & NEEDS_CSUM != 0,
            gso_type,
            gso_size: u16::from_ne_bytes([g0, g1]),
            checksum_start: u16::from_ne_bytes([s0, s1]),
            checksum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Whether it is an ordinary frame, or a super-packet of UDP datagrams.
    pub(crate) fn is_known(self) -> bool {
        matches!(self.gso_type, GSO_NONE | GSO_UDP_L4)
    }

    /// UDP payload bytes of each datagram in a super-packet; 0 for an ordinary frame.
    pub(crate) fn segment_size(self) -> u16 {
        if self.gso_type == GSO_UDP_L4 { self.gso_size } else { 0 }
    }

    /// Of the frame without its first bytes: a header that is no part of it.
    pub(crate) fn without(self, bytes: usize) -> Self {
        match usize::from(self.checksum_start).checked_sub(bytes) {
            Some(start) => Self { checksum_start: start as u16, ..self },
            None => Self { needs_checksum: false, ..self },
        }
    }

    /// Whether a checksum is still to be made, of whatever header.
    pub(crate) fn needs_checksum(self) -> bool {
        self.needs_checksum
    }

    /// Whether the checksum of the UDP header that begins `udp` bytes into the frame is still to be
    /// made (`CHECKSUM_PARTIAL`). In a tunnel it may be that of an inner header.
    pub(crate) fn is_partial(self, udp: usize) -> bool {
        self.needs_checksum
            && usize::from(self.checksum_start) == udp
            && self.checksum_offset == UDP_CHECKSUM
    }

    /// The same, with the checksum of that UDP header to be made.
    pub(crate) fn partial(self, udp: usize) -> Self {
        let checksum_start = udp as u16;
        Self { needs_checksum: true, checksum_start, checksum_offset: UDP_CHECKSUM, ..self }
    }

    /// To the first [`LEN`] bytes of `bytes`: for a frame whose UDP header begins `udp` bytes into it,
    /// where it began `came` bytes into the one that came in.
    pub(crate) fn write(self, bytes: &mut [u8], came: usize, udp: usize) {
        bytes[..LEN].fill(0);
        if self.needs_checksum {
            let start = self.checksum_start.wrapping_sub(came as u16).wrapping_add(udp as u16);
            bytes[0] = NEEDS_CSUM;
            bytes[6..8].copy_from_slice(&start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        }
        if self.segment_size() != 0 {
            bytes[1] = GSO_UDP_L4;
            bytes[2..4].copy_from_slice(&(udp as u16 + 8).to_ne_bytes());
            bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written() {
        for bytes in [
            [0; LEN],
            [&[1, 0, 0, 0, 0, 0][..], &34_u16.to_ne_bytes(), &6_u16.to_ne_bytes()]
                .concat()
                .try_into()
                .unwrap_or_default(),
        ] {
            let mut again = [0xee; LEN];
            VnetHeader::read(&bytes).write(&mut again, 34, 34);
            assert_eq!(again, bytes);
        }
        let partial = VnetHeader::default().partial(34);
        let mut bytes = [0; LEN];
        partial.write(&mut bytes, 34, 20);
        assert!(VnetHeader::read(&bytes).is_partial(20), "to an interface without link header");
        partial.without(14).write(&mut bytes, 20, 34);
        assert!(VnetHeader::read(&bytes).is_partial(34), "and back");
        assert!(!partial.without(35).needs_checksum());
        let mut bytes = [0; LEN];
        bytes[1] = GSO_UDP_L4;
        bytes[4..6].copy_from_slice(&1000_u16.to_ne_bytes());
        let header = VnetHeader::read(&bytes).partial(34);
        assert_eq!((header.segment_size(), header.is_partial(34)), (1000, true));
        assert!(!header.is_partial(84), "the checksum of an inner header");
        bytes[1] = 1;
        assert!(!VnetHeader::read(&bytes).is_known(), "a TCP super-packet in a tunnel");
    }
}
