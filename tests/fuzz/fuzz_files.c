/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each structure on media and in the runtime directory, by the module that reads it: registry, meta, node file,
 * headers, tables, states, lanes, session files, epoch slots. One pool's files and the registry are
 * damaged, read, inspected and repaired, all without a daemon, which makes it many times faster than fuzz_start.c. An
 * inspection ends; a repair leaves nothing that a second one would change.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/session_file.h"
#include "media/epoch.h"
#include "media/guard.h"
#include "media/inspect.h"
#include "media/mend.h"
#include "media/node.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include "tests/fuzz/rig_files.h"

const char fuzz_name[] = "files";

#define NODE 1u
#define DAMAGES 6u

static struct check_report report;
static unsigned long long inspected, clean, refused, repaired, sessions;

void fuzz_begin(void)
{
	rig_begin();
	rig_reset();
	fuzz_must(guard_init() == 0, "guard_init");
}

void fuzz_end(void)
{
	printf("%llu inspected, %llu of them clean, %llu repaired; %llu files refused, %llu session files read\n",
	       inspected, clean, repaired, refused, sessions);
}

static void damage(int dirfd, const char *name, struct choice *in)
{
	int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	rig_files_damage(fd, in, 0, 0);
	close(fd);
}

/* Registry */

static void use_record(struct registry *registry, uint16_t id, struct choice *in)
{
	struct pool_record record, again;
	const char *why = "";
	int r = registry_get(registry, id, &record, &why);

	fuzz_must(r >= 0 || why[0], "a record is refused without a reason");
	if (r < 0 && !registry_salvage(registry, id, &record))
		return;
	record.pool = id;
	if (r == 1 && choose(in, 4) == 0)
		fuzz_must(registry_put(registry, &record) == 0, "what was read is refused");
	if (r >= 0)
		return;
	fuzz_must(registry_put(registry, &record) < 0, "a record goes over one that is rotten");
	if (registry_replace(registry, &record) == 0)
		fuzz_must(registry_get(registry, id, &again, &why) == 1, "what was replaced is refused");
}

static void read_registry(struct choice *in)
{
	struct registry *registry;
	const char *why = "";

	rig_reset_part("registry");
	for (unsigned n = 1 + choose(in, DAMAGES); n > 0; n--)
		damage(rig_base, "registry", in);
	if (registry_new(&registry, rig_base, NODE, &why) < 0) {
		refused++;
		return;
	}
	fuzz_must(registry_last(registry) <= POOL_ID_MAX, "the last id");
	for (uint16_t id = 1; id <= RIG_POOLS + 2; id++)
		use_record(registry, id, in);
	registry_free(registry);
}

/* Node file */

static void read_node(struct choice *in)
{
	struct node_file *file;
	struct node_record record;
	const char *why = "";

	rig_reset_part("node-1");
	for (unsigned n = 1 + choose(in, DAMAGES); n > 0; n--)
		damage(rig_base, "node-1", in);
	if (node_file_new(&file, &record, rig_base, NODE, &why) < 0) {
		refused++;
		return;
	}
	record.node = NODE;
	record.clean = choose(in, 2);
	(void)node_file_put(file, &record);
	node_file_free(file);
}

/* Sessions */

static void read_session(struct choice *in)
{
	struct session_image *image = NULL;
	int fd = openat(rig_runtime, "session-77", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), from;
	static char buf[65536];
	ssize_t n;

	fuzz_must(fd >= 0, "session-77: %m");
	from = openat(rig_runtime, "session-4", O_RDONLY | O_CLOEXEC);
	n = from < 0 ? -1 : read(from, buf, sizeof(buf));
	fuzz_must(n > 0 && write(fd, buf, (size_t)n) == n, "session-4: %m");
	close(from);
	for (unsigned k = choose(in, DAMAGES); k > 0; k--)
		rig_files_damage(fd, in, 0, 0);
	close(fd);
	if (session_file_read(&image, rig_runtime, "session-77") < 0) {
		refused++;
		return;
	}
	sessions++;
	session_image_free(image);
}

/* As the daemon does: copies of some slots at a time, of a memory that has its length for good. */
static void read_slots(struct choice *in)
{
	struct epoch_reading reading[64];
	struct epoch_slot copy[64];
	int fd = memfd_create("slots", MFD_CLOEXEC);

	fuzz_must(fd >= 0 && ftruncate(fd, (off_t)EPOCH_SLOTS_BYTES) == 0, "slots: %m");
	for (unsigned n = 1 + choose(in, 8); n > 0; n--)
		rig_files_damage(fd, in, 0, 0);
	for (uint32_t at = 0; at < 65536; at += 64) {
		if (pread(fd, copy, sizeof(copy), (off_t)(at * sizeof(copy[0]))) != sizeof(copy))
			break; /* the damage made it shorter */
		fuzz_must(epoch_scan(copy, at, 64, reading) <= 64, "more readers than slots");
	}
	close(fd);
}

