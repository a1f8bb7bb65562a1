# shellcheck shell=bash disable=SC2154  # the settings and the run are the script's
# What the scaling test reads from the kernel, before and after each run. To be sourced.

# CPU time of the whole system in microseconds: that in which no CPU was idle, waiting, or taken away
# by a hypervisor. The other columns of /proc/stat are samples at the timer's ticks, the idle time
# is measured.
system_cpu() {
    local idle iowait steal
    read -r _ _ _ _ idle iowait _ _ steal _ </proc/stat
    awk -v now="$EPOCHREALTIME" -v cpus="$(nproc --all)" -v hz="$(getconf CLK_TCK)" \
        -v away=$((idle + iowait + steal)) 'BEGIN { printf "%.0f\n", (now * cpus - away / hz) * 1e6 }'
}

# CPU time of processes in microseconds, all threads.
process_cpu() {
    local pid file files=()
    for pid in "$@"; do
        for file in "/proc/$pid"/task/*/schedstat; do files+=("$file"); done
    done
    [ ${#files[@]} -gt 0 ] || { echo 0; return; }
    { cat "${files[@]}" 2>/dev/null || true; } | awk '{ ns += $1 } END { printf "%.0f\n", ns / 1000 }'
}

# Resident and proportional memory of processes: KiB KiB.
memory() {
    local pid files=()
    for pid in "$@"; do files+=("/proc/$pid/smaps_rollup"); done
    [ ${#files[@]} -gt 0 ] || { echo 0 0; return; }
    { cat "${files[@]}" 2>/dev/null || true; } |
        awk '/^Rss:/ { rss += $2 } /^Pss:/ { pss += $2 } END { print rss + 0, pss + 0 }'
}

# Sockets that processes hold, each once, whoever shares it.
sockets_of() {
    local pid
    for pid in "$@"; do
        find "/proc/$pid/fd" -type l -printf '%l\n' 2>/dev/null || true
    done | grep '^socket:' | sort -u | wc -l
}

# CPU time in microseconds that others took: processes outside the test, with the children that they
# waited for, and the hypervisor (steal). Not kernel threads, which work for the test too. Exact to a
# tick, 10 ms with most kernels, for each process.
others_cpu() {
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v test=$$ -v hz="$(getconf CLK_TCK)" \
        -v steal="$(awk '/^cpu / { print $9 }' /proc/stat)" '
        {
            pid = $1
            # The name in parentheses may hold anything.
            sub(/^.*\) /, "")
            # PF_KTHREAD
            if (int($7 / 2097152) % 2) next
            parent[pid] = $2
            used[pid] = $12 + $13 + $14 + $15
        }
        END {
            for (pid in used) {
                for (p = pid; p != test && p in parent; p = parent[p]);
                if (p != test) sum += used[pid]
            }
            printf "%.0f\n", (sum + steal) / hz * 1e6
        }'
}

# Memory of the kernel's own objects in KiB. The CPUs keep parts of the count to themselves until
# they are asked.
slab() {
    cat /proc/sys/vm/stat_refresh >/dev/null 2>&1 || true
    awk '/^Slab:/ { print $2 }' /proc/meminfo
}

# slab_kib: the same once it has stood still for a quarter of a second, to 64 KiB; after 3 seconds as it is.
# The namespaces of the run before are freed in the background.
steady_slab() {
    local since still=0 end=$((SECONDS + 3))
    since=$(slab)
    while [ $still -lt 5 ] && [ $SECONDS -lt $end ]; do
        lab_pause 0.05
        slab_kib=$(slab)
        if [ $((slab_kib - since)) -le 64 ] && [ $((since - slab_kib)) -le 64 ]; then
            still=$((still + 1))
        else
            still=0 since=$slab_kib
        fi
    done
}

# all_drops: by kernel and relay. As lines PLACE<tab>COUNT.
all_drops() {
    kernel_drops
    case $relay in
    ebpf | packet) drops_of_mcr ;;
    esac
}

# All places where the kernel counts what it drops. One packet may stand in
# more than one: a full backlog is counted by softnet, and by both ends of the veth pair.
kernel_drops() {
    local role
    for role in gen relay sink; do
        lab_in "$role" cat /proc/net/snmp | awk -v role="$role" '
            BEGIN { n = split("InHdrErrors InAddrErrors InDiscards OutDiscards OutNoRoutes ReasmFails FragFails " \
                "RcvbufErrors SndbufErrors InCsumErrors MemErrors", names); for (i = 1; i <= n; i++) wanted[names[i]] }
            $1 != "Ip:" && $1 != "Udp:" { next }
            $2 ~ /^[A-Z]/ { split($0, heading); next }
            { for (i = 2; i <= NF; i++) if (heading[i] in wanted) print role " " $1 " " heading[i] "\t" $i }'
        lab_in "$role" cat /proc/net/dev | awk -v role="$role" '
            /veth/ {
                sub(":", " ")
                print role " interface " $1 " rx errors\t" $4
                print role " interface " $1 " rx dropped\t" $5
                print role " interface " $1 " tx errors\t" $12
                print role " interface " $1 " tx dropped\t" $13
            }'
        # Sockets that are still there: those of mcrgen are in its own report.
        lab_in "$role" cat /proc/net/udp | awk -v role="$role" '
            NR > 1 { n += $NF } END { print role " UDP sockets\t" n + 0 }'
    done
    # The same in every namespace: drops of the whole host.
    local dropped
    while read -r _ dropped _; do
        echo "$((16#$dropped))"
    done </proc/net/softnet_stat | awk '{ n += $1 } END { print "host softnet_stat dropped\t" n }'
}

# Of mcrd: what its rings and its rules have counted.
drops_of_mcr() {
    ctl status --json | jq -r '.workers[]? as $w | $w.rings[]? |
        "ring of worker \($w.worker) on \(.interface)\t\(.dropped)",
        "unusable frames of worker \($w.worker) on \(.interface)\t\(.unusable)"'
    ctl stats --json | jq -r '[.rules[] |
        (.dropped | to_entries[] | {key: "rules: \(.key)", value}),
        (.outputs[].dropped | to_entries[] | {key: "outputs: \(.key)", value})] |
        group_by(.key)[] | "\(.[0].key)\t\(map(.value) | add)"'
}

# What was asked for and what was granted of buffers, by place.
buffers() {
    case $relay in
    packet) ctl status --json | jq -c '{"receive rings, bytes": {
            asked: ('"$(ring_mib "$streams")"' * 1048576 * (.workers | length)),
            granted: ([.workers[].rings[].bytes] | add)},
        "send buffers, bytes": {asked: ([.workers[].send_buffers[].asked] | add),
            granted: ([.workers[].send_buffers[].granted] | add)}}' ;;
    # Half of what the kernel shows is for its own overhead.
    socat) lab_in relay ss -uanm | grep -o 'rb[0-9]*' | jq -R 'ltrimstr("rb") | tonumber / 2' |
        jq -cs --arg asked "$SOCAT_RCVBUF" '{"receive buffers, bytes": {
            asked: (length as $n | $asked | try (tonumber * $n) catch $asked), granted: add}}' ;;
    *) echo '{}' ;;
    esac
}

# What the machine is, as JSON. Some limits are those of a namespace: of one that is as fresh as the
# chain's, where it has them.
machine() {
    local settings=() name
    for name in net.core.rmem_max net.core.rmem_default net.core.wmem_max net.core.optmem_max \
        net.core.netdev_max_backlog net.ipv4.igmp_max_memberships net.ipv4.igmp_max_msf; do
        settings+=("$name=$(unshare --net sysctl -n "$name" 2>/dev/null ||
            sysctl -n "$name" 2>/dev/null || echo unknown)")
    done
    jq -n --arg cpu "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" \
        --argjson cpus "$(nproc)" --arg memory "$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)" \
        --arg kernel "$(uname -sr)" --arg system "$(. /etc/os-release && echo "$PRETTY_NAME")" \
        --arg mcr "$("$bin/mcrd" --version | awk '{ print $2 }')" --arg commit "$(git describe --always --dirty 2>/dev/null || true)" \
        --arg socat "$(socat -V 2>/dev/null | awk '/^socat version/ { print $3 }')" \
        --arg iproute2 "$(ip -V | grep -o 'iproute2-[^, ]*' | cut -d- -f2)" --arg virtual "$(systemd-detect-virt 2>/dev/null || true)" '
        {cpu: $cpu, cpus: $cpus, memory_mib: ($memory | tonumber / 1024 | floor), kernel: $kernel,
         system: $system, virtual: $virtual,
         versions: {mcr: $mcr, commit: $commit, socat: $socat, iproute2: $iproute2},
         sysctl: ($ARGS.positional | map(split("=") | {key: .[0], value: .[1]}) | from_entries)}' \
        --args "${settings[@]}"
}
