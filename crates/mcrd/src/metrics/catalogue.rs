//! Every metric, once: its name, its type, and what it says.

use super::text::Metric;

macro_rules! catalogue {
    ($($kind:ident $constant:ident $name:literal $help:literal;)+) => {
        $(pub(super) const $constant: Metric = Metric::$kind($name, $help);)+

        /// All metrics.
        #[cfg(test)]
        pub(super) const ALL: &[Metric] = &[$($constant),+];
    };
}

catalogue! {
    // Of a rule; label `rule`.
    counter RULE_RECEIVED_PACKETS "mcr_rule_received_packets"
        "Packets that arrived for the rule: matched plus dropped.";
    counter RULE_RECEIVED_BYTES "mcr_rule_received_bytes"
        "UDP payload of the packets that arrived for the rule.";
    counter RULE_MATCHED_PACKETS "mcr_rule_matched_packets"
        "Packets that were offered to the outputs of the rule.";
    counter RULE_MATCHED_BYTES "mcr_rule_matched_bytes"
        "UDP payload of the packets that were offered to the outputs of the rule.";
    counter RULE_DROPPED_PACKETS "mcr_rule_dropped_packets"
        "Packets of the rule that were offered to no output, by reason; a reason appears with its first \
         packet.";
    gauge RULE_STATE "mcr_rule_state"
        "Whether the rule is in this state: 1 for one state of the rule, 0 for the others.";
    gauge RULE_LAST_PACKET "mcr_rule_last_packet_timestamp_seconds"
        "Unix time at which packets of the rule were last seen, by counters that are read at least \
         twice a second; absent before the first packet.";
    gauge RULE_START "mcr_rule_start_timestamp_seconds"
        "Unix time at which the rule came to be.";
    gauge RULE_SILENCE "mcr_rule_silence_seconds"
        "How long the stream may pause, by the rule's option silence; absent when it may for ever.";

    // Of an output; labels `rule`, `output`.
    counter OUTPUT_OFFERED_PACKETS "mcr_output_offered_packets"
        "Packets that were meant for the output: forwarded plus dropped.";
    counter OUTPUT_OFFERED_BYTES "mcr_output_offered_bytes"
        "UDP payload of the packets that were meant for the output.";
    counter OUTPUT_FORWARDED_PACKETS "mcr_output_forwarded_packets"
        "Packets that were handed to the output interface.";
    counter OUTPUT_FORWARDED_BYTES "mcr_output_forwarded_bytes"
        "UDP payload of the packets that were handed to the output interface.";
    counter OUTPUT_DROPPED_PACKETS "mcr_output_dropped_packets"
        "Packets that were not handed to the output interface, by reason; a reason appears with its \
         first packet.";

    // Of an inspected rule; label `rule`.
    counter INSPECT_OTHER "mcr_rule_inspect_other_packets"
        "Packets of the inspected rule that are not what its stream is.";
    counter INSPECT_UNSEEN "mcr_rule_inspect_unseen_packets"
        "Packets that were relayed and not looked into, of all inspected rules of the interface.";
    counter RTP_PACKETS "mcr_rule_rtp_packets"
        "RTP packets that arrived.";
    counter RTP_EXPECTED "mcr_rule_rtp_expected_packets"
        "RTP packets that should have arrived, by their sequence numbers.";
    counter RTP_LOST "mcr_rule_rtp_lost_packets"
        "RTP packets that were lost before MCR; of the last 100 numbers none is counted yet, since it may come late.";
    counter RTP_REORDERED "mcr_rule_rtp_reordered_packets"
        "RTP packets that came behind a higher number.";
    counter RTP_DUPLICATED "mcr_rule_rtp_duplicated_packets"
        "RTP packets that came again.";
    counter RTP_UNSEEN "mcr_rule_rtp_unseen_packets"
        "RTP packets that the inspection may have missed, by their sequence numbers.";
    counter RTP_RESTARTS "mcr_rule_rtp_restarts"
        "Times that a sender of RTP began anew.";
    gauge RTP_LONGEST_GAP "mcr_rule_rtp_longest_gap_packets"
        "The most RTP packets in a row that were lost.";
    gauge RTP_JITTER "mcr_rule_rtp_jitter_seconds"
        "Interarrival jitter (RFC 3550), the largest of the sources of the rule.";
    counter TS_PACKETS "mcr_rule_ts_packets"
        "Packets of 188 bytes of MPEG transport streams that arrived.";
    counter TS_CONTINUITY "mcr_rule_ts_continuity_errors"
        "Continuity_count_error of TR 101 290: packets were lost, or came in another order.";
    counter TS_SYNC "mcr_rule_ts_sync_errors"
        "Sync_byte_error of TR 101 290.";
    counter TS_TRANSPORT "mcr_rule_ts_transport_errors"
        "Transport_error of TR 101 290: packets that were marked as damaged before they came.";
    counter TS_SCRAMBLED "mcr_rule_ts_scrambled_packets"
        "Transport stream packets with a scrambled payload.";

    // Of an interface; label `interface`.
    gauge MEMBERSHIP_GROUPS "mcr_membership_groups"
        "Multicast groups that are joined on the input interface.";
    counter INTERFACE_PASSED_PACKETS "mcr_interface_passed_packets"
        "Packets that came in by the interface and no rule took, by reason.";
    counter INTERFACE_LOST "mcr_interface_lost_before_packets"
        "Packets that were lost before MCR could see them, by where; kinds may overlap.";
    counter INTERFACE_TRANSMIT_DROPPED "mcr_interface_transmit_dropped_packets"
        "Packets that the output interface and its root queue dropped on sending, of all traffic since \
         they exist.";

    // Of a worker of the packet plane; label `worker`.
    gauge WORKER_RUNNING "mcr_worker_running"
        "Whether the worker forwards packets.";
    counter WORKER_RESTARTS "mcr_worker_restarts"
        "Times that the worker was started again.";
    counter WORKER_CPU "mcr_worker_cpu_seconds"
        "CPU time of the worker's process, which starts at 0 with each restart.";

    // Of its receive rings and send buffers; labels `worker`, `interface`.
    gauge RING_SIZE "mcr_ring_size_bytes"
        "Memory of the receive ring.";
    gauge RING_SLOTS "mcr_ring_slots"
        "Slots of the receive ring: frames, or blocks of frames.";
    gauge RING_USED_SLOTS "mcr_ring_used_slots"
        "Slots that the worker has not given back to the kernel; of a block ring as the worker saw it \
         last.";
    gauge RING_WAITING "mcr_ring_waiting_packets"
        "Frames in the receive ring that the worker has not dealt with.";
    counter RING_DROPPED "mcr_ring_dropped_packets"
        "Frames that found no room in the receive ring (tp_drops); they are in no figure of a rule.";
    counter RING_UNUSABLE "mcr_ring_unusable_packets"
        "Frames that the kernel handed over only in part, or with an offload that MCR does not know.";
    gauge RING_COPY_BUFFER "mcr_ring_copy_buffer_bytes"
        "Receive buffer for frames that are larger than a slot of the ring (SO_RCVBUF).";
    gauge RING_COPY_USED "mcr_ring_copy_buffer_used_bytes"
        "Receive buffer that is taken by frames which the worker has not dealt with.";
    gauge SEND_BUFFER "mcr_send_buffer_bytes"
        "Send buffer of the worker on the output interface (SO_SNDBUF).";
    gauge SEND_USED "mcr_send_buffer_used_bytes"
        "Send buffer that is taken by packets which the interface has not sent yet.";

    // Of the daemon.
    info BUILD "mcr_build"
        "The version of mcrd, as a label.";
    info PLANE "mcr_plane"
        "The data plane that runs and how it gets at packets, as labels.";
    gauge RULES "mcr_rules"
        "Rules by state.";
    gauge RULES_LIMIT "mcr_rules_limit"
        "The most rules that the data plane can hold.";
    gauge OUTPUTS_LIMIT "mcr_outputs_limit"
        "The most outputs that the data plane can hold, over all rules.";
    gauge RULES_IN_NO_FILE "mcr_rules_in_no_file"
        "Rules that are in no configuration file and would not come back after a clean stop.";
    gauge GENERATION "mcr_generation"
        "Generation of the rules, which grows with each change.";
    counter SOFTNET_DROPPED "mcr_softnet_dropped_packets"
        "Packets of the whole host that found the queue of a CPU full (net.core.netdev_max_backlog).";
    gauge MEMBERSHIP_SOCKETS "mcr_membership_sockets"
        "Sockets that hold group memberships.";
    counter PROGRAM_RUNS "mcr_program_runs"
        "Times that the eBPF programs ran, once a frame on an input interface; only with mcrd --measure.";
    counter PROGRAM_TIME "mcr_program_seconds"
        "Time that the eBPF programs ran for, sending included; only with mcrd --measure.";

    // Of the process of `mcrd`: what every Prometheus client has.
    counter PROCESS_CPU "process_cpu_seconds"
        "CPU time of mcrd, without the workers.";
    gauge PROCESS_RESIDENT "process_resident_memory_bytes"
        "Resident memory of mcrd.";
    gauge PROCESS_VIRTUAL "process_virtual_memory_bytes"
        "Virtual memory of mcrd.";
    gauge PROCESS_OPEN_FILES "process_open_fds"
        "Open file descriptors of mcrd.";
    gauge PROCESS_MAX_FILES "process_max_fds"
        "The most file descriptors that mcrd can have open.";
    gauge PROCESS_START "process_start_time_seconds"
        "Unix time at which mcrd started, and its counters with it.";
}
