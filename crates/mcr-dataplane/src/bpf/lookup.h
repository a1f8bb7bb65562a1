/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* From what a packet has in its headers to the slot of its rule: mcr-core's forward/table.rs. */
#ifndef MCR_LOOKUP_H
#define MCR_LOOKUP_H

#include "maps.h"
#include "parse.h"

static __always_inline __u32 outputs_of(__u64 slot)
{
	return slot >> SLOT_COUNT_SHIFT & 0x7f;
}

/* What is in a slot; of one that depends on the source, what is in the slot of the source. */
static __always_inline __u64 read_slot(__u32 number, const struct packet *packet)
{
	__u64 *slot = bpf_map_lookup_elem(&slots, &number), value;
	struct source_key key = { .slot = number };
	__u32 *of_source;

	if (!slot)
		return 0;
	value = *(volatile __u64 *)slot;
	if (!(value >> SLOT_SOURCES_SHIFT & 1))
		return value;
	copy_address(key.address, packet->headers.source);
	of_source = bpf_map_lookup_elem(&sources, &key);
	slot = of_source ? bpf_map_lookup_elem(&slots, of_source) : NULL;
	return slot ? *(volatile __u64 *)slot : 0;
}

/* The slot number of the range that holds the port, or -1. */
static __always_inline __s64 find_range(__u32 node, __u16 port)
{
	__u64 *found = bpf_map_lookup_elem(&nodes, &node), value;
	__u32 low, high, middle;
	struct range *range;

	if (!found)
		return -1;
	value = *(volatile __u64 *)found;
	low = value;
	high = low + (__u32)(value >> NODE_COUNT_SHIFT);
#pragma clang loop unroll(disable)
	for (int i = 0; i < RANGE_STEPS; i++) {
		if (low >= high)
			break;
		middle = (low + high) / 2;
		range = bpf_map_lookup_elem(&ranges, &middle);
		if (!range)
			break;
		if (port < range->first)
			high = middle;
		else if (port > range->last)
			low = middle + 1;
		else
			return range->slot;
	}
	return -1;
}

/* The slot of the packet's rule, or one without outputs and *reason why. */
static __always_inline __u64 find(struct __sk_buff *skb, const struct packet *packet, int *reason)
{
	struct flow_key key = {
		.ifindex = skb->ifindex,
		.port = packet->headers.destination_port,
	};
	struct prefix_key prefix = { .prefixlen = 160, .ifindex = skb->ifindex };
	__u32 *number;
	__u64 slot;
	__s64 range;

	*reason = packet->multicast ? PASS_NO_RULE : PASS_NOT_OURS;
	copy_address(key.address, packet->headers.destination);
	number = bpf_map_lookup_elem(&flows, &key);
	if (number) {
		slot = read_slot(*number, packet);
		if (outputs_of(slot))
			return slot;
		*reason = PASS_OTHER_SOURCE;
	}
	copy_address(prefix.address, packet->headers.destination);
	number = bpf_map_lookup_elem(&prefixes, &prefix);
	if (!number)
		return 0;
	range = find_range(*number, bpf_ntohs(packet->headers.destination_port));
	if (range < 0)
		return 0;
	slot = read_slot(range, packet);
	if (!outputs_of(slot))
		*reason = PASS_OTHER_SOURCE;
	return slot;
}

#endif
