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
    trap - EXIT
    trap '' INT TERM HUP
    lab_down
    rm -rf "$files"
}
trap clean_up EXIT
trap 'lab_exit 130' INT
trap 'lab_exit 143' TERM HUP

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

# start [OPTIONS OF MCRD]
start() {
    lab_up
    lab_spawn relay "$bin/mcrd" --instance "$lab_name" "$@" 2>>"$files/mcrd.log"
    daemon=$lab_pid
    lab_await "mcrd" ctl status
}

# The pids of the workers that run.
workers() { ctl status --json | jq -r '.workers[]?.pid // empty'; }

# CPU time of the workers: ticks in user space, ticks in the kernel.
ticks() {
    local pid user=0 system=0 stat
    for pid in $(workers); do
        read -ra stat <"/proc/$pid/stat"
        user=$((user + stat[13])) system=$((system + stat[14]))
    done
    echo "$user $system"
}

stop() {
    lab_down
}

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f", b - a }'; }

# load STREAMS RATE COUNT [OPTIONS]: one line of what the receiver saw. With bare=1 the receiver is
# on the relay's own interface, and nothing is relayed.
load() {
    local streams=$1 rate=$2 count=$3 role=sink interface=veth3 group=239.10.1.1 port=6001
    local before after
    shift 3
    if [ -n "${bare:-}" ]; then
        role=relay interface=veth1 group=239.1.1.1 port=5001
    fi
    : >"$files/receiver.log"
    lab_spawn "$role" taskset -c 1 "$bin/mcrgen" recv --interface "$interface" --group "$group" \
        --port "$port" --streams "$streams" --expect "$count" --idle 2s --json \
        >"$files/received.json" 2>"$files/receiver.log"
    local receiver=$lab_pid
    lab_await "receiver" grep -q ready "$files/receiver.log"
    before=$([ -n "${bare:-}" ] || ticks)
    lab_in gen taskset -c 0 "$bin/mcrgen" send --interface veth0 --group 239.1.1.1 --port 5001 \
        --streams "$streams" --rate "$rate" --count "$count" --size 1024 "$@" --json \
        >"$files/sent.json"
    lab_wait 60 "$receiver" || true
    after=$([ -n "${bare:-}" ] || ticks)
    jq -rn --slurpfile s "$files/sent.json" --slurpfile r "$files/received.json" \
        --arg ticks "$before $after" --arg hz "$(getconf CLK_TCK)" '
        $s[0] as $s | $r[0] as $r | ($ticks | split(" ") | map(tonumber? // 0)) as $t |
        def each: . / ($hz | tonumber) * 1e6 / ([$r.received, 1] | max) * 100 | round / 100;
        "  asked \($s.asked_rate | round)/s, sent \($s.rate | round)/s, lost \($r.lost) of \($r.expected), " +
        if $r.received == 0 then "nothing came" else
        "p50 \($r.latency_us.p50) µs, p99 \($r.latency_us.p99) µs, " +
        "variation \($r.delay_variation_us * 10 | round / 10) µs, burst \($r.longest_burst.packets) in 100 µs" +
        if ($t[2] // 0) + ($t[3] // 0) > 0 then
            ", workers \($t[2] - $t[0] | each) + \($t[3] - $t[1] | each) µs a packet (user + kernel)"
        else "" end end'
}

# The same loads for whatever runs.
loads() {
    local total
    for total in 2000 300000 500000; do
        load 150 $((total / 150)) $((total * 4 / 150))
    done
    echo "  from super-packets of 5 datagrams (UDP_SEGMENT):"
    load 150 3333 13332 --gso 5
}

# Nanoseconds a packet of an unpaced sender on one CPU; nobody listens in the sink.
unpaced() {
    lab_in gen taskset -c 0 "$bin/mcrgen" send --interface veth0 --group 239.1.1.1 --port 5001 \
        --streams 1 --rate 0 --count 300000 --size 1024 --json |
        jq '.seconds * 1e9 / .sent'
}

echo "machine: $(nproc) CPUs, Linux $(uname -r), $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)"

echo
echo "150 streams of 1024 bytes, sender on CPU 0, receiver on CPU 1."
echo "the bare path, one interface pair less, nothing relayed:"
lab_up
bare=1 loads
stop
relayed() {
    echo "$1:"
    shift
    start "$@"
    rules 150 | ctl apply - >/dev/null
    loads
    ctl status | grep '^ring' | sed 's/^/  /' || true
    stop
}
printf '[interface.veth1]\nreceive = "block"\n' >"$files/block.toml"
printf '[interface.veth2]\nqdisc_bypass = true\n' >"$files/bypass.toml"
relayed "the eBPF plane" --dataplane ebpf
relayed "the packet plane, 1 worker" --dataplane packet --workers 1
relayed "the packet plane, 2 workers" --dataplane packet --workers 2
relayed "the packet plane, 2 workers, block ring" --dataplane packet --workers 2 \
    --config "$files/block.toml"
relayed "the packet plane, 2 workers, past the output's queue" --dataplane packet --workers 2 \
    --config "$files/bypass.toml"

echo
echo "CPU added by the eBPF plane, one output (unpaced sender, with the relay and without, in turns):"
start --dataplane ebpf
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
echo "the packet plane, memory, and how long a killed worker is away (median of $runs):"
for count in 1 4; do
    start --dataplane packet --workers "$count"
    rules 150 | ctl apply - >/dev/null
    rss() { awk '/RssAnon/ { sum += $2 } END { print sum }' "$@"; }
    rings=$(ctl status --json | jq '[.workers[].rings[].bytes] | add / 1048576')
    mapfile -t files_of < <(workers | sed 's|.*|/proc/&/status|')
    of_workers=$(rss "${files_of[@]}")
    for ((run = 0; run < runs; run++)); do
        pid=$(workers | head -1)
        at=$EPOCHREALTIME
        kill -9 "$pid"
        until ctl status --json |
            jq -e --argjson pid "$pid" '.workers[0] | .state == "running" and .pid != $pid' >/dev/null; do :; done
        seconds "$at"
        echo
        stop
        start --dataplane packet --workers "$count"
        rules 150 | ctl apply - >/dev/null
    done >"$files/away"
    echo "  $count workers: rings $rings MiB, mcrd $(rss "/proc/$daemon/status") KiB," \
        "workers $of_workers KiB together (anonymous), away $(median <"$files/away") s"
    stop
done

echo
echo "rules: time to apply, to read the counters, of a scrape (median of $runs), memory, and the program's" \
    "time a packet:"
for count in 10 1000 10000; do
    start --dataplane ebpf --measure
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
    for ((run = 0; run < runs; run++)); do
        curl -sf --unix-socket "/run/mcr/$lab_name.sock" -o "$files/metrics" -w '%{time_total}\n' \
            http://mcrd/metrics
    done >"$files/scrapes"
    scrape=$(median <"$files/scrapes")
    series=$(grep -vc '^#' "$files/metrics")
    unpaced >/dev/null
    cost=$(ctl status --json | jq '.program.nanoseconds / .program.runs | round')
    awk -v n="$count" -v a="$applied" -v s="$read_in" -v t="$scrape" -v m="$series" -v b="$before" \
        -v e="$after" -v c="$cost" 'BEGIN {
        printf "  %5d rules: apply %s s, stats %s s, scrape %.0f ms (%d series), mcrd +%.1f KiB a rule, " \
            "program %d ns a packet\n", n, a, s, t * 1000, m, (e - b) / n, c }'
    stop
done

echo
echo "inspection: CPU time of looking into a datagram, without the mirror:"
cargo run --quiet --release --locked -p mcr-core --example inspection-cost
