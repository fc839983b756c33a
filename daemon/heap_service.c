/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Heaps in service.
 *
 * A heap is loaded when it is first opened for writing and given up when the last writer has
 * left: all that is here is derived from the files and from the sessions.
 *
 * Which lanes are in use is known from sessions alone. A lane that no session has is settled
 * before it is given out: at load, at its return, at the death of its session. So a lane given
 * out is empty, whatever the process that had it left there.
 *
 * A process whose session was lost, with the file of it, finds that at its next call: by then it has marked the lane
 * busy, and takes the mark away again. In a lane that is another's, that one would be robbed of a mark, or keep one for
 * ever. So the lane names its holder, from before it is given out until it came back, and is not given out while
 * the holder lives: until the heap is loaded anew.
 *
 * Growing has what may fail for want of something (descriptors, address space, memory) before anything that
 * the engine sees: then a resize that failed has changed nothing here.
 */
#include "daemon/heap_service.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/heap_words.h"
#include "daemon/pool_files.h"
#include "media/file.h"
#include "media/guard.h"
#include "media/marks.h"
#include "media/repair.h"

struct heap_service {
	unsigned refs;
	struct pool_record record;
	struct heap heap;
	struct grant *grant;
	bool (*allow)(void *ctx, uint64_t bytes); /* of a sparse heap, NULL: all */
	void *allow_ctx;
	struct limbo *limbo;
	struct heap_words words;
	struct heap_files *shelf[POOL_SHELVES_MAX];
	void *lanes;
	uint32_t n_lanes;
	uint32_t lanes_used;
	uint64_t *lane_session; /* of n_lanes; 0: nobody's */
	uint32_t first_free;    /* all lanes below are taken */
	struct lane_set settling; /* those that a session gave up, or died with */
};

#define LANES_MORE 64u

/* In the place of a session: */
#define LANE_BAD UINT64_MAX        /* could not be settled */
#define LANE_LOST (UINT64_MAX - 1) /* of a process whose session is lost, and that lives */

static int damage_say(char damage[HEAP_DAMAGE_LEN], int r, const char *file, uint32_t index,
		      const char *why)
{
	snprintf(damage, HEAP_DAMAGE_LEN, "%s %u: %s", file, index, why);
	return r;
}

/* Makes a shelf that is mapped the heap's, which takes it. */
static void service_shelf_add(struct heap_service *service, uint32_t index, struct heap_files *files)
{
	service->shelf[index] = files;
	heap_shelf_add(&service->heap, index, &files->shelf);
}

static int service_map_shelf(struct heap_service *service, int pool_fd, uint32_t index,
			     const struct shelf_record *record, char damage[HEAP_DAMAGE_LEN])
{
	struct heap_files *files;
	int r = heap_files_new(&files, pool_fd, &service->record, &service->heap, index, record,
			       damage);

	if (r == 0)
		service_shelf_add(service, index, files);
	return r;
}

static int service_map_lanes(struct heap_service *service, int pool_fd,
			     char damage[HEAP_DAMAGE_LEN])
{
	int r = heap_files_lanes(&service->lanes, &service->n_lanes, pool_fd, &service->record,
				 damage);

	if (r < 0)
		return r;
	service->heap.lanes = service->lanes;
	service->lane_session = calloc(service->n_lanes, sizeof(uint64_t));
	return service->lane_session ? 0 : -ENOMEM;
}

static bool lane_alive(void *ctx, uint32_t lane)
{
	return ctx && lane_set_has(ctx, lane);
}

static bool lane_in_use(void *ctx, uint32_t lane)
{
	const struct heap_service *service = ctx;

	return service->lane_session[lane] != 0 && service->lane_session[lane] < LANE_LOST &&
	       !lane_set_has(&service->settling, lane);
}

/* Tells the engine which lanes live: whose spans it may take back when room is short. */
static void service_lanes_live(struct heap_service *service)
{
	grant_lanes_set(service->grant, &(struct grant_lanes){ .alive = lane_in_use, .ctx = service,
							       .words = &service->words.words,
							       .count = service->n_lanes });
}

static int service_grant(struct heap_service *service, const struct lane_set *alive,
			 const struct heap_taking *how, char damage[HEAP_DAMAGE_LEN])
{
	struct grant_lanes lanes = { .alive = lane_alive,
				     .ctx = (void *)(uintptr_t)alive,
				     .count = service->n_lanes,
				     .words = &service->words.words,
				     .no_readers = !how || !how->readers,
				     .progress = how ? how->progress : NULL,
				     .power_cut = how && how->power_cut };
	const char *why = "cannot be read";
	uint64_t where = 0;
	int r;

	r = grant_new(&service->grant, &service->heap, &lanes, &why, &where);
	if (r == -EUCLEAN || r == -EIO)
		snprintf(damage, HEAP_DAMAGE_LEN, "span table: %s, at shelf %u unit %u", why,
			 ref_shelf(where), ref_unit(where));
	if (r == 0)
		service_lanes_live(service);
	return r;
}

