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
#include "lookup.h"
#include "state.h"
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

/* Why the rule's packet is not for its outputs, or -1. */
static __always_inline int rule_drop(struct __sk_buff *skb, const struct packet *packet,
				     __u32 rule, int has_rate)
{
	if (packet->loopback)
		return RULE_LOCAL_SENDER;
	if (skb->ifindex != LOOPBACK_IFINDEX &&
	    bpf_map_lookup_elem(&own, &packet->headers.source))
		return RULE_OWN;
	return has_rate && is_too_fast(rule, &packet->volume) ? RULE_RATE : -1;
}

/* The MAC address of a group: RFC 1112 §6.4, RFC 2464 §7. */
static __always_inline void group_mac(__u16 *mac, const __u32 *group, __u8 v6)
{
	__u32 low = bpf_ntohl(group[V4_WORD]);

	mac[0] = bpf_htons(v6 ? 0x3333 : 0x0100);
	mac[1] = bpf_htons(v6 ? low >> 16 : 0x5e00 | (low >> 16 & 0x7f));
	mac[2] = bpf_htons(low);
}

/* The headers of one output; less than 0 when the TTL ends. */
static __always_inline int wanted(const struct packet *packet, const struct output *output,
				  struct headers *shall)
{
	const struct headers *came = &packet->headers;

	*shall = *came;
	if (output->ttl_mode == TTL_SET)
		shall->ttl = output->ttl;
	else if (output->ttl_mode == TTL_DECREMENT && came->ttl <= 1)
		return -1;
	else if (output->ttl_mode == TTL_DECREMENT)
		shall->ttl = came->ttl - 1;
	if (output->dscp != DSCP_KEEP)
		shall->tos = output->dscp << 2 | (came->tos & 3);
	if (!output->keep_source)
		copy_address(shall->source, output->source);
#pragma clang loop unroll(full)
	for (int i = 0; i < 4; i++)
		shall->destination[i] =
			output->destination[i] | (came->destination[i] & output->mapped[i]);
	if (packet->part != PART_LATER) {
		if (output->source_port)
			shall->source_port = output->source_port;
		shall->destination_port =
			bpf_htons(bpf_ntohs(came->destination_port) + output->port_shift);
	}
	copy_mac(shall->mac, (const __u16 *)output->mac);
	if (output->group_mac)
		group_mac(shall->mac, shall->destination, packet->v6);
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

/*
 * Sends to one output: -1, or why not. *is follows what the packet has become. `number` is what the
 * datagram of a fragment got.
 */
static __always_inline int send(struct __sk_buff *skb, const struct packet *packet,
				struct headers *is, const struct output *output, __u32 number)
{
	__u32 mtu = skb->gso_size ? 0 : packet->packet_len, zero = 0;
	struct headers *shall = bpf_map_lookup_elem(&scratch, &zero);
	long error;

