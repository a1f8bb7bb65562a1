//! What the script has written: `setting.json`, and a line of `runs.jsonl` for each run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A whole test.
pub(crate) struct Test {
    /// Machine and settings, as the script gives them.
    pub(crate) setting: serde_json::Value,
    pub(crate) runs: Vec<Run>,
}

/// One load through one relay.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Run {
    /// A relay, or [`BARE`].
    pub(crate) relay: String,
    pub(crate) repeat: u32,
    pub(crate) streams: u64,
    /// Packets a second and stream that were asked for.
    pub(crate) rate: u64,
    /// Packets of each stream.
    pub(crate) packets: u64,
    pub(crate) sent: u64,
    pub(crate) send_errors: u64,
    pub(crate) seconds: f64,
    /// From the start of the first sender to that of the last.
    pub(crate) apart_s: f64,
    pub(crate) asked_rate: f64,
    pub(crate) achieved_rate: f64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    // What only a receiver knows that reads the packets.
    pub(crate) duplicated: Option<u64>,
    pub(crate) reordered: Option<u64>,
    pub(crate) corrupt: Option<u64>,
    pub(crate) foreign: Option<u64>,
    pub(crate) worst_stream: Option<Worst>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) sink_drops: Option<u64>,
    pub(crate) sink_rcvbuf: Option<u64>,
    pub(crate) sender_cpu_s: f64,
    /// CPU time of the relay's processes, in seconds; not known when one has ended.
    pub(crate) relay_cpu_s: Option<f64>,
    /// CPU time of the whole machine.
    pub(crate) system_cpu_s: f64,
    /// Of what all CPUs could do, what processes outside the test and the hypervisor took.
    pub(crate) others_percent: f64,
    pub(crate) rss_kib: u64,
    pub(crate) pss_kib: u64,
    pub(crate) processes: u64,
    /// Of these, those that were still there after the load.
    pub(crate) living: u64,
    pub(crate) sockets: u64,
    /// Growth of the slab of the whole machine while the relay started and was configured.
    pub(crate) slab_kib: i64,
    pub(crate) rules: u64,
    pub(crate) start_s: f64,
    pub(crate) configure_s: f64,
    pub(crate) buffers: BTreeMap<String, Buffer>,
    /// Places where the kernel or the relay has counted drops.
    pub(crate) drops: BTreeMap<String, u64>,
    /// Folder of its logs.
    pub(crate) log: String,
}

/// The stream that lost most.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub(crate) struct Worst {
    pub(crate) stream: u64,
    pub(crate) lost: u64,
}

/// A number of bytes, or the word "default".
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Buffer {
    pub(crate) asked: serde_json::Value,
    pub(crate) granted: serde_json::Value,
}

/// The name of the runs without a relay.
pub(crate) const BARE: &str = "bare";

impl Test {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let setting = serde_json::from_str(&text("setting.json")?).context("setting.json")?;
        let runs = text("runs.jsonl")?
            .lines()
            .enumerate()
            .map(|(line, run)| {
                serde_json::from_str(run).with_context(|| format!("runs.jsonl:{}", line + 1))
            })
            .collect::<Result<_>>()?;
        Ok(Self { setting, runs })
    }

    /// A setting as the script had it.
    pub(crate) fn setting(&self, name: &str) -> &str {
        self.setting["settings"][name].as_str().unwrap_or_default()
    }
}

impl Run {
    pub(crate) fn is_bare(&self) -> bool {
        self.relay == BARE
    }

    /// CPU seconds for a million packets that arrived; none when nothing did.
    pub(crate) fn per_million(&self, seconds: f64) -> Option<f64> {
        (self.received > 0).then(|| seconds / self.received as f64 * 1e6)
    }

    /// The same for packets that were sent.
    pub(crate) fn per_million_sent(&self, seconds: f64) -> Option<f64> {
        (self.sent > 0).then(|| seconds / self.sent as f64 * 1e6)
    }

    /// Packets a second that arrived.
    pub(crate) fn delivered_rate(&self) -> f64 {
        if self.sent == 0 {
            0.0
        } else {
            self.achieved_rate * self.received as f64 / self.sent as f64
        }
    }

    pub(crate) fn loss_percent(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.lost as f64 / self.sent as f64 * 100.0 }
    }
}
