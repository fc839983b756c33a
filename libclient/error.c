/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Texts of failures, by thread and connection.
 *
 * Each thread keeps the texts of the last few connections on which it failed, in storage of its
 * own: nothing is shared, so nothing is locked, and a text stays as it is while other threads
 * fail. Connections are told apart by a number that is never used twice, since an address may be.
 * A thread that fails on more connections than there are places loses the text that it set first.
 *
 * The storage is allocated at a thread's first failure and freed at the thread's end. It is not in
 * the thread-local block: that block must fit into the little space that the loader keeps for
 * dlopen(). Two cases have no storage: the allocation fails, or a signal handler interrupted this
 * library and must not allocate (-EDEADLK). The thread then keeps a pointer to a constant text.
 *
 * A forked child goes on with a copy of its thread's storage. The storage of the parent's other
 * threads stays allocated in the child, since those threads do not end there.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
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

struct texts {
	struct text v[PLACES];
	unsigned next;
};

/* A thread's last failure that found no storage. `text` NULL: there was none since. */
struct plain_text {
	const char *text;
	uint64_t source;
};

static __thread struct texts *mine;
static __thread struct plain_text plain;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_end;
static bool have_key;

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

static void free_texts(void *texts)
{
	mine = NULL;
	free(texts);
}

static void init(void)
{
	have_key = pthread_key_create(&thread_end, free_texts) == 0;
}

/* The calling thread's storage, allocated at the first call. NULL: no memory. */
static struct texts *texts_get(void)
{
	struct texts *t;

	if (mine)
		return mine;
	pthread_once(&once, init);
	if (!have_key)
		return NULL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	if (pthread_setspecific(thread_end, t) != 0) {
		free(t);
		return NULL;
	}
	mine = t;
	return t;
}

static struct text *find(uint64_t source)
{
	for (unsigned i = 0; mine && i < PLACES; i++)
		if (mine->v[i].used && mine->v[i].source == source)
			return &mine->v[i];
	return NULL;
}

/* The place for a text of `source`. NULL: none, and none can be allocated. */
static struct text *place(uint64_t source, int error)
{
	struct text *t = find(source);
	struct texts *texts;

	if (t)
		return t;
	/* -EDEADLK: the caller may be a signal handler, which must not allocate. */
	texts = error == -EDEADLK ? mine : texts_get();
	if (!texts)
		return NULL;
	t = &texts->v[texts->next];
	texts->next = (texts->next + 1) % PLACES;
	t->used = true;
	t->source = source;
	return t;
}

/* Texts without a conversion are constants of the library: they need no storage. */
static void set_plain(uint64_t source, const char *fmt)
{
	plain.source = source;
	plain.text = strchr(fmt, '%') ? "the call failed, and there is no memory for the text that says why"
				      : fmt;
}

int nvmm_fail(const struct nvmm_client *nvmm, int error, const char *fmt, ...)
{
	uint64_t source = source_of(nvmm);
	int saved = errno;
	struct text *t = place(source, error);
	va_list args;

	if (t) {
		va_start(args, fmt);
		(void)vsnprintf(t->text, sizeof(t->text), fmt, args);
		va_end(args);
		if (plain.source == source)
			plain.text = NULL;
	} else {
		set_plain(source, fmt);
	}
	errno = saved;
	return error;
}

_public const char *nvmm_errmsg(const struct nvmm_client *nvmm)
{
	uint64_t source = source_of(nvmm);
	const struct text *t = find(source);

	if (plain.text && plain.source == source)
		return plain.text;
	return t ? t->text : "no call of this thread has failed";
}
