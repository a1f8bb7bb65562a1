//! `[packet]` and `[interface.NAME]`: options of the packet plane.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Deserialize;
use toml::Spanned;

use crate::api::unknown_choice;
use crate::flow::InterfaceName;
use crate::packet::{InterfaceOptions, PacketOptions, Receive};
use crate::refusal::{Code, Refusal};

/// `[packet]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketSpec {
    /// Memory of the receive ring of each worker on each input interface, 1 to 4096 MiB.
    pub ring_mib: Option<Spanned<u32>>,
}

/// `[interface.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceSpec {
    /// `frame` or `block`.
    pub receive: Option<Spanned<String>>,
    /// In place of that of [`PacketSpec`].
    pub ring_mib: Option<Spanned<u32>>,
    /// Whether what is sent goes past the queueing discipline.
    #[serde(default)]
    pub qdisc_bypass: bool,
}

/// The options, absent where the file says nothing of them; or which byte is wrong, and why.
pub(super) fn packet_options(
    packet: Option<PacketSpec>,
    interfaces: BTreeMap<Spanned<String>, InterfaceSpec>,
) -> Result<Option<PacketOptions>, (usize, Refusal)> {
    if packet.is_none() && interfaces.is_empty() {
        return Ok(None);
    }
    let mut options = PacketOptions::default();
    if let Some(ring_mib) = packet.and_then(|packet| packet.ring_mib) {
        options.ring_mib = checked(ring_mib, ring_size)?;
    }
    for (name, InterfaceSpec { receive, ring_mib, qdisc_bypass }) in interfaces {
        let name: InterfaceName = checked(name, |name| name.parse())?;
        let receive = receive.map(|word| checked(word, |word| receive_of(&word))).transpose()?;
        let ring_mib = ring_mib.map(|size| checked(size, ring_size)).transpose()?;
        let receive = receive.unwrap_or_default();
        options.interfaces.insert(name, InterfaceOptions { receive, ring_mib, qdisc_bypass });
    }
    Ok(Some(options))
}

fn checked<T, U>(
    value: Spanned<T>,
    check: impl FnOnce(T) -> Result<U, Refusal>,
) -> Result<U, (usize, Refusal)> {
    let at = value.span().start;
    check(value.into_inner()).map_err(|refusal| (at, refusal))
}

fn ring_size(mib: u32) -> Result<u32, Refusal> {
    if RING_MIB.contains(&mib) {
        return Ok(mib);
    }
    let (least, most) = (RING_MIB.start(), RING_MIB.end());
    let message = format!("ring_mib = {mib} is out of range");
    Err(Refusal::new(Code::Invalid, message, format!("it goes from {least} to {most}")))
}

fn receive_of(word: &str) -> Result<Receive, Refusal> {
    let known = Receive::ALL.into_iter().find(|receive| receive.name() == word);
    known.ok_or_else(|| unknown_choice("receive", word, "frame, block"))
}

const RING_MIB: RangeInclusive<u32> = 1..=4096;
