//! `GET /v1/discover`: listens for a while and tells which streams to groups there are. A tap is read
//! by the connection's own task; the event loop is only asked for the interfaces and the rules.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::Uri;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use mcr_core::discover::{SNAP, Sight, Survey, TIME_DEFAULT, listening_places, listening_time};
use mcr_core::flow::InterfaceName;
use mcr_core::link::IfIndex;
use mcr_core::refusal::{Code, Refusal};
use mcr_core::relay::Takers;
use mcr_dataplane::tap::{Catch, Caught, Tap, TapOptions};
use rustix::io::Errno;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::Stream;
use super::routes::{Commands, Reply, answer, query};
use crate::eventloop::Command;

/// So many may listen at a time.
const PLACES: usize = 4;
/// What comes while the event loop is busy: a tenth of a second at 400,000 frames a second.
const RING_BYTES: u32 = 16 << 20;
/// The kernel hands over within this time what came before.
const HANDED_OVER: Duration = Duration::from_millis(40);
/// `PACKET_OTHERHOST` of linux/if_packet.h: the interface is promiscuous, and no rule would take it.
const OTHER_HOST: u8 = 3;

/// Room for those who listen.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

pub(super) async fn page(
    State(commands): State<Commands>,
    Extension(places): Extension<Places>,
    Extension(stream): Extension<Stream>,
    uri: Uri,
) -> Reply {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        interface: Option<String>,
        duration: Option<String>,
    }

    let Asked { interface, duration } = query(&uri)?;
    let duration = listening_time(duration.as_deref().unwrap_or(TIME_DEFAULT))?;
    let before = answer(&commands, Command::Takers).await?;
    let places_to_listen = listening_places(&before.interfaces, interface.as_deref())?;
    let _place = places.0.try_acquire().map_err(|_| {
        let hint = "try again when one of them has ended, after 5 minutes at most";
        Refusal::new(Code::Capacity, format!("{PLACES} discovers are listening already"), hint)
    })?;
    // The reply takes longer than a connection lasts otherwise.
    stream.begin();
    let tap = open(&places_to_listen, interface.as_deref())?;
    let from = SystemTime::now();
    let mut warnings = open_to_all_groups(&tap, &before, &places_to_listen);
    let mut survey = Survey::new(places_to_listen.clone());
    let missed =
        listen(tap, &mut survey, (from, duration)).await.map_err(|error| cannot(&error))?;
    let after = answer(&commands, Command::Takers).await?;
    warnings.extend(lost_on_the_way(&before, &after, &places_to_listen));
    // One that has gone had its name, and its rules, before.
    let all_there = places_to_listen.iter().all(|index| after.name(*index).is_some());
    let mut found = survey.report(duration, missed, if all_there { &after } else { &before });
    found.warnings = warnings;
    Ok(Json(found).into_response())
}

fn open(places: &BTreeSet<IfIndex>, named: Option<&str>) -> Result<Tap, Refusal> {
    // All that there are is one tap, and the survey keeps to those that were asked for.
    let interface = named.and_then(|_| places.first().copied());
    let options =
        TapOptions { interface, catch: Catch::Multicast, snap: SNAP, ring_bytes: RING_BYTES };
    let tap = Tap::open(&options).map_err(|error| cannot(&error))?;
    // A kernel without it shows what goes out too, and that is left out anyway.
    let _ = tap.ignore_outgoing();
    Ok(tap)
}

fn cannot(error: &io::Error) -> Refusal {
    let hint = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => "mcrd needs CAP_NET_RAW to see packets",
        Some(Errno::NODEV | Errno::NETDOWN) => "the interface has gone: see `ip link`",
        Some(Errno::NOMEM | Errno::NOBUFS) => "a ring of 16 MiB was asked for: free some memory",
        Some(_) | None => "see the log of mcrd, and `dmesg`",
    };
    Refusal::new(Code::Machine, format!("cannot listen: {error}"), hint)
}

/// A card drops groups that nobody on this host has joined. What cannot be opened is told.
fn open_to_all_groups(tap: &Tap, takers: &Takers, places: &BTreeSet<IfIndex>) -> Vec<String> {
    let refused = |index: &IfIndex| {
        let error = tap.open_to_all_groups(*index).err()?;
        let name = takers.name(*index).map_or_else(|| index.to_string(), InterfaceName::to_string);
        Some(format!("{name} may let in no groups but those joined on this host: {error}"))
    };
    places.iter().filter_map(refused).collect()
}

/// Counts what comes within `duration` after `from`; returns how many frames the tap has missed.
async fn listen(
    tap: Tap,
    survey: &mut Survey,
    (from, duration): (SystemTime, Duration),
) -> io::Result<u64> {
    let end = Instant::now() + duration + HANDED_OVER;
    let from = from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = from.as_nanos()..(from + duration).as_nanos();
    let mut tap = tap.watched()?;
    let mut each = |caught: &Caught<'_>| {
        let &Caught { bytes, length, bare, interface, tag, segment_size, .. } = caught;
        let came = !caught.outgoing && caught.packet_type != OTHER_HOST;
        if came && time.contains(&caught.time.into()) {
            survey.add(&Sight { bytes, length, bare, interface, tag, segment_size });
        }
    };
    loop {
        tokio::select! {
            biased;
            () = sleep_until(end) => break,
            read = tap.read(&mut each) => drop(read?),
        }
        // However much comes, the others on this thread have their turn.
        yield_now().await;
    }
    tap.read_now(&mut each);
    Ok(tap.lost())
}

/// The interfaces by which nothing could come, for the whole time or a part of it.
fn lost_on_the_way(before: &Takers, after: &Takers, places: &BTreeSet<IfIndex>) -> Vec<String> {
    let link = |takers: &'_ Takers, index| {
        takers.interfaces.values().find(|link| link.index == index).cloned()
    };
    let trouble = |index: &IfIndex| {
        let name = before.name(*index)?;
        let (was, is) = (link(before, *index)?, link(after, *index));
        Some(match is {
            _ if !was.up => format!("{name} is down, so nothing arrives: ip link set {name} up"),
            Some(is) if !is.up => format!("{name} went down while it was listened to"),
            None => format!("{name} was removed while it was listened to"),
            Some(is) if !is.carrier => {
                format!(
                    "{name} has no carrier, so nothing arrives: is its other end connected and up?"
                )
            }
            Some(_) => return None,
        })
    };
    places.iter().filter_map(trouble).collect()
}
