/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Texts of failures, by thread and connection.
 *
 * Each thread keeps the texts of the last few connections on which it failed, in storage of its
 * own: nothing is shared, so nothing is locked, and a text stays as it is while other threads
 * fail. Connections are told apart by a number that is never used twice, since an address may be.
 * A thread that fails on more connections than there are places loses the text that it set first.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "libclient/connection.h"
#include "libclient/error.h"

#define TEXT_MAX 512
#define PLACES 4u

struct text {
	bool used;
	uint64_t source;
	char text[TEXT_MAX];
};

static __thread struct text texts[PLACES];
static __thread unsigned next_place;

static uint64_t sources;

uint64_t error_source_new(void)
{
	/* ordering: relaxed; a number that nobody else has is all that is wanted. */
	return __atomic_add_fetch(&sources, 1, __ATOMIC_RELAXED);
}

static uint64_t source_of(const struct nvmm_client *nvmm)
{
	return nvmm ? nvmm->id : 0;
}

static struct text *find(uint64_t source)
{
	for (unsigned i = 0; i < PLACES; i++)
		if (texts[i].used && texts[i].source == source)
			return &texts[i];
	return NULL;
}

int nvmm_fail(const struct nvmm_client *nvmm, int error, const char *fmt, ...)
{
	uint64_t source = source_of(nvmm);
	struct text *t = find(source);
	int saved = errno;
	va_list args;

	if (!t) {
		t = &texts[next_place];
		next_place = (next_place + 1) % PLACES;
	}
	t->used = true;
	t->source = source;
	va_start(args, fmt);
	(void)vsnprintf(t->text, sizeof(t->text), fmt, args);
	va_end(args);
	errno = saved;
	return error;
}

_public const char *nvmm_errmsg(const struct nvmm_client *nvmm)
{
	const struct text *t = find(source_of(nvmm));

	return t ? t->text : "no call of this thread has failed";
}
