//! A short look at the flows of rules on the wire.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mcr_core::doctor::Known;
use mcr_core::doctor::seen::{Frame, Seen};
use mcr_core::flow::{AddressBlock, PortRange};
use mcr_core::relay::{RuleFacts, State};
use mcr_core::wire::ethernet;
use mcr_dataplane::tap::{Catch, Caught, Tap, TapOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Headers, and nothing of the payload.
const SNAP: u32 = 128;
const RING_BYTES: u32 = 4 << 20;
/// So many packets of streams that flow say enough of them.
const ENOUGH: usize = 100_000;

type Flows = Vec<(AddressBlock, PortRange)>;

/// What to look at. Streams that flow are looked at until there is enough of them, so that a busy relay
/// is not kept busier; what does not flow is waited for.
pub(super) struct Plan {
    flowing: Flows,
    waited_for: Flows,
}

impl Plan {
    pub(super) fn make(rules: &[RuleFacts]) -> Self {
        let mut plan = Self { flowing: Vec::new(), waited_for: Vec::new() };
        for facts in rules.iter().filter(|facts| facts.state != State::Disabled) {
            let input = &facts.rule.input;
            let flows = match facts.state {
                State::Forwarding => &mut plan.flowing,
                State::Idle | State::Disabled | State::Waiting | State::Failed => {
                    &mut plan.waited_for
                }
            };
            flows.push((input.addresses, input.ports));
            let groups = facts.rule.outputs.iter().map(|output| &output.to);
            let groups = groups.filter(|to| to.addresses.first().is_multicast());
            plan.flowing.extend(groups.map(|to| (to.addresses, to.ports.unwrap_or(input.ports))));
        }
        plan
    }
}

/// Watches all interfaces. Blocks for that long.
pub(super) fn watch(plan: &Plan, duration: Duration) -> Known<Seen> {
    let end = Instant::now() + duration;
    let mut seen = Seen::default();
    let waited_for = Blocks::of(&plan.waited_for);
    let mut slow = open(&plan.waited_for)?;
    let mut busy = open(&plan.flowing)?;
    let mut count = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        wait(slow.iter().chain(&busy), left);
        // A tap may see more than it was asked for: each packet is of one of them.
        if let Some(tap) = &mut slow {
            read(tap, &mut seen, |destination| waited_for.has(destination));
        }
        if let Some(tap) = &mut busy {
            count += read(tap, &mut seen, |destination| !waited_for.has(destination));
        }
        if let Some(mut tap) = busy.take_if(|_| count >= ENOUGH) {
            seen.missed += tap.lost();
        }
        if left.is_zero() {
            break;
        }
    }
    seen.missed += slow.as_mut().map_or(0, Tap::lost) + busy.as_mut().map_or(0, Tap::lost);
    Ok(seen)
}

fn open(flows: &Flows) -> Known<Option<Tap>> {
    if flows.is_empty() {
        return Ok(None);
    }
    let catch = Catch::Flows(flows.clone());
    let options = TapOptions { interface: None, catch, snap: SNAP, ring_bytes: RING_BYTES };
    let tap = Tap::open(&options);
    tap.map(Some)
        .map_err(|error| format!("the wire cannot be watched: {error} (needs CAP_NET_RAW)"))
}

/// Until there is something to read, or the time is over.
fn wait<'t>(taps: impl Iterator<Item = &'t Tap>, left: Duration) {
    let mut taps: Vec<PollFd<'_>> = taps.map(|tap| PollFd::new(tap, PollFlags::IN)).collect();
    let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    // An interruption is a reason to look.
    let _ = poll(&mut taps, Some(&time));
}

fn read(tap: &mut Tap, seen: &mut Seen, mut mine: impl FnMut(std::net::IpAddr) -> bool) -> usize {
    tap.read(|caught| {
        let Some(frame) = frame(caught) else { return };
        let ip = mcr_core::wire::ip::Ip::parse_start(frame.packet, usize::MAX);
        if ip.is_some_and(|ip| mine(ip.destination())) {
            seen.observe(&frame);
        }
    })
}

/// From the IP header on. A tag in front of it is the frame's tag.
pub(super) fn frame<'r>(caught: &Caught<'r>) -> Option<Frame<'r>> {
    let (mut packet, mut tag) = (caught.bytes, caught.tag);
    if !caught.bare {
        let (mut kind, mut rest) = ethernet::parse(packet)?;
        while matches!(kind, ethernet::TYPE_VLAN | ethernet::TYPE_QINQ) {
            let (head, inner) = rest.split_first_chunk::<4>()?;
            tag = tag.or(Some(u16::from_be_bytes([head[0], head[1]])));
            (kind, rest) = (u16::from_be_bytes([head[2], head[3]]), inner);
        }
        packet = rest;
    }
    let Caught { interface, outgoing, segment_size: segment, .. } = *caught;
    Some(Frame { interface, outgoing, tag, packet, segment })
}

/// Addresses to look for, most of them single ones.
struct Blocks {
    single: BTreeSet<std::net::IpAddr>,
    ranges: Vec<AddressBlock>,
}

impl Blocks {
    fn of(flows: &Flows) -> Self {
        let (single, ranges): (Vec<_>, Vec<_>) =
            flows.iter().map(|(block, _)| *block).partition(|block| block.is_single());
        Self { single: single.into_iter().map(AddressBlock::first).collect(), ranges }
    }

    fn has(&self, address: std::net::IpAddr) -> bool {
        self.single.contains(&address) || self.ranges.iter().any(|block| block.contains(address))
    }
}
