/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Brings the headers of a packet from what they are to what they shall be. Used for every output,
 * and once more to give the stack what came in.
 */
#ifndef MCR_REWRITE_H
#define MCR_REWRITE_H

#include <linux/errno.h>
#include "parse.h"

/* The pseudo-header is one of IPv6: Linux 6.16, and stable kernels of that time. */
#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7)
#endif

/* One's complement sum of what two words change, in 64 bits: RFC 1624, equation 3. */
static __always_inline __u64 change(__u32 from, __u32 to)
{
	return (__u64)to + (__u32)~from;
}

static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline __u16 update(__u16 check, __u64 sum)
{
	__u32 folded = fold32(sum + (__u16)~check);

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return ~folded;
}

static __always_inline __u64 change_of_addresses(const struct headers *from,
						 const struct headers *to, __u8 v6)
{
	__u64 sum = change(from->source[V4_WORD], to->source[V4_WORD]) +
		    change(from->destination[V4_WORD], to->destination[V4_WORD]);

	if (v6) {
#pragma clang loop unroll(full)
		for (int i = 0; i < V4_WORD; i++)
			sum += change(from->source[i], to->source[i]) +
			       change(from->destination[i], to->destination[i]);
	}
	return sum;
}

static __always_inline int same_addresses(const struct headers *from, const struct headers *to,
					  __u8 v6)
{
	__u32 differ = (from->source[V4_WORD] ^ to->source[V4_WORD]) |
		       (from->destination[V4_WORD] ^ to->destination[V4_WORD]);

	if (v6) {
#pragma clang loop unroll(full)
		for (int i = 0; i < V4_WORD; i++)
			differ |= (from->source[i] ^ to->source[i]) |
				  (from->destination[i] ^ to->destination[i]);
	}
	return !differ;
}

/* The 16-bit words of the IPv4 header that hold TOS, identification and TTL, as 32-bit changes. */
static __always_inline __u64 change_of_options(const struct headers *from, const struct headers *to)
{
	__u32 before = (__u32)from->tos << 16 | from->ttl;
	__u32 after = (__u32)to->tos << 16 | to->ttl;

	/* TOS is the low byte of its word, TTL the high byte: bring both to their weight. */
	before = bpf_htonl((before & 0xff0000) | (before & 0xff) << 8);
	after = bpf_htonl((after & 0xff0000) | (after & 0xff) << 8);
	return change(before, after) + change(from->id, to->id);
}

/*
 * The UDP checksum is left to the helpers, which know whether the hardware will finish it. 0 stays
 * 0 (BPF_F_MARK_MANGLED_0).
 */
static __always_inline int rewrite_check(struct __sk_buff *skb, const struct packet *packet,
					 const struct headers *is, const struct headers *shall)
{
	__u32 at = udp_offset(packet) + __builtin_offsetof(struct udphdr, check);
	__u64 flags = BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0;
	__u32 addresses;
	long error;

	if (!same_addresses(is, shall, packet->v6)) {
		addresses = fold32(change_of_addresses(is, shall, packet->v6));
		error = -EINVAL;
		if (packet->v6)
			error = bpf_l4_csum_replace(skb, at, 0, addresses, flags | BPF_F_IPV6);
		if (error == -EINVAL)
			error = bpf_l4_csum_replace(skb, at, 0, addresses, flags);
		if (error)
			return -1;
	}
	if (is->ports != shall->ports)
		if (bpf_l4_csum_replace(skb, at, is->ports, shall->ports,
					BPF_F_MARK_MANGLED_0 | sizeof(is->ports)))
			return -1;
	return 0;
}

static __always_inline void write_v4(struct iphdr *ip, const struct headers *is,
				     const struct headers *shall)
{
	ip->check = update(is->ip_check,
			   change_of_addresses(is, shall, 0) + change_of_options(is, shall));
	ip->tos = shall->tos;
	ip->ttl = shall->ttl;
	ip->id = shall->id;
	ip->saddr = shall->source[V4_WORD];
	ip->daddr = shall->destination[V4_WORD];
}

static __always_inline void write_v6(struct ipv6hdr *ip, const struct headers *shall)
{
	ip->priority = shall->tos >> 4;
	ip->flow_lbl[0] = shall->tos << 4 | (ip->flow_lbl[0] & 0xf);
	ip->hop_limit = shall->ttl;
	copy_address(ip->saddr.s6_addr32, shall->source);
	copy_address(ip->daddr.s6_addr32, shall->destination);
}

/*
 * The packet has an Ethernet header, though the interface it came by may have none. The helpers may
 * move it, so the headers are found anew after them.
 *
 * A global function, which the verifier judges once by itself and not for each way that leads here.
 */
__noinline int rewrite(struct __sk_buff *skb, const struct packet *packet, struct headers *is,
		       const struct headers *shall)
{
	struct udphdr *udp;
	__u32 at, id_at;
	struct iphdr *ip;
	void *data, *end;

	if (!packet || !is || !shall)
		return -1;
	at = udp_offset(packet);
	id_at = (ETH_HLEN + packet->id_at) & 0x7f;
	if (packet->has_check && rewrite_check(skb, packet, is, shall))
		return -1;
	if (!packet->has_check && pull(skb, at))
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ETH_HLEN;
	if ((void *)(ip + 1) > end)
		return -1;
	copy_mac(data, shall->mac);
	((struct ethhdr *)data)->h_proto = skb->protocol;
	if (packet->v6) {
		if (data + ETH_HLEN + sizeof(struct ipv6hdr) > end)
			return -1;
		write_v6((struct ipv6hdr *)ip, shall);
		if (packet->part != PART_WHOLE) {
			if (data + id_at + sizeof(__u32) > end)
				return -1;
			__builtin_memcpy(data + id_at, &shall->id, sizeof(__u32));
		}
	} else {
		write_v4(ip, is, shall);
	}
	if (packet->part != PART_LATER) {
		udp = data + at;
		if ((void *)(udp + 1) > end)
			return -1;
		udp->source = shall->source_port;
		udp->dest = shall->destination_port;
	}
	*is = *shall;
	is->ip_check = packet->v6 ? 0 : ip->check;
	return 0;
}

#endif
