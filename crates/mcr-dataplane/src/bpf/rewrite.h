/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Brings the headers of a packet from what they are to what they shall be. Used for every output,
 * and once more to give the stack what came in.
 */
#ifndef MCR_REWRITE_H
#define MCR_REWRITE_H

#include "parse.h"

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

/* The two 16-bit words of the IP header that hold TOS and TTL, as one 32-bit change. */
static __always_inline __u64 change_of_options(const struct headers *from, const struct headers *to)
{
	__u32 before = (__u32)from->tos << 16 | from->ttl;
	__u32 after = (__u32)to->tos << 16 | to->ttl;

	/* TOS is the low byte of its word, TTL the high byte: bring both to their weight. */
	before = bpf_htonl((before & 0xff0000) | (before & 0xff) << 8);
	after = bpf_htonl((after & 0xff0000) | (after & 0xff) << 8);
	return change(before, after);
}

/*
 * The UDP checksum is left to the helpers, which know whether the hardware will finish it. 0 stays
 * 0 (BPF_F_MARK_MANGLED_0). They may move the packet, so the headers are found anew after them.
 */
static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *packet,
				   struct headers *is, const struct headers *shall)
{
	__u32 udp_offset = packet->udp_offset & 0x7f; /* at most 14 + 60; the verifier forgets */
	__u32 check_offset = udp_offset + __builtin_offsetof(struct udphdr, check);
	__u64 addresses = change(is->source, shall->source) +
			  change(is->destination, shall->destination);
	struct udphdr *udp;
	struct iphdr *ip;
	void *data, *end;

	if (packet->has_check) {
		if (is->source != shall->source || is->destination != shall->destination)
			if (bpf_l4_csum_replace(skb, check_offset, 0, fold32(addresses),
						BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0))
				return -1;
		if (is->ports != shall->ports)
			if (bpf_l4_csum_replace(skb, check_offset, is->ports, shall->ports,
						BPF_F_MARK_MANGLED_0 | sizeof(is->ports)))
				return -1;
	}
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ETH_HLEN;
	udp = data + udp_offset;
	if ((void *)(ip + 1) > end || (void *)(udp + 1) > end)
		return -1;
	copy_mac(data, shall->mac);
	ip->check = update(is->ip_check, addresses + change_of_options(is, shall));
	ip->tos = shall->tos;
	ip->ttl = shall->ttl;
	ip->saddr = shall->source;
	ip->daddr = shall->destination;
	udp->source = shall->source_port;
	udp->dest = shall->destination_port;

	*is = *shall;
	is->ip_check = ip->check;
	return 0;
}

#endif
