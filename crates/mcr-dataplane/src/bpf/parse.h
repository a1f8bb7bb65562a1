/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * From a frame to what the lookup needs. The checks and their order are those of mcr-core's
 * forward.rs.
 */
#ifndef MCR_PARSE_H
#define MCR_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define VLAN_ID 0x0fff
#define IP_OFFSET_MASK 0x1fff
#define IP_MORE_FRAGMENTS 0x2000
#define MAC_WORDS 6 /* destination and source, in 16 bits */

/* The fields that a rewrite changes, as they stand in the frame. */
struct headers {
	__u16 mac[MAC_WORDS];
	__u32 source;
	__u32 destination;
	union {
		__u32 ports;
		struct {
			__u16 source_port;
			__u16 destination_port;
		};
	};
	__u8 tos;
	__u8 ttl;
	__u16 ip_check;
};

struct packet {
	struct headers headers;
	struct volume volume;
	__u32 udp_offset;
	__u8 loopback;
	__u8 more_fragments;
	__u8 has_check; /* the UDP checksum is not 0 */
};

static __always_inline void copy_mac(__u16 *to, const __u16 *from)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < MAC_WORDS; i++)
		to[i] = from[i];
}

/* Makes the first len bytes linear if they are not. 0, or less when the frame is shorter. */
static __always_inline int pull(struct __sk_buff *skb, __u32 len)
{
	if ((void *)(long)skb->data + len <= (void *)(long)skb->data_end)
		return 0;
	return skb->len < len ? -1 : bpf_skb_pull_data(skb, len);
}

static __always_inline void count_volume(struct __sk_buff *skb, struct packet *packet, __u32 len)
{
	__u32 segments = 1;

	if (skb->gso_size)
		segments = skb->gso_segs ?: (len + skb->gso_size - 1) / skb->gso_size;
	packet->volume.packets = segments;
	packet->volume.bytes = len;
}

/*
 * -1 and *packet filled, or the reason to pass. The loopback copy of what this host sends has no
 * Ethernet header: its data starts at the IP header.
 */
static __always_inline int parse(struct __sk_buff *skb, struct packet *packet)
{
	__u32 ip_offset = ETH_HLEN;
	struct iphdr *ip;
	struct udphdr *udp;
	__u32 ip_len, total_len, udp_len;
	__u16 fragment;
	void *data, *end;

	if (skb->pkt_type == PACKET_OTHERHOST)
		return PASS_NOT_OURS;
	packet->loopback = skb->pkt_type == PACKET_LOOPBACK;
	if (packet->loopback) {
		ip_offset = 0;
	} else {
		if (skb->vlan_present && (skb->vlan_tci & VLAN_ID))
			return PASS_TAGGED;
		if (skb->len < ETH_HLEN)
			return PASS_MALFORMED;
		if (skb->protocol == bpf_htons(ETH_P_8021Q) ||
		    skb->protocol == bpf_htons(ETH_P_8021AD))
			return PASS_TAGGED;
	}
	if (skb->protocol != bpf_htons(ETH_P_IP))
		return PASS_NOT_OURS;
	if (pull(skb, ip_offset + sizeof(*ip)))
		return PASS_MALFORMED;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ip_offset;
	if ((void *)(ip + 1) > end)
		return PASS_MALFORMED;
	ip_len = ip->ihl * 4;
	total_len = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip_len < sizeof(*ip) || total_len < ip_len ||
	    skb->len - ip_offset < total_len)
		return PASS_MALFORMED;
	if ((ip->daddr & bpf_htonl(0xf0000000)) != bpf_htonl(0xe0000000) ||
	    ip->protocol != IPPROTO_UDP)
		return PASS_NOT_OURS;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IP_OFFSET_MASK)
		return PASS_FRAGMENT;
	if (total_len < ip_len + sizeof(*udp))
		return PASS_MALFORMED;
	packet->more_fragments = !!(fragment & IP_MORE_FRAGMENTS);
	packet->udp_offset = ip_offset + ip_len;

	if (pull(skb, packet->udp_offset + sizeof(*udp)))
		return PASS_MALFORMED;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + ip_offset;
	udp = data + packet->udp_offset;
	if ((void *)(ip + 1) > end || (void *)(udp + 1) > end)
		return PASS_MALFORMED;
	udp_len = bpf_ntohs(udp->len);
	if (udp_len < sizeof(*udp))
		return PASS_MALFORMED;
	if (udp_len > total_len - ip_len) {
		if (!packet->more_fragments)
			return PASS_MALFORMED;
		udp_len = total_len - ip_len;
	}
	count_volume(skb, packet, udp_len - sizeof(*udp));

	if (!packet->loopback)
		copy_mac(packet->headers.mac, data);
	packet->headers.source = ip->saddr;
	packet->headers.destination = ip->daddr;
	packet->headers.source_port = udp->source;
	packet->headers.destination_port = udp->dest;
	packet->headers.tos = ip->tos;
	packet->headers.ttl = ip->ttl;
	packet->headers.ip_check = ip->check;
	packet->has_check = udp->check != 0;
	return -1;
}

#endif
