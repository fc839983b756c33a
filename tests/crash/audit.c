/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The auditor shares the media layer with the daemon, not its view of things: lengths of shelves
 * come from the files, and everything that stands in a directory must have a reason.
 */
#include "tests/crash/audit.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "media/check.h"
#include "media/file.h"

#define NODE 1u

static void pool_dir(char buf[256], const char *base, nvmm_pool_id id)
{
	int n = snprintf(buf, 256, "%s/pool-%u", base, id);

	ck_assert_int_lt(n, 256);
}

/* Calls fn for each name in a directory. */
static void each_name(const char *path, void (*fn)(void *arg, int dir, const char *name), void *arg)
{
	DIR *dir = opendir(path);
	struct dirent *e;

	ck_assert_msg(dir != NULL, "%s: %s", path, strerror(errno));
	while ((e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			fn(arg, dirfd(dir), e->d_name);
	closedir(dir);
}

/* Whether `name` is `prefix`, a number and `suffix`. */
static bool is_numbered(const char *name, const char *prefix, const char *suffix, unsigned *number)
{
	int end = 0;

	if (strncmp(name, prefix, strlen(prefix)) != 0)
		return false;
	name += strlen(prefix);
	return sscanf(name, "%u%n", number, &end) == 1 && strcmp(name + end, suffix) == 0;
}

/* Pools */

struct pool_audit {
	const struct nvmm_pool_info *info;
	uint64_t bytes;
	uint64_t shelf_bytes;
	unsigned files;
	const char *path;
};

/* What a file counts for: its length, or of a sparse heap's files what they hold. */
static bool is_reserved(const struct pool_audit *a, const char *name)
{
	return !a->info->sparse || strcmp(name, "meta.1") == 0 || strcmp(name, "lanes.1") == 0;
}

static uint64_t counted(const struct pool_audit *a, const char *name, const struct stat *st)
{
	return is_reserved(a, name) ? (uint64_t)st->st_size : (uint64_t)st->st_blocks * 512;
}

static void audit_file(void *arg, int dir, const char *name)
{
	struct pool_audit *a = arg;
	bool heap = a->info->kind == NVMM_POOL_HEAP;
	unsigned number = 0;
	struct stat st;
	bool shelf = is_numbered(name, "shelf-", "", &number);

	ck_assert_int_eq(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	ck_assert_msg(S_ISREG(st.st_mode) && (st.st_mode & 07777) == 0600, "%s/%s: mode 0%o",
		      a->path, name, st.st_mode);
	ck_assert_msg(shelf || strcmp(name, "meta.1") == 0 ||
			      (heap && (is_numbered(name, "table-", ".1", &number) ||
					is_numbered(name, "state-", "", &number) ||
					strcmp(name, "lanes.1") == 0)),
		      "%s/%s does not belong there", a->path, name);
	ck_assert_msg(number < a->info->shelves, "%s/%s is of a shelf that is not there", a->path,
		      name);
	/* Reserved: a file with holes would be a promise that nobody keeps. */
	ck_assert_msg(!is_reserved(a, name) || (uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size,
		      "%s/%s is not reserved", a->path, name);
	a->bytes += counted(a, name, &st);
	a->shelf_bytes += shelf ? (uint64_t)st.st_size : 0;
	a->files++;
}

static void audit_pool(const char *base, const struct nvmm_pool_info *info)
{
	struct pool_audit a = { .info = info };
	bool heap = info->kind == NVMM_POOL_HEAP;
	char path[256];

	pool_dir(path, base, info->id);
	a.path = path;
	each_name(path, audit_file, &a);
	ck_assert_msg(a.files == (heap ? 2 + 3 * info->shelves : 1 + info->shelves),
		      "%s: %u files for %u shelves", path, a.files, info->shelves);
	ck_assert_msg(a.shelf_bytes == info->bytes, "%s: %llu bytes of shelves, not %llu", path,
		      (unsigned long long)a.shelf_bytes, (unsigned long long)info->bytes);
	/* Verifying has allocated since `info` was asked for. */
	ck_assert_msg(info->sparse ? a.bytes >= info->file_bytes : a.bytes == info->file_bytes,
		      "%s: %llu bytes of files, not %llu", path,
		      (unsigned long long)a.bytes, (unsigned long long)info->file_bytes);
}

static void add_bytes(void *arg, int dir, const char *name)
{
	struct pool_audit *a = arg;
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		a->bytes += counted(a, name, &st);
}

bool audit_bytes_agree(const char *base, const struct nvmm_pool_info *pools, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct pool_audit a = { .info = &pools[i] };
		char path[256];

		pool_dir(path, base, pools[i].id);
		each_name(path, add_bytes, &a);
		if (pools[i].sparse ? a.bytes < pools[i].file_bytes : a.bytes != pools[i].file_bytes)
			return false;
	}
	return true;
}

struct base_audit {
	const char *base;
	const struct nvmm_pool_info *pools;
	size_t n;
	size_t found;
};

static void audit_name(void *arg, int dir, const char *name)
{
	struct base_audit *a = arg;
	unsigned id;
	size_t i;

	(void)dir;
	if (strcmp(name, "registry") == 0 || strcmp(name, "node-1") == 0 ||
	    strcmp(name, "nvmmd.lock") == 0)
		return;
	ck_assert_msg(is_numbered(name, "pool-", "", &id), "%s/%s is left behind", a->base, name);
	for (i = 0; i < a->n && a->pools[i].id != id; i++)
		;
	ck_assert_msg(i < a->n, "%s/%s belongs to no pool", a->base, name);
	a->found++;
}

void audit_base(const char *base, const struct nvmm_pool_info *pools, size_t n)
{
	struct base_audit a = { .base = base, .pools = pools, .n = n };

	each_name(base, audit_name, &a);
	ck_assert_msg(a.found == n, "%s: %zu directories for %zu pools", base, a.found, n);
	for (size_t i = 0; i < n; i++)
		audit_pool(base, &pools[i]);
}

static void count_session(void *arg, int dir, const char *name)
{
	unsigned id;

	(void)dir;
	*(unsigned *)arg += is_numbered(name, "session-", "", &id);
}

unsigned audit_sessions(const char *runtime)
{
	unsigned n = 0;

	each_name(runtime, count_session, &n);
	return n;
}

/* Heaps */

struct mapping {
	void *addr;
	uint64_t len;
};

static struct mapping map_file(const char *dir, const char *kind, unsigned index, const char *suffix)
{
	struct mapping m = { NULL, 0 };
	char path[320];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s-%u%s", dir, kind, index, suffix);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_msg(fd >= 0 && fstat(fd, &st) == 0, "%s: %s", path, strerror(errno));
	m.len = (uint64_t)st.st_size;
	ck_assert_int_eq(file_map(&m.addr, fd, m.len, 0, false), 0);
	close(fd);
	return m;
}

static uint64_t shelf_units(const char *dir, unsigned index)
{
	char path[320];
	struct stat st;

	snprintf(path, sizeof(path), "%s/shelf-%u", dir, index);
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_size >> UNIT_SHIFT;
}

/* A heap's tables and states, mapped to be read. */
struct heap_map {
	struct heap heap;
	struct mapping map[2 * POOL_SHELVES_MAX];
	struct heap_shelf shelf[POOL_SHELVES_MAX];
	uint32_t shelves;
	bool sparse;
	char dir[256];
};

static void heap_map_shelf(struct heap_map *m, unsigned i)
{
	struct mapping table = map_file(m->dir, "table", i, ".1");
	struct mapping state = map_file(m->dir, "state", i, "");
	const struct file_header_df *header = state.addr;
	uint64_t limit = media_load64(&header->limit);

	m->map[2 * i] = table;
	m->map[2 * i + 1] = state;
	heap_shelf_init(&m->shelf[i], table.addr, state.addr, shelf_units(m->dir, i), limit, m->sparse);
	heap_shelf_add(&m->heap, i, &m->shelf[i]);
}

static void heap_map_init(struct heap_map *m, const char *base, const struct nvmm_pool_info *info)
{
	const char *why = "";
	uint64_t where = 0;
	int broken;

	m->shelves = info->shelves;
	m->sparse = info->sparse;
	pool_dir(m->dir, base, info->id);
	ck_assert_int_eq(heap_init(&m->heap, info->id, NODE, DURABILITY_PROCESS, info->smallest_block),
			 0);
	for (unsigned i = 0; i < info->shelves; i++)
		heap_map_shelf(m, i);
	broken = heap_check(&m->heap, &why, &where);
	ck_assert_msg(broken == 0, "%s: %d rules are broken, first: %s, at unit 0x%llx", m->dir, broken,
		      why, (unsigned long long)where);
}

static void heap_map_deinit(struct heap_map *m)
{
	for (unsigned i = 0; i < 2 * m->shelves; i++)
		file_unmap(m->map[i].addr, m->map[i].len);
}

static blkcnt_t blocks_of(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return st.st_blocks;
}

/* What was granted has no holes: reserving it takes nothing. Seeking does not tell, since on tmpfs what is
 * reserved and was never written counts as a hole. */
static void audit_reserved(struct heap_map *m, unsigned index)
{
	uint64_t units = m->shelf[index].units;
	char path[320];
	int fd;

	snprintf(path, sizeof(path), "%s/shelf-%u", m->dir, index);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	for (uint64_t u = 0; u < units;) {
		struct span s = span_unpack(shelf_word(&m->shelf[index], u));
		blkcnt_t before = blocks_of(fd);

		ck_assert_uint_gt(s.length, 0);
		if (s.kind != SPAN_FREE)
			ck_assert_int_eq(file_reserve(fd, u << UNIT_SHIFT,
						      (u + s.length) << UNIT_SHIFT), 0);
		ck_assert_msg(blocks_of(fd) == before, "%s: a span at unit %llu has a hole", path,
			      (unsigned long long)u);
		u += s.length;
	}
	close(fd);
}

void audit_heap(const char *base, const struct nvmm_pool_info *info)
{
	static struct heap_map m;

	heap_map_init(&m, base, info);
	for (unsigned i = 0; i < m.shelves; i++)
		audit_reserved(&m, i);
	heap_map_deinit(&m);
}

/* The first byte of a unit, as a global pointer. */
static nvmm_ptr unit_ptr(const struct heap_map *m, uint64_t ref)
{
	return (nvmm_ptr)m->heap.pool << 48 | (ref & REF_MASK) << UNIT_SHIFT;
}

static void span_blocks(struct heap_map *m, const struct span_at *at,
			void (*fn)(void *arg, nvmm_ptr ptr, uint64_t size), void *arg)
{
	const struct state_layout *l = &m->heap.layout;

	for (uint32_t b = 0; b < at->blocks; b++) {
		uint64_t bit = UINT64_C(1) << (b % 64);
		uint64_t gone = media_load64(&state_limbo(l, at->record)[b / 64]) |
				media_load64(&state_remote(l, at->record)[b / 64]);

		if (media_load64(&state_alloc(at->record)[b / 64]) & ~gone & bit)
			fn(arg, unit_ptr(m, at->ref) + b * at->block_size, at->block_size);
	}
}

void audit_blocks(const char *base, const struct nvmm_pool_info *info,
		  void (*fn)(void *arg, nvmm_ptr ptr, uint64_t size), void *arg)
{
	static struct heap_map m;

	heap_map_init(&m, base, info);
	for (unsigned i = 0; i < m.shelves; i++) {
		struct span_at at;

		for (uint64_t u = 0; u < m.shelf[i].units;) {
			uint64_t ref = ref_make(i, (uint32_t)u);
			struct span s = span_unpack(shelf_word(&m.shelf[i], u));

			if (s.kind != SPAN_FREE) {
				ck_assert_int_eq(heap_span(&m.heap, ref, &at), 0);
				span_blocks(&m, &at, fn, arg);
			}
			u += s.length;
		}
	}
	heap_map_deinit(&m);
}
