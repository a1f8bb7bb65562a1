//! Listens to what hosts and queriers say of memberships on all interfaces, for as long as the daemon
//! runs: a few packets a minute.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mcr_core::doctor::Known;
use mcr_core::doctor::heard::Hearing;
use mcr_dataplane::tap::{Catch, Tap, TapOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::wire::frame;

/// Large enough for a report of any length.
const SNAP: u32 = 9216;
const RING_BYTES: u32 = 256 << 10;

/// What was heard so far, or why nothing can be.
#[derive(Clone)]
pub(crate) struct Listener {
    heard: Arc<Mutex<Known<Hearing>>>,
    since: Instant,
}

impl Listener {
    /// Begins to listen, within a tokio runtime.
    pub(crate) fn begin() -> Self {
        let options = TapOptions {
            interface: None,
            catch: Catch::Membership,
            snap: SNAP,
            ring_bytes: RING_BYTES,
        };
        let tap =
            Tap::open(&options).and_then(|tap| AsyncFd::with_interest(tap, Interest::READABLE));
        let heard = match &tap {
            Ok(_) => Ok(Hearing::default()),
            Err(error) => Err(cannot(error)),
        };
        let listener = Self { heard: Arc::new(Mutex::new(heard)), since: Instant::now() };
        match tap {
            Ok(tap) => drop(tokio::spawn(listener.clone().listen(tap))),
            Err(error) => tracing::info!("{}", cannot(&error)),
        }
        listener
    }

    /// Everything up to now.
    pub(crate) fn hearing(&self) -> Known<Hearing> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Ok(heard) = &mut heard {
            heard.now = self.since.elapsed();
        }
        heard
    }

    async fn listen(self, mut tap: AsyncFd<Tap>) {
        loop {
            let ended = match tap.readable_mut().await {
                Ok(mut ready) => {
                    ready.clear_ready();
                    self.read(ready.get_inner_mut());
                    continue;
                }
                Err(error) => error,
            };
            tracing::warn!("{}", cannot(&ended));
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Err(cannot(&ended));
            return;
        }
    }

    fn read(&self, tap: &mut Tap) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(heard) = heard.as_mut() else { return };
        let at = self.since.elapsed();
        while tap.read(|caught| frame(caught).iter().for_each(|frame| heard.observe(frame, at))) > 0
        {
        }
    }
}

fn cannot(error: &io::Error) -> String {
    format!("IGMP and MLD are not listened to: {error} (needs CAP_NET_RAW)")
}
