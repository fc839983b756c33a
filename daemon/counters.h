/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the daemon counts. Each counter is declared once, here, with its help; the struct and what
 * status reports derive from the table. Changed on the loop thread alone.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define COUNTERS(X)                                                                       \
	X(connections, "Connections accepted")                                            \
	X(connections_refused, "Connections refused: limits, unknown peers")              \
	X(sessions_started, "Sessions begun")                                             \
	X(sessions_resumed, "Sessions attached again after their connection was lost")    \
	X(sessions_settled, "Sessions ended by the death of their process")               \
	X(requests, "Requests answered")                                                  \
	X(requests_failed, "Requests answered with an error")                             \
	X(requests_repeated, "Requests answered from what their first attempt did")       \
	X(requests_unread, "Requests that waited until their user had read replies")      \
	X(replies_kept, "Replies sent later: too many descriptors were in flight")        \
	X(protocol_errors, "Connections ended for what they sent")                        \
	X(pools_created, "Pools created")                                                 \
	X(pools_destroyed, "Pools destroyed")                                             \
	X(pools_resized, "Pools grown")                                                   \
	X(pools_recovered, "Interrupted creations, destructions and resizes put right")   \
	X(pools_damaged, "Pools taken out of service because their metadata is damaged")  \
	X(files_cut, "Times that a pool's files were cut back which clients had lengthened") \
	X(bytes_cut, "Bytes that were cut back")                                          \
	X(opens, "Pools opened")                                                          \
	X(descriptors_sent, "Descriptors passed to clients")                              \
	X(heaps_recovered, "Heaps recovered after an unclean stop, or when asked to")     \
	X(heaps_loaded, "Heaps whose span tables were walked")                            \
	X(lanes_taken, "Lanes given to threads")                                          \
	X(lanes_settled, "Lanes settled for threads that ended or died")                  \
	X(spans_granted, "Spans of small blocks granted")                                 \
	X(runs_granted, "Large blocks granted")                                           \
	X(roots_changed, "Changes of roots")                                              \
	X(epochs, "Rounds of reclamation: how often the epoch was raised")                \
	X(blocks_reclaimed, "Blocks freed with delay that became free")                   \
	X(readers_stalled, "Threads that were in an epoch longer than epoch.stall_warning") \
	X(loop_turns_long, "Turns of the loop that took 10 ms or longer")                 \
	X(reloads, "Configurations read again")

struct counters {
#define COUNTER_FIELD(name, help) uint64_t name;
	COUNTERS(COUNTER_FIELD)
#undef COUNTER_FIELD
};

struct counter_info {
	const char *name;
	const char *help;
	size_t offset; /* in struct counters */
};

extern const struct counter_info counter_infos[];
extern const size_t n_counter_infos;

uint64_t counter_value(const struct counters *counters, const struct counter_info *info);
