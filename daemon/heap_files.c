/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mapping a heap's metadata.
 *
 * The mappings set address space aside for each shelf's limit, so that a resize never moves what the grant engine
 * and a count beside it point to.
 *
 * Clients can write state and lanes files. Their headers are copied inside the guard before they
 * are checked; the engine guards its own accesses. Sizes come from shelf records, never from there.
 */
#include "daemon/heap_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/pool_files.h"
#include "media/backing.h"
#include "media/file.h"
#include "media/guard.h"

struct header_copy {
	const void *from;
	struct file_header_df to;
};

static int header_copy(void *arg)
{
	struct header_copy *copy = arg;

	/* Volatile: what a client may change meanwhile is read once, into the copy. */
	for (size_t i = 0; i < sizeof(copy->to) / 8; i++)
		((uint64_t *)(void *)&copy->to)[i] = ((const volatile uint64_t *)copy->from)[i];
	return 0;
}

static int damage_say(char damage[HEAP_DAMAGE_LEN], int r, const char *file, uint32_t index,
		      const char *why)
{
	snprintf(damage, HEAP_DAMAGE_LEN, "%s %u: %s", file, index, why);
	return r;
}

static int map_checked(void **ret, int pool_fd, const struct pool_record *record,
		       enum pool_file file, uint32_t index, uint64_t len, uint64_t reserve,
		       char damage[HEAP_DAMAGE_LEN])
{
	static const uint64_t magics[] = { [POOL_FILE_TABLE] = FILE_MAGIC_TABLE,
					   [POOL_FILE_STATE] = FILE_MAGIC_STATE,
					   [POOL_FILE_LANES] = FILE_MAGIC_LANES };
	static const char *const names[] = { [POOL_FILE_TABLE] = "span table of shelf",
					     [POOL_FILE_STATE] = "state of shelf",
					     [POOL_FILE_LANES] = "lanes file" };
	struct header_copy copy;
	struct stat st;
	const char *why;
	void *addr;
	int fd, r;

	r = pool_files_open(&fd, pool_fd, record->home, file, index, O_RDWR);
	if (r < 0)
		return damage_say(damage, r, names[file], index, strerror(-r));
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if ((uint64_t)st.st_size < len)
		r = damage_say(damage, -EIO, names[file], index, "is shorter than it should be");
	else
		r = file_map(&addr, fd, len, reserve, true);
	close(fd);
	if (r < 0)
		return r;
	copy.from = addr;
	why = "cannot be read";
	r = guard_run(header_copy, &copy, NULL);
	if (r == 0)
		r = file_header_check(&copy.to, magics[file], record->pool, record->incarnation,
				      index, &why);
	if (r < 0) {
		file_unmap(addr, reserve);
		return damage_say(damage, r, names[file], index, why);
	}
	*ret = addr;
	return 0;
}

void heap_files_free(struct heap_files *f)
{
	if (!f)
		return;
	if (f->table)
		file_unmap(f->table, f->table_reserve);
	if (f->state)
		file_unmap(f->state, f->state_reserve);
	backing_free(f->shelf.backing);
	free(f);
}

/* Makes what reserves a sparse shelf's space. */
static int files_back(struct heap_files *f, int pool_fd, uint16_t node, const struct heap *heap,
		      uint32_t index)
{
	int fds[3], r;

	r = pool_files_open3(fds, pool_fd, node, index);
	if (r < 0)
		return r;
	return backing_new(&f->shelf.backing, heap, &f->shelf, fds);
}

static int files_map(struct heap_files *f, int pool_fd, const struct pool_record *record,
		     uint32_t index, uint64_t table_len, uint64_t state_len, char damage[HEAP_DAMAGE_LEN])
{
	int r = map_checked(&f->table, pool_fd, record, POOL_FILE_TABLE, index, table_len,
			    f->table_reserve, damage);

	return r < 0 ? r : map_checked(&f->state, pool_fd, record, POOL_FILE_STATE, index, state_len,
				       f->state_reserve, damage);
}

int heap_files_new(struct heap_files **ret, int pool_fd, const struct pool_record *record,
		   const struct heap *heap, uint32_t index, const struct shelf_record *shelf,
		   char damage[HEAP_DAMAGE_LEN])
{
	uint64_t units = shelf->size >> UNIT_SHIFT, limit = shelf->limit >> UNIT_SHIFT;
	_auto(heap_files_free) struct heap_files *f = calloc(1, sizeof(*f));
	bool sparse = record->flags & POOL_SPARSE;
	int r;

	if (!f)
		return -ENOMEM;
	f->table_reserve = sparse ? sparse_table_size(limit) : table_file_size(limit);
	f->state_reserve = state_file_size(&heap->layout, limit, limit);
	r = files_map(f, pool_fd, record, index, sparse ? f->table_reserve : table_file_size(units),
		      state_file_size(&heap->layout, limit, units), damage);
	if (r < 0)
		return r;
	heap_shelf_init(&f->shelf, f->table, f->state, units, limit, sparse);
	if (sparse)
		r = files_back(f, pool_fd, record->home, heap, index);
	if (r < 0)
		return r;
	*ret = take(f);
	return 0;
}

int heap_files_lanes(void **ret, uint32_t *n, int pool_fd, const struct pool_record *record,
		     char damage[HEAP_DAMAGE_LEN])
{
	int r = pool_files_lanes(n, pool_fd, record->home);

	if (r < 0)
		return damage_say(damage, r, "lanes file", 0, "has no lanes");
	return map_checked(ret, pool_fd, record, POOL_FILE_LANES, 0, lanes_file_size(*n),
			   lanes_file_size(LANES_MAX), damage);
}
