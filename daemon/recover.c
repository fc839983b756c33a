/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery of the registry.
 *
 *   CREATING    not committed: files removed, record FREE, without the mark of the request
 *   DESTROYING  committed: files removed, record FREE
 *   RESIZING    the shelf records decide (pool_layout.c): if they add up to the size that was
 * wanted, it is committed and the record becomes LIVE; else files are cut back to them, and the
 * record becomes LIVE with their sum and without the mark of the request
 *
 * Each can be interrupted and done again: the record changes last. What cannot be put right now (a
 * file that cannot be removed) stays as it is, the id taken, and is tried again at the next start.
 * Directories that no record knows are entered as damaged pools: a page of the registry may be gone. They
 * are not touched unless an administrator has them repaired, or destroyed by force.
 */
#include "daemon/recover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "daemon/pool_ops.h"

static int recover_remove(struct nvmmd *nvmmd, struct pool_record *record)
{
	const char *what = record->state == POOL_CREATING ? "creation" : "destruction";
	int r;

	r = pool_files_remove(nvmmd->base_fd, record->pool);
	if (r == 0) {
		if (record->state == POOL_CREATING)
			pool_clear_change(record);
		record->state = POOL_FREE;
		memset(record->name, 0, sizeof(record->name));
		r = registry_put(nvmmd->registry, record);
	}
	if (r < 0) {
		log_error("pool %u: its interrupted %s cannot be finished: %s", record->pool, what,
			  strerror(-r));
		return r;
	}
	log_info("pool %u: its interrupted %s is %s", record->pool, what,
		 strcmp(what, "creation") == 0 ? "undone" : "finished");
	nvmmd->counters.pools_recovered++;
	return 0;
}

/* Forgets shelf records behind the pool's end, which an uncommitted resize left. */
static int forget_shelves(struct pool *pool)
{
	struct shelf_record s, none = { .size = 0 };
	struct meta *meta;
	int r;

	r = pool_meta(pool, &meta);
	for (uint32_t i = pool->shelves.n; r == 0 && i < POOL_SHELVES_MAX; i++) {
		r = meta_shelf_get(meta, i, &s);
		if (r == 0 && s.size > 0)
			r = meta_shelf_put(meta, i, &none);
	}
	return r;
}

static int recover_cut(struct pool *pool)
{
	int dir, r;

	r = forget_shelves(pool);
	if (r == 0)
		r = pool_files_dir(&dir, pool->nvmmd->base_fd, pool->id);
	if (r < 0)
		return r;
	r = pool_files_cut(dir, &pool->record, &pool->shelves);
	close(dir);
	return r;
}

void recover_resize(struct pool *pool)
{
	struct pool_record record = pool->record;
	uint64_t bytes = pool_layout_bytes(&pool->shelves);
	int r = 0;

	if (pool->damage)
		return;
	if (bytes != record.size) {
		r = recover_cut(pool);
		record.size = bytes;
		pool_clear_change(&record);
	}
	record.state = POOL_LIVE;
	if (r == 0)
		r = pool_put(pool, &record);
	if (r < 0) {
		pool_damage(pool, "its interrupted resize cannot be put right: %s", strerror(-r));
		return;
	}
	log_info("pool %u: its interrupted resize is put right: %" PRIu64 " bytes", pool->id,
		 bytes);
	pool->nvmmd->counters.pools_recovered++;
	pool_load(pool);
}

/* A name is one pool's. Two pools of one name are rot that no CRC sees. */
static int recover_enter(struct nvmmd *nvmmd, const struct pool_record *record)
{
	bool twice = record->name[0] && pool_by_name(nvmmd, record->name);
	struct pool *pool;
	int r;

	r = pool_add(&pool, nvmmd, record->pool, record);
	if (r < 0)
		return r;
	if (twice)
		pool_damage(pool, "another pool has its name, '%s', too", record->name);
	if (record->state == POOL_LIVE || record->state == POOL_RESIZING)
		pool_load(pool);
	if (record->state == POOL_RESIZING)
		recover_resize(pool);
	pool_rest(pool);
	return 0;
}

static int recover_id(struct nvmmd *nvmmd, uint16_t id)
{
	struct pool_record record = { .pool = 0 };
	const char *why = "";
	struct pool *pool;
	int r;

	r = registry_get(nvmmd->registry, id, &record, &why);
	if (r == 0)
		return 0;
	if (r < 0) {
		record = (struct pool_record){ .pool = id };
		r = pool_add(&pool, nvmmd, id, &record);
		if (r == 0)
			pool_damage(pool, "its record in the registry: %s", why);
		return r;
	}
	if (record.state == POOL_CREATING || record.state == POOL_DESTROYING)
		recover_remove(nvmmd, &record);
	return record.state == POOL_FREE ? 0 : recover_enter(nvmmd, &record);
}

/* A pool's directory of which the registry knows nothing: a page of that was zeroed, or it is no pool's. */
static int recover_orphan(struct nvmmd *nvmmd, uint16_t id)
{
	const struct pool_record record = { .pool = id };
	struct pool *pool;
	int r = pool_add(&pool, nvmmd, id, &record);

	if (r == 0)
		pool_damage(pool, "its directory is there, and the registry has no record of it");
	return r;
}

/* The id of a pool's directory; 0: it is none. */
static uint16_t id_of_dir(const char *name)
{
	char canonical[32];
	uint64_t id;

	if (strncmp(name, "pool-", 5) != 0 || text_parse_u64(&id, name + 5, POOL_ID_MAX) < 0)
		return 0;
	pool_dir_name(canonical, (uint16_t)id);
	return strcmp(name, canonical) == 0 ? (uint16_t)id : 0;
}

static int find_orphans(struct nvmmd *nvmmd)
{
	int fd = openat(nvmmd->base_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (r == 0 && (e = readdir(dir))) {
		uint16_t id = id_of_dir(e->d_name);

		if (id > 0 && !nvmmd->pools.by_id[id])
			r = recover_orphan(nvmmd, id);
	}
	closedir(dir);
	return r;
}

int recover_pools(struct nvmmd *nvmmd)
{
	uint16_t last = registry_last(nvmmd->registry);
	int r;

	for (uint32_t id = 1; id <= last; id++) {
		r = recover_id(nvmmd, (uint16_t)id);
		if (r < 0)
			return r;
	}
	return find_orphans(nvmmd);
}
