# shellcheck shell=bash disable=SC2154,SC2034  # the folder is the script's, the settings are for it
# The settings of the scaling test: what they are, and which are refused. To be sourced.

usage() {
    cat <<'TEXT'
Usage: multi_stream_scaling.sh [MAX_STREAMS]

Relays 1, 2, 5, 10, 20, 50, 100, 150, 254 and 508 streams, up to MAX_STREAMS (150), through each
relay, and when one count is 150 or more, once more 150 streams at TOTAL_RATE. Stream N goes from
239.1.X.Y:5000+N to 239.10.X.Y:6000+N, 254 groups for each X. Needs root. Changes nothing outside its
own namespaces.

Settings are variables of the environment:

  PER_STREAM_PACKETS  packets of each stream (10000)
  PER_STREAM_RATE     packets per second of each stream (2000)
  PACKET_SIZE         bytes of UDP payload, 40 to 1472 (1024)
  RELAYS              any of "ebpf packet socat", in turns in this order (all)
  NUM_WORKERS         worker processes of the packet plane, 1 to 64 (4)
  REPEATS             how often each is run; the report has median and worst, and says how many times
                      less CPU than socat from 2 on: one run does not show how far runs differ (3)
  SINK                mcrgen: one receiver, which knows loss, order and latency of each stream;
                      socat: one process for each stream, which only counts bytes (mcrgen)
  SENDERS             1: one process sends all streams; N: one process for each, in parallel, all from
                      the same moment on (1)
  GSO                 datagrams that the sender hands over at once (UDP_SEGMENT), 1 to 64 (1)
  INSTRUMENT_NICE     priority of sender and sink, -20 to 19: as if they stood on other hosts, which
                      no relay can slow down; 0 lets all share the CPUs alike (-20)
  SOCAT_RCVBUF        bytes of receive buffer of each socat; the rings of the packet plane together
                      get no more than all socats together, but 1 MiB for each worker at least, and
                      its send buffers come on top; "default" leaves both as they come (4194304)
  STREAM_COUNTS       other counts, each 1 to 508, in place of those above and without MAX_STREAMS
  TOTAL_RATE          packets per second of the last row, 150 or more; 0 leaves it out (500000)
  LAB_COMMAND         a shell command for each new chain, before the relay starts; its namespaces are
                      $LAB-gen, $LAB-relay and $LAB-sink. It has a minute; what it leaves running ends
                      with the chain (none)
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
130 ended by SIGINT, 143 by SIGTERM or SIGHUP. Nothing is left behind in any case.
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
    [ -z "${MAX_STREAMS+set}" ] || refuse "MAX_STREAMS is an argument, and no variable"
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
    [ "$TOTAL_RATE" -eq 0 ] || [ "$TOTAL_RATE" -ge 150 ] ||
        refuse "TOTAL_RATE is $TOTAL_RATE: 150 streams send one packet a second each at least"
    [ "$SOCAT_RCVBUF" = default ] || number SOCAT_RCVBUF 2048 1073741824
    [ -n "$RESULTS_DIR" ] || refuse "RESULTS_DIR is empty"

    [ $((GSO * PACKET_SIZE)) -le 65507 ] || refuse "GSO times PACKET_SIZE is more than 65507 bytes"
    [ "$NUM_WORKERS" -le $((4 * $(nproc))) ] || refuse "NUM_WORKERS is $NUM_WORKERS: mcrd takes 4 for each CPU at most"
    read_relays
    read_rows $#
}

# read_words ARRAY TEXT: the words, on any number of lines.
read_words() { read -r -d '' -a "$1" <<<"$2" || true; }

read_relays() {
    local word
    read_words relays "$RELAYS"
    RELAYS=${relays[*]}
    [ ${#relays[@]} -gt 0 ] || refuse "RELAYS is empty"
    for word in "${relays[@]}"; do one_of "a relay" "$word" ebpf packet socat; done
    [ "$(printf '%s\n' "${relays[@]}" | sort -u | wc -l)" -eq ${#relays[@]} ] ||
        refuse "RELAYS names one twice: $RELAYS"
}

# read_rows ARGUMENTS: the loads, each STREAMS RATE.
read_rows() {
    local counts=() count most=0 total=$((TOTAL_RATE / 150))
    rows=()
    read_words counts "${STREAM_COUNTS:-1 2 5 10 20 50 100 150 254 508}"
    for count in "${counts[@]}"; do
        number count 1 508 "one of STREAM_COUNTS"
        [ -n "$STREAM_COUNTS" ] || [ "$count" -le "$MAX_STREAMS" ] || break
        ! has_row "$count" "$PER_STREAM_RATE" || refuse "STREAM_COUNTS has $count twice"
        rows+=("$count $PER_STREAM_RATE")
        most=$((count > most ? count : most))
    done
    [ ${#rows[@]} -gt 0 ] || refuse "STREAM_COUNTS is empty"
    if [ -n "$STREAM_COUNTS" ]; then
        [ "$1" -eq 0 ] || refuse "MAX_STREAMS and STREAM_COUNTS exclude each other"
        STREAM_COUNTS=${counts[*]} MAX_STREAMS=
    fi
    if [ "$most" -ge 150 ] && [ "$total" -gt 0 ] && ! has_row 150 "$total"; then
        rows+=("150 $total")
    fi
}

has_row() { [[ " ${rows[*]/%/ }" == *" $1 $2 "* ]]; }

# One setting a line, as JSON.
settings() {
    local name
    for name in PER_STREAM_PACKETS PER_STREAM_RATE PACKET_SIZE RELAYS NUM_WORKERS REPEATS SINK SENDERS \
        GSO INSTRUMENT_NICE SOCAT_RCVBUF STREAM_COUNTS TOTAL_RATE LAB_COMMAND MAX_STREAMS; do
        jq -n --arg key "${name,,}" --arg value "${!name}" '{($key): $value}'
    done | jq -s 'add + {date: (now | todate)}'
}
