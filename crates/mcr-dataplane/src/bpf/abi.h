/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the program and the daemon share. abi.rs mirrors this file; both sides assert the sizes and
 * offsets. A change here changes LAYOUT in abi.rs.
 */
#ifndef MCR_ABI_H
#define MCR_ABI_H

#include <linux/types.h>

#define OUTPUTS_MAX 64

/* What a packet is looked up by. Addresses and ports in network byte order. */
struct flow_key {
	__u32 ifindex;
	__u16 port;
	__u16 unused;
	__u32 address;
	__u32 source; /* 0: any */
};

/*
 * A slot is one u64, so that it is swapped whole:
 *
 *  63        42 41    40 39      32 31           0
 * | rule id    | stack  | count    | first output |
 *
 * A count of 0 is no rule.
 */
#define SLOT_COUNT_SHIFT 32
#define SLOT_STACK_SHIFT 40
#define SLOT_RULE_SHIFT 42

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
	__u32 id;          /* index of its counters */
	__u32 source;      /* 0: keep */
	__u32 destination;
	__u16 source_port; /* 0: keep */
	__u16 destination_port;
	__u8 ttl_mode;
	__u8 ttl;
	__u8 dscp; /* DSCP_KEEP, or 0 to 63 */
	__u8 absent; /* 0, or enum output_drop + 1: nothing can be sent now */
	__u8 mac[12]; /* destination, source: as in the frame */
};

struct volume {
	__u64 packets;
	__u64 bytes; /* of UDP payload */
};

/* The reasons have the numbers of mcr-core's verdict.rs. */
enum rule_drop {
	RULE_OWN = 0,
	RULE_LOCAL_SENDER = 1,
	RULE_FRAGMENT = 2,
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
	OUTPUT_DROPS = 8,
};

enum pass {
	PASS_NO_RULE = 0,
	PASS_FRAGMENT = 1,
	PASS_MALFORMED = 2,
	PASS_TAGGED = 3,
	PASS_COUNTED = 4,
	PASS_NOT_OURS = 4,
};

struct rule_stats {
	struct volume received;
	struct volume matched;
	__u64 dropped[RULE_DROPS];
};

struct output_stats {
	struct volume offered;
	struct volume forwarded;
	__u64 dropped[OUTPUT_DROPS];
};

struct pass_stats {
	__u64 packets[PASS_COUNTED];
};

_Static_assert(sizeof(struct flow_key) == 16, "flow_key");
_Static_assert(sizeof(struct output) == 36, "output");
_Static_assert(__builtin_offsetof(struct output, mac) == 24, "output.mac");
_Static_assert(sizeof(struct rule_stats) == 56, "rule_stats");
_Static_assert(sizeof(struct output_stats) == 96, "output_stats");
_Static_assert(sizeof(struct pass_stats) == 32, "pass_stats");

#endif
