//! What it costs to look into a packet, without what the mirror costs. Prints, and asserts nothing:
//! `cargo test --release -p mcr-core --lib inspect::tests::cost -- --ignored --nocapture`.

use super::*;

#[test]
#[ignore = "measures"]
fn a_packet() {
    let frame = |payload: &[u8]| frame_from([10, 0, 0, 1], [239, 1, 1, 1], payload);
    let numbers = 0..=u16::MAX;
    let short: Vec<_> = numbers.clone().map(|n| frame(&rtp(n))).collect();
    let plain: Vec<_> = (0..=255).map(|n| frame(&ts(n))).collect();
    let inside: Vec<_> = numbers.map(|n| frame(&rtp_ts(n))).collect();
    for (name, inspect, frames) in [
        ("rtp", Inspect::Rtp, &short),
        ("ts, 7 packets", Inspect::Ts, &plain),
        ("rtp+ts, 7 packets", Inspect::Auto, &inside),
    ] {
        let mut inspector = one(inspect);
        let start = on_cpu();
        for bytes in frames.iter().cycle().take(2_000_000) {
            see(&mut inspector, bytes, 0);
        }
        let each = (on_cpu() - start) / 2_000_000;
        println!("{name}: {each} ns a datagram, {:?}", stats(&inspector).faults());
    }
}

/// Nanoseconds that this thread has run (proc(5)).
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