/* Guarded work on the whole heap. */
struct looking {
	struct heap *heap;
	struct check_report *report;
	bool live;
};

static int audit_guarded(void *arg)
{
	struct looking *l = arg;

	heap_audit(l->heap, l->live, l->report);
	return check_stopped(l->report) ? -ECANCELED : 0;
}

static int repair_guarded(void *arg)
{
	struct looking *l = arg;

	heap_repair(l->heap, l->report);
	return 0;
}

int heap_service_audit(struct heap_service *service, bool live, struct check_report *report,
		       uint64_t *progress)
{
	struct looking l = { .heap = &service->heap, .report = report, .live = live };

	report->progress = progress;
	return guard_run(audit_guarded, &l, NULL);
}

static int service_repair(struct heap_service *service, const struct heap_taking *how,
			  char damage[HEAP_DAMAGE_LEN])
{
	struct looking l = { .heap = &service->heap, .report = how->report };
	int r = guard_run(repair_guarded, &l, NULL);

	return r < 0 ? damage_say(damage, r, "pool", service->record.pool, "cannot be read") : 0;
}

/* What is there after all was settled keeps every rule, or the heap is not taken into service. */
static int service_verify(struct heap_service *service, const struct heap_taking *how,
			  char damage[HEAP_DAMAGE_LEN])
{
	struct check_report *report = how->report;
	uint64_t before = report->violations;
	uint32_t at = report->n_findings;
	int r = heap_service_audit(service, how->live, report, NULL);

	if (r < 0)
		return damage_say(damage, r, "pool", service->record.pool, "cannot be read");
	if (report->violations == before)
		return 0;
	at = MIN(at, report->n_findings - 1);
	snprintf(damage, HEAP_DAMAGE_LEN, "%s at byte %" PRIu64 ": %s", report->finding[at].file,
		 report->finding[at].offset, report->finding[at].what);
	return -EUCLEAN;
}

/* Growing */

struct heap_growth {
	uint32_t n;
	struct heap_files *shelf[POOL_SHELVES_MAX]; /* those that are new; else NULL */
};

void heap_growth_free(struct heap_growth *growth)
{
	for (uint32_t i = 0; growth && i < growth->n; i++)
		heap_files_free(growth->shelf[i]);
	free(growth);
}

int heap_service_grow_ready(struct heap_service *service, const struct pool_shelves *now,
			    const struct pool_shelves *to)
{
	return grant_grow_ready(service->grant, to->n - now->n + 1);
}

int heap_service_grow_map(struct heap_growth **ret, struct heap_service *service, int pool_fd,
			  const struct pool_shelves *now, const struct pool_shelves *to,
			  char damage[HEAP_DAMAGE_LEN])
{
	_auto(heap_growth_free) struct heap_growth *growth = calloc(1, sizeof(*growth));
	int r;

	if (!growth)
		return -ENOMEM;
	growth->n = to->n;
	for (uint32_t i = now->n; i < to->n; i++) {
		r = heap_files_new(&growth->shelf[i], pool_fd, &service->record, &service->heap, i,
				   &to->shelf[i], damage);
		if (r < 0)
			return r;
	}
	*ret = take(growth);
	return 0;
}

int heap_service_grow(struct heap_service *service, struct heap_growth *growth,
		      const struct pool_shelves *now, const struct pool_shelves *to,
		      char damage[HEAP_DAMAGE_LEN])
{
	int r;

	for (uint32_t i = 0; i < to->n; i++) {
		uint64_t from = i < now->n ? now->shelf[i].size >> UNIT_SHIFT : 0;
		uint64_t units = to->shelf[i].size >> UNIT_SHIFT;

		if (from == units)
			continue;
		if (i < now->n)
			heap_shelf_grow(&service->heap, &service->shelf[i]->shelf, units);
		else
			service_shelf_add(service, i, take(growth->shelf[i]));
		/* The files have the first granule's metadata already: they were counted then. */
		grant_allow_set(service->grant, NULL, NULL);
		r = i == 0 && now->n == 0 ? grant_keep_first(service->grant) : 0;
		if (r == 0)
			r = grant_grow(service->grant, i, MAX(from, i == 0 ? UINT64_C(1) : 0), units);
		grant_allow_set(service->grant, service->allow, service->allow_ctx);
		if (r < 0)
			return damage_say(damage, r, "shelf", i, "new units cannot be used");
	}
	return 0;
}

