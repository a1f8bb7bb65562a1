/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * From a frame to what the lookup needs. The checks and their order are those of mcr-core's
 * forward.rs and wire/ipv4.rs, ipv6.rs.
 */
#ifndef MCR_PARSE_H
#define MCR_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define VLAN_ID 0x0fff
#define IP_DONT_FRAGMENT 0x4000
#define IP_OFFSET_MASK 0x1fff
#define IP_MORE_FRAGMENTS 0x2000
#define IP6_OFFSET_MASK 0xfff8
#define IP6_MORE_FRAGMENTS 1
#define MAC_WORDS 6 /* destination and source, in 16 bits */
/* An IPv6 header and the extension headers that are looked at: ip.rs. */
#define IP_HEADER_MAX 104
#define IP6_EXTENSIONS_MAX 4

/* The fields that a rewrite changes, as they stand in the frame. */
struct headers {
	__u16 mac[MAC_WORDS];
	__u8 tos;
	__u8 ttl;
	__u16 ip_check;
	__u32 source[4];
	__u32 destination[4];
	union {
		__u32 ports;
		struct {
			__u16 source_port;
			__u16 destination_port;
		};
	};
	__u32 id; /* IPv4: in the lower 16 bits; as in the frame */
};

enum part {
	PART_WHOLE = 0,
	PART_FIRST = 1,
	PART_LATER = 2,
};

struct packet {
	struct headers headers;
	struct volume volume;
	__u32 ip_offset;  /* where the IP header is */
	__u32 ip_len;     /* bytes of all headers before the payload */
	__u32 packet_len; /* of the IP packet */
	__u32 id_at;      /* where an IPv6 fragment has its identification, from the IP header on */
	__u8 loopback;
	__u8 v6;
	__u8 multicast;
	__u8 part;
	__u8 has_check; /* the UDP checksum is not 0 */
	__u8 needs_id;  /* IPv4, whole, and somebody on its way may cut it */
};

static __always_inline void copy_mac(__u16 *to, const __u16 *from)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < MAC_WORDS; i++)
		to[i] = from[i];
}

static __always_inline void copy_address(__u32 *to, const __u32 *from)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < 4; i++)
		to[i] = from[i];
}

static __always_inline void map_v4(__u32 *to, __u32 address)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[V4_WORD] = address;
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

/* -1 and the IP part of *packet filled, or the reason to pass. */
static __always_inline int parse_v4(struct __sk_buff *skb, struct packet *packet)
{
	__u32 at = packet->ip_offset;
	struct iphdr *ip;
	void *data, *end;
	__u16 bits;

	if (pull(skb, at + sizeof(*ip)))
		return PASS_MALFORMED;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + at;
	if ((void *)(ip + 1) > end)
		return PASS_MALFORMED;
	packet->ip_len = ip->ihl * 4;
	packet->packet_len = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || packet->ip_len < sizeof(*ip) ||
	    packet->packet_len < packet->ip_len || skb->len - at < packet->packet_len)
		return PASS_MALFORMED;
	if (ip->protocol != IPPROTO_UDP)
		return PASS_NOT_OURS;
	packet->multicast = (ip->daddr & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000);
	bits = bpf_ntohs(ip->frag_off);
	if (bits & IP_OFFSET_MASK)
		packet->part = PART_LATER;
	else if (bits & IP_MORE_FRAGMENTS)
		packet->part = PART_FIRST;
	else
		packet->needs_id = !(bits & IP_DONT_FRAGMENT);
	map_v4(packet->headers.source, ip->saddr);
	map_v4(packet->headers.destination, ip->daddr);
	packet->headers.tos = ip->tos;
	packet->headers.ttl = ip->ttl;
	packet->headers.ip_check = ip->check;
	packet->headers.id = ip->id;
	return -1;
}

