//! The table of behaviours: each runs for every plane of its part.
//!
//! A behaviour is a function `pub(crate) fn name(plane: Plane)` of a module; the tests of it are
//! `table::PLANE::MODULE::NAME`. One that is in no part is dead code, which the lints refuse.

use crate::lab::{Plane, can_run};

/// The parts that each plane runs, then what is in them: `module: behaviour, behaviour;`.
macro_rules! behaviours {
    (
        planes: { $($column:ident: $plane:ident [$($part:ident)+],)+ }
        parts: $parts:tt
    ) => {
        $(behaviours!(@column $column $plane [$($part)+] $parts);)+
    };
    (@column $column:ident $plane:ident [$($part:ident)+] $parts:tt) => {
        mod $column {
            $(behaviours!(@$part $plane $parts);)+
        }
    };
    (@every $plane:ident {
        every: $modules:tt ebpf: $ebpf:tt packet: $packet:tt peers: $peers:tt
    }) => {
        behaviours!(@part $plane $modules);
    };
    (@ebpf $plane:ident {
        every: $every:tt ebpf: $modules:tt packet: $packet:tt peers: $peers:tt
    }) => {
        behaviours!(@part $plane $modules);
    };
    (@packet $plane:ident {
        every: $every:tt ebpf: $ebpf:tt packet: $modules:tt peers: $peers:tt
    }) => {
        behaviours!(@part $plane $modules);
    };
    (@peers $plane:ident {
        every: $every:tt ebpf: $ebpf:tt packet: $packet:tt peers: $modules:tt
    }) => {
        behaviours!(@part $plane $modules);
    };
    (@part $plane:ident { $($module:ident: $($test:ident),+;)+ }) => {
        $(
            mod $module {
                $(behaviours!(@test $plane $module $test);)+
            }
        )+
    };
    (@test $plane:ident $module:ident $test:ident) => {
        #[test]
        fn $test() {
            if $crate::table::can_run() {
                crate::$module::$test($crate::table::Plane::$plane);
            }
        }
    };
}

