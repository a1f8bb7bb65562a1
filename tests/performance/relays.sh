# shellcheck shell=bash disable=SC2154  # the settings and the run are the script's
# What takes part in the scaling test: the addresses, the relays, the senders and the sinks. To be
# sourced after scripts/lab.sh. Settings come in as variables of the script; $out is the folder of
# the run, relay_pids and sink_pids are the processes started.

relay_pids=() sink_pids=() sender_pids=()

# flows COUNT: a line for each stream, 1 to 508: number, input group, port, output group, port. 254
# groups for each third octet.
flows() {
    if ! [[ $1 =~ ^[1-9][0-9]{0,2}$ ]] || [ "$1" -gt 508 ]; then
        echo "$1 streams: there can be 1 to 508" >&2
        return 1
    fi
    awk -v count="$1" 'BEGIN {
        for (k = 1; k <= count; k++) {
            host = int((k - 1) / 254) + 1 "." (k - 1) % 254 + 1
            print k, "239.1." host, 5000 + k, "239.10." host, 6000 + k
        }
    }'
}

# UDP sockets in a namespace, and groups joined on one of its interfaces (but for all-hosts).
sockets_in() { lab_in "$1" cat /proc/net/udp | awk 'END { print NR - 1 }'; }
groups_on() {
    lab_in "$1" cat /proc/net/igmp | awk -v interface="$2" '
        /^[0-9]/ { here = $2 == interface; next }
        here && $1 != "010000E0" { count++ }
        END { print count + 0 }'
}

ctl() { "$bin/mcrctl" --instance "$lab_name" "$@"; }