/* Likewise. Walks the extension headers up to the payload. */
static __always_inline int parse_v6(struct __sk_buff *skb, struct packet *packet)
{
	__u32 at = packet->ip_offset, len = sizeof(struct ipv6hdr), size;
	struct ipv6hdr *ip;
	__u8 next, extension[8];
	void *data, *end;
	__u16 bits;

	if (pull(skb, at + sizeof(*ip)))
		return PASS_MALFORMED;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = data + at;
	if ((void *)(ip + 1) > end)
		return PASS_MALFORMED;
	packet->packet_len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || skb->len - at < packet->packet_len)
		return PASS_MALFORMED;
	packet->v6 = 1;
	packet->multicast = ip->daddr.s6_addr[0] == 0xff;
	copy_address(packet->headers.source, ip->saddr.s6_addr32);
	copy_address(packet->headers.destination, ip->daddr.s6_addr32);
	packet->headers.tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	packet->headers.ttl = ip->hop_limit;
	next = ip->nexthdr;
#pragma clang loop unroll(disable)
	for (int i = 0; i < IP6_EXTENSIONS_MAX; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_DSTOPTS)
			break;
		if (len + sizeof(extension) > packet->packet_len ||
		    bpf_skb_load_bytes(skb, at + len, extension, sizeof(extension)))
			return PASS_MALFORMED;
		size = (extension[1] + 1) * 8;
		if (next == IPPROTO_FRAGMENT) {
			size = 8;
			bits = extension[2] << 8 | extension[3];
			packet->id_at = len + 4;
			__builtin_memcpy(&packet->headers.id, extension + 4, 4);
			packet->part = PART_WHOLE;
			if (bits & IP6_OFFSET_MASK)
				packet->part = PART_LATER;
			else if (bits & IP6_MORE_FRAGMENTS)
				packet->part = PART_FIRST;
		}
		len += size;
		next = extension[0];
		if (len > packet->packet_len || len > IP_HEADER_MAX)
			return PASS_MALFORMED;
		if (packet->part == PART_LATER)
			break;
	}
	packet->ip_len = len;
	return next == IPPROTO_UDP ? -1 : PASS_NOT_OURS;
}

/* Where the UDP header is, if there is one; the verifier forgets that it is at most 14 + 104. */
static __always_inline __u32 udp_offset(const struct packet *packet)
{
	return (packet->ip_offset + packet->ip_len) & 0x7f;
}

static __always_inline int parse_udp(struct __sk_buff *skb, struct packet *packet)
{
	__u32 at = udp_offset(packet), here = packet->packet_len - packet->ip_len, len;
	struct udphdr *udp;
	void *data, *end;

	if (here < sizeof(*udp) || pull(skb, at + sizeof(*udp)))
		return -1;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	udp = data + at;
	if ((void *)(udp + 1) > end)
		return -1;
	len = bpf_ntohs(udp->len);
	if (len < sizeof(*udp) || (len > here && packet->part == PART_WHOLE))
		return -1;
	count_volume(skb, packet, (len < here ? len : here) - sizeof(*udp));
	packet->headers.source_port = udp->source;
	packet->headers.destination_port = udp->dest;
	packet->has_check = udp->check != 0;
	return 0;
}

/*
 * -1 and *packet filled, or the reason to pass. `header` is what stands before the IP header. The
 * loopback copy of what this host sends has nothing there.
 */
static __always_inline int parse(struct __sk_buff *skb, struct packet *packet, __u32 header)
{
	void *data, *end;
	int reason;

	if (skb->pkt_type == PACKET_OTHERHOST)
		return PASS_NOT_OURS;
	packet->loopback = skb->pkt_type == PACKET_LOOPBACK;
	if (packet->loopback)
		header = 0;
	packet->ip_offset = header;
	if (skb->vlan_present && (skb->vlan_tci & VLAN_ID))
		return PASS_TAGGED;
	if (skb->len < header)
		return PASS_MALFORMED;
	if (skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD))
		return PASS_TAGGED;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		reason = parse_v4(skb, packet);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		reason = parse_v6(skb, packet);
	else
		return PASS_NOT_OURS;
	if (reason >= 0)
		return reason;
	if (packet->part == PART_LATER)
		count_volume(skb, packet, packet->packet_len - packet->ip_len);
	else if (parse_udp(skb, packet))
		return packet->multicast ? PASS_MALFORMED : PASS_NOT_OURS;
	if (header) {
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + ETH_HLEN > end)
			return PASS_MALFORMED;
		copy_mac(packet->headers.mac, data);
	}
	return -1;
}

#endif
