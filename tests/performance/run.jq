# A run as one object: a line of runs.jsonl. Counters are differences of those before and after.
def table: split("\n") | map(select(. != "") | split("\t") | {key: .[0], value: (.[1] | tonumber)}) | from_entries;
($before | table) as $before | $received[0] as $r | ($sent | map(.sent) | add) as $packets |
(($sent | map(.started) | max) - ($sent | map(.started) | min)) as $apart |
(($sent | map(.started + .seconds) | max) - ($sent | map(.started) | min)) as $seconds |
{
    relay: $relay, repeat: $repeat, streams: $streams, rate: $rate, packets: $per_stream,
    sent: $packets, send_errors: ($sent | map(.send_errors) | add), seconds: $seconds, apart_s: $apart,
    asked_rate: ($streams * $rate), achieved_rate: ($packets / $seconds),
    received: $r.received, lost: ([$packets - $r.received, 0] | max),
    duplicated: $r.duplicated, reordered: $r.reordered, corrupt: $r.corrupt, foreign: $r.foreign,
    worst_stream: ($r.worst_stream | if . then {stream, lost} else null end),
    p50_us: $r.latency_us.p50, p99_us: $r.latency_us.p99,
    sink_drops: $r.socket_drops, sink_rcvbuf: $r.rcvbuf, sender_cpu_s: ($sent | map(.cpu_seconds) | add),
    # What a process has used that is gone is not known.
    relay_cpu_s: (if $living == $processes then $relay_cpu / 1e6 else null end),
    system_cpu_s: ($system_cpu / 1e6), others_percent: $others,
    rss_kib: $rss, pss_kib: $pss, processes: $processes, living: $living, sockets: $sockets,
    slab_kib: $slab, rules: $configured, start_s: ($started - $begin), configure_s: ($configured_at - $started),
    buffers: $buffers[0],
    drops: (($after | table | with_entries(.value -= ($before[.key] // 0) | select(.value > 0)))
        + if ($r.socket_drops // 0) > 0 then {"sink sockets": $r.socket_drops} else {} end),
    log: $log
}
