/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the program and the daemon share. abi.rs mirrors this file; both sides assert the sizes and
 * offsets. A change here changes LAYOUT in abi.rs.
 *
 * Addresses are in network byte order, IPv4 ones mapped (::ffff:a.b.c.d): four words, of which IPv4
 * has the last.
 */
#ifndef MCR_ABI_H
#define MCR_ABI_H

#include <linux/bpf.h>
#include <linux/types.h>

#define OUTPUTS_MAX 64
#define V4_WORD 3

/* What a packet is looked up by. The port in network byte order. */
struct flow_key {
	__u32 ifindex;
	__u16 port;
	__u16 unused;
	__u32 address[4];
};

/* What a range is looked up by: BPF_MAP_TYPE_LPM_TRIE. */
struct prefix_key {
	__u32 prefixlen; /* bits of what follows */
	__u32 ifindex;
	__u32 address[4];
};

/* Which rule takes a source, of the several at a slot. */
struct source_key {
	__u32 slot;
	__u32 address[4];
};

/*
 * A slot is one u64, so that it is swapped whole:
 *
 *  63        42 41    40  39       38    32  31   30            0
 * | rule id    | stack  | sources | count   | rate | first output |
 *
 * With `sources` the rule depends on the source. Without, a count of 0 is no rule.
 */
#define SLOT_FIRST_MASK 0x7fffffff
#define SLOT_RATE_SHIFT 31
#define SLOT_COUNT_SHIFT 32
#define SLOT_SOURCES_SHIFT 39
#define SLOT_STACK_SHIFT 40
#define SLOT_RULE_SHIFT 42

/* Port ranges that hold for all addresses of a prefix: where they begin in `ranges`, how many. */
#define NODE_COUNT_SHIFT 32
/* A binary search of so many steps finds the range. */
#define RANGE_STEPS 10

/* Ports in host byte order, sorted, none twice. */
struct range {
	__u16 first;
	__u16 last;
	__u32 slot;
};

enum to_stack {
	STACK_ALWAYS = 0,
	STACK_IF_SOCKET = 1,
	STACK_NEVER = 2,
};

enum ttl_mode {
	TTL_SET = 0,
	TTL_KEEP = 1,
	TTL_DECREMENT = 2,
};

#define DSCP_KEEP 0xff

struct output {
	__u32 ifindex;
	__u32 id;             /* index of its counters */
	__u32 source[4];      /* the last word 0: keep */
	__u32 destination[4]; /* of the first address that the rule takes */
	__u32 mapped[4];      /* bits that come from the packet's destination */
	__u16 source_port;    /* 0: keep */
	__u16 port_shift;     /* added to the destination port; host byte order */
	__u8 ttl_mode;
	__u8 ttl;
	__u8 dscp;      /* DSCP_KEEP, or 0 to 63 */
	__u8 absent;    /* 0, or enum output_drop + 1: nothing can be sent now */
	__u8 mac[12];   /* destination, source: as in the frame */
	__u8 group_mac; /* the destination's MAC address comes from its group */
	__u8 keep_source;
	__u8 unused[2];
};

/*
 * max_rate of a rule. The daemon writes `limit`, one word, without the lock, which is among packets.
 */
struct rate {
	struct bpf_spin_lock lock;
	__u32 unused;
	__u64 limit; /* a second; of packets, or with RATE_OF_BITS of UDP payload bits */
	__u64 due;   /* when the next packet is due, by bpf_ktime_get_ns */
};

#define RATE_OF_BITS (1ULL << 63)

/* Of rate.rs: how far a sender may be ahead. */
#define RATE_AHEAD_NS 100000000ULL
#define SECOND_NS 1000000000ULL

/* The next identification; see shared.rs of mcr-core. */
struct number {
	struct bpf_spin_lock lock;
	__u32 next;
};

#define NUMBER_PAIRS 1024
#define NUMBER_FRAGMENTED NUMBER_PAIRS
#define NUMBERS (NUMBER_PAIRS + 1)

/* What all fragments of a datagram have in common, and what its first one showed. */
struct datagram_key {
	__u32 ifindex;
	__u32 id;
	__u32 source[4];
	__u32 destination[4];
};

struct datagram {
	__u64 seen; /* by bpf_ktime_get_ns */
	__u32 number;
	__u16 port;
	__u16 unused;
};

#define DATAGRAMS 4096
#define DATAGRAM_KNOWN_NS (2 * SECOND_NS)

/* SO_MARK of the sockets that hold the ports of unicast inputs: membership.rs. */
#define HELD_MARK 0x4d435221

struct volume {
	__u64 packets;
	__u64 bytes; /* of UDP payload */
};

/* The reasons have the numbers of mcr-core's verdict.rs. */
enum rule_drop {
	RULE_OWN = 0,
	RULE_LOCAL_SENDER = 1,
	RULE_RATE = 2,
	RULE_DROPS = 3,
};

enum output_drop {
	OUTPUT_MTU = 0,
	OUTPUT_TTL_EXPIRED = 1,
	OUTPUT_INTERFACE_DOWN = 2,
	OUTPUT_INTERFACE_GONE = 3,
	OUTPUT_QUEUE_FULL = 4,
	OUTPUT_NO_MEMORY = 5,
	OUTPUT_NO_ADDRESS = 6,
	OUTPUT_REFUSED = 7,
	OUTPUT_NO_ROUTE = 8,
	OUTPUT_NO_NEIGHBOUR = 9,
	OUTPUT_DROPS = 10,
};

enum pass {
	PASS_NO_RULE = 0,
	PASS_FRAGMENT = 1,
	PASS_MALFORMED = 2,
	PASS_TAGGED = 3,
	PASS_OTHER_SOURCE = 4,
	PASS_COUNTED = 5,
	PASS_NOT_OURS = 5,
};

/* Who sends to a rule: mcr-core's senders.rs, whose words these are. */
#define SENDERS 4

struct sender {
	__u32 address[4];
	__u64 packets;
	__u64 seen; /* by bpf_jiffies64 */
};

struct senders {
	__u64 latest; /* index of the sender of the latest packet */
	struct sender places[SENDERS];
};

struct rule_stats {
	struct volume received;
	struct volume matched;
	__u64 dropped[RULE_DROPS];
	struct senders senders;
};

struct output_stats {
	struct volume offered;
	struct volume forwarded;
	__u64 dropped[OUTPUT_DROPS];
};

struct pass_stats {
	__u64 packets[PASS_COUNTED];
};

_Static_assert(sizeof(struct flow_key) == 24, "flow_key");
_Static_assert(sizeof(struct prefix_key) == 24, "prefix_key");
_Static_assert(sizeof(struct source_key) == 20, "source_key");
_Static_assert(sizeof(struct range) == 8, "range");
_Static_assert(sizeof(struct output) == 80, "output");
_Static_assert(__builtin_offsetof(struct output, mac) == 64, "output.mac");
_Static_assert(sizeof(struct rate) == 24, "rate");
_Static_assert(sizeof(struct number) == 8, "number");
_Static_assert(sizeof(struct sender) == 32, "sender");
_Static_assert(__builtin_offsetof(struct sender, packets) == 16, "sender.packets");
_Static_assert(__builtin_offsetof(struct senders, places) == 8, "senders.places");
_Static_assert(sizeof(struct rule_stats) == 192, "rule_stats");
_Static_assert(__builtin_offsetof(struct rule_stats, senders) == 56, "rule_stats.senders");
_Static_assert(sizeof(struct output_stats) == 112, "output_stats");
_Static_assert(sizeof(struct pass_stats) == 40, "pass_stats");

#endif
