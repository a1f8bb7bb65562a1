//! What an operator may choose of the packet plane.

use std::collections::BTreeMap;

use crate::flow::InterfaceName;

/// Options of the packet plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketOptions {
    /// Memory of the receive ring of each worker on each input interface, in MiB.
    pub ring_mib: u32,
    /// What differs on some interfaces.
    pub interfaces: BTreeMap<InterfaceName, InterfaceOptions>,
}

impl Default for PacketOptions {
    fn default() -> Self {
        Self { ring_mib: 64, interfaces: BTreeMap::new() }
    }
}

impl PacketOptions {
    /// Memory of a receive ring on this interface, in MiB.
    pub fn ring_mib(&self, name: &InterfaceName) -> u32 {
        self.interface(name).ring_mib.unwrap_or(self.ring_mib)
    }

    /// What holds for this interface.
    pub fn interface(&self, name: &InterfaceName) -> InterfaceOptions {
        self.interfaces.get(name).copied().unwrap_or_default()
    }
}

/// Options of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterfaceOptions {
    /// How the kernel hands over what arrives.
    pub receive: Receive,
    /// In place of [`PacketOptions::ring_mib`].
    pub ring_mib: Option<u32>,
    /// Whether what is sent goes past the queueing discipline.
    pub qdisc_bypass: bool,
}

/// How the kernel hands over what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Receive {
    /// Every frame wakes the worker.
    #[default]
    Frame,
    /// Blocks of frames: less CPU, about 1 ms later.
    Block,
}

impl Receive {
    /// All ways.
    pub const ALL: [Self; 2] = [Self::Frame, Self::Block];

    /// The name in files, JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Block => "block",
        }
    }
}
