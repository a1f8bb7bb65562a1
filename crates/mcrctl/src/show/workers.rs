//! The workers of the packet plane: a few rows of the status, and tables of each.

use std::collections::BTreeMap;

use mcr_core::api::{RingStatus, SendBuffer, WorkerStatus};

use super::counted;
use super::table::{Side, Table};

/// Rows of the status: what the workers are, and what the kernel granted them, all together.
pub(super) fn summary(workers: &[WorkerStatus]) -> Vec<(&'static str, String)> {
    if workers.is_empty() {
        return Vec::new();
    }
    let mut rows = vec![("workers", states(workers))];
    let mut rings: BTreeMap<_, (usize, u64, u64)> = BTreeMap::new();
    for ring in workers.iter().flat_map(|worker| &worker.rings) {
        let RingStatus { interface, receive, bytes, dropped, unusable, .. } = ring;
        let (count, lost, useless) = rings.entry((interface, receive, *bytes)).or_default();
        *count += 1;
        *lost += dropped;
        *useless += unusable;
    }
    for ((interface, receive, bytes), (count, dropped, unusable)) in rings {
        let size = size(bytes);
        let text = format!(
            "{interface}  {receive}  {count} x {size}  dropped {dropped}  unusable {unusable}"
        );
        rows.push(("ring", text));
    }
    let mut buffers: BTreeMap<_, usize> = BTreeMap::new();
    for buffer in workers.iter().flat_map(|worker| &worker.send_buffers) {
        let SendBuffer { interface, asked, granted, qdisc_bypass, .. } = buffer;
        *buffers.entry((interface, *granted, *asked, *qdisc_bypass)).or_default() += 1;
    }
    for ((interface, granted, asked, qdisc_bypass), count) in buffers {
        let (granted, asked) = (size(granted), size(asked));
        let bypass = if qdisc_bypass { "  qdisc bypass" } else { "" };
        let text = format!("{interface}  granted {granted} of {asked} asked  (x{count}){bypass}");
        rows.push(("send buffer", text));
    }
    rows
}

/// Each worker, its rings and its send buffers.
pub(crate) fn workers(workers: &[WorkerStatus]) -> String {
    if workers.is_empty() {
        return "no workers\n".into();
    }
    let mut tables = vec![processes(workers)];
    tables.extend(workers.iter().any(|worker| !worker.rings.is_empty()).then(|| rings(workers)));
    let sends = workers.iter().any(|worker| !worker.send_buffers.is_empty());
    tables.extend(sends.then(|| send_buffers(workers)));
    tables.join("\n")
}

fn processes(workers: &[WorkerStatus]) -> String {
    let (text, number) = (Side::Left, Side::Right);
    let mut table = Table::new([number, text, text, number, number, number, text]);
    table.row(["WORKER", "STATE", "SINCE", "PID", "CPU", "RESTARTS", "LAST-ERROR"]);
    for status in workers {
        let WorkerStatus { worker, state, since, pid, cpu, restarts, last_error, .. } = status;
        table.row([
            &worker.to_string(),
            state,
            since,
            &pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            &cpu.to_string(),
            &restarts.to_string(),
            last_error.as_deref().unwrap_or("-"),
        ]);
    }
    table.to_string()
}

fn rings(workers: &[WorkerStatus]) -> String {
    let (text, number) = (Side::Left, Side::Right);
    let mut table =
        Table::new([number, text, text, number, number, number, number, number, number]);
    let head = ["WORKER", "RING", "RECEIVE", "SLOTS", "SLOT-BYTES", "BYTES", "COPY-BUFFER"];
    let [a, b, c, d, e, f, g] = head;
    table.row([a, b, c, d, e, f, g, "DROPPED", "UNUSABLE"]);
    for (worker, ring) in workers.iter().flat_map(|w| w.rings.iter().map(|r| (w.worker, r))) {
        let RingStatus {
            interface,
            receive,
            slots,
            slot_bytes,
            bytes,
            copy_buffer,
            dropped,
            unusable,
            ..
        } = ring;
        table.row([
            &worker.to_string(),
            interface,
            receive,
            &slots.to_string(),
            &slot_bytes.to_string(),
            &bytes.to_string(),
            &copy_buffer.to_string(),
            &dropped.to_string(),
            &unusable.to_string(),
        ]);
    }
    table.to_string()
}

fn send_buffers(workers: &[WorkerStatus]) -> String {
    let (text, number) = (Side::Left, Side::Right);
    let mut table = Table::new([number, text, number, number, text]);
    table.row(["WORKER", "SEND-BUFFER", "ASKED", "GRANTED", "QDISC-BYPASS"]);
    let all = workers.iter().flat_map(|w| w.send_buffers.iter().map(|b| (w.worker, b)));
    for (worker, SendBuffer { interface, asked, granted, qdisc_bypass, .. }) in all {
        table.row([
            &worker.to_string(),
            interface,
            &asked.to_string(),
            &granted.to_string(),
            if *qdisc_bypass { "yes" } else { "no" },
        ]);
    }
    table.to_string()
}

/// `2: 1 running, 1 waiting, 3 restarts`.
fn states(workers: &[WorkerStatus]) -> String {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for worker in workers {
        *states.entry(&worker.state).or_default() += 1;
    }
    let states: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let restarts: u64 = workers.iter().map(|worker| worker.restarts).sum();
    let restarts = counted(usize::try_from(restarts).unwrap_or(usize::MAX), "restart");
    format!("{}: {}, {restarts}", workers.len(), states.join(", "))
}

/// In the largest unit that needs no fraction: `64 MiB`, `416 KiB`, `2304 B`.
fn size(bytes: u64) -> String {
    let units = [(1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or((1, "B"));
    format!("{} {name}", bytes / unit)
}
