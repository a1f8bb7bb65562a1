//! The worker processes of the packet plane, as the status shows them.

use serde::{Deserialize, Serialize};

/// A worker process of the packet plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number, from 1; a restarted worker keeps it.
    pub worker: u32,
    /// `starting`, `running`, `stopping` or `waiting` (for its next start).
    pub state: String,
    /// Since when it is in that state (RFC 3339, UTC).
    pub since: String,
    /// Process id, while there is a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The CPU that it runs on.
    pub cpu: u32,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it ended the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// One for each input interface.
    pub rings: Vec<RingStatus>,
    /// One for each output interface.
    pub send_buffers: Vec<SendBuffer>,
}

/// The receive ring of a worker on an input interface, as the kernel granted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStatus {
    /// The input interface.
    pub interface: String,
    /// `frame` or `block`.
    pub receive: String,
    /// Frames, or blocks.
    pub slots: u32,
    /// Bytes of each of them.
    pub slot_bytes: u32,
    /// Bytes of the ring: slots times their size.
    pub bytes: u64,
    /// Packets that the kernel has put there and the worker has not dealt with. Of a block ring
    /// about.
    #[serde(default)]
    pub waiting: u64,
    /// Slots that the kernel cannot fill, because the worker has not given them back; of a block
    /// ring as the worker saw it last.
    #[serde(default)]
    pub used_slots: u32,
    /// Bytes for frames larger than a slot (SO_RCVBUF).
    pub copy_buffer: u64,
    /// Bytes of it that frames take which the worker has not dealt with.
    #[serde(default)]
    pub copy_used: u64,
    /// Packets that the kernel had no room for in this ring (tp_drops).
    pub dropped: u64,
    /// Packets that the kernel handed over only in part, since the copy buffer was full, or with an
    /// offload that MCR does not know.
    #[serde(default)]
    pub unusable: u64,
}

/// The send buffer of a worker's socket on an output interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendBuffer {
    /// The output interface.
    pub interface: String,
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes that the kernel granted.
    pub granted: u64,
    /// Bytes of it that packets take which the interface has not sent yet.
    #[serde(default)]
    pub used: u64,
    /// Whether what is sent goes past the queueing discipline.
    pub qdisc_bypass: bool,
}
