//! What is asked for: where to listen, and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::flow::InterfaceName;
use crate::link::{IfIndex, Link, LinkKind};
use crate::refusal::{Code, Refusal};

/// The shortest time to listen.
const TIME_MIN: Duration = Duration::from_secs(1);
/// The longest.
const TIME_MAX: Duration = Duration::from_secs(300);
/// How long it is when nobody says.
pub const TIME_DEFAULT: &str = "3s";

/// How long to listen, 1 s to 5 min.
pub fn listening_time(text: &str) -> Result<Duration, Refusal> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| (TIME_MIN..=TIME_MAX).contains(time)).ok_or_else(|| {
        Refusal::new(
            Code::Invalid,
            format!("duration = {text:?} is not a time from 1s to 5min"),
            "write it as in 3s or 1m",
        )
    })
}

/// The interface of that name, or all that are up but the loopback interface.
pub fn listening_places(
    interfaces: &BTreeMap<InterfaceName, Link>,
    name: Option<&str>,
) -> Result<BTreeSet<IfIndex>, Refusal> {
    let Some(name) = name else {
        let fit = |link: &&Link| match link.kind {
            LinkKind::Ethernet | LinkKind::Bare => link.up,
            LinkKind::Loopback | LinkKind::Other(_) => false,
        };
        let all: BTreeSet<IfIndex> =
            interfaces.values().filter(fit).map(|link| link.index).collect();
        return if all.is_empty() { Err(nothing_up()) } else { Ok(all) };
    };
    let name: InterfaceName = name.parse()?;
    let Some(link) = interfaces.get(&name) else {
        return Err(Refusal::new(
            Code::Machine,
            format!("no interface {name}"),
            "`ip link` shows the interfaces of the network namespace that mcrd runs in",
        ));
    };
    if let LinkKind::Other(kind) = link.kind {
        return Err(Refusal::new(
            Code::Machine,
            format!("{name} is of link type {kind} (ARPHRD), whose headers MCR does not know"),
            "name an Ethernet interface, or one without link headers (tun, WireGuard, GRE, IPIP)",
        ));
    }
    if !link.up {
        return Err(Refusal::new(
            Code::Machine,
            format!("interface {name} is down, so nothing arrives there"),
            format!("bring it up: ip link set {name} up"),
        ));
    }
    Ok([link.index].into())
}

fn nothing_up() -> Refusal {
    Refusal::new(
        Code::Machine,
        "no interface is up, apart from loopback",
        "bring one up: ip link set NAME up; `ip link` shows them all",
    )
}
