/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The maps. Where the size is 1 here, the loader sets it. */
#ifndef MCR_MAPS_H
#define MCR_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "parse.h"

/*
 * Flow to slot number, range of addresses to node number, source to slot number. The value of a key
 * that exists is never changed: see tables.rs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key);
	__type(value, __u32);
	__uint(max_entries, 1);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct prefix_key);
	__type(value, __u32);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct source_key);
	__type(value, __u32);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} nodes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct range);
	__uint(max_entries, 1);
} ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct output);
	__uint(max_entries, 1);
} outputs SEC(".maps");

/* By rule id. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct rate);
	__uint(max_entries, 1);
} rates SEC(".maps");

/* Addresses of this host that an output sends from. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32[4]);
	__type(value, __u8);
	__uint(max_entries, 1024);
} own SEC(".maps");

/* Datagrams whose first fragment has been seen. The least recently used give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct datagram_key);
	__type(value, struct datagram);
	__uint(max_entries, DATAGRAMS);
} datagrams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct number);
	__uint(max_entries, NUMBERS);
} numbers SEC(".maps");

/*
 * The headers that the output in hand shall have, which the stack has no room for. Nothing reads them
 * once the copy is on its way: that could bring another packet here, on the same CPU.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct headers);
	__uint(max_entries, 1);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct rule_stats);
	__uint(max_entries, 1);
} rule_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct output_stats);
	__uint(max_entries, 1);
} output_stats SEC(".maps");

/* By input interface. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, __u32);
	__type(value, struct pass_stats);
	__uint(max_entries, 1024);
} pass_stats SEC(".maps");

#endif
