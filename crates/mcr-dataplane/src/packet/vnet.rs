//! `struct virtio_net_hdr` (linux/virtio_net.h), which tells of offloads beside a frame, both ways
//! (`PACKET_VNET_HDR`). In the host's byte order.

/// Its bytes.
pub(crate) const LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE` and `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_NONE: u8 = 0;
const GSO_UDP_L4: u8 = 5;

/// What the kernel says of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VnetHeader {
    /// The checksum is still to be made (`CHECKSUM_PARTIAL`).
    pub(crate) partial_checksum: bool,
    /// UDP payload bytes of each datagram in a super-packet; 0 for an ordinary frame.
    pub(crate) segment_size: u16,
}

impl VnetHeader {
    /// From the first [`LEN`] bytes of `bytes`.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let [flags, gso_type, _, _, low, high, ..] = *bytes else { return Self::default() };
        let super_packet = gso_type != GSO_NONE;
        Self {
            partial_checksum: flags & NEEDS_CSUM != 0,
            segment_size: if super_packet { u16::from_ne_bytes([low, high]) } else { 0 },
        }
    }

    /// To the first [`LEN`] bytes of `bytes`: for a UDP datagram, or a super-packet of them, whose
    /// UDP header begins `udp` bytes into the frame.
    pub(crate) fn write(self, bytes: &mut [u8], udp: usize) {
        bytes[..LEN].fill(0);
        if self.partial_checksum {
            bytes[0] = NEEDS_CSUM;
            bytes[6..8].copy_from_slice(&(udp as u16).to_ne_bytes());
            bytes[8..10].copy_from_slice(&6_u16.to_ne_bytes());
        }
        if self.segment_size != 0 {
            bytes[1] = GSO_UDP_L4;
            bytes[2..4].copy_from_slice(&(udp as u16 + 8).to_ne_bytes());
            bytes[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        }
    }
}
