/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and locking.
 *
 * The root block is made by whoever comes first: allocated, zeroed, and put under its name by compare-and-swap. Who
 * loses that race frees its block again.
 *
 * The lock is a mutex in the root block. If its owner dies, the next one gets it with -EOWNERDEAD after what the dead
 * process was publishing is done. All changes are publishes, so there is nothing to repair.
 */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define HEAP_BYTES (UINT64_C(64) << 20)
#define ROOT "root"

int shared_failed(struct shared *s, const char *what)
{
	fprintf(stderr, "%s: %s\n", what, nvmm_errmsg(s->nvmm));
	return -1;
}

static int open_heap(struct shared *s, const char *name)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .name = name };
	nvmm_pool_id id = 0;

	if (nvmm_pool_lookup(s->nvmm, name, &id) == -ENOENT &&
	    nvmm_heap_create(s->nvmm, &id, HEAP_BYTES, &options) == -EEXIST)
		nvmm_pool_lookup(s->nvmm, name, &id); /* another process was faster */
	return nvmm_heap_open(&s->heap, s->nvmm, id, O_RDWR);
}

static int open_root(struct shared *s, size_t size)
{
	nvmm_ptr expected = NVMM_NULL, block;
	int r = nvmm_root_get(s->heap, ROOT, &s->at);

	if (r == -ENOENT) {
		block = nvmm_zalloc(s->heap, size);
		if (block == NVMM_NULL)
			return -errno;
		/* Durable before it can be found; what is put into it later is published. */
		nvmm_persist(nvmm_local(s->nvmm, block), size);
		s->at = block;
		r = nvmm_root_cas(s->heap, ROOT, &expected, block);
		if (r == -EAGAIN) {
			s->at = expected;
			r = nvmm_free(s->heap, block);
		}
	}
	if (r < 0)
		return r;
	s->root = nvmm_local(s->nvmm, s->at);
	return s->root ? 0 : -errno;
}

int shared_open(struct shared *s, const char *name, size_t size)
{
	*s = (struct shared){ .nvmm = NULL };
	if (nvmm_connect(&s->nvmm, NULL) < 0)
		return shared_failed(s, "connect");
	if (open_heap(s, name) < 0)
		return shared_failed(s, name);
	if (open_root(s, size) < 0)
		return shared_failed(s, "root");
	return 0;
}

void shared_close(struct shared *s)
{
	nvmm_heap_close(s->heap);
	nvmm_disconnect(s->nvmm);
}

int shared_lock(struct shared *s)
{
	struct shared_root *root = s->root;
	int r = nvmm_mutex_lock(s->nvmm, &root->lock);

	if (r == -EOWNERDEAD)
		r = nvmm_mutex_consistent(s->nvmm, &root->lock);
	return r < 0 ? shared_failed(s, "lock") : 0;
}

void shared_unlock(struct shared *s)
{
	struct shared_root *root = s->root;

	nvmm_mutex_unlock(s->nvmm, &root->lock);
}
