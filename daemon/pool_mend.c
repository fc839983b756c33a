/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A damaged pool is mended and taken up anew, because its owner or an administrator asked for it.
 *
 * First its record: of two slots the one that is readable, perhaps the older; of none, what the
 * headers of its files say, and then it is the daemon's own user's, with mode 0600 and no name: whose
 * it was, nobody can tell any more. Then its files (media/mend.c). Spans and state records are
 * mended when the heap is loaded (media/repair.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/nvmmd.h"
#include "daemon/pool_files.h"
#include "media/mend.h"

/* The record that a rotten one becomes. */
static int mend_record(struct pool *pool, int dir, struct pool_record *ret)
{
	struct nvmmd *nvmmd = pool->nvmmd;
	int r;

	r = registry_mend(nvmmd->registry, pool->id, ret);
	if (r == 0) {
		r = mend_identify(ret, dir, pool->id, nvmmd->node.node);
		ret->uid = nvmmd->admin.uid;
		ret->gid = getegid();
		ret->durability = nvmmd->base_is_pmem ? DURABILITY_POWER : DURABILITY_PROCESS;
		ret->created = (uint64_t)nvmmd_now();
		ret->size = 0;
	}
	/* Its files are there: whatever was under way when the older slot was written is over. */
	ret->state = POOL_LIVE;
	if (r >= 0 && ret->name[0] && pool_by_name(nvmmd, ret->name))
		memset(ret->name, 0, sizeof(ret->name));
	return MIN(r, 0);
}

static void log_report(const struct pool *pool, const struct check_report *report)
{
	for (uint32_t i = 0; i < report->n_findings; i++)
		log_info("pool %u: %s at byte %llu: %s: %s", pool->id, report->finding[i].file,
			 (unsigned long long)report->finding[i].offset, report->finding[i].what,
			 report->finding[i].so);
}

static int mend(struct pool *pool, int dir)
{
	struct pool_record record = pool->record;
	bool rotten = record.kind == 0;
	uint64_t size = 0;
	int r = 0;

	if (rotten)
		r = mend_record(pool, dir, &record);
	if (r == 0)
		r = mend_files(pool->recovery.report, dir, &record, &size);
	log_report(pool, pool->recovery.report);
	if (r < 0)
		return r;
	record.size = size;
	r = pool_put(pool, &record);
	if (r < 0)
		return r;
	if (rotten)
		pool_take_name(pool);
	free(take(pool->damage));
	pool_load(pool);
	return pool->damage ? -EUCLEAN : 0;
}

int recovery_mend(struct pool *pool)
{
	int dir, r = recovery_report(pool);

	if (r < 0)
		return r;
	memset(pool->recovery.report, 0, sizeof(*pool->recovery.report));
	heap_service_unref(take(pool->heap));
	meta_free(take(pool->meta));
	r = pool_files_dir(&dir, pool->nvmmd->base_fd, pool->id);
	if (r < 0)
		return r;
	r = mend(pool, dir);
	close(dir);
	return r;
}