/* Keeps back the lanes that nobody has a right to and somebody may touch yet. */
static int service_lost_lanes(struct heap_service *service, const struct lane_set *alive,
			      const struct heap_taking *how)
{
	uint64_t holder, last = 0;
	bool lives = false;
	int r = 0;

	for (uint32_t lane = 0; r == 0 && lane < service->n_lanes; lane++) {
		if (lane_set_has(alive, lane))
			continue;
		r = grant_lane_holder(service->grant, lane, &holder);
		if (r < 0 || holder == 0)
			continue;
		if (holder != last)
			lives = how->lives(holder);
		last = holder;
		if (lives)
			service->lane_session[lane] = LANE_LOST;
		else
			r = grant_lane_hold(service->grant, lane, 0);
	}
	return r;
}

/* All units of a heap that was just made. */
static int service_grow_first(struct heap_service *service, int pool_fd,
			      const struct pool_shelves *shelves, char damage[HEAP_DAMAGE_LEN])
{
	static const struct pool_shelves none;
	_auto(heap_growth_free) struct heap_growth *growth = NULL;
	int r = heap_service_grow_map(&growth, service, pool_fd, &none, shelves, damage);

	return r < 0 ? r : heap_service_grow(service, growth, &none, shelves, damage);
}

int heap_service_new(struct heap_service **ret, int pool_fd, const struct pool_record *record,
		     const struct pool_shelves *shelves, const struct lane_set *alive,
		     const struct heap_taking *how, char damage[HEAP_DAMAGE_LEN])
{
	_auto(heap_service_unref) struct heap_service *service = calloc(1, sizeof(*service));
	int r;

	damage[0] = '\0';
	if (!service)
		return -ENOMEM;
	service->refs = 1;
	service->record = *record;
	r = heap_init(&service->heap, record->pool, record->home, record->durability,
		      record->min_block);
	if (r < 0)
		return damage_say(damage, r, "smallest block", record->min_block, "is none");
	r = heap_words_init(&service->words, pool_fd, record->home);
	if (r == 0)
		r = service_map_lanes(service, pool_fd, damage);
	for (uint32_t i = 0; r == 0 && alive && i < shelves->n; i++)
		r = service_map_shelf(service, pool_fd, i, &shelves->shelf[i], damage);
	if (r == 0 && how && how->repair)
		r = service_repair(service, how, damage);
	if (r == 0)
		r = service_grant(service, alive, how, damage);
	if (r == 0 && how && how->lives)
		r = service_lost_lanes(service, alive, how);
	if (r == 0 && how && how->report)
		r = service_verify(service, how, damage);
	if (r == 0)
		r = limbo_new(&service->limbo, &service->heap);
	if (r == 0 && alive && (record->flags & POOL_SPARSE))
		grant_space_clear(service->grant); /* what it cannot give back stays reserved */
	if (r == 0 && !alive)
		r = service_grow_first(service, pool_fd, shelves, damage);
	if (r < 0)
		return r;
	*ret = take(service);
	return 0;
}

int heap_service_close(struct heap_service *service)
{
	return marks_close(&service->heap);
}

bool heap_service_drains(const struct heap_service *service)
{
	return service->heap.durability == DURABILITY_POWER;
}

struct heap_service *heap_service_ref(struct heap_service *service)
{
	service->refs++;
	return service;
}

void heap_service_unref(struct heap_service *service)
{
	if (!service || --service->refs > 0)
		return;
	limbo_free(service->limbo);
	heap_words_deinit(&service->words);
	grant_free(service->grant);
	for (uint32_t i = 0; i < POOL_SHELVES_MAX; i++)
		heap_files_free(service->shelf[i]);
	if (service->lanes)
		file_unmap(service->lanes, lanes_file_size(LANES_MAX));
	free(service->lane_session);
	free(service);
}

int heap_service_claim(struct heap_service *service, uint32_t lane, uint64_t session)
{
	if (lane >= service->n_lanes)
		return -EINVAL;
	if (service->lane_session[lane] != 0)
		return -EBUSY;
	service->lane_session[lane] = session;
	service->lanes_used++;
	return 0;
}

/* Settles lanes that came back. */
static int service_settle(struct heap_service *service, const uint32_t *lanes, uint32_t n)
{
	int r = grant_settle_lanes(service->grant, lanes, n);

	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = grant_lane_hold(service->grant, lanes[i], 0);
	return r;
}

