/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lanes of a heap in service, over several daemons, as processes that live and die have them.
 */
#include <fcntl.h>
#include <unistd.h>

#include "daemon/heap_service.h"
#include "daemon/pool_files.h"
#include "tests/unit/tempdir.h"

#define MIB (UINT64_C(1) << 20)
#define SESSION 7u
#define HOLDER UINT64_C(99)

static const struct pool_record record = {
	.pool = 9, .kind = POOL_HEAP, .home = 1, .incarnation = 4, .min_block = 64
};
static struct pool_shelves shelves;
static int dir;

static bool lives(uint64_t holder)
{
	return holder == HOLDER;
}

/* The heap as a daemon takes it into service; `alive` NULL: it is made. */
static struct heap_service *serve(const struct lane_set *alive)
{
	const struct heap_taking how = { .lives = lives };
	char damage[HEAP_DAMAGE_LEN] = "";
	struct heap_service *service;
	int r = heap_service_new(&service, dir, &record, &shelves, alive, alive ? &how : NULL, damage);

	ck_assert_msg(r == 0, "%d: %s", r, damage);
	return service;
}

static void make(void)
{
	int base = tempdir_new(NULL);

	pool_layout_create(&shelves, MIB);
	ck_assert_int_eq(pool_files_make(base, &record, &shelves), 0);
	ck_assert_int_eq(pool_files_dir(&dir, base, record.pool), 0);
	heap_service_unref(serve(NULL));
}

/* The first lane that is given next. */
static uint32_t taken(struct heap_service *service)
{
	uint32_t lane;

	ck_assert_int_eq(heap_service_take(service, dir, SESSION, HOLDER, 1, &lane), 0);
	return lane;
}

/* Its session is lost, and it lives: nobody else gets the lane. */
START_TEST(a_lost_lane)
{
	static const struct lane_set none;
	struct heap_service *service;

	make();
	service = serve(&none);
	ck_assert_uint_eq(taken(service), 0);
	heap_service_unref(service);
	service = serve(&none);
	ck_assert_uint_eq(taken(service), 1);
	heap_service_unref(service);
	close(dir);
}
END_TEST

/* It gave the lane back, to a daemon that served or to one that was loading the heap: others get it, now and later. */
START_TEST(a_returned_lane)
{
	static const struct lane_set none;
	struct heap_service *service;
	struct lane_set alive = none;
	uint32_t lane;

	make();
	service = serve(&none);
	lane = taken(service);
	ck_assert_uint_eq(lane, 0);
	if (_i == 0)
		ck_assert_int_eq(heap_service_settle(service, &lane, 1), 0);
	heap_service_unref(service);
	if (_i == 1) {
		lane_set_add(&alive, lane);
		service = serve(&alive);
		ck_assert_int_eq(heap_service_settle_unowned(service, &alive), 0);
		heap_service_unref(service);
	}
	service = serve(&none);
	ck_assert_uint_eq(taken(service), lane);
	heap_service_unref(service);
	close(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("heap service");
	TCase *tc = tcase_create("lanes");

	tcase_add_test(tc, a_lost_lane);
	tcase_add_loop_test(tc, a_returned_lane, 0, 2);
	suite_add_tcase(suite, tc);
	return tempdir_run_suite(suite);
}
