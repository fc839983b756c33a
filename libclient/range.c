/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranges mapped for the program.
 *
 * Each is remembered, so that nvmm_disconnect() can unmap it and an unmapping by a wrong address is
 * refused instead of tearing a hole into something else. The list is kept exact under partial
 * unmapping and under MAP_FIXED over an older range: what is covered is cut out of it.
 *
 * A record of each end of a cut is made before anything is unmapped, so that a lack of memory fails
 * the call and leaves all as it was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "libclient/range.h"

struct range {
	struct range *next;
	uintptr_t from;
	uintptr_t to;
};

#define FLAGS (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE)

int range_check(struct nvmm_client *nvmm, size_t len, int prot, int flags)
{
	if (len == 0 || len > SIZE_MAX - MEDIA_PAGE)
		return nvmm_fail(nvmm, -EINVAL, "a range of %zu bytes cannot be mapped", len);
	if (prot != PROT_READ && prot != (PROT_READ | PROT_WRITE))
		return nvmm_fail(nvmm, -EINVAL,
				 "protection must be PROT_READ or PROT_READ | PROT_WRITE");
	if (flags & ~FLAGS)
		return nvmm_fail(nvmm, -EINVAL,
				 "flags must be of MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_POPULATE");
	return 0;
}

static bool overlaps(const struct range *r, uintptr_t from, uintptr_t to)
{
	return r->from < to && from < r->to;
}

/* Cuts [from, to) out of the list; `spare` is used if one range falls into two, else freed. */
static void cut(struct nvmm_client *nvmm, uintptr_t from, uintptr_t to, struct range *spare)
{
	for (struct range **q = &nvmm->ranges, *r; (r = *q);) {
		if (!overlaps(r, from, to)) {
			q = &r->next;
		} else if (r->from < from && r->to > to) {
			*spare = (struct range){ .next = r->next, .from = to, .to = r->to };
			r->to = from;
			r->next = take(spare);
			break;
		} else if (r->from < from) {
			r->to = from;
			q = &r->next;
		} else if (r->to > to) {
			r->from = to;
			q = &r->next;
		} else {
			*q = r->next;
			free(r);
		}
	}
	free(spare);
}

/* How many bytes of [from, to) are in the list. Ranges in it do not overlap. */
static uintptr_t covered(const struct nvmm_client *nvmm, uintptr_t from, uintptr_t to)
{
	uintptr_t n = 0;

	for (const struct range *r = nvmm->ranges; r; r = r->next) {
		uintptr_t end = MIN(to, r->to);
		uintptr_t start = MAX(from, r->from);

		if (start < end)
			n += end - start;
	}
	return n;
}

/* Maps a file with holes. Without access at first, so that neither mlockall(MCL_FUTURE) nor
 * MAP_POPULATE reads the holes, which would fill them. */
static void *map_sparse(void *hint, int prot, int flags, const struct segment *s)
{
	void *p = mmap(hint, s->len, PROT_NONE, MAP_SHARED | (flags & ~MAP_POPULATE), s->fd,
		       (off_t)s->offset);
	int error;

	if (p == MAP_FAILED)
		return p;
	if (munlock(p, s->len) == 0 && mprotect(p, s->len, prot) == 0)
		return p;
	error = errno;
	munmap(p, s->len);
	errno = error;
	return MAP_FAILED;
}

static void *map_one(void *hint, int prot, int flags, const struct segment *s)
{
	if (s->sparse)
		return map_sparse(hint, prot, flags, s);
	return mmap(hint, s->len, prot, MAP_SHARED | flags, s->fd, (off_t)s->offset);
}

/* Several files in a row: address space first, then each over its part. */
static void *map_many(void *hint, int prot, int flags, const struct segment *s, size_t n,
		      size_t len)
{
	int place = flags & ~MAP_POPULATE;
	char *base, *at;
	int error;

	base = mmap(hint, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | place, -1, 0);
	if (base == MAP_FAILED)
		return MAP_FAILED;
	at = base;
	for (size_t i = 0; i < n; i++) {
		if (map_one(at, prot, MAP_FIXED | (flags & MAP_POPULATE), &s[i]) == MAP_FAILED) {
			error = errno;
			munmap(base, len);
			errno = error;
			return MAP_FAILED;
		}
		at += s[i].len;
	}
	return base;
}

static int no_range(struct nvmm_client *nvmm, int r, size_t len)
{
	if (r == -EAGAIN)
		return nvmm_fail(nvmm, r,
				 "cannot map %zu bytes: mlockall() is in force and they are more than this "
				 "process may lock (ulimit -l)",
				 len);
	return nvmm_fail(nvmm, r, "cannot map %zu bytes: %s", len, strerror(-r));
}

int range_map(struct nvmm_client *nvmm, void *hint, int prot, int flags, const struct segment *segments,
	      size_t n, void **ret)
{
	struct range *range = malloc(sizeof(*range)), *spare = malloc(sizeof(*spare));
	size_t len = 0;
	void *p = MAP_FAILED;
	int r;

	for (size_t i = 0; i < n; i++)
		len += segments[i].len;
	errno = ENOMEM;
	if (range && spare)
		p = n == 1 ? map_one(hint, prot, flags, segments)
			   : map_many(hint, prot, flags, segments, n, len);
	if (p == MAP_FAILED) {
		r = -errno;
		free(range);
		free(spare);
		return no_range(nvmm, r, len);
	}
	range->from = (uintptr_t)p;
	range->to = ALIGN_UP((uintptr_t)p + len, (uintptr_t)MEDIA_PAGE);
	process_lock();
	cut(nvmm, range->from, range->to, spare);
	range->next = nvmm->ranges;
	nvmm->ranges = range;
	process_unlock();
	*ret = p;
	return 0;
}

int range_unmap(struct nvmm_client *nvmm, void *addr, size_t len)
{
	uintptr_t from = (uintptr_t)addr;
	uintptr_t to = ALIGN_UP(from + len, (uintptr_t)MEDIA_PAGE);
	struct range *spare;
	bool ours;

	if (len == 0 || from % MEDIA_PAGE || to <= from)
		return nvmm_fail(nvmm, -EINVAL, "%p, %zu bytes: not a range of pages", addr, len);
	spare = malloc(sizeof(*spare));
	if (!spare)
		return nvmm_fail(nvmm, -ENOMEM, "no memory");
	process_lock();
	ours = covered(nvmm, from, to) == to - from;
	if (ours)
		cut(nvmm, from, to, spare);
	process_unlock();
	if (!ours) {
		free(spare);
		return nvmm_fail(nvmm, -EINVAL, "%p, %zu bytes: not mapped by this connection",
				 addr, len);
	}
	/* Unlisted first: the address may be given to another thread's mapping at once. */
	munmap(addr, to - from);
	return 0;
}

void ranges_free_all(struct nvmm_client *nvmm)
{
	struct range *r;

	while ((r = nvmm->ranges)) {
		nvmm->ranges = r->next;
		munmap((void *)r->from, r->to - r->from);
		free(r);
	}
}