behaviours! {
    planes: {
        tcx: Tcx [every ebpf peers],
        clsact: Clsact [every ebpf],
        packet: Packet [every packet peers],
    }
    parts: {
        every: {
            changes:
                rules_replaced_for_ten_seconds_under_load_miss_nothing_and_mix_nothing,
                the_other_streams_and_outputs_notice_nothing,
                a_new_output_counts_since_it_exists,
                the_reply_comes_after_the_data_plane_has_the_change;
            circles:
                what_comes_back_through_a_switch_is_own,
                a_circle_through_a_second_relay_ends_by_ttl;
            daemon:
                a_broken_link_keeps_its_own_rule_down,
                a_reload_reconciles_the_files_and_nothing_else,
                a_reload_of_a_broken_file_is_refused_whole,
                rules_of_the_files_that_do_not_fit_together_are_refused_with_their_place,
                settings_of_the_start_stand_in_the_main_file_and_a_reload_warns_of_their_change,
                a_reload_without_a_configuration_is_refused,
                both_signals_stop_it_cleanly,
                logs_are_lines_of_text_or_of_json_and_none_is_of_a_packet,
                what_is_saved_can_be_applied_and_changes_nothing,
                a_rule_keeps_its_counters_while_it_is_disabled,
                wait_ends_when_the_rule_is_there_or_when_time_is_up;
            forwarding:
                a_stream_goes_through_and_is_counted,
                fifty_streams_keep_apart,
                every_output_has_a_rewrite_of_its_own,
                in_and_out_by_one_interface,
                both_directions_between_two_interfaces,
                one_group_and_port_on_two_inputs,
                the_same_group_goes_out_elsewhere,
                super_packets_stay_whole_and_count_as_their_datagrams,
                super_packets_are_cut_by_an_interface_that_cannot_take_them,
                checksums_survive_with_offload_without_it_and_without_checksum,
                what_is_larger_than_the_mtu_of_one_output_is_counted_there_and_goes_out_elsewhere,
                an_interface_that_goes_down_takes_only_its_own_output_with_it;
            fragments:
                large_datagrams_come_out_as_they_came_in,
                large_datagrams_go_to_a_host,
                streams_of_two_senders_to_one_host_never_mix,
                two_senders_to_one_group_never_mix,
                what_cannot_be_matched_is_counted,
                fragments_larger_than_the_mtu_are_counted,
                a_datagram_is_dropped_whole;
            ipv6:
                a_stream_goes_through_and_its_group_is_joined,
                every_output_has_a_rewrite_of_its_own,
                super_packets_stay_whole_and_count_as_their_datagrams,
                checksums_survive_with_offload_and_without_it,
                what_has_an_address_that_an_output_sends_from_is_own,
                a_listener_on_the_relay_host_is_still_served,
                what_is_larger_than_the_mtu_of_one_output_is_counted_there,
                it_is_sent_from_the_stable_address;
            late:
                add_with_wait_takes_what_comes_later,
                an_interface_that_comes_is_used_within_a_second,
                wait_does_not_take_what_the_text_shows_wrong;
            interfaces:
                rules_of_a_file_wait_for_their_interface_whenever_it_comes,
                what_is_added_with_wait_may_come_before_its_interfaces,
                a_changed_address_is_sent_from_and_logged,
                an_ipv6_address_that_comes_late_is_waited_for,
                interfaces_that_go_down_and_up_or_away_and_back_are_used_again,
                routes_and_neighbours_that_come_later_are_used;
            links:
                a_bridge_is_received_from_and_sent_to,
                a_macvlan_is_received_from_and_sent_to,
                loopback_is_received_from,
                loopback_is_sent_to_with_a_kept_source,
                tagged_frames_are_never_of_the_trunk,
                a_vlan_interface_is_received_from_and_sent_to,
                a_bond_is_received_from_and_sent_to,
                a_gre_tunnel_is_received_from_and_sent_to,
                jumbo_frames_of_ipv6_go_through,
                a_smaller_mtu_on_the_way_out_is_warned_of_and_counted;
            load:
                jumbo_frames_go_through,
                a_zero_checksum_stays_zero,
                a_thousand_rules_come_and_go_under_load_without_loss,
                super_packets_of_many_sizes_go_through;
            promises:
                a_listener_on_the_relay_host_is_still_served,
                a_thousand_groups_are_joined_with_the_default_limit_of_twenty,
                what_has_an_address_that_an_output_sends_from_is_own,
                a_sender_on_the_relay_host_is_counted_and_left_alone,
                what_no_rule_takes_is_counted_on_the_interface,
                an_interface_that_comes_back_is_used_again,
                memberships_of_unchanged_rules_are_not_touched,
                an_output_that_is_lost_leaves_no_group_and_no_packet_uncounted,
                metrics_say_what_the_counters_say,
                a_storm_of_interface_changes_harms_nothing;
            ranges:
                groups_are_mapped_one_to_one,
                ports_are_mapped_one_to_one,
                groups_and_ports_are_mapped_together,
                ranges_of_ipv6_are_mapped,
                a_large_range_needs_no_joins,
                an_exact_rule_wins_over_a_range_and_gives_back,
                ranges_that_overlap_are_refused;
            rate:
                what_is_more_than_the_rate_is_dropped_and_counted,
                super_packets_are_held_to_the_rate,
                the_others_have_their_own_rate;
            refusals:
                add_refuses_with_a_message_and_a_hint,
                files_are_refused_with_their_place,
                requests_are_refused_by_the_page,
                clients_that_send_too_much_or_too_little_harm_nobody,
                a_join_that_the_kernel_refuses_names_the_sysctl,
                a_second_daemon_of_the_instance_is_refused;
            senders:
                the_last_four_senders_are_counted,
                a_second_sender_on_a_rule_for_anyone_is_a_warning;
            sources:
                only_the_named_source_is_relayed,
                two_dozen_sources_work,
                two_rules_take_one_group_and_port_from_different_sources,
                outputs_are_sent_from_what_they_name,
                a_receiver_of_one_source_gets_an_output_with_that_source,
                a_new_primary_address_is_followed_and_logged,
                without_a_join_what_comes_is_relayed;
            start:
                the_status_names_the_plane,
                the_socket_of_a_dead_daemon_is_replaced,
                a_signal_at_any_moment_of_the_start_leaves_nothing;
            unicast:
                a_stream_goes_to_a_host_on_the_network,
                a_stream_goes_to_a_host_behind_a_router,
                a_change_of_the_route_is_followed,
                an_unreachable_output_is_counted_and_delays_nobody,
                a_neighbour_that_appears_later_is_used,
                nobody_tells_the_sender_that_the_port_is_closed,
                an_application_on_the_port_is_still_served,
                from_unicast_to_a_group_and_back,
                super_packets_go_from_host_to_host,
                a_range_of_ports_goes_to_a_host;
            tunnels:
                from_ethernet_into_a_tun,
                from_a_tun_to_ethernet,
                from_a_tun_into_a_tun,
                the_host_gets_what_came_by_a_tun_untouched;
        }
        ebpf: {
            hook:
                local_no_keeps_the_input_from_the_host,
                another_tc_program_on_the_hook_still_runs;
        }
        packet: {
            rings:
                rings_that_are_made_hold_up_nobody,
                a_block_ring_relays_everything,
                a_block_ring_holds_a_slow_stream_for_a_while,
                killing_a_worker_with_a_block_ring_loses_nothing,
                killing_a_worker_while_super_packets_come_loses_nothing,
                past_the_queue,
                a_ring_that_cannot_be_had_is_refused_with_the_remedy,
                a_bridge_port_is_received_from,
                what_a_ring_has_no_room_for_is_counted_there,
                without_the_capability_for_large_buffers_it_runs_with_what_it_gets;
            workers:
                any_number_of_workers_keeps_streams_whole,
                killing_a_worker_loses_nothing,
                a_stopped_worker_is_restarted_and_the_request_ends,
                the_control_socket_answers_while_workers_crash_in_a_loop,
                killing_the_supervisor_leaves_nothing,
                workers_hold_no_privileges,
                a_number_of_workers_that_cannot_be_is_refused,
                a_start_that_gets_no_worker_to_run_is_refused,
                without_the_capability_for_raw_sockets_it_names_it,
                auto_takes_the_packet_plane_where_bpf_cannot_be_used;
        }
        peers: {
            peers:
                iperf_counts_every_datagram_over_ipv4,
                iperf_counts_every_datagram_over_ipv6,
                iperf_joins_a_fixed_source_over_ipv4,
                iperf_joins_a_fixed_source_over_ipv6,
                socat_gets_a_group_by_unicast_over_ipv4,
                socat_gets_a_group_by_unicast_over_ipv6,
                socat_sends_unicast_to_a_group_over_ipv4,
                socat_sends_unicast_to_a_group_over_ipv6,
                ffmpeg_decodes_the_frames_of_a_transport_stream,
                ffmpeg_decodes_the_frames_of_rtp_and_ends_by_rtcp,
                mgen_joins_five_hundred_groups_of_a_range,
                tcpreplay_repeats_a_capture,
                smcroute_routes_on_what_has_hops_left;
            snooping:
                a_stream_comes_as_long_as_it_is_joined_by_igmp_2_and_mld_1,
                a_stream_comes_as_long_as_it_is_joined_by_igmp_3_and_mld_2,
                sources_that_are_joined_come_and_others_do_not,
                a_thousand_joins_at_once_all_arrive_by_igmp_2_and_mld_1,
                a_thousand_joins_at_once_all_arrive_by_igmp_3_and_mld_2;
        }
    }
}
