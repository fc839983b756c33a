/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap in service: its metadata mapped, its span tables walked, its lanes given out.
 *
 * Made in a thread of the pool (heap_service_new() walks the heap), used on the loop thread alone,
 * but for heap_service_count(), which only reads and may run beside it. References are counted on
 * the loop thread.
 */
#pragma once

#include <stdint.h>

#include "common/macro.h"
#include "daemon/heap_files.h"
#include "daemon/pool_layout.h"
#include "media/check.h"
#include "media/count.h"
#include "media/grant.h"
#include "media/limbo.h"

struct heap_service;

/* Lanes of living sessions, a bit each. */
struct lane_set {
	uint64_t word[LANES_MAX / 64];
};

static inline void lane_set_add(struct lane_set *set, uint32_t lane)
{
	if (lane < LANES_MAX)
		set->word[lane / 64] |= UINT64_C(1) << lane % 64;
}

static inline void lane_set_remove(struct lane_set *set, uint32_t lane)
{
	if (lane < LANES_MAX)
		set->word[lane / 64] &= ~(UINT64_C(1) << lane % 64);
}

static inline bool lane_set_has(const struct lane_set *set, uint32_t lane)
{
	return lane < LANES_MAX && (set->word[lane / 64] >> lane % 64 & 1);
}

/* How a heap is taken into service. */
struct heap_taking {
	/* Whether a process that a lane was given to lives; any thread. */
	bool (*lives)(uint64_t holder);
	bool readers;                /* somebody has it open: what is in limbo stays */
	bool power_cut;              /* what was not drained may be lost */
	bool repair;                 /* what is rotten is mended first, into `report` */
	bool live;                   /* living sessions use the heap meanwhile */
	struct check_report *report; /* borrowed; NULL: nothing is verified */
	uint64_t *progress;          /* units walked; atomic, borrowed; NULL: nobody looks */
};

/*
 * Maps the heap's files, walks its tables, settles every lane that is not in `alive` (borrowed for the
 * call), as `how` says (NULL: nobody has it open). With `alive` NULL the shelves are new: nothing in
 * them is in service yet, and all of their units are brought into it. A lane that no session has and whose
 * holder lives all the same is not given out. -EUCLEAN, -EIO: damaged,
 * `damage` says what and where;
 * -ENOMEM; others of open(2), mmap(2).
 */
int heap_service_new(struct heap_service **ret, int pool_fd, const struct pool_record *record,
		     const struct pool_shelves *shelves, const struct lane_set *alive,
		     const struct heap_taking *how, char damage[HEAP_DAMAGE_LEN]);
/* Nobody has the heap open any more: drains what lanes and freers have left undrained. As
 * marks_close(). */
int heap_service_close(struct heap_service *service);
/* Whether that is more than nothing. */
bool heap_service_drains(const struct heap_service *service);
struct heap_service *heap_service_ref(struct heap_service *service);
void heap_service_unref(struct heap_service *service);
DEFINE_AUTO(struct heap_service, heap_service_unref)

/*
 * Growing from `now` to `to`, in three steps. The first two change nothing that others see, and what they made can
 * be given up; the files are long enough before the second.
 */
struct heap_growth;

/* Loop: sets aside what the last step needs. -ENOMEM. */
int heap_service_grow_ready(struct heap_service *service, const struct pool_shelves *now,
			    const struct pool_shelves *to);
/* Any thread: maps further shelves. -ENOMEM, -EMFILE and others; `damage` as in heap_service_new(). */
int heap_service_grow_map(struct heap_growth **ret, struct heap_service *service, int pool_fd,
			  const struct pool_shelves *now, const struct pool_shelves *to,
			  char damage[HEAP_DAMAGE_LEN]);
/* Loop: brings them into service. The caller commits the shelf records after it, or gives the service up on
 * failure: the medium's. */
int heap_service_grow(struct heap_service *service, struct heap_growth *growth,
		      const struct pool_shelves *now, const struct pool_shelves *to,
		      char damage[HEAP_DAMAGE_LEN]);
void heap_growth_free(struct heap_growth *growth);
DEFINE_AUTO(struct heap_growth, heap_growth_free)

/* Lanes */

/* Says that a lane is a living session's, which was there before the daemon started. -EINVAL: no
 * such lane; -EBUSY: it is another's. */
int heap_service_claim(struct heap_service *service, uint32_t lane, uint64_t session);

