// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The eBPF plane: one program on the ingress hook of every input interface.
 *
 * It looks the packet up, sends a rewritten copy to each output of the rule, counts what became of
 * each, and gives the stack back exactly what came in. What no rule takes is not touched. The
 * specification is mcr-core's forward.rs.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "maps.h"
#include "parse.h"
#include "rewrite.h"

/* TCX_NEXT of kernel 6.6; the same number ends nothing on clsact (TC_ACT_UNSPEC). */
#define NEXT (-1)
/* The kernel gives the loopback interface of every namespace this index. */
#define LOOPBACK_IFINDEX 1
/* net/xmit codes of bpf_clone_redirect, beside negative errno. */
#define NET_XMIT_DROP 1
#define NET_XMIT_CN 2

static __always_inline void add(struct volume *to, const struct volume *volume)
{
	to->packets += volume->packets;
	to->bytes += volume->bytes;
}

static __always_inline int passed(struct __sk_buff *skb, int reason)
{
	__u32 ifindex = skb->ifindex;
	struct pass_stats *stats;

	if (reason >= 0 && reason < PASS_COUNTED) {
		stats = bpf_map_lookup_elem(&pass_stats, &ifindex);
		if (stats)
			stats->packets[reason] += skb->gso_size && skb->gso_segs ? skb->gso_segs : 1;
	}
	return NEXT;
}

/* The slot of the flow, or 0. */
static __always_inline __u64 find(struct __sk_buff *skb, const struct packet *packet)
{
	struct flow_key key = {
		.ifindex = skb->ifindex,
		.port = packet->headers.destination_port,
		.address = packet->headers.destination,
	};
	__u32 *number = bpf_map_lookup_elem(&flows, &key);
	__u64 *slot;

	if (!number)
		return 0;
	slot = bpf_map_lookup_elem(&slots, number);
	return slot ? *(volatile __u64 *)slot : 0;
}

/* Why the rule's packet is not for its outputs, or -1. */
static __always_inline int rule_drop(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->loopback)
		return RULE_LOCAL_SENDER;
	if (skb->ifindex != LOOPBACK_IFINDEX &&
	    bpf_map_lookup_elem(&own, &packet->headers.source))
		return RULE_OWN;
	return packet->more_fragments ? RULE_FRAGMENT : -1;
}

/* The headers of one output; less than 0 when the TTL ends. */
static __always_inline int wanted(const struct headers *came, const struct output *output,
				  struct headers *shall)
{
	*shall = *came;
	if (output->ttl_mode == TTL_SET)
		shall->ttl = output->ttl;
	else if (output->ttl_mode == TTL_DECREMENT && came->ttl <= 1)
		return -1;
	else if (output->ttl_mode == TTL_DECREMENT)
		shall->ttl = came->ttl - 1;
	if (output->dscp != DSCP_KEEP)
		shall->tos = output->dscp << 2 | (came->tos & 3);
	if (output->source)
		shall->source = output->source;
	if (output->source_port)
		shall->source_port = output->source_port;
	shall->destination = output->destination;
	shall->destination_port = output->destination_port;
	copy_mac(shall->mac, (const __u16 *)output->mac);
	return 0;
}

static __always_inline int reason_of(long error)
{
	switch (error) {
	case -ENETDOWN:
		return OUTPUT_INTERFACE_DOWN;
	case -ENODEV:
	case -EINVAL:
		return OUTPUT_INTERFACE_GONE;
	case -ENOBUFS:
	case NET_XMIT_DROP:
	case NET_XMIT_CN:
		return OUTPUT_QUEUE_FULL;
	default:
		return OUTPUT_NO_MEMORY;
	}
}

/* Sends to one output: -1, or why not. *is follows what the packet has become. */
static __always_inline int send(struct __sk_buff *skb, const struct packet *packet,
				struct headers *is, const struct output *output)
{
	struct headers shall;
	__u32 mtu = 0;
	long error;

	if (output->absent)
		return output->absent - 1;
	if (wanted(&packet->headers, output, &shall))
		return OUTPUT_TTL_EXPIRED;
	/* bpf_clone_redirect does not look at the MTU. */
	error = bpf_check_mtu(skb, output->ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);
	if (error)
		return error == -ENODEV ? OUTPUT_INTERFACE_GONE : OUTPUT_MTU;
	if (rewrite(skb, packet, is, &shall))
		return OUTPUT_NO_MEMORY;
	error = bpf_clone_redirect(skb, output->ifindex, 0);
	return error ? reason_of(error) : -1;
}

static __always_inline void offer(struct __sk_buff *skb, const struct packet *packet,
				  struct headers *is, __u32 number)
{
	struct output *output = bpf_map_lookup_elem(&outputs, &number);
	struct output_stats *stats;
	__s64 reason;

	if (!output)
		return;
	reason = send(skb, packet, is, output);
	barrier_var(reason); /* keeps the checks on the value that is used as an index */
	stats = bpf_map_lookup_elem(&output_stats, &output->id);
	if (!stats)
		return;
	add(&stats->offered, &packet->volume);
	if (reason < 0)
		add(&stats->forwarded, &packet->volume);
	else if ((__u64)reason < OUTPUT_DROPS)
		stats->dropped[reason] += packet->volume.packets;
}

/* Whether a UDP socket of this host would get the packet. */
static __always_inline int has_socket(struct __sk_buff *skb, const struct headers *headers)
{
	struct bpf_sock_tuple tuple = {
		.ipv4 = {
			.saddr = headers->source,
			.daddr = headers->destination,
			.sport = headers->source_port,
			.dport = headers->destination_port,
		},
	};
	struct bpf_sock *socket;

	socket = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	bpf_sk_release(socket);
	return 1;
}

SEC("classifier")
int mcr_relay(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct rule_stats *stats;
	struct headers is;
	__u32 rule, first, count, stack;
	__u64 slot;
	int reason;

	reason = parse(skb, &packet);
	if (reason >= 0)
		return passed(skb, reason);
	slot = find(skb, &packet);
	count = slot >> SLOT_COUNT_SHIFT & 0xff;
	if (!count)
		return passed(skb, PASS_NO_RULE);
	rule = slot >> SLOT_RULE_SHIFT;
	stack = slot >> SLOT_STACK_SHIFT & 3;
	first = slot;

	stats = bpf_map_lookup_elem(&rule_stats, &rule);
	if (!stats)
		return NEXT;
	add(&stats->received, &packet.volume);
	reason = rule_drop(skb, &packet);
	if (reason >= 0 && reason < RULE_DROPS) {
		stats->dropped[reason] += packet.volume.packets;
		return NEXT;
	}
	add(&stats->matched, &packet.volume);

	/* Only a priority tag (VID 0) gets here; it ends with the link it came by. */
	if (skb->vlan_present)
		bpf_skb_vlan_pop(skb);
	is = packet.headers;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < OUTPUTS_MAX; i++) {
		if (i >= count)
			break;
		offer(skb, &packet, &is, first + i);
	}
	if (stack == STACK_NEVER ||
	    (stack == STACK_IF_SOCKET && !has_socket(skb, &packet.headers)))
		return TC_ACT_SHOT;
	/* Better nothing than a packet that is half what came in and half what went out. */
	return rewrite(skb, &packet, &is, &packet.headers) ? TC_ACT_SHOT : NEXT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
