# A chain of three network namespaces, to be sourced:
#
#   gen (veth0 10.0.0.1) -- (veth1 10.0.0.2) relay (veth2 10.0.1.1) -- (veth3 10.0.1.2) sink
#
# lab_up makes it, lab_down ends its processes by their ids and removes it. Names carry a suffix,
# so that several labs stand side by side.

lab_name=
lab_pids=()
lab_pid=

lab_up() {
    lab_name=mcr-$$-$RANDOM
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
    ip -n "$lab_name-gen" route add 224.0.0.0/4 dev veth0
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
    nsenter --net="/run/netns/$lab_name-$role" "$@" &
    lab_pid=$!
    lab_pids+=("$lab_pid")
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
        sleep 0.05
    done
}

lab_down() {
    local pid role
    for pid in "${lab_pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${lab_pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    lab_pids=()
    [ -n "$lab_name" ] || return 0
    for role in gen relay sink; do
        ip netns delete "$lab_name-$role" 2>/dev/null || true
    done
    lab_name=
}
