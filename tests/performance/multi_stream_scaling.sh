#!/usr/bin/env bash
# The multi-stream scaling test: MCR's planes and socat relay the same streams, in turns, on the
# same machine; what arrives is counted by a receiver in a network namespace of its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

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
  LAB_COMMAND         a shell command for each new chain, before the relay starts; its namespaces are
                      $LAB-gen, $LAB-relay and $LAB-sink (none)
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
  LAB_COMMAND='ip netns exec $LAB-relay ethtool -K veth1 gro on' tests/performance/multi_stream_scaling.sh

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
    LAB_COMMAND=${LAB_COMMAND-}
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

    [ $((GSO * PACKET_SIZE)) -le 65507 ] || refuse "GSO times PACKET_SIZE is more than 65507 bytes"
    [ "$NUM_WORKERS" -le $((4 * $(nproc))) ] || refuse "NUM_WORKERS is $NUM_WORKERS: mcrd takes 4 for each CPU at most"

    rows=()
    read -ra counts <<<"${STREAM_COUNTS:-1 2 5 10 20 50 100 150 254 508}"
    for word in "${counts[@]}"; do
        number word 1 508 "a stream count"
        [ -n "$STREAM_COUNTS" ] || [ "$word" -le "$MAX_STREAMS" ] || break
        [[ " ${rows[*]/%/ }" != *" $word $PER_STREAM_RATE "* ]] || refuse "STREAM_COUNTS has $word twice"
        rows+=("$word $PER_STREAM_RATE")
    done
    [ ${#rows[@]} -gt 0 ] || refuse "STREAM_COUNTS is empty"
    local last=${rows[-1]% *} total=$((TOTAL_RATE / 150))
    if [ "$last" -ge 150 ] && [ "$total" -gt 0 ] && [[ " ${rows[*]/%/ }" != *" 150 $total "* ]]; then
        rows+=("150 $total")
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
    [ "$code" -eq 0 ] || [ -z "$doing" ] ||
        echo "multi_stream_scaling: $doing: a step failed; its log is $doing_log" >&2
    lab_down
    exit "$code"
}

# check_time: the run as a whole has its deadline too.
check_time() {
    [ $SECONDS -lt "$deadline" ] || fail "not done after $deadline seconds" "$log"
}

# await_load SECONDS WHAT LOG PID...: waits until sender or sink have ended. Their exit code 1 is a
# loss, which is a result.
await_load() {
    local seconds=$1 what=$2 file=$3 pid code
    shift 3
    lab_ended "$seconds" "$@" || fail "$what: not done after $seconds seconds" "$file"
    for pid in "$@"; do
        code=0
        lab_wait 1 "$pid" || code=$?
        [ "$code" -le 1 ] || fail "$what: exit code $code" "$file"
    done
}

# run STREAMS RATE RELAY REPEAT: a fresh chain, one relay, one load; a line of runs.jsonl. The relay
# "bare" is none: the sink is in its place.
run() {
    local relay=$3 repeat=$4 begin started configured_at configured slab
    streams=$1 rate=$2
    out=$log/$streams-streams-$rate-per-s/$relay-$repeat
    mkdir -p "$out"
    relay_pids=() sink_pids=() sender_pids=()
    step "making the namespaces" "$out/lab.log"
    lab_up 2>"$out/lab.log"
    if [ -n "$LAB_COMMAND" ]; then
        LAB=$lab_name bash -c "$LAB_COMMAND" >"$out/lab.log" 2>&1 || fail "LAB_COMMAND failed" "$out/lab.log"
    fi
    step "$relay with $streams streams" "$out"

    slab=$(slab) begin=$EPOCHREALTIME started=$begin configured=$streams
    local file=mcrd.log
    case $relay in
    ebpf | packet)
        start_mcr "$relay"
        started=$EPOCHREALTIME
        configure_mcr "$streams"
        configured_at=$EPOCHREALTIME
        configured=$(rules_of_mcr)
        ;;
    socat)
        configure_socat "$streams"
        configured_at=$EPOCHREALTIME
        configured=$(rules_of_socat)
        file=socat.log
        ;;
    bare) configured_at=$begin ;;
    esac
    slab=$(($(slab) - slab))
    [ "$configured" -eq "$streams" ] || fail "$relay relays $configured of $streams streams" "$out/$file"
    buffers >"$out/buffers.json"

    case $relay in
    bare) start_sink relay veth1 ;;
    *) start_sink sink veth3 ;;
    esac
    all_drops >"$out/drops-before"
    local system process
    process=$(process_cpu "${relay_pids[@]}") system=$(system_cpu)
    start_senders
    # Time to send, and as long again as a machine needs that can do 10,000 packets a second.
    local patience=$((60 + PER_STREAM_PACKETS / rate + streams * PER_STREAM_PACKETS / 10000))
    await_load "$patience" sender "$out/senders.log" "${sender_pids[@]}"
    case $SINK in
    mcrgen) await_load 60 sink "$out/sink.log" "${sink_pids[@]}" ;;
    socat) finish_socat_sink ;;
    esac
    system=$(($(system_cpu) - system)) process=$(($(process_cpu "${relay_pids[@]}") - process))
    [ -s "$out/received.json" ] || fail "the sink has not reported" "$out/sink.log"
    all_drops >"$out/drops-after"
    record >"$out/run.json" 2>"$out/record.log" || fail "the run could not be recorded" "$out/record.log"
    cat "$out/run.json" >>"$RESULTS_DIR/runs.jsonl"
    lab_down
}

