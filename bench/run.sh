#!/usr/bin/env bash
# Measures MCR on this machine and prints what it sees; asserts nothing. Everything is compared
# within one run, medians of RUNS (5). Needs root and a machine with nothing else to do.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lab.sh

bin=${BIN:-target/release}
runs=${RUNS:-5}
files=$(mktemp -d)
daemon=
clean_up() {
    trap - EXIT INT TERM HUP
    lab_down
    rm -rf "$files"
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT
trap 'clean_up; exit 143' TERM HUP

ctl() { "$bin/mcrctl" --instance "$lab_name" "$@"; }

# rules COUNT: stream k from 239.1.X.Y:5000+k to 239.10.X.Y:6000+k.
rules() {
    awk -v count="$1" 'BEGIN {
        for (k = 0; k < count; k++) {
            group = int(k / 254) + 1 "." k % 254 + 1
            printf "[[rule]]\ninput = \"239.1.%s:%d@veth1\"\n", group, 5001 + k
            printf "outputs = [\"239.10.%s:%d@veth2\"]\n", group, 6001 + k
        }
    }'
}

start() {
    lab_up
    lab_spawn relay "$bin/mcrd" --instance "$lab_name" "$@" 2>>"$files/mcrd.log"
    daemon=$lab_pid
    lab_await "mcrd" ctl status
}

stop() {
    lab_down
}

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f", b - a }'; }

# load STREAMS RATE COUNT [OPTIONS]: one line of what the receiver saw.
load() {
    local streams=$1 rate=$2 count=$3
    shift 3
    : >"$files/receiver.log"
    lab_spawn sink taskset -c 1 "$bin/mcrgen" recv --interface veth3 --group 239.10.1.1 --port 6001 \
        --streams "$streams" --expect "$count" --idle 2s --json \
        >"$files/received.json" 2>"$files/receiver.log"
    local receiver=$lab_pid
    lab_await "receiver" grep -q ready "$files/receiver.log"
    lab_in gen taskset -c 0 "$bin/mcrgen" send --interface veth0 --group 239.1.1.1 --port 5001 \
        --streams "$streams" --rate "$rate" --count "$count" --size 1024 "$@" --json \
        >"$files/sent.json"
    wait "$receiver" || true
    jq -rn --slurpfile s "$files/sent.json" --slurpfile r "$files/received.json" '
        $s[0] as $s | $r[0] as $r |
        "  asked \($s.asked_rate | round)/s, sent \($s.rate | round)/s, lost \($r.lost) of \($r.expected), " +
        "p50 \($r.latency_us.p50) µs, p99 \($r.latency_us.p99) µs, " +
        "variation \($r.delay_variation_us * 10 | round / 10) µs, burst \($r.longest_burst.packets) in 100 µs"'
}

# Nanoseconds a packet of an unpaced sender on one CPU; nobody listens in the sink.
unpaced() {
    lab_in gen taskset -c 0 "$bin/mcrgen" send --interface veth0 --group 239.1.1.1 --port 5001 \
        --streams 1 --rate 0 --count 300000 --size 1024 --json |
        jq '.seconds * 1e9 / .sent'
}

echo "machine: $(nproc) CPUs, Linux $(uname -r), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)"

echo
echo "150 streams of 1024 bytes, sender on CPU 0, receiver on CPU 1:"
start
rules 150 | ctl apply - >/dev/null
for total in 2000 300000 500000; do
    load 150 $((total / 150)) $((total / 150 * 4))
done
echo "  with super-packets of 5 datagrams from the sender (UDP_SEGMENT):"
load 150 $((500000 / 150)) $((500000 / 150 * 4)) --gso 5
stop

echo
echo "CPU added by the relay, one output (unpaced sender, with the relay and without, in turns):"
start
rules 1 | ctl apply - >/dev/null
: >"$files/with"
: >"$files/without"
for ((run = 0; run < runs; run++)); do
    unpaced >>"$files/with"
    ctl apply - --allow-empty </dev/null >/dev/null
    unpaced >>"$files/without"
    rules 1 | ctl apply - >/dev/null
done
with=$(median <"$files/with")
without=$(median <"$files/without")
awk -v a="$with" -v b="$without" 'BEGIN {
    printf "  with %.0f ns, without %.0f ns, added %.0f ns a packet (%.2f times)\n", a, b, a - b, a / b }'
stop

echo
echo "rules: time to apply, to read the counters, memory, and the program's time a packet:"
for count in 10 1000 10000; do
    start --measure
    rules "$count" >"$files/rules.toml"
    rss() { awk '/VmRSS/ { print $2 }' "/proc/$daemon/status"; }
    before=$(rss)
    at=$EPOCHREALTIME
    ctl apply "$files/rules.toml" >/dev/null
    applied=$(seconds "$at")
    at=$EPOCHREALTIME
    ctl stats --json >"$files/stats.json"
    read_in=$(seconds "$at")
    after=$(rss)
    unpaced >/dev/null
    cost=$(ctl status --json | jq '.program.nanoseconds / .program.runs | round')
    awk -v n="$count" -v a="$applied" -v s="$read_in" -v b="$before" -v e="$after" -v c="$cost" 'BEGIN {
        printf "  %5d rules: apply %s s, stats %s s, mcrd +%.1f KiB a rule, program %d ns a packet\n",
            n, a, s, (e - b) / n, c }'
    stop
done
