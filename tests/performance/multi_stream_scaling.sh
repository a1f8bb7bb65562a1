#!/usr/bin/env bash
# The multi-stream scaling test: MCR's planes and socat relay the same streams, in turns, on the
# same machine; what arrives is counted by a receiver in a network namespace of its own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
    cat <<'TEXT'
Usage: multi_stream_scaling.sh [MAX_STREAMS]

Relays 1, 2, 5, 10, 20, 50, 100, 150, 254 and 508 streams, up to MAX_STREAMS (150), through each
relay, and from 150 on once more 150 streams at TOTAL_RATE. Stream N goes from 239.1.X.Y:5000+N to
239.10.X.Y:6000+N, 254 groups for each X. Needs root. Changes nothing outside its own namespaces.

Settings are variables of the environment:

  PER_STREAM_PACKETS  packets of each stream (10000)
  PER_STREAM_RATE     packets per second of each stream (2000)
  PACKET_SIZE         bytes of UDP payload, 40 to 1472 (1024)
  RELAYS              any of "ebpf packet socat", in turns in this order (all)
  NUM_WORKERS         worker processes of the packet plane, 1 to 64 (4)
  REPEATS             how often each is run; the report has median and worst (3)
  SINK                mcrgen: one receiver, which knows loss, order and latency of each stream;
                      socat: one process for each stream, which only counts bytes (mcrgen)
  SENDERS             1: one process sends all streams; N: one process for each, in parallel (1)
  GSO                 datagrams that the sender hands over at once (UDP_SEGMENT), 1 to 64 (1)
  INSTRUMENT_NICE     priority of sender and sink, -20 to 19: as if they stood on other hosts, which
                      no relay can slow down; 0 lets all share the CPUs alike (-20)
  SOCAT_RCVBUF        bytes of receive buffer of each socat; the rings of the packet plane together
                      get no more than all socats together; "default" leaves both as they come
                      (4194304)
  STREAM_COUNTS       other counts, each 1 to 508, in place of those above
  TOTAL_RATE          packets per second of the last row; 0 leaves it out (500000)
  RESULTS_DIR         where results, pictures and all logs of all runs go; new or empty
                      (target/scaling/DATE-TIME)
  BIN                 folder of ready-built mcrd, mcrctl, mcrgen and examples/scaling-report; without
                      it they are built (target/release)

Examples:

  tests/performance/multi_stream_scaling.sh                  # up to 150 streams, about 20 minutes
  tests/performance/multi_stream_scaling.sh 508
  RELAYS="ebpf socat" REPEATS=5 tests/performance/multi_stream_scaling.sh 50
  STREAM_COUNTS="1 20 150" PER_STREAM_PACKETS=2000 REPEATS=1 tests/performance/multi_stream_scaling.sh
  PER_STREAM_PACKETS=100000 tests/performance/multi_stream_scaling.sh 20     # steady state
  SENDERS=N SINK=socat RELAYS="packet socat" tests/performance/multi_stream_scaling.sh 20
  GSO=5 STREAM_COUNTS=150 tests/performance/multi_stream_scaling.sh          # a faster sender

Exit codes: 0 measured, whatever was lost; 1 a step failed, and the message names its log; 2 usage;
130, 143 ended by a signal. Nothing is left behind in any case.
TEXT
}

refuse() {
    echo "multi_stream_scaling: $1 (see --help)" >&2
    exit 2
}

# number VARIABLE LOWEST HIGHEST [NAME]: it is a whole number in that range.
number() {
    if ! [[ ${!1} =~ ^(0|[1-9][0-9]{0,9})$ ]] || [ "${!1}" -lt "$2" ] || [ "${!1}" -gt "$3" ]; then
        refuse "${4-$1} is '${!1}', and must be a number from $2 to $3"
    fi
}

# one_of NAME VALUE WORD...
one_of() {
    local name=$1 value=$2 known
    shift 2
    for known in "$@"; do
        [ "$value" != "$known" ] || return 0
    done
    refuse "$name is '$value', and must be one of: $*"
}