int heap_service_settle_unowned(struct heap_service *service, const struct lane_set *alive)
{
	uint32_t *lanes = calloc(service->n_lanes, sizeof(*lanes));
	uint32_t n = 0;
	int r;

	if (!lanes)
		return -ENOMEM;
	for (uint32_t lane = 0; lane < service->n_lanes; lane++)
		if (service->lane_session[lane] == 0 && lane_set_has(alive, lane))
			lanes[n++] = lane;
	r = service_settle(service, lanes, n);
	service->first_free = 0;
	free(lanes);
	return r;
}

uint32_t heap_service_lanes_short(const struct heap_service *service, uint32_t count)
{
	uint32_t spare = service->n_lanes - service->lanes_used;
	uint32_t most = service->n_lanes < LANES_MAX ? LANES_MAX - service->n_lanes : 0;

	return count <= spare ? 0 : MIN(ALIGN_UP(count - spare, LANES_MORE), most);
}

/* Makes the lanes file longer by a few: reserving many at once would hold the loop. */
static int service_more_lanes(struct heap_service *service, int pool_fd)
{
	uint32_t n = MIN(service->n_lanes + LANES_MORE, LANES_MAX);
	uint64_t *sessions;
	int fd, r;

	if (n == service->n_lanes)
		return -ENOSPC;
	sessions = realloc(service->lane_session, n * sizeof(uint64_t));
	if (!sessions)
		return -ENOMEM;
	memset(sessions + service->n_lanes, 0, (n - service->n_lanes) * sizeof(uint64_t));
	service->lane_session = sessions;
	r = pool_files_open(&fd, pool_fd, service->record.home, POOL_FILE_LANES, 0, O_RDWR);
	if (r < 0)
		return r;
	r = file_reserve(fd, lanes_file_size(service->n_lanes), lanes_file_size(n));
	close(fd);
	if (r == 0) {
		service->n_lanes = n;
		service_lanes_live(service);
	}
	return r;
}

int heap_service_take(struct heap_service *service, int pool_fd, uint64_t session, uint64_t holder,
		      uint32_t count, uint32_t *lanes)
{
	uint32_t n = 0;
	int r = 0;

	for (uint32_t lane = service->first_free; r == 0 && n < count; lane++) {
		if (lane == service->n_lanes)
			r = service_more_lanes(service, pool_fd);
		if (r == 0 && heap_service_claim(service, lane, session) == 0)
			lanes[n++] = lane;
		if (r == 0 && lane == service->first_free)
			service->first_free++;
	}
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = grant_lane_hold(service->grant, lanes[i], holder);
	while (r < 0 && n > 0) {
		service->lane_session[lanes[--n]] = 0;
		service->first_free = MIN(service->first_free, lanes[n]);
		service->lanes_used--;
	}
	return r;
}

/* Whether the lane is settled together with the others of its session. */
static bool settled_with(const void *ctx, uint32_t lane)
{
	const struct heap_settle *settle = ctx;
	const struct heap_service *service = settle->service;

	return lane < service->n_lanes && lane_set_has(&service->settling, lane) &&
	       service->lane_session[lane] == settle->session;
}

int heap_service_settle_begin(struct heap_settle *settle, struct heap_service *service,
			      uint64_t session, const uint32_t *lanes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (lanes[i] >= service->n_lanes || service->lane_session[lanes[i]] != session)
			return -EINVAL;
	for (uint32_t i = 0; i < n; i++)
		lane_set_add(&service->settling, lanes[i]);
	*settle = (struct heap_settle){
		.grant = { .lanes = lanes, .n = n, .has = settled_with, .ctx = settle },
		.service = service,
		.session = session,
	};
	return 0;
}

int heap_service_settle_step(struct heap_settle *settle)
{
	struct heap_service *service = settle->service;
	int r = settle->freed == 0 ? grant_settle_step(service->grant, &settle->grant) : 0;

	if (r != 0 || settle->freed == settle->grant.n)
		return r;
	r = grant_lane_hold(service->grant, settle->grant.lanes[settle->freed++], 0);
	return r < 0 ? r : settle->freed < settle->grant.n;
}

void heap_service_settle_end(struct heap_settle *settle, enum heap_lane_end end)
{
	static const uint64_t after[] = { [HEAP_LANE_FREE] = 0, [HEAP_LANE_BAD] = LANE_BAD,
					  [HEAP_LANE_LOST] = LANE_LOST };
	struct heap_service *service = settle->service;

	for (uint32_t i = 0; i < settle->grant.n; i++) {
		uint32_t lane = settle->grant.lanes[i];

		lane_set_remove(&service->settling, lane);
		service->lane_session[lane] = after[end];
		if (end == HEAP_LANE_FREE)
			service->first_free = MIN(service->first_free, lane);
	}
	service->lanes_used -= settle->grant.n;
}

