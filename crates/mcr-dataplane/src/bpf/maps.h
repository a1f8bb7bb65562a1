/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The maps. Their sizes are set by the loader. */
#ifndef MCR_MAPS_H
#define MCR_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* Flow to slot number. The value of a key that exists is never changed: see maps.rs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct flow_key);
	__type(value, __u32);
	__uint(max_entries, 1);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct output);
	__uint(max_entries, 1);
} outputs SEC(".maps");

/* Addresses of this host that an output sends from. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u8);
	__uint(max_entries, 1024);
} own SEC(".maps");

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
