#!/usr/bin/env bash
# Relays 150 streams of 2,000 packets/s and 1,024 bytes for 5 seconds through three network
# namespaces, prints what came of them, and exits 0 only when nothing was lost.
#
#   STREAMS=150 RATE=2000 SECONDS_LONG=5 scripts/demo.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lab.sh

streams=${STREAMS:-150}
rate=${RATE:-2000}
count=$((rate * ${SECONDS_LONG:-5}))
bin=${BIN:-target/release}

if [ "$(id -u)" -ne 0 ]; then
    echo "demo: run as root: network namespaces and eBPF need it" >&2
    exit 1
fi

files=$(mktemp -d)
clean_up() {
    trap - EXIT
    trap '' INT TERM HUP
    lab_down
    rm -rf "$files"
}
trap clean_up EXIT
trap 'lab_exit 130' INT
trap 'lab_exit 143' TERM HUP

lab_up
ctl() { "$bin/mcrctl" --instance "$lab_name" "$@"; }

echo "relay: $streams rules, 239.1.X.Y:5000+N on veth1 to 239.10.X.Y:6000+N on veth2"
lab_spawn relay "$bin/mcrd" --instance "$lab_name" --measure 2>"$files/mcrd.log"
lab_await "mcrd" ctl status || { cat "$files/mcrd.log" >&2; exit 1; }

for ((k = 0; k < streams; k++)); do
    group=$((k / 254 + 1)).$((k % 254 + 1))
    echo "add 239.1.$group:$((5001 + k))@veth1 239.10.$group:$((6001 + k))@veth2 --name stream-$((k + 1))"
done >"$files/rules"
ctl batch "$files/rules" >/dev/null

lab_spawn sink "$bin/mcrgen" recv --interface veth3 --group 239.10.1.1 --port 6001 \
    --streams "$streams" --expect "$count" --idle 3s --json \
    >"$files/received.json" 2>"$files/receiver.log"
receiver=$lab_pid
lab_await "receiver" grep -q ready "$files/receiver.log"

echo "send:  $streams streams, $rate packets/s each, 1024 bytes, $count packets each"
lab_spawn gen "$bin/mcrgen" send --interface veth0 --group 239.1.1.1 --port 5001 \
    --streams "$streams" --rate "$rate" --count "$count" --size 1024 --json >"$files/sent.json"
lab_wait 600 "$lab_pid"
lossless=0
lab_wait 60 "$receiver" || lossless=$?

jq -rn --slurpfile sent "$files/sent.json" --slurpfile received "$files/received.json" \
    --argjson status "$(ctl status --json)" '
    def us: . * 10 | round / 10 | tostring + " µs";
    $sent[0] as $s | $received[0] as $r | $status.program as $p |
    "",
    "  streams       \($r.streams)",
    "  sent          \($s.sent) packets, \($s.rate | round) packets/s (asked: \($s.asked_rate | round))",
    "  received      \($r.received)",
    "  lost          \($r.lost)",
    "  duplicated    \($r.duplicated)",
    "  foreign       \($r.foreign)",
    "  latency       p50 \($r.latency_us.p50 | us), p99 \($r.latency_us.p99 | us), max \($r.latency_us.max | us)",
    "  relay CPU     \($p.nanoseconds / ([$p.runs, 1] | max) / 1000 | us) per packet, sending included",
    ""'
if [ $lossless -ne 0 ]; then
    echo "demo: packets were lost; the relay counted:" >&2
    ctl stats | awk 'NR == 1 || /=/' >&2
    exit 1
fi
echo "nothing lost"
