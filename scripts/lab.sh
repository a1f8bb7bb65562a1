# shellcheck shell=bash
# A chain of three network namespaces, to be sourced:
#
#   gen (veth0 10.0.0.1) -- (veth1 10.0.0.2) relay (veth2 10.0.1.1) -- (veth3 10.0.1.2) sink
#
# lab_up makes it, lab_down ends its processes by their ids and removes it. Names carry the process
# id and start time of the script and a number, so that several labs stand side by side, and so that
# lab_up can tell and remove what a script left that was killed. Every wait has a deadline.

lab_owner=${lab_owner:-$$}
lab_name=
lab_number=0
# Process id to start time: an id alone may belong to another process later.
declare -gA lab_pids=()
lab_pid=
lab_prefix=mcr-lab

# Waiting by a read that nobody answers: no process is made, and signals get through.
lab_fifo=$(mktemp -u)
mkfifo -m 600 "$lab_fifo"
exec {lab_tick}<>"$lab_fifo"
rm -f "$lab_fifo"
lab_pause() {
    local stop
    lab_pausing=1
    read -r -t "$1" -u "$lab_tick" || true
    lab_pausing='' stop=$lab_stop lab_stop=''
    [ -z "$stop" ] || exit "$stop"
}

# lab_exit CODE: for traps. bash 5.2 aborts now and then when a trap leaves a `read -t` for good: its
# timer goes off later. So the pause ends first.
lab_pausing='' lab_stop=''
lab_exit() {
    if [ -n "$lab_pausing" ]; then lab_stop=$1; else exit "$1"; fi
}

# lab_stat PID: the fields of /proc/PID/stat from the state on, as an array; fails when there is no
# such process.
lab_stat() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # The name in parentheses may hold anything.
    read -ra lab_fields <<<"${stat##*) }"
}

# lab_started PID: when a process started, in ticks since boot.
lab_started() { lab_stat "$1" && echo "${lab_fields[19]}"; }

# lab_lives PID: not `kill -0`, for which a process lives until its parent has taken note of its end.
lab_lives() {
    lab_stat "$1" && [ "${lab_fields[0]}" != Z ] &&
        [ "${lab_pids[$1]:-${lab_fields[19]}}" = "${lab_fields[19]}" ]
}

lab_up() {
    lab_sweep
    lab_number=$((lab_number + 1))
    lab_name=$lab_prefix-$lab_owner-$(lab_started "$lab_owner")-$lab_number
    local role
    for role in gen relay sink; do
        ip netns add "$lab_name-$role"
        ip -n "$lab_name-$role" link set lo up
    done
    ip -n "$lab_name-gen" link add veth0 type veth peer name veth1 netns "$lab_name-relay"
    ip -n "$lab_name-relay" link add veth2 type veth peer name veth3 netns "$lab_name-sink"
    lab_link gen veth0 10.0.0.1/24
    lab_link relay veth1 10.0.0.2/24
    lab_link relay veth2 10.0.1.1/24
    lab_link sink veth3 10.0.1.2/24
    # A sender without one looks for a route for every packet, in vain.
    ip -n "$lab_name-gen" route add 224.0.0.0/4 dev veth0
    ip -n "$lab_name-relay" route add 224.0.0.0/4 dev veth2
    # The kernel starts an interface's queue some time after it is set up; until then it drops.
    lab_await "links" lab_is_up gen veth0
    lab_await "links" lab_is_up relay veth1
    lab_await "links" lab_is_up relay veth2
    lab_await "links" lab_is_up sink veth3
}

lab_is_up() {
    ip -n "$lab_name-$1" -o link show dev "$2" | grep -q "state UP"
}

lab_link() {
    ip -n "$lab_name-$1" address add "$3" dev "$2"
    ip -n "$lab_name-$1" link set "$2" up
}

# nsenter and not `ip netns exec`, which hides the host's /sys/fs/bpf.
lab_in() {
    local role=$1
    shift
    nsenter --net="/run/netns/$lab_name-$role" "$@"
}

# Starts a program in a namespace in the background, to be ended by lab_down; its id is lab_pid.
# nsenter becomes the program, so the id is the program's.
lab_spawn() {
    local role=$1
    shift
    nsenter --net="/run/netns/$lab_name-$role" "$@" </dev/null &
    lab_pid=$!
    lab_stat "$lab_pid" || lab_fields[19]=ended
    lab_pids[$lab_pid]=${lab_fields[19]}
}

# lab_wait SECONDS PID: waits for the end of a program that lab_spawn has started; its exit code, or
# 124 when it has not ended in that time.
lab_wait() {
    local code=0
    lab_ended "$1" "$2" || return 124
    wait "$2" || code=$?
    unset "lab_pids[$2]"
    return $code
}

# Waits until a command succeeds, at most 20 seconds.
lab_await() {
    local what=$1 end=$((SECONDS + 20))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            echo "$what: not after 20 seconds" >&2
            return 1
        fi
        lab_pause 0.02
    done
}

# lab_ended SECONDS PID...: waits until all have ended, at most so long.
lab_ended() {
    local end=$((SECONDS + $1)) pid
    shift
    for pid in "$@"; do
        while lab_lives "$pid"; do
            [ $SECONDS -lt $end ] || return 1
            lab_pause 0.02
        done
    done
}

# lab_end PID...: ends those that live, and whoever has not ended after 10 seconds at once.
lab_end() {
    local pid living=()
    for pid in "$@"; do
        if lab_lives "$pid"; then living+=("$pid"); fi
    done
    [ ${#living[@]} -gt 0 ] || return 0
    kill -TERM "${living[@]}" 2>/dev/null || true
    if ! lab_ended 10 "${living[@]}"; then
        kill -KILL "${living[@]}" 2>/dev/null || true
        lab_ended 10 "${living[@]}" || echo "lab: some of the processes ${living[*]} did not end" >&2
    fi
}

lab_down() {
    lab_end "${!lab_pids[@]}"
    lab_pids=()
    [ -n "$lab_name" ] || return 0
    lab_remove "$lab_name"
    lab_name=
}

# Removes the labs of scripts that are no more.
lab_sweep() {
    local path name pid started
    for path in /run/netns/"$lab_prefix"-*-relay /run/netns/"$lab_prefix"-*-gen \
        /run/netns/"$lab_prefix"-*-sink; do
        [ -e "$path" ] || continue
        name=${path##*/}
        name=${name%-*}
        IFS=- read -r pid started _ <<<"${name#"$lab_prefix"-}"
        if [ "$(lab_started "$pid" || true)" != "$started" ]; then
            echo "removing $name, left by a run that was killed" >&2
            lab_remove "$name"
        fi
    done
}

# lab_remove NAME: ends what is left in its namespaces, removes what a daemon that could not end by
# itself has left, and the namespaces last, by which lab_sweep finds a lab.
lab_remove() {
    local role pids
    for role in gen relay sink; do
        [ -e "/run/netns/$1-$role" ] || continue
        mapfile -t pids < <(ip netns pids "$1-$role" 2>/dev/null || true)
        lab_end "${pids[@]}"
    done
    rm -rf "/sys/fs/bpf/mcr/${1:?}" "/run/mcr/${1:?}".*
    for role in gen relay sink; do
        ip netns delete "$1-$role" 2>/dev/null || true
    done
}