/* Settles those of `alive` that no session has, and takes them back: it died, or left, while the heap was loaded. */
int heap_service_settle_unowned(struct heap_service *service, const struct lane_set *alive);

/* By how many lanes the file has to become longer, for `count` more. */
uint32_t heap_service_lanes_short(const struct heap_service *service, uint32_t count);

/* Gives `count` settled lanes to a session, whose process is `holder`, making the file longer if need be.
 * -ENOSPC: there are LANES_MAX, or no room; -EIO. */
int heap_service_take(struct heap_service *service, int pool_fd, uint64_t session, uint64_t holder,
		      uint32_t count, uint32_t *lanes);

/* Settles lanes, each named once, and takes them back: all of a session, or those that it returns. On failure
 * they are not given out again; -EIO, -EUCLEAN: the heap is damaged. */
int heap_service_settle(struct heap_service *service, const uint32_t *lanes, uint32_t n);

/*
 * The same in steps. From begin to end the lanes are nobody's, and are not given out. Steps do as
 * grant_settle_step(); a service that is replaced meanwhile needs a new begin, which does no harm otherwise.
 */
struct heap_settle {
	struct grant_settle grant;
	struct heap_service *service;
	uint64_t session;
	uint32_t freed; /* lanes that no holder has any more */
};
/* `lanes` is borrowed until the end; each is one that `session` has. -EINVAL: one is not. */
int heap_service_settle_begin(struct heap_settle *settle, struct heap_service *service,
			      uint64_t session, const uint32_t *lanes, uint32_t n);
int heap_service_settle_step(struct heap_settle *settle);
enum heap_lane_end {
	HEAP_LANE_FREE, /* settled, and given out again */
	HEAP_LANE_BAD,  /* could not be settled */
	HEAP_LANE_LOST, /* settled; but a session's file names it still, and nobody else is to have it */
};
void heap_service_settle_end(struct heap_settle *settle, enum heap_lane_end end);

uint32_t heap_service_lanes_used(const struct heap_service *service);
uint32_t heap_service_lanes(const struct heap_service *service);
/* Forgets lanes at the end of the file that nobody has, after all of them were settled: clients can make the file
 * longer. At least LANES_FIRST stay. */
void heap_service_lanes_trim(struct heap_service *service); /* in the file */

/* Grants */

/* As grant_spans_slice() and grant_run_slice(). */
int heap_service_spans(struct heap_service *service, unsigned class, uint32_t want,
		       uint64_t *refs, struct grant_press *press);
int heap_service_run(struct heap_service *service, uint64_t units, uint64_t align, uint64_t *ref,
		     struct grant_press *press);
/* Whether the heap has spans of this class. */
bool heap_service_class_ok(const struct heap_service *service, unsigned class);

/* Space of a sparse heap: as the functions grant_*() of these names. */
void heap_service_allow(struct heap_service *service, bool (*allow)(void *ctx, uint64_t bytes),
			void *ctx);
bool heap_service_space_short(const struct heap_service *service);
bool heap_service_space_spent(const struct heap_service *service);
void heap_service_space_lack(struct heap_service *service);
bool heap_service_wished(const struct heap_service *service, struct grant_wish *ret);
void heap_service_wish_begin(struct heap_service *service, const struct grant_wish *wish);
void heap_service_wish_end(struct heap_service *service, const struct grant_wish *wish);
int64_t heap_service_space_return(struct heap_service *service, struct grant_place *place,
				  uint64_t bytes);

/* As grant_revoke_lanes(). */
int heap_service_revoke(struct heap_service *service, const uint32_t *lanes, uint32_t n);
/* Retires empty spans, a slice of them: as grant_trim_slice(). */
int64_t heap_service_retire(struct heap_service *service, struct grant_trim *trim);

/* What is in limbo in it. */
struct limbo *heap_service_limbo(struct heap_service *service);

/* Audits it; any thread, `live` beside others. 0, or -EIO; `report` says what was found. `progress` (may
 * be NULL): units walked, atomic. */
int heap_service_audit(struct heap_service *service, bool live, struct check_report *report,
		       uint64_t *progress);

/* Counts the heap; any thread. As heap_count(), and -EIO. */
int heap_service_count(struct heap_service *service, struct heap_totals *ret);
/* Maps it; any thread. As heap_map(), and -EIO. */
int heap_service_map(struct heap_service *service, uint64_t first, uint64_t per_cell,
		     struct heap_cell *cells, size_t n);
