/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What is kept between packets: datagrams of which a first fragment was seen, identifications given
 * out, when the next packet of a rule is due, and who has sent to it. mcr-core's
 * forward/fragments.rs, shared.rs, rate.rs, senders.rs.
 */
#ifndef MCR_STATE_H
#define MCR_STATE_H

#include "maps.h"
#include "parse.h"

/* The first of `count` numbers. */
static __always_inline __u32 take_numbers(__u32 index, __u32 count)
{
	struct number *number = bpf_map_lookup_elem(&numbers, &index);
	__u32 first;

	if (!number)
		return 0;
	bpf_spin_lock(&number->lock);
	first = number->next;
	number->next = first + count;
	bpf_spin_unlock(&number->lock);
	return first;
}

/* The identification that a whole IPv4 datagram gets: a sequence for each pair of addresses. */
static __always_inline __u16 id_of_whole(const struct headers *shall, __u32 count)
{
	__u32 source = bpf_ntohl(shall->source[V4_WORD]);
	__u32 to = bpf_ntohl(shall->destination[V4_WORD]);
	__u32 hash = (source ^ (to << 16 | to >> 16)) * 0x9e3779b1;

	return bpf_htons(take_numbers(hash >> 22, count) & 0x7fff);
}

/* The identification that all fragments of a datagram get, as it stands in the packet. */
static __always_inline __u32 id_of_fragment(const struct packet *packet, __u32 number)
{
	return packet->v6 ? bpf_htonl(number) : bpf_htons((number & 0xffff) | 0x8000);
}

static __always_inline void datagram_of(struct __sk_buff *skb, const struct packet *packet,
					struct datagram_key *key)
{
	key->ifindex = skb->ifindex;
	key->id = packet->headers.id;
	copy_address(key->source, packet->headers.source);
	copy_address(key->destination, packet->headers.destination);
}

/* Fills in what a later fragment does not have: its port, and its number. 0, or less if unknown. */
static __always_inline int recall(struct __sk_buff *skb, struct packet *packet, __u32 *number)
{
	struct datagram_key key = {};
	struct datagram *first;

	datagram_of(skb, packet, &key);
	first = bpf_map_lookup_elem(&datagrams, &key);
	if (!first || bpf_ktime_get_ns() - first->seen > DATAGRAM_KNOWN_NS)
		return -1;
	packet->headers.destination_port = first->port;
	*number = first->number;
	return 0;
}

/* Remembers a datagram by its first fragment; its number. */
static __always_inline __u32 remember(struct __sk_buff *skb, const struct packet *packet)
{
	struct datagram_key key = {};
	struct datagram first = {
		.seen = bpf_ktime_get_ns(),
		.number = take_numbers(NUMBER_FRAGMENTED, 1),
		.port = packet->headers.destination_port,
	};

	datagram_of(skb, packet, &key);
	bpf_map_update_elem(&datagrams, &key, &first, BPF_ANY);
	return first.number;
}

/* Whether the packet is more than the rule's max_rate. */
static __always_inline int is_too_fast(__u32 rule, const struct volume *volume)
{
	struct rate *rate = bpf_map_lookup_elem(&rates, &rule);
	__u64 now = bpf_ktime_get_ns(), limit, units, time, due;
	int too_fast;

	if (!rate)
		return 0;
	limit = *(volatile __u64 *)&rate->limit;
	units = limit & RATE_OF_BITS ? volume->bytes * 8 : volume->packets;
	limit &= ~RATE_OF_BITS;
	if (!limit)
		return 0;
	time = units * SECOND_NS / limit;
	bpf_spin_lock(&rate->lock);
	due = rate->due;
	too_fast = due > now + RATE_AHEAD_NS;
	if (!too_fast)
		rate->due = (due > now ? due : now) + time;
	bpf_spin_unlock(&rate->lock);
	return too_fast;
}

static __always_inline int is_from(const struct sender *sender, const __u32 *address)
{
	return sender->address[V4_WORD] == address[V4_WORD] &&
	       sender->address[2] == address[2] && sender->address[1] == address[1] &&
	       sender->address[0] == address[0];
}

/* The place of a sender that is not the latest, which it becomes. */
static __always_inline struct sender *other_sender(struct senders *senders, const __u32 *address)
{
	__u64 latest = senders->latest, number, oldest_number = 0;
	struct sender *sender, *oldest = NULL;

#pragma clang loop unroll(full)
	for (int i = 1; i < SENDERS; i++) {
		number = (latest + i) % SENDERS;
		sender = &senders->places[number];
		if (is_from(sender, address)) {
			senders->latest = number;
			return sender;
		}
		if (!oldest || sender->seen < oldest->seen) {
			oldest = sender;
			oldest_number = number;
		}
	}
	senders->latest = oldest_number;
	oldest->packets = 0;
	copy_address(oldest->address, address);
	return oldest;
}

/* Most rules have one sender, and most packets come from the one that the last came from. */
static __always_inline void note_sender(struct senders *senders, const __u32 *address, __u64 packets)
{
	struct sender *sender = &senders->places[senders->latest % SENDERS];

	if (!is_from(sender, address))
		sender = other_sender(senders, address);
	sender->packets += packets;
	/* The JIT makes a load of it, where reading a clock costs as much as a look-up. */
	sender->seen = bpf_jiffies64();
}

#endif
