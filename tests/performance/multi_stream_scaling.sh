#!/usr/bin/env bash
# The multi-stream scaling test: MCR's planes and socat relay the same streams, in turns, on the
# same machine; what arrives is counted by a receiver in a network namespace of its own.
set -euo pipefail
# Bash writes the time with the decimal point of the locale.
export LC_ALL=C
root=$(cd "$(dirname "$0")/../.." && pwd)

. "$root/tests/performance/settings.sh"

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
    end_job
    lab_down
    # What a step failed with is its own code.
    case $code in
    0 | 143) exit "$code" ;;
    *) exit 1 ;;
    esac
}

# run_job SECONDS WHAT LOG COMMAND...: runs a command that may take long and start others: in the
# background, so that a signal gets through, and as a session of its own, by which end_job finds all.
# What it leaves running is ended by lab_down.
run_job() {
    local seconds=$1 what=$2 file=$3 pid code=0
    shift 3
    setsid setpriv --pdeathsig TERM "$@" </dev/null >>"$file" 2>&1 &
    job=$!
    lab_pids[$job]=$(lab_started "$job" || echo ended)
    lab_ended "$seconds" "$job" || fail "$what: not done after $seconds seconds" "$file"
    lab_wait 1 "$job" || code=$?
    for pid in $(session "$job"); do
        lab_pids[$pid]=$(lab_started "$pid" || echo ended)
    done
    job=
    [ "$code" -eq 0 ] || fail "$what: exit code $code" "$file"
}

