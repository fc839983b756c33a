/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts at every store, flush and drain of a root's change, in durability `power`: the two slots of one root as
 * media/meta.c keeps them. The oracle: the root is as before or as after, as after if the call returned, never
 * rotten; and it can be changed again. And a daemon that is killed in the change, the next one opening the file as
 * media/recfile.c does: what it finds, and tells who asks again, is what a later cut leaves.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/macro.h"
#include "media/format.h"
#include "media/slot.h"
#include "tests/crash/cut.h"
#include "tests/crash/ledger.h"
#include "tests/unit/suite.h"

#define RECORD sizeof(struct root_record_df)
#define IMAGES 256u

static char *slots; /* of one root */
static struct cut *cut;

/* Contents by a number; 0: there is no such root. */
static void record_make(char *ret, uint64_t ptr)
{
	memset(ret, 0, RECORD);
	memcpy(ret + offsetof(struct root_record_df, ptr), &ptr, sizeof(ptr));
	if (ptr != 0)
		memcpy(ret + offsetof(struct root_record_df, name), "head", 4);
}

static void put(uint64_t ptr)
{
	char record[RECORD];

	record_make(record, ptr);
	if (slot_put(DURABILITY_POWER, slots, record, RECORD) < 0)
		abort();
}

static uint64_t get(void)
{
	char record[RECORD];
	enum slot_state state = slot_read(record, slots, RECORD);
	uint64_t ptr;

	ck_assert_msg(state != SLOT_ROTTEN, "the root is rotten");
	if (state == SLOT_BLANK)
		return 0;
	memcpy(&ptr, record + offsetof(struct root_record_df, ptr), sizeof(ptr));
	return ptr;
}

struct change {
	const char *name;
	uint64_t before, after;
};

static const struct change changes[] = {
	{ "root set, new", 0, 5 },
	{ "root set", 5, 6 },
	{ "root remove", 6, 0 },
};

static void change(void *arg)
{
	put(((const struct change *)arg)->after);
}

static void begin(const struct change *c, unsigned turns)
{
	memset(slots, 0, 2 * RECORD);
	cut = cut_new(slots, 2 * RECORD);
	/* In either slot. */
	for (unsigned i = 0; i < turns; i++)
		put(c->before);
	cut_settle(cut);
}

/* `is`: what it must be, if `certain`; else either. */
static void try_images(const struct change *c, long k, bool certain, uint64_t is, struct ledger *l)
{
	struct cut_images *m = cut_images_new(cut, (uint64_t)k, IMAGES);

	while (cut_images_next(m)) {
		uint64_t ptr = get();

		l->images++;
		ck_assert_msg(certain ? ptr == is : ptr == c->before || ptr == c->after,
			      "%s, point %ld: %llu", c->name, k, (unsigned long long)ptr);
		put(77);
		ck_assert_uint_eq(get(), 77);
	}
	cut_images_free(m);
	cut_free(cut);
}

static void open_again(void *unused)
{
	(void)unused;
	if (media_sync(DURABILITY_POWER, slots, 2 * RECORD) < 0)
		abort();
}

static void sweep(const struct change *c, unsigned turns, struct ledger *l)
{
	bool stopped = true;

	for (long k = 0; stopped; k++) {
		begin(c, turns);
		stopped = cut_run(cut, k, change, (void *)(uintptr_t)c);
		try_images(c, k, !stopped, c->after, l);
		begin(c, turns);
		(void)cut_run(cut, k, change, (void *)(uintptr_t)c);
		ck_assert(!cut_run(cut, -1, open_again, NULL));
		try_images(c, k, true, get(), l);
		l->points = MAX(l->points, (uint64_t)k + 1);
	}
}

START_TEST(every_point)
{
	const struct change *c = &changes[_i];
	struct ledger l = { .suite = "root, power cut", .operation = c->name,
			    .durability = "power" };

	ledger_begin(&l);
	for (unsigned turns = c->before != 0; turns <= 2; turns++)
		sweep(c, turns, &l);
	ledger_end(&l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("root power");
	TCase *t = tcase_create("root power");

	slots = mmap(NULL, MEDIA_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (slots == MAP_FAILED)
		return EXIT_FAILURE;
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, every_point, 0, (int)ARRAY_SIZE(changes));
	suite_add_tcase(s, t);
	return suite_run(s);
}