# The run as JSON. Only from run, whose variables it reads.
record() {
    local rss pss
    read -r rss pss < <(memory "${relay_pids[@]}")
    jq -cn -f tests/performance/run.jq --arg relay "$relay" --argjson repeat "$repeat" \
        --argjson streams "$streams" --argjson rate "$rate" --argjson per_stream "$PER_STREAM_PACKETS" \
        --slurpfile sent <(cat "$out"/sent-*.json) --slurpfile received "$out/received.json" \
        --argjson configured "$configured" --argjson slab "$slab" --slurpfile buffers "$out/buffers.json" \
        --argjson relay_cpu "$process" --argjson system_cpu "$system" --argjson rss "$rss" --argjson pss "$pss" \
        --argjson processes ${#relay_pids[@]} --argjson living "$(living "${relay_pids[@]}")" \
        --argjson sockets "$(sockets_of "${relay_pids[@]}")" \
        --argjson begin "$begin" --argjson started "$started" --argjson configured_at "$configured_at" \
        --rawfile before "$out/drops-before" --rawfile after "$out/drops-after" \
        --arg log "${out#"$RESULTS_DIR"/}"
}

show_run() {
    jq -r --argjson number "$1" --argjson all "$2" '
        def pad(n): tostring | . + " " * ([n - length, 0] | max);
        def round1: . * 10 | round / 10;
        "[\($number)/\($all)] \(.streams) streams, \(.asked_rate)/s, repeat \(.repeat) | \(.relay | pad(6)) | " +
        "sent \(.sent) at \(.achieved_rate | round)/s, lost \(.lost) (\(.lost / .sent * 100000 | round / 1000) %)" +
        if .p50_us then ", p50 \(.p50_us | round1) µs, p99 \(.p99_us | round1) µs" else "" end +
        if .relay != "ebpf" and (.relay_cpu_s // 0) > 0 then ", relay \(.relay_cpu_s / ([.received, 1] | max) * 1e7 | round / 10) s of CPU a million" else "" end' \
        "$out/run.json"
}

# supervise ARGUMENT...: the test itself is a process of its own, so that a signal gets through at any
# moment (bash drops a SIGINT that comes while a command runs which is not ended by it), and so that
# the test cleans up even when this process is killed.
supervise() {
    local code=0 ended body
    trap 'code=130; kill -TERM "$body" 2>/dev/null' INT
    trap 'code=143; kill -TERM "$body" 2>/dev/null' TERM HUP
    scaling_owner=$$ setpriv --pdeathsig TERM "$root/tests/performance/multi_stream_scaling.sh" "$@" &
    body=$!
    while :; do
        ended=0
        wait "$body" || ended=$?
        # A signal ends the wait too.
        kill -0 "$body" 2>/dev/null || break
    done
    exit $((code ? code : ended))
}

# One setting a line, as JSON.
settings() {
    local name
    for name in PER_STREAM_PACKETS PER_STREAM_RATE PACKET_SIZE RELAYS NUM_WORKERS REPEATS SINK SENDERS \
        GSO INSTRUMENT_NICE SOCAT_RCVBUF STREAM_COUNTS TOTAL_RATE LAB_COMMAND MAX_STREAMS; do
        jq -n --arg key "${name,,}" --arg value "${!name}" '{($key): $value}'
    done | jq -s 'add + {date: (now | todate)}'
}

main() {
    local folder=$PWD
    read_settings "$@"
    [ -n "${scaling_owner:-}" ] || supervise "$@"
    [ "$(id -u)" -eq 0 ] || { echo "multi_stream_scaling: run as root: namespaces and relays need it" >&2; exit 1; }
    [ "$(nice -n "$INSTRUMENT_NICE" nice 2>/dev/null)" -eq "$INSTRUMENT_NICE" ] ||
        refuse "INSTRUMENT_NICE is $INSTRUMENT_NICE, which a process of nice value $(nice) cannot give here"
    cd "$root"
    if [ -z "${BIN:-}" ]; then
        scripts/setup.sh test
        cargo build --release --locked --quiet --workspace
        cargo build --release --locked --quiet --package mcrgen --example scaling-report
        bin=$root/target/release
    else
        bin=$(cd "$folder" && realpath "$BIN")
    fi
    RESULTS_DIR=$(cd "$folder" && realpath --canonicalize-missing "$RESULTS_DIR")
    mkdir -p "$RESULTS_DIR"
    [ -z "$(ls -A "$RESULTS_DIR")" ] || refuse "RESULTS_DIR $RESULTS_DIR is not empty"
    log=$RESULTS_DIR/logs

    lab_owner=$scaling_owner
    . scripts/lab.sh
    . tests/performance/relays.sh
    . tests/performance/measure.sh
    trap clean_up EXIT
    trap '' INT HUP
    trap 'doing=; exit 143' TERM
    step "looking at the machine" "$RESULTS_DIR"
    jq -n --slurpfile machine <(machine) --slurpfile settings <(settings) \
        '{machine: $machine[0], settings: $settings[0]}' >"$RESULTS_DIR/setting.json"

    local row number=0 all=$((${#rows[@]} * REPEATS * (${#relays[@]} + 1)))
    deadline=$((SECONDS + all * 60))
    for row in "${rows[@]}"; do
        deadline=$((deadline + REPEATS * (${#relays[@]} + 1) *
            (PER_STREAM_PACKETS / ${row#* } + PER_STREAM_PACKETS * ${row% *} / 5000)))
    done
    for row in "${rows[@]}"; do run_row "${row% *}" "${row#* }"; done
    step "making the report" "$RESULTS_DIR/report.log"
    "$bin/examples/scaling-report" "$RESULTS_DIR" 2>"$RESULTS_DIR/report.log"
    echo "report: $RESULTS_DIR/report.md"
}

# run_row STREAMS RATE: all repeats; in each the bare path and then every relay.
run_row() {
    local turn relay
    for ((turn = 1; turn <= REPEATS; turn++)); do
        for relay in bare "${relays[@]}"; do
            check_time
            number=$((number + 1))
            [ ! -t 2 ] || printf '\r\e[K[%d/%d] %s streams: %s, repeat %d ...' "$number" "$all" "$1" "$relay" "$turn" >&2
            run "$1" "$2" "$relay" "$turn"
            [ ! -t 2 ] || printf '\r\e[K' >&2
            show_run "$number" "$all"
        done
    done
}

main "$@"