# Ends the job that is not done, and after 10 seconds at once.
end_job() {
    local signal=TERM end=$((SECONDS + 10)) pids
    [ -n "$job" ] || return 0
    while mapfile -t pids < <(session "$job") && [ ${#pids[@]} -gt 0 ]; do
        kill "-$signal" "${pids[@]}" 2>/dev/null || true
        [ $SECONDS -lt $end ] || signal=KILL
        [ $SECONDS -lt $((end + 10)) ] || break
        lab_pause 0.1
    done
    job=
}

# session ID: those of it that have not ended, and the process of this id, which may be about to
# make it.
session() { ps -eo pid=,sid=,stat= | awk -v id="$1" '($1 == id || $2 == id) && $3 !~ /^Z/ { print $1 }'; }

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
    # Seconds in which a sender for each stream can be started, so that all begin at one moment.
    lead=0
    [ "$SENDERS" = 1 ] || lead=$((1 + streams / 50))
    step "making the namespaces" "$out/lab.log"
    lab_up 2>"$out/lab.log"
    [ -z "$LAB_COMMAND" ] || LAB=$lab_name run_job 60 LAB_COMMAND "$out/lab.log" bash -c "$LAB_COMMAND"
    step "$relay with $streams streams" "$out"

    steady_slab
    slab=$slab_kib begin=$EPOCHREALTIME started=$begin configured=$streams
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
    steady_slab
    slab=$((slab_kib - slab))
    [ "$configured" -eq "$streams" ] || fail "$relay relays $configured of $streams streams" "$out/$file"
    buffers >"$out/buffers.json"

    case $relay in
    bare) start_sink relay veth1 ;;
    *) start_sink sink veth3 ;;
    esac
    all_drops >"$out/drops-before"
    local system process others since
    process=$(process_cpu "${relay_pids[@]}") others=$(others_cpu) since=$EPOCHREALTIME system=$(system_cpu)
    start_senders
    # Time to send, and as long again as a machine needs that can do 10,000 packets a second.
    local patience=$((60 + lead + PER_STREAM_PACKETS / rate + streams * PER_STREAM_PACKETS / 10000))
    await_load "$patience" sender "$out/senders.log" "${sender_pids[@]}"
    case $SINK in
    mcrgen) await_load 60 sink "$out/sink.log" "${sink_pids[@]}" ;;
    socat) finish_socat_sink ;;
    esac
    system=$(($(system_cpu) - system)) others=$(($(others_cpu) - others))
    others=$(awk -v used="$others" -v since="$since" -v now="$EPOCHREALTIME" -v cpus="$(nproc --all)" '
        BEGIN { print (used > 0 ? used : 0) / ((now - since) * cpus * 1e4) }')
    process=$(($(process_cpu "${relay_pids[@]}") - process))
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
        --argjson relay_cpu "$process" --argjson system_cpu "$system" --argjson others "$others" --argjson rss "$rss" --argjson pss "$pss" \
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
# the test cleans up even when this process is killed. It is a session of its own: the SIGINT of a
# terminal would end relay and sink before the test knows why.
supervise() {
    local code=0 ended body
    trap 'code=130; kill -TERM "$body" 2>/dev/null' INT
    trap 'code=143; kill -TERM "$body" 2>/dev/null' TERM HUP
    scaling_owner=$$ setsid setpriv --pdeathsig TERM "$root/tests/performance/multi_stream_scaling.sh" "$@" &
    body=$!
    # A signal ends the wait too; bash knows the code of a process that has ended.
    while kill -0 "$body" 2>/dev/null; do wait "$body" || true; done
    ended=0
    wait "$body" || ended=$?
    [[ $ended =~ ^(0|1|2|143)$ ]] || { echo "multi_stream_scaling: the test was ended: exit code $ended" >&2; ended=1; }
    exit $((code ? code : ended))
}

main() {
    read_settings "$@"
    [ -n "${scaling_owner:-}" ] || supervise "$@"
    [ "$(id -u)" -eq 0 ] || { echo "multi_stream_scaling: run as root: namespaces and relays need it" >&2; exit 1; }
    [ "$(nice -n "$INSTRUMENT_NICE" nice 2>/dev/null)" -eq "$INSTRUMENT_NICE" ] ||
        refuse "INSTRUMENT_NICE is $INSTRUMENT_NICE, which a process of nice value $(nice) cannot give here"
    bin=$root/target/release
    if [ -n "${BIN:-}" ]; then
        bin=$(realpath --canonicalize-missing "$BIN")
        check_programs
    fi
    RESULTS_DIR=$(realpath --canonicalize-missing "$RESULTS_DIR")
    mkdir -p "$RESULTS_DIR"
    [ -z "$(ls -A "$RESULTS_DIR")" ] || refuse "RESULTS_DIR $RESULTS_DIR is not empty"
    log=$RESULTS_DIR/logs
    cd "$root"

    doing='' job=''
    lab_owner=$scaling_owner
    . scripts/lab.sh
    . tests/performance/relays.sh
    . tests/performance/measure.sh
    trap clean_up EXIT
    trap '' INT HUP
    trap 'doing=; lab_exit 143' TERM
    [ -n "${BIN:-}" ] || build
    step "looking at the machine" "$RESULTS_DIR"
    jq -n --slurpfile machine <(machine) --slurpfile settings <(settings) \
        '{machine: $machine[0], settings: $settings[0]}' >"$RESULTS_DIR/setting.json"

    local row number=0 all=$((${#rows[@]} * REPEATS * (${#relays[@]} + 1)))
    deadline=$((SECONDS + all * 120))
    for row in "${rows[@]}"; do
        deadline=$((deadline + REPEATS * (${#relays[@]} + 1) *
            (PER_STREAM_PACKETS / ${row#* } + PER_STREAM_PACKETS * ${row% *} / 5000)))
    done
    for row in "${rows[@]}"; do run_row "${row% *}" "${row#* }"; done
    step "making the report" "$RESULTS_DIR/report.log"
    "$bin/examples/scaling-report" "$RESULTS_DIR" 2>"$RESULTS_DIR/report.log"
    echo "report: $RESULTS_DIR/report.md"
}

# check_programs: BIN has what is needed.
check_programs() {
    local program
    for program in mcrd mcrctl mcrgen examples/scaling-report; do
        if ! [ -f "$bin/$program" ] || ! [ -x "$bin/$program" ]; then
            refuse "BIN $bin has no program $program"
        fi
    done
}

build() {
    local file=$RESULTS_DIR/build.log
    echo "building; the log is $file" >&2
    run_job 900 "installing packages" "$file" scripts/setup.sh test
    run_job 3600 "building" "$file" cargo build --release --locked --workspace
    run_job 3600 "building the report" "$file" cargo build --release --locked --package mcrgen --example scaling-report
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
