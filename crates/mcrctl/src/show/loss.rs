//! What to do about what was lost before MCR could see it.

use mcr_core::api::Status;
use mcr_core::loss::{Loss, SOFTNET_HELP};

/// A line for each kind of loss that there is.
pub(super) fn helps(status: &Status) -> Vec<String> {
    let there = |loss: &Loss| {
        status.interfaces.iter().any(|interface| interface.lost_before.contains_key(loss.name()))
    };
    let kinds = Loss::ALL.into_iter().filter(there);
    let kinds = kinds.map(|loss| format!("{}: {}", loss.name(), loss.help()));
    let softnet = status.softnet_dropped.is_some_and(|count| count > 0);
    kinds.chain(softnet.then(|| format!("softnet: {SOFTNET_HELP}"))).collect()
}