read_settings() {
    case ${1:-} in
    -h | --help) usage; exit 0 ;;
    esac
    [ $# -le 1 ] || refuse "one argument at most"
    MAX_STREAMS=${1-150}
    PER_STREAM_PACKETS=${PER_STREAM_PACKETS-10000}
    PER_STREAM_RATE=${PER_STREAM_RATE-2000}
    PACKET_SIZE=${PACKET_SIZE-1024}
    RELAYS=${RELAYS-ebpf packet socat}
    NUM_WORKERS=${NUM_WORKERS-4}
    REPEATS=${REPEATS-3}
    SINK=${SINK-mcrgen}
    SENDERS=${SENDERS-1}
    GSO=${GSO-1}
    INSTRUMENT_NICE=${INSTRUMENT_NICE--20}
    SOCAT_RCVBUF=${SOCAT_RCVBUF-4194304}
    STREAM_COUNTS=${STREAM_COUNTS-}
    TOTAL_RATE=${TOTAL_RATE-500000}
    RESULTS_DIR=${RESULTS_DIR-$root/target/scaling/$(date +%Y%m%d-%H%M%S)}

    number MAX_STREAMS 1 508
    number PER_STREAM_PACKETS 1 100000000
    number PER_STREAM_RATE 1 1000000
    # More would come in fragments through links with an MTU of 1,500.
    number PACKET_SIZE 40 1472
    number NUM_WORKERS 1 64
    number REPEATS 1 99
    one_of SINK "$SINK" mcrgen socat
    one_of SENDERS "$SENDERS" 1 N
    number GSO 1 64
    [[ $INSTRUMENT_NICE =~ ^(-20|-?1?[0-9])$ ]] ||
        refuse "INSTRUMENT_NICE is '$INSTRUMENT_NICE', and must be a number from -20 to 19"
    number TOTAL_RATE 0 10000000
    [ "$SOCAT_RCVBUF" = default ] || number SOCAT_RCVBUF 2048 1073741824
    [ -n "$RESULTS_DIR" ] || refuse "RESULTS_DIR is empty"

    local word
    read -ra relays <<<"$RELAYS"
    [ ${#relays[@]} -gt 0 ] || refuse "RELAYS is empty"
    for word in "${relays[@]}"; do one_of "a relay" "$word" ebpf packet socat; done
    [ "$(printf '%s\n' "${relays[@]}" | sort -u | wc -l)" -eq ${#relays[@]} ] ||
        refuse "RELAYS names one twice: $RELAYS"

    rows=()
    read -ra counts <<<"${STREAM_COUNTS:-1 2 5 10 20 50 100 150 254 508}"
    for word in "${counts[@]}"; do
        number word 1 508 "a stream count"
        [ -z "$STREAM_COUNTS" ] && [ "$word" -gt "$MAX_STREAMS" ] || rows+=("$word $PER_STREAM_RATE")
    done
    if [ "$TOTAL_RATE" -ge 150 ] && { [ "$MAX_STREAMS" -ge 150 ] || [ -n "$STREAM_COUNTS" ]; }; then
        rows+=("150 $((TOTAL_RATE / 150))")
    fi
}

# step WHAT LOG: what is being done, for clean_up to name should it fail.
step() { doing=$1 doing_log=$2; }

# fail WHAT LOG
fail() {
    doing=
    echo "multi_stream_scaling: $1; its log:" >&2
    tail -n 5 "$2" >&2 2>/dev/null || true
    echo "multi_stream_scaling: the whole log is $2" >&2
    exit 1
}

clean_up() {
    local code=$?
    trap '' INT TERM HUP
    [ "$code" -eq 0 ] || [ "$code" -gt 128 ] || [ -z "${doing:-}" ] ||
        echo "multi_stream_scaling: $doing: a step failed; its log is $doing_log" >&2
    lab_down
    exit "$code"
}

# check_time: the run as a whole has its deadline too.
check_time() {
    [ $SECONDS -lt "$deadline" ] || fail "not done after $deadline seconds" "$log"
}

# await_load SECONDS WHAT LOG PID...: waits until processes have ended; each must succeed, or be the
# sink, whose exit code 1 is a loss.
await_load() {
    local seconds=$1 what=$2 file=$3 pid code
    shift 3
    lab_ended "$seconds" "$@" || fail "$what: not done after $seconds seconds" "$file"
    for pid in "$@"; do
        code=0
        lab_wait "$pid" || code=$?
        [ "$code" -eq 0 ] || { [ "$what" = sink ] && [ "$code" -eq 1 ]; } ||
            fail "$what: exit code $code" "$file"
    done
}

# run ROW RELAY REPEAT: a fresh chain, one relay, one load; a line of runs.jsonl. The relay "bare" is
# none: the sink is in its place.
run() {
    streams=$1 rate=$2 relay=$3 repeat=$4
    out=$log/$streams-streams-$rate-per-s/$relay-$repeat
    mkdir -p "$out"
    local slab_before slab_after begin started configured_at configured
    relay_pids=() sink_pids=() sender_pids=()
    step "making the namespaces" "$out/lab.log"
    lab_up 2>>"$out/lab.log"
    step "$relay with $streams streams" "$out"

    slab_before=$(slab) begin=$EPOCHREALTIME started=$begin
    case $relay in
    ebpf | packet)
        start_mcr "$relay"
        slab_before=$(slab) started=$EPOCHREALTIME
        configure_mcr "$streams"
        ;;
    socat) configure_socat "$streams" ;;
    esac
    configured_at=$EPOCHREALTIME slab_after=$(slab)
    case $relay in
    ebpf | packet) configured=$(rules_of_mcr) ;;
    socat) configured=$(rules_of_socat) ;;
    bare) configured=$streams ;;
    esac
    [ "$configured" -eq "$streams" ] ||
        fail "$relay relays $configured of $streams streams" "$out/$([ "$relay" = socat ] && echo socat.log || echo mcrd.log)"
    buffers >"$out/buffers.json"

    if [ "$relay" = bare ]; then
        start_sink relay veth1 239.1.1.1 5001
    else
        start_sink sink veth3 239.10.1.1 6001
    fi
    all_drops >"$out/drops-before"
    local system process
    process=$(process_cpu "${relay_pids[@]}") system=$(system_cpu)
    start_senders
    # Time to send, and as long again as a machine needs that can do 10,000 packets a second.
    local patience=$((60 + PER_STREAM_PACKETS / rate + streams * PER_STREAM_PACKETS / 10000))
    await_load "$patience" sender "$out/senders.log" "${sender_pids[@]}"
    if [ "$SINK" = mcrgen ]; then
        await_load 60 sink "$out/sink.log" "${sink_pids[@]}"
    else
        finish_socat_sink
    fi
    system=$(($(system_cpu) - system)) process=$(($(process_cpu "${relay_pids[@]}") - process))
    all_drops >"$out/drops-after"
    local living rss pss
    living=$(living "${relay_pids[@]}")
    [ "$living" -eq ${#relay_pids[@]} ] ||
        echo "$((${#relay_pids[@]} - living)) processes of $relay have ended by themselves" >>"$out/notes"
    read -r rss pss < <(memory "${relay_pids[@]}")

    jq -cn --arg relay "$relay" --argjson repeat "$repeat" --argjson streams "$streams" \
        --argjson rate "$rate" --argjson packets "$PER_STREAM_PACKETS" \
        --slurpfile sent <(cat "$out"/sent-*.json) --slurpfile received "$out/received.json" \
        --argjson configured "$configured" --argjson relay_cpu "$process" --argjson system_cpu "$system" \
        --argjson rss "$rss" --argjson pss "$pss" --argjson processes ${#relay_pids[@]} \
        --argjson living "$living" --argjson sockets "$(sockets_of "${relay_pids[@]}")" \
        --argjson slab $((slab_after - slab_before)) --slurpfile buffers "$out/buffers.json" \
        --argjson begin "$begin" --argjson started "$started" --argjson configured_at "$configured_at" \
        --rawfile before "$out/drops-before" --rawfile after "$out/drops-after" --arg log "${out#"$RESULTS_DIR"/}" '
        def table: split("\n") | map(select(. != "") | split("\t") | {key: .[0], value: (.[1] | tonumber)}) | from_entries;
        ($before | table) as $before | $received[0] as $r | ($sent | map(.sent) | add) as $sent_packets |
        {relay: $relay, repeat: $repeat, streams: $streams, rate: $rate, packets: $packets,
         sent: $sent_packets, send_errors: ($sent | map(.send_errors) | add),
         seconds: ($sent | map(.seconds) | max), asked_rate: ($streams * $rate),
         achieved_rate: ($sent_packets / ($sent | map(.seconds) | max)),
         received: $r.received, lost: ([$sent_packets - $r.received, 0] | max),
         duplicated: $r.duplicated, reordered: $r.reordered, corrupt: $r.corrupt, foreign: $r.foreign,
         worst_stream: (if $r.worst_stream then {stream: $r.worst_stream.stream, lost: $r.worst_stream.lost} else null end),
         p50_us: $r.latency_us.p50, p99_us: $r.latency_us.p99, sink_drops: $r.socket_drops, sink_rcvbuf: $r.rcvbuf,
         sender_cpu_s: ($sent | map(.cpu_seconds) | add), relay_cpu_s: ($relay_cpu / 1e6), system_cpu_s: ($system_cpu / 1e6),
         rss_kib: $rss, pss_kib: $pss, processes: $processes, living: $living, sockets: $sockets,
         slab_kib: $slab, rules: $configured, start_s: ($started - $begin), configure_s: ($configured_at - $started),
         buffers: $buffers[0],
         drops: ($after | table | with_entries(.value -= ($before[.key] // 0) | select(.value > 0)) +
            if ($r.socket_drops // 0) > 0 then {"sink sockets": $r.socket_drops} else {} end),
         log: $log}' >"$out/run.json" 2>"$out/record.log" || fail "the run could not be recorded" "$out/record.log"
    cat "$out/run.json" >>"$RESULTS_DIR/runs.jsonl"
    lab_down
}

all_drops() {
    drops
    case $relay in
    ebpf | packet) drops_of_mcr ;;
    esac
}

show_run() {
    jq -r --argjson number "$1" --argjson all "$2" '
        def pad(n): tostring | . + " " * ([n - length, 0] | max);
        def round1: . * 10 | round / 10;
        "[\($number)/\($all)] \(.streams) streams, \(.asked_rate)/s, repeat \(.repeat) | \(.relay | pad(6)) | " +
        "sent \(.sent) at \(.achieved_rate | round)/s, lost \(.lost) (\(.lost / .sent * 100000 | round / 1000) %)" +
        if .p50_us then ", p50 \(.p50_us | round1) µs, p99 \(.p99_us | round1) µs" else "" end +
        if .relay_cpu_s > 0 then ", relay \(.relay_cpu_s / ([.received, 1] | max) * 1e7 | round / 10) s of CPU a million" else "" end' \
        "$out/run.json"
}

main() {
    read_settings "$@"
    [ "$(id -u)" -eq 0 ] || { echo "multi_stream_scaling: run as root: namespaces and relays need it" >&2; exit 1; }
    cd "$root"
    if [ -z "${BIN:-}" ]; then
        scripts/setup.sh test
        cargo build --release --locked --quiet --workspace
        cargo build --release --locked --quiet --package mcrgen --example scaling-report
    fi
    bin=$(realpath "${BIN:-target/release}")
    mkdir -p "$RESULTS_DIR"
    RESULTS_DIR=$(realpath "$RESULTS_DIR")
    [ -z "$(ls -A "$RESULTS_DIR")" ] || refuse "RESULTS_DIR $RESULTS_DIR is not empty"
    log=$RESULTS_DIR/logs

    . scripts/lab.sh
    . "$here/relays.sh"
    . "$here/measure.sh"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    machine | jq --arg repeats "$REPEATS" --arg relays "$RELAYS" '{machine: ., settings: $ARGS.named}' \
        --arg per_stream_packets "$PER_STREAM_PACKETS" --arg per_stream_rate "$PER_STREAM_RATE" \
        --arg packet_size "$PACKET_SIZE" --arg num_workers "$NUM_WORKERS" --arg sink "$SINK" \
        --arg senders "$SENDERS" --arg gso "$GSO" --arg instrument_nice "$INSTRUMENT_NICE" --arg socat_rcvbuf "$SOCAT_RCVBUF" \
        --arg max_streams "$MAX_STREAMS" --arg stream_counts "$STREAM_COUNTS" --arg total_rate "$TOTAL_RATE" \
        --arg date "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$RESULTS_DIR/setting.json"

    local row name repeat count=0 all=$((${#rows[@]} * REPEATS * (${#relays[@]} + 1)))
    deadline=$((SECONDS + all * 60))
    for row in "${rows[@]}"; do
        read -r name rate <<<"$row"
        deadline=$((deadline + REPEATS * (${#relays[@]} + 1) * (PER_STREAM_PACKETS / rate + name * PER_STREAM_PACKETS / 10000)))
    done
    for row in "${rows[@]}"; do
        for ((repeat = 1; repeat <= REPEATS; repeat++)); do
            for name in bare "${relays[@]}"; do
                check_time
                [ ! -t 2 ] || printf '\r\e[K[%d/%d] %s streams: %s, repeat %d ...' $((count + 1)) "$all" "${row% *}" "$name" "$repeat" >&2
                # shellcheck disable=SC2086  # two words: streams and rate
                run $row "$name" "$repeat"
                count=$((count + 1))
                [ ! -t 2 ] || printf '\r\e[K' >&2
                show_run "$count" "$all"
            done
        done
    done
    "$bin/examples/scaling-report" "$RESULTS_DIR" 2>"$RESULTS_DIR/report.log" || fail "no report" "$RESULTS_DIR/report.log"
    echo "report: $RESULTS_DIR/report.md"
}

main "$@"