	if (output->absent)
		return output->absent - 1;
	if (!shall)
		return OUTPUT_NO_MEMORY;
	if (wanted(packet, output, shall))
		return OUTPUT_TTL_EXPIRED;
	/* bpf_clone_redirect does not look at the MTU. Given a length, the check knows no segments. */
	error = bpf_check_mtu(skb, output->ifindex, &mtu, 0, mtu ? 0 : BPF_MTU_CHK_SEGS);
	if (error)
		return error == -ENODEV ? OUTPUT_INTERFACE_GONE : OUTPUT_MTU;
	if (packet->part != PART_WHOLE)
		shall->id = id_of_fragment(packet, number);
	else if (packet->needs_id)
		shall->id = id_of_whole(shall, packet->volume.packets);
	if (rewrite(skb, packet, is, shall))
		return OUTPUT_NO_MEMORY;
	error = bpf_clone_redirect(skb, output->ifindex, 0);
	return error ? reason_of(error) : -1;
}

/* A global function: the verifier judges it once, and not for each output. */
__noinline int offer(struct __sk_buff *skb, const struct packet *packet, struct headers *is,
		     __u32 index, __u32 number)
{
	struct output *output = bpf_map_lookup_elem(&outputs, &index);
	struct output_stats *stats;
	__s64 reason;

	if (!output || !packet || !is)
		return 0;
	reason = send(skb, packet, is, output, number);
	barrier_var(reason); /* keeps the checks on the value that is used as an index */
	stats = bpf_map_lookup_elem(&output_stats, &output->id);
	if (!stats)
		return 0;
	add(&stats->offered, &packet->volume);
	if (reason < 0)
		add(&stats->forwarded, &packet->volume);
	else if ((__u64)reason < OUTPUT_DROPS)
		stats->dropped[reason] += packet->volume.packets;
	return 0;
}

/* Whether a UDP socket of this host would get the packet; one that holds a port is none. */
static __always_inline int has_socket(struct __sk_buff *skb, const struct packet *packet)
{
	const struct headers *headers = &packet->headers;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	__u32 size;
	int found;

	if (packet->v6) {
		copy_address(tuple.ipv6.saddr, headers->source);
		copy_address(tuple.ipv6.daddr, headers->destination);
		tuple.ipv6.sport = headers->source_port;
		tuple.ipv6.dport = headers->destination_port;
		size = sizeof(tuple.ipv6);
		socket = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv4.saddr = headers->source[V4_WORD];
		tuple.ipv4.daddr = headers->destination[V4_WORD];
		tuple.ipv4.sport = headers->source_port;
		tuple.ipv4.dport = headers->destination_port;
		size = sizeof(tuple.ipv4);
		socket = bpf_sk_lookup_udp(skb, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	}
	if (!socket)
		return 0;
	found = socket->mark != HELD_MARK;
	bpf_sk_release(socket);
	return found;
}

static __always_inline int relay(struct __sk_buff *skb, __u32 header)
{
	struct packet packet = {};
	struct rule_stats *stats;
	struct headers is;
	__u32 rule, first, count, stack, number = 0;
	__u64 slot;
	int reason;

	reason = parse(skb, &packet, header);
	if (reason >= 0)
		return passed(skb, reason);
	if (packet.part == PART_LATER && recall(skb, &packet, &number))
		return passed(skb, packet.multicast ? PASS_FRAGMENT : PASS_NOT_OURS);
	slot = find(skb, &packet, &reason);
	count = outputs_of(slot);
	if (!count)
		return passed(skb, reason);
	rule = slot >> SLOT_RULE_SHIFT;
	stack = slot >> SLOT_STACK_SHIFT & 3;
	first = slot & SLOT_FIRST_MASK;

	stats = bpf_map_lookup_elem(&rule_stats, &rule);
	if (!stats)
		return NEXT;
	add(&stats->received, &packet.volume);
	reason = rule_drop(skb, &packet, rule, slot >> SLOT_RATE_SHIFT & 1);
	if (reason < 0 || reason == RULE_RATE)
		note_sender(&stats->senders, packet.headers.source, packet.volume.packets);
	if (reason >= 0 && reason < RULE_DROPS) {
		stats->dropped[reason] += packet.volume.packets;
		return NEXT;
	}
	add(&stats->matched, &packet.volume);
	if (packet.part == PART_FIRST)
		number = remember(skb, &packet);

	/* Only a priority tag (VID 0) gets here; it ends with the link it came by. */
	if (skb->vlan_present)
		bpf_skb_vlan_pop(skb);
	/* The kernel takes off what it finds here (skb->mac_len), and so does a bare output. */
	if (!header) {
		if (bpf_skb_change_head(skb, ETH_HLEN, 0))
			return NEXT;
		packet.ip_offset = ETH_HLEN;
	}
	is = packet.headers;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < OUTPUTS_MAX; i++) {
		if (i >= count)
			break;
		offer(skb, &packet, &is, first + i, number);
	}
	if (stack == STACK_NEVER || (stack == STACK_IF_SOCKET && !has_socket(skb, &packet)))
		return TC_ACT_SHOT;
	/* Better nothing than a packet that is half what came in and half what went out. */
	return rewrite(skb, &packet, &is, &packet.headers) ? TC_ACT_SHOT : NEXT;
}

SEC("classifier")
int mcr_relay(struct __sk_buff *skb)
{
	return relay(skb, ETH_HLEN);
}

/* For interfaces without a link header. */
SEC("classifier")
int mcr_relay_bare(struct __sk_buff *skb)
{
	return relay(skb, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
