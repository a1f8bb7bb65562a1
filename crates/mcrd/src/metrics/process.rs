//! What /proc says of a process: the `process_*` metrics that every Prometheus client has, and the
//! CPU time of workers.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// The process that asks. What /proc does not tell is absent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) open_files: Option<f64>,
    pub(super) max_files: Option<f64>,
    pub(super) start_seconds: Option<f64>,
}

impl Process {
    pub(crate) fn read() -> Self {
        let stat = Stat::read("self");
        let stat = stat.as_ref();
        let field = |number| Some(stat?.field(number)? as f64);
        let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        Self {
            cpu_seconds: stat.and_then(Stat::cpu_seconds),
            resident_bytes: field(RSS).map(|pages| pages * page_size() as f64),
            virtual_bytes: field(VSIZE),
            // The folder itself is open meanwhile.
            open_files: open.map(|count| count.saturating_sub(1) as f64),
            max_files: getrlimit(Resource::Nofile).current.map(|most| most as f64),
            start_seconds: stat.and_then(Stat::start_seconds),
        }
    }
}

/// CPU time that a process has used so far, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    Stat::read(&pid.to_string())?.cpu_seconds()
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) behind the name, which may have blanks.
struct Stat(String);

/// Numbers of fields, from 1, as in the manual.
const UTIME: usize = 14;
const STIME: usize = 15;
const STARTTIME: usize = 22;
const VSIZE: usize = 23;
const RSS: usize = 24;

impl Stat {
    fn read(pid: &str) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = text.rsplit_once(") ")?;
        Some(Self(fields.to_owned()))
    }

    fn field(&self, number: usize) -> Option<u64> {
        // The name is the second.
        self.0.split_whitespace().nth(number - 3)?.parse().ok()
    }

    fn seconds(ticks: u64) -> f64 {
        ticks as f64 / clock_ticks_per_second() as f64
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some(Self::seconds(self.field(UTIME)? + self.field(STIME)?))
    }

    /// In Unix time.
    fn start_seconds(&self) -> Option<f64> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let boot = text.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(boot.trim().parse::<f64>().ok()? + Self::seconds(self.field(STARTTIME)?))
    }
}