int heap_service_settle(struct heap_service *service, const uint32_t *lanes, uint32_t n)
{
	struct heap_settle settle;
	int r;

	if (n == 0)
		return 0;
	if (lanes[0] >= service->n_lanes || service->lane_session[lanes[0]] == 0)
		return -EINVAL;
	r = heap_service_settle_begin(&settle, service, service->lane_session[lanes[0]], lanes, n);
	if (r < 0)
		return r;
	do
		r = heap_service_settle_step(&settle);
	while (r > 0);
	heap_service_settle_end(&settle, r < 0 ? HEAP_LANE_BAD : HEAP_LANE_FREE);
	return r;
}

uint32_t heap_service_lanes_used(const struct heap_service *service)
{
	return service->lanes_used;
}

uint32_t heap_service_lanes(const struct heap_service *service)
{
	return service->n_lanes;
}

void heap_service_lanes_trim(struct heap_service *service)
{
	uint32_t used = service->n_lanes, n = LANES_FIRST;

	while (used > 0 && service->lane_session[used - 1] == 0)
		used--;
	while (n < used)
		n *= 2;
	if (n >= service->n_lanes)
		return;
	service->n_lanes = n;
	service_lanes_live(service);
}

bool heap_service_class_ok(const struct heap_service *service, unsigned class)
{
	return class >= service->heap.first_class && class < CLASS_COUNT;
}

int heap_service_spans(struct heap_service *service, unsigned class, uint32_t want, uint64_t *refs,
		       struct grant_press *press)
{
	return grant_spans_slice(service->grant, class, want, refs, press);
}

int heap_service_run(struct heap_service *service, uint64_t units, uint64_t align, uint64_t *ref,
		     struct grant_press *press)
{
	return grant_run_slice(service->grant, units, align, ref, press);
}

void heap_service_allow(struct heap_service *service, bool (*allow)(void *ctx, uint64_t bytes),
			void *ctx)
{
	service->allow = allow;
	service->allow_ctx = ctx;
	grant_allow_set(service->grant, allow, ctx);
}

bool heap_service_space_short(const struct heap_service *service)
{
	return grant_space_short(service->grant);
}

bool heap_service_space_spent(const struct heap_service *service)
{
	return grant_space_spent(service->grant);
}

void heap_service_space_lack(struct heap_service *service)
{
	grant_space_lack(service->grant);
}

bool heap_service_wished(const struct heap_service *service, struct grant_wish *ret)
{
	return grant_wished(service->grant, ret);
}

void heap_service_wish_begin(struct heap_service *service, const struct grant_wish *wish)
{
	grant_wish_begin(service->grant, wish);
}

void heap_service_wish_end(struct heap_service *service, const struct grant_wish *wish)
{
	grant_wish_end(service->grant, wish);
}

int64_t heap_service_space_return(struct heap_service *service, struct grant_place *place,
				  uint64_t bytes)
{
	return grant_space_return(service->grant, place, bytes);
}

int heap_service_revoke(struct heap_service *service, const uint32_t *lanes, uint32_t n)
{
	return grant_revoke_lanes(service->grant, lanes, n);
}

int64_t heap_service_retire(struct heap_service *service, struct grant_trim *trim)
{
	return grant_trim_slice(service->grant, trim);
}

struct limbo *heap_service_limbo(struct heap_service *service)
{
	return service->limbo;
}

struct count_args {
	struct heap *heap;
	struct heap_totals totals;
};

static int count_guarded(void *arg)
{
	struct count_args *args = arg;

	return heap_count(args->heap, &args->totals);
}

int heap_service_count(struct heap_service *service, struct heap_totals *ret)
{
	struct count_args args = { .heap = &service->heap };
	int r;

	r = guard_run(count_guarded, &args, NULL);
	if (r == 0)
		*ret = args.totals;
	return r;
}

struct map_args {
	struct heap *heap;
	uint64_t first;
	uint64_t per_cell;
	struct heap_cell *cells;
	size_t n;
};

static int map_guarded(void *arg)
{
	struct map_args *args = arg;

	return heap_map(args->heap, args->first, args->per_cell, args->cells, args->n);
}

int heap_service_map(struct heap_service *service, uint64_t first, uint64_t per_cell,
		     struct heap_cell *cells, size_t n)
{
	struct map_args args = { .heap = &service->heap, .first = first, .per_cell = per_cell,
				 .cells = cells, .n = n };

	return guard_run(map_guarded, &args, NULL);
}
