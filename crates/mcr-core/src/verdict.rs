//! Verdicts: what became of a packet. Every reason has its name, its help text and its counter
//! here and nowhere else; the eBPF program's `abi.h` repeats the numbers, and a test compares them.

use serde::{Deserialize, Serialize};

/// Why a packet of a rule was not offered to the rule's outputs. It goes on to the host's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum RuleDrop {
    /// MCR sent it itself.
    Own = 0,
    /// The kernel's loopback copy of a sender on this host.
    LocalSender = 1,
    /// More than the rule's `max_rate`.
    Rate = 2,
}

impl RuleDrop {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Own, Self::LocalSender, Self::Rate];

    /// The name in JSON, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::LocalSender => "local-sender",
            Self::Rate => "rate",
        }
    }

    /// What it means and what to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::Own => {
                "sent by an output of MCR and come back; relaying it again would make a circle"
            }
            Self::LocalSender => {
                "sent by a program on the relay host, whose packets never arrive from the wire: \
                 run the sender elsewhere, or let it send to the output group itself"
            }
            Self::Rate => {
                "more than the max_rate of the rule: find out why the sender sends more, or raise it \
                 (`mcrctl set NAME --max-rate`)"
            }
        }
    }
}

/// Why a packet was not handed to one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u32)]
pub enum OutputDrop {
    /// Larger than the MTU of the output interface.
    Mtu = 0,
    /// `ttl = "decrement"` reached 0.
    TtlExpired = 1,
    /// The output interface is down.
    InterfaceDown = 2,
    /// The output interface is gone.
    InterfaceGone = 3,
    /// The queue of the output interface is full.
    QueueFull = 4,
    /// The packet could not be rewritten or copied.
    NoMemory = 5,
    /// The output interface has no address to send from.
    NoAddress = 6,
    /// The kernel refused the packet for a reason of its own.
    Refused = 7,
    /// No route leads to the output host.
    NoRoute = 8,
    /// The output host, or the router before it, does not answer.
    NoNeighbour = 9,
}

impl OutputDrop {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Mtu,
        Self::TtlExpired,
        Self::InterfaceDown,
        Self::InterfaceGone,
        Self::QueueFull,
        Self::NoMemory,
        Self::NoAddress,
        Self::Refused,
        Self::NoRoute,
        Self::NoNeighbour,
    ];

    /// The name in JSON, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mtu => "mtu",
            Self::TtlExpired => "ttl-expired",
            Self::InterfaceDown => "interface-down",
            Self::InterfaceGone => "interface-gone",
            Self::QueueFull => "queue-full",
            Self::NoMemory => "no-memory",
            Self::NoAddress => "no-address",
            Self::Refused => "refused",
            Self::NoRoute => "no-route",
            Self::NoNeighbour => "no-neighbour",
        }
    }

    /// What it means and what to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::Mtu => {
                "larger than the MTU of the output interface: raise that MTU, or lower the sender's"
            }
            Self::TtlExpired => {
                "arrived with a TTL that ttl = \"decrement\" brings to 0: raise the sender's TTL, \
                 or give the output a fixed ttl"
            }
            Self::InterfaceDown => {
                "the output interface is down: bring it up with `ip link set up`"
            }
            Self::InterfaceGone => {
                "the output interface does not exist, or is of a kind that is not relayed to: the \
                 rule says which in its reason"
            }
            Self::QueueFull => {
                "the queue of the output interface was full, or the interface has no carrier: see \
                 `ip link` and `tc -s qdisc`, give it a faster link or a longer queue"
            }
            Self::NoMemory => "the kernel had no memory for a copy of the packet",
            Self::NoAddress => {
                "the output interface has no address of the family that can be sent from: add one, or give \
                 the output a source (on lo one that is not of this host)"
            }
            Self::Refused => {
                "the kernel refused to send the packet (neither for want of memory nor of room): \
                 capture it with tcpdump, look for unusual offloads of the input interface \
                 (`ethtool -k`), and report it"
            }
            Self::NoRoute => {
                "no route leads to the output host: `ip route get ADDRESS` says why; a route that \
                 comes is followed"
            }
            Self::NoNeighbour => {
                "the output host, or the router before it, does not answer ARP or neighbour \
                 discovery: is it on, and in the right network? `ip neigh show` shows its state"
            }
        }
    }
}

/// Why a packet on an input interface belongs to no rule. It goes on to the host's stack
/// untouched, and is counted for the interface unless it is [`Pass::NotOurs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Pass {
    /// Multicast UDP that no rule takes.
    NoRule = 0,
    /// A later fragment of a datagram whose first has not been seen.
    Fragment = 1,
    /// Cut short, or lengths that contradict each other.
    Malformed = 2,
    /// Carries a VLAN tag, so it belongs to the VLAN interface.
    Tagged = 3,
    /// To the group and port of rules that take other sources.
    OtherSource = 4,
    /// Not UDP, for another host, or unicast that no rule takes; not counted.
    NotOurs = 5,
}

impl Pass {
    /// The counted reasons, in the order of their numbers.
    pub const COUNTED: [Self; 5] =
        [Self::NoRule, Self::Fragment, Self::Malformed, Self::Tagged, Self::OtherSource];

    /// The name in JSON, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRule => "no-rule",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::Tagged => "tagged",
            Self::OtherSource => "other-source",
            Self::NotOurs => "not-ours",
        }
    }

    /// What it means and what to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::NoRule => "multicast UDP to a group and port that no rule takes",
            Self::Fragment => {
                "later fragment of a datagram whose first fragment has not come in the last 2 seconds: \
                 it has no port, so no rule can take it"
            }
            Self::Malformed => "IP whose headers are cut short or contradict each other",
            Self::Tagged => "carries a VLAN tag: make the rule on the VLAN interface",
            Self::OtherSource => {
                "to a group and port of rules with sources, and from none of these: compare with \
                 `mcrctl list`, and with the sender's address"
            }
            Self::NotOurs => "not UDP, for another host, or unicast that no rule takes",
        }
    }
}
