/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names: the daemon refuses those that an operator or a command would take for something else. Pools that
 * have such a name from before are reached by it and by their id, and shown without doing what it says.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "media/registry.h"
#include "tests/system/harness.h"

#define MIB (UINT64_C(1) << 20)
#define OVERRIDE "a\xe2\x80\xae" "b" /* U+202E turns what follows it */

static struct harness h;

static int create(struct nvmm_client *nvmm, nvmm_pool_id *id, const char *name)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = name };

	return nvmm_heap_create(nvmm, id, MIB, &options);
}

/* A pool named like another's id would have that one destroyed in its place. */
START_TEST(digits_are_refused)
{
	static const char *const destroy[] = { "ctl/nvmmctl", "pool", "destroy", "42", NULL };
	static const char *const names[] = { "42", "0", "007", "123456789012" };
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id precious = 42, id;
	char out[4096];

	ck_assert_int_eq(create(nvmm, &precious, "precious"), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		id = 0;
		ck_assert_int_eq(create(nvmm, &id, names[i]), -EINVAL);
		ck_assert_msg(strstr(nvmm_errmsg(nvmm), "digits") != NULL, "%s", nvmm_errmsg(nvmm));
	}
	/* nvmmctl has no other spelling of an id: these are names. */
	id = 0;
	ck_assert_int_eq(create(nvmm, &id, "0x2a"), 0);
	id = 0;
	ck_assert_int_eq(create(nvmm, &id, "+42"), 0);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), destroy), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "precious", &id), -ENOENT);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "0x2a", &id), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "+42", &id), 0);
	nvmm_disconnect(nvmm);
}
END_TEST

START_TEST(hidden_characters_are_refused)
{
	static const char *const names[] = { OVERRIDE, "a\xe2\x80\x8b" "b", "\xef\xbb\xbf" "a",
					     "a\xe2\x81\xa6" "b", "a\xe2\x80\xa8" "b", "--force", " a",
					     "\xc0\xaf" };
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id id, heap_id;
	struct nvmm_heap *heap = harness_heap(nvmm, &heap_id, MIB, "heap", 0);
	nvmm_ptr none = NVMM_NULL;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		id = 0;
		ck_assert_msg(create(nvmm, &id, names[i]) == -EINVAL, "%zu", i);
		ck_assert_str_ne(nvmm_errmsg(nvmm), "");
		ck_assert_msg(nvmm_root_set(heap, names[i], NVMM_NULL) == -EINVAL, "root %zu", i);
		ck_assert_int_eq(nvmm_root_cas(heap, names[i], &none, NVMM_NULL), -EINVAL);
	}
	ck_assert_int_eq(nvmm_root_set(heap, "42", NVMM_NULL), 0);
	nvmm_heap_close(heap);
	nvmm_disconnect(nvmm);
}
END_TEST

/* Gives a pool a name as a daemon without these rules would have. */
static void rename_on_media(nvmm_pool_id id, const char *name)
{
	int base = open(h.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct registry *registry;
	struct pool_record record;
	const char *why = "";

	ck_assert_int_ge(base, 0);
	ck_assert_int_eq(registry_new(&registry, base, 1, &why), 0);
	ck_assert_int_eq(registry_get(registry, id, &record, &why), 1);
	memset(record.name, 0, sizeof(record.name));
	strcpy(record.name, name);
	ck_assert_int_eq(registry_put(registry, &record), 0);
	registry_free(registry);
	close(base);
}

START_TEST(old_names_are_reachable)
{
	static const char *const show[] = { "ctl/nvmmctl", "pools", NULL };
	static const char *const json[] = { "ctl/nvmmctl", "pools", "--json", NULL };
	static const char *const destroy[] = { "ctl/nvmmctl", "pool", "destroy", "1", NULL };
	struct nvmm_client *nvmm = harness_connect(&h);
	nvmm_pool_id first = 1, second = 2, id;
	char out[8192];

	ck_assert_int_eq(create(nvmm, &first, "a"), 0);
	ck_assert_int_eq(create(nvmm, &second, "b"), 0);
	nvmm_disconnect(nvmm);
	harness_stop(&h);
	rename_on_media(1, OVERRIDE);
	rename_on_media(2, "1");
	harness_start(&h);
	nvmm = harness_connect(&h);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, OVERRIDE, &id), 0);
	ck_assert_uint_eq(id, 1);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "1", &id), 0);
	ck_assert_uint_eq(id, 2);
	setenv("LC_ALL", "C.UTF-8", 1);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), show), 0);
	ck_assert_msg(strstr(out, "\xe2\x80\xae") == NULL, "%s", out);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), json), 0);
	ck_assert_msg(strstr(out, "\xe2\x80\xae") == NULL, "%s", out);
	ck_assert_msg(strstr(out, "a\\u202eb") != NULL, "%s", out);
	ck_assert_int_eq(harness_command(&h, out, sizeof(out), destroy), 0);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, OVERRIDE, &id), -ENOENT);
	ck_assert_int_eq(nvmm_pool_lookup(nvmm, "1", &id), 0);
	ck_assert(!harness_logged(&h, "\xe2\x80\xae"));
	nvmm_disconnect(nvmm);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("names");
	TCase *tcase = harness_case_served(suite, "names", 60, &h);

	tcase_add_test(tcase, digits_are_refused);
	tcase_add_test(tcase, hidden_characters_are_refused);
	tcase_add_test(tcase, old_names_are_reachable);
	return harness_run(suite);
}