/* Pools */

static void read_meta(int dir, const struct pool_record *record, struct choice *in)
{
	struct shelf_record shelf;
	struct root_record root;
	struct service_record service;
	struct meta *meta;
	const char *why = "";
	int place;

	if (meta_open(&meta, dir, NODE, record->pool, record->incarnation, record->durability, &why) < 0) {
		refused++;
		return;
	}
	for (uint32_t i = 0; i < 3; i++)
		if (meta_shelf_get(meta, i, &shelf) < 0 && meta_shelf_salvage(meta, i, &shelf) && choose(in, 2))
			(void)meta_shelf_replace(meta, i, &shelf);
	for (uint32_t i = 0; i < POOL_ROOTS_MAX; i++)
		(void)meta_root_get(meta, i, &root);
	(void)meta_root_find(meta, "kept", &place);
	if (meta_service_get(meta, &service) < 0)
		(void)meta_service_put(meta, &service);
	meta_free(meta);
}

static uint64_t inspect(const struct pool_record *record, bool live)
{
	memset(&report, 0, sizeof(report));
	if (inspect_pool(&report, rig_base, record, live) < 0)
		return 0;
	fuzz_must(report.n_findings <= CHECK_FINDINGS && (report.violations > 0) == (report.n_findings > 0),
		  "%u findings of %llu violations", report.n_findings, (unsigned long long)report.violations);
	inspected++;
	clean += report.violations == 0;
	return report.violations;
}

static void mend(int dir, const struct pool_record *record)
{
	struct pool_record of = *record, known = { .kind = 0 };
	uint64_t size = 0;

	(void)mend_identify(&known, dir, record->pool, NODE);
	memset(&report, 0, sizeof(report));
	if (mend_files(&report, dir, &of, &size) < 0) {
		refused++;
		return;
	}
	repaired++;
	memset(&report, 0, sizeof(report));
	fuzz_must(mend_files(&report, dir, &of, &size) == 0 && report.violations == 0,
		  "a second repair finds more: %s: %s", report.finding[0].file, report.finding[0].what);
	of.size = size;
	(void)inspect(&of, false);
}

static const struct pool_record records[] = {
	{ .pool = RIG_HEAP, .kind = POOL_HEAP, .min_block = 16 },
	{ .pool = RIG_SPARSE, .kind = POOL_HEAP, .min_block = 16, .flags = POOL_SPARSE },
	{ .pool = RIG_POWER, .kind = POOL_HEAP, .min_block = 64, .durability = DURABILITY_POWER },
	{ .pool = RIG_REGION, .kind = POOL_REGION },
};
static const uint64_t sizes[] = { 2 << 20, 16 << 20, 1 << 20, 65536 };

static void read_pool(struct choice *in)
{
	static const char *const names[] = { "meta.1", "table-0.1", "state-0", "lanes.1", "shelf-0" };
	unsigned which = choose(in, 4);
	struct pool_record record = records[which];
	char dir_name[32];
	int dir;

	record.state = POOL_LIVE;
	record.home = NODE;
	record.incarnation = 1;
	record.size = sizes[which];
	pool_dir_name(dir_name, record.pool);
	rig_reset_part(dir_name);
	fuzz_must(pool_files_dir(&dir, rig_base, record.pool) == 0, "%s is not there", dir_name);
	for (unsigned n = choose(in, DAMAGES); n > 0; n--) {
		const char *name = names[choose(in, 5)];

		if (choose(in, 16) == 15)
			unlinkat(dir, name, 0);
		else
			damage(dir, name, in);
	}
	read_meta(dir, &record, in);
	(void)inspect(&record, choose(in, 2));
	if (choose(in, 2))
		mend(dir, &record);
	close(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct choice in = choice_of(data, len);

	switch (choose(&in, 8)) {
	case 0:
		read_registry(&in);
		break;
	case 1:
		read_node(&in);
		break;
	case 2:
		read_session(&in);
		break;
	case 3:
		read_slots(&in);
		break;
	default:
		read_pool(&in);
		break;
	}
	return 0;
}