# start_mcr PLANE: mcrd with no rules.
start_mcr() {
    local options=(--dataplane "$1")
    if [ "$1" = packet ]; then
        options+=(--workers "$NUM_WORKERS" --config "$out/mcr.toml")
        printf '[packet]\nring_mib = %d\n' "$(ring_mib "$streams")" >"$out/mcr.toml"
    fi
    lab_spawn relay "$bin/mcrd" --instance "$lab_name" "${options[@]}" 2>"$out/mcrd.log"
    relay_pids=("$lab_pid")
    { lab_await "mcrd" has_answered_or_ended "$lab_pid" && ctl status >"$out/status" 2>&1; } ||
        fail "mcrd did not start" "$out/mcrd.log"
    if [ "$1" = packet ]; then
        local workers
        mapfile -t workers < <(ctl status --json | jq -r '.workers[].pid // empty')
        [ ${#workers[@]} -eq "$NUM_WORKERS" ] ||
            fail "${#workers[@]} of $NUM_WORKERS workers run" "$out/mcrd.log"
        relay_pids+=("${workers[@]}")
    fi
}

has_answered_or_ended() { ctl status || ! lab_lives "$1"; }

# ring_mib STREAMS: so much for each worker that all rings together are no more than the receive
# buffers that all socats get, but the 1 MiB that is the least a ring can have, and never more than
# the 64 MiB that mcrd takes when nothing is said.
ring_mib() {
    local mib=64 buffer
    if [ "$SOCAT_RCVBUF" != default ]; then
        buffer=$(cat /proc/sys/net/core/rmem_max)
        buffer=$((buffer < SOCAT_RCVBUF ? buffer : SOCAT_RCVBUF))
        mib=$(($1 * buffer / NUM_WORKERS / 1048576))
        mib=$((mib < 1 ? 1 : mib > 64 ? 64 : mib))
    fi
    echo "$mib"
}

configure_mcr() {
    flows "$1" | awk '{ print "add " $2 ":" $3 "@veth1 " $4 ":" $5 "@veth2 --name stream-" $1 }' \
        >"$out/rules"
    ctl batch "$out/rules" >"$out/batch.log" 2>&1 || fail "the rules were refused" "$out/batch.log"
}

rules_of_mcr() {
    ctl list --json >"$out/list.json"
    jq '[.rules[] | select(.state == "idle" or .state == "forwarding")] | length' "$out/list.json"
}

# The options that all sockets of socat have in common that receive GROUP:PORT on INTERFACE.
socat_receive() {
    local buffer=
    [ "$SOCAT_RCVBUF" = default ] || buffer=,so-rcvbuf=$SOCAT_RCVBUF
    echo "UDP4-RECV:$2,bind=$1,ip-add-membership=$1:$3,reuseaddr$buffer"
}

# One socat for each stream, as its users run it.
configure_socat() {
    local k from port to to_port
    while read -r k from port to to_port; do
        lab_spawn relay socat -u -lp"stream-$k" "$(socat_receive "$from" "$port" veth1)" \
            "UDP4-DATAGRAM:$to:$to_port,ip-multicast-if=10.0.1.1,ip-multicast-ttl=32" \
            2>>"$out/socat.log"
        relay_pids+=("$lab_pid")
    done < <(flows "$1")
    lab_await "socat" has_joined relay veth1 "$1" ||
        fail "not every socat has joined its group" "$out/socat.log"
}

has_joined() { [ "$(groups_on "$1" "$2")" -ge "$3" ] && [ "$(sockets_in "$1")" -ge "$3" ]; }

# Streams that are relayed: processes that live and have their group.
rules_of_socat() {
    local groups living
    groups=$(groups_on relay veth1)
    living=$(living "${relay_pids[@]}")
    echo $((groups < living ? groups : living))
}

living() {
    local pid count=0
    for pid in "$@"; do
        if lab_lives "$pid"; then count=$((count + 1)); fi
    done
    echo "$count"
}

# start_sink ROLE INTERFACE: receives all streams in a namespace: in that of the relay what goes in,
# in that of the sink what comes out.
start_sink() {
    if [ "$SINK" = socat ]; then
        start_socat_sink "$@"
        return
    fi
    local first=(--group 239.10.1.1 --port 6001)
    [ "$1" = sink ] || first=(--group 239.1.1.1 --port 5001)
    lab_spawn "$1" nice -n "$INSTRUMENT_NICE" "$bin/mcrgen" recv --interface "$2" "${first[@]}" \
        --streams "$streams" --expect "$PER_STREAM_PACKETS" --idle 2s --wait-first $((5 + lead))s \
        --linger 200ms --json >"$out/received.json" 2>"$out/sink.log"
    sink_pids=("$lab_pid")
    lab_await "the sink" grep -q ready "$out/sink.log" || fail "the sink has not joined" "$out/sink.log"
}

# One socat for each stream that writes what comes to /dev/null: what it wrote is counted by the
# kernel in /proc/PID/io.
start_socat_sink() {
    local k from port to to_port
    while read -r k from port to to_port; do
        [ "$1" = sink ] || to=$from to_port=$port
        lab_spawn "$1" nice -n "$INSTRUMENT_NICE" socat -u -lp"sink-$k" \
            "$(socat_receive "$to" "$to_port" "$2")" OPEN:/dev/null 2>>"$out/sink.log"
        sink_pids+=("$lab_pid")
    done < <(flows "$streams")
    lab_await "the sink" has_joined "$1" "$2" "$streams" ||
        fail "not every socat of the sink has joined its group" "$out/sink.log"
    written >"$out/sink-before"
}

# Bytes that each process of the sink has written.
written() {
    local files=("${sink_pids[@]/#//proc/}")
    awk '/^wchar/ { print $2 }' "${files[@]/%//io}" || fail "a socat of the sink has ended" "$out/sink.log"
}

# Waits until all has come, or nothing for two seconds; then writes received.json as mcrgen would,
# as far as bytes tell.
finish_socat_sink() {
    local all=$((streams * PER_STREAM_PACKETS * PACKET_SIZE)) sum last=-1 since=$SECONDS
    while :; do
        written >"$out/sink-after"
        sum=$(paste "$out/sink-before" "$out/sink-after" | awk '{ n += $2 - $1 } END { printf "%.0f", n }')
        [ "$sum" -lt "$all" ] || break
        if [ "$sum" != "$last" ]; then last=$sum since=$SECONDS; fi
        [ $((SECONDS - since)) -le 2 ] || break
        lab_pause 0.5
    done
    paste "$out/sink-before" "$out/sink-after" |
        jq -Rn --argjson expect "$PER_STREAM_PACKETS" --argjson size "$PACKET_SIZE" '
            [inputs | split("\t") | map(tonumber) | (.[1] - .[0]) / $size | floor] |
            to_entries | map({stream: (.key + 1), received: .value, lost: ($expect - .value)}) |
            {received: (map(.received) | add), worst_stream: ((max_by(.lost) | select(.lost > 0)) // null)}
        ' >"$out/received.json"
}

# All streams from the generator's namespace: one process for all, or one for each.
start_senders() {
    local common=(--interface veth0 --rate "$rate" --count "$PER_STREAM_PACKETS" --size "$PACKET_SIZE"
        --gso "$GSO" --json) k group port now=$EPOCHREALTIME
    sender_pids=()
    if [ "$SENDERS" = 1 ]; then
        lab_spawn gen nice -n "$INSTRUMENT_NICE" "$bin/mcrgen" send --group 239.1.1.1 --port 5001 --streams "$streams" \
            "${common[@]}" >"$out/sent-1.json" 2>"$out/senders.log"
        sender_pids=("$lab_pid")
        return
    fi
    while read -r k group port _; do
        lab_spawn gen nice -n "$INSTRUMENT_NICE" "$bin/mcrgen" send --group "$group" --port "$port" --first-stream "$k" \
            --start-at "$((${now%.*} + lead)).${now#*.}" "${common[@]}" >"$out/sent-$k.json" 2>>"$out/senders.log"
        sender_pids+=("$lab_pid")
    done < <(flows "$streams")
}
