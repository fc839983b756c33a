/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry: one two-slot record for each pool id, in a file whose address space is mapped whole
 * and whose space is reserved in chunks, before the first store to any record of a chunk.
 *
 * A chunk without data was never written: its records are blank, and reading them would only make
 * the kernel fill the hole. The file itself tells which chunks have data (SEEK_DATA), so there is
 * no second truth that could disagree; a chunk that was reserved and not written before a crash is
 * reserved again, which changes nothing. Ids far apart leave holes, not reserved space.
 *
 * Nothing that is read is believed before it is checked, though no client can write here: a record
 * with a good CRC and a wrong value was written by a faulty or newer daemon, and is damaged too.
 */
#include "media/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/macro.h"
#include "common/text.h"
#include "media/recfile.h"
#include "media/slot.h"

#define CHUNKS DIV_UP(sizeof(struct registry_file_df), REGISTRY_CHUNK)
#define SIZE_MAX_POOL (POOL_SHELVES_MAX * SHELF_SIZE_MAX)

struct registry {
	struct recfile file;
	bool used[CHUNKS]; /* reserved and, if set at opening, with data */
};

DEFINE_AUTO(struct registry, registry_free)

/* A record on its way between media and memory. */
union pool_copy {
	uint64_t word[sizeof(struct pool_record_df) / sizeof(uint64_t)];
	struct pool_record_df df;
};

/* Which chunk an entry is in: entries do not cross chunks, as both sizes are powers of two. */
static size_t chunk_of(uint16_t id)
{
	return (offsetof(struct registry_file_df, entry) +
		id * sizeof(struct registry_entry_df)) / REGISTRY_CHUNK;
}

static struct registry_entry_df *entry_of(struct registry *registry, uint16_t id)
{
	struct registry_file_df *file = (void *)registry->file.addr;

	return &file->entry[id];
}

/* Finds the chunks with data. A last chunk that is cut off in the middle of them is damage. */
static int find_used(struct registry *registry, const char **why)
{
	for (off_t at = 0;;) {
		size_t chunk;

		at = lseek(registry->file.fd, at, SEEK_DATA);
		if (at < 0)
			return errno == ENXIO ? 0 : -errno;
		chunk = (size_t)at / REGISTRY_CHUNK;
		if (chunk >= CHUNKS)
			return 0;
		if ((chunk + 1) * REGISTRY_CHUNK > registry->file.length) {
			*why = "the file was cut short";
			return -EUCLEAN;
		}
		registry->used[chunk] = true;
		at = (off_t)((chunk + 1) * REGISTRY_CHUNK);
	}
}

/* What a killed daemon stored is durable before anybody acts on it. */
static int settle(struct registry *registry)
{
	int r;

	for (size_t i = 0; i < CHUNKS; i++) {
		if (!registry->used[i])
			continue;
		r = media_sync(registry->file.durability, registry->file.addr + i * REGISTRY_CHUNK,
			       REGISTRY_CHUNK);
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct recfile_id registry_id = {
	.name = "registry",
	.magic = FILE_MAGIC_REGISTRY,
	.any_node = true,
	.size = REGISTRY_CHUNK,
	.reserve = CHUNKS * REGISTRY_CHUNK,
};

static int registry_open(struct registry *registry, int base_fd, const struct recfile_id *id,
			 const char **why)
{
	int r;

	registry->file.fd = -1;
	r = recfile_open(&registry->file, base_fd, id, why);
	if (r == -ENOENT && !id->read_only) {
		r = recfile_create(base_fd, id);
		if (r == 0)
			r = recfile_open(&registry->file, base_fd, id, why);
	}
	return r < 0 ? r : find_used(registry, why);
}

int registry_new(struct registry **ret, int base_fd, uint16_t node, const char **why)
{
	_auto(registry_free) struct registry *registry = calloc(1, sizeof(*registry));
	struct recfile_id id = registry_id;
	int r;

	if (!registry)
		return -ENOMEM;
	id.node = node;
	r = registry_open(registry, base_fd, &id, why);
	if (r == 0)
		r = settle(registry);
	if (r < 0)
		return r;
	*ret = take(registry);
	return 0;
}

int registry_view(struct registry **ret, int base_fd, const char **why)
{
	_auto(registry_free) struct registry *registry = calloc(1, sizeof(*registry));
	struct recfile_id id = registry_id;
	int r;

	if (!registry)
		return -ENOMEM;
	id.read_only = true;
	r = registry_open(registry, base_fd, &id, why);
	if (r < 0)
		return r;
	*ret = take(registry);
	return 0;
}

void registry_free(struct registry *registry)
{
	if (!registry)
		return;
	recfile_deinit(&registry->file);
	free(registry);
}

bool registry_name_ok(const char *name, size_t len)
{
	uint32_t c;

	if (len < 1 || len > POOL_NAME_MAX)
		return false;
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return false;
	for (size_t i = 0, n; i < len; i += n) {
		n = text_utf8(&c, name + i, len - i);
		if (n == 0 || c == '/' || text_is_control(c))
			return false;
	}
	return true;
}

/* A name field: well-formed or empty, terminated, zero-padded. */
static bool name_field_ok(const char name[POOL_NAME_MAX + 1])
{
	size_t len = strnlen(name, POOL_NAME_MAX + 1);

	if (len > POOL_NAME_MAX)
		return false;
	for (size_t i = len; i <= POOL_NAME_MAX; i++) {
		if (name[i] != '\0')
			return false;
	}
	return len == 0 || registry_name_ok(name, len);
}

static bool min_block_ok(uint32_t min_block)
{
	return min_block >= 16 && min_block <= 256 && (min_block & (min_block - 1)) == 0;
}

/* What is wrong with a pool that exists; NULL: nothing. */
static const char *pool_why(const struct pool_record *p)
{
	if (p->kind != POOL_REGION && p->kind != POOL_HEAP)
		return "unknown kind of pool";
	if (p->kind == POOL_HEAP ? !min_block_ok(p->min_block) : p->min_block != 0)
		return "smallest block out of range";
	if (p->home < 1 || p->home > 255)
		return "home node out of range";
	if (p->durability != DURABILITY_PROCESS && p->durability != DURABILITY_POWER)
		return "unknown durability";
	if ((p->flags & ~POOL_SPARSE) != 0)
		return "unknown flags";
	if ((p->mode & ~0777u) != 0)
		return "mode out of range";
	if (p->size < 1 || p->size > SIZE_MAX_POOL)
		return "size out of range";
	return NULL;
}

static const char *record_why(const struct pool_record *p, uint16_t id)
{
	if (p->pool != id)
		return "record of another pool";
	if (p->state > POOL_DESTROYING)
		return "unknown state";
	if (!name_field_ok(p->name))
		return "malformed name";
	return p->state == POOL_FREE ? NULL : pool_why(p);
}

static void unpack(struct pool_record *ret, const struct pool_record_df *df)
{
	*ret = (struct pool_record){
		.pool = df->pool.raw,
		.kind = (enum pool_kind)df->kind.raw,
		.state = (enum pool_state)df->state.raw,
		.home = df->home.raw,
		.durability = (enum durability)df->durability.raw,
		.flags = df->flags.raw,
		.incarnation = df->incarnation.raw,
		.uid = df->uid.raw,
		.gid = df->gid.raw,
		.mode = df->mode.raw,
		.min_block = df->min_block.raw,
		.size = df->size.raw,
		.created = df->created.raw,
		.op_seq = df->op_seq.raw,
		.priority = df->priority.raw,
	};
	memcpy(ret->cookie, df->cookie, sizeof(ret->cookie));
	memcpy(ret->name, df->name, sizeof(ret->name));
}

static void pack(union pool_copy *ret, const struct pool_record *p)
{
	const struct pool_record_df df = {
		.pool = { p->pool },
		.kind = { (uint8_t)p->kind },
		.state = { (uint8_t)p->state },
		.home = { p->home },
		.durability = { (uint8_t)p->durability },
		.flags = { p->flags },
		.incarnation = { p->incarnation },
		.uid = { p->uid },
		.gid = { p->gid },
		.mode = { p->mode },
		.min_block = { p->min_block },
		.size = { p->size },
		.created = { p->created },
		.op_seq = { p->op_seq },
		.priority = { p->priority },
	};
	char *bytes = (char *)ret->word;

	memcpy(bytes, &df, sizeof(df));
	memcpy(bytes + offsetof(struct pool_record_df, cookie), p->cookie, sizeof(p->cookie));
	memcpy(bytes + offsetof(struct pool_record_df, name), p->name, sizeof(p->name));
}

int registry_get(struct registry *registry, uint16_t id, struct pool_record *ret,
		 const char **why)
{
	struct pool_record record;
	union pool_copy copy;
	const char *reason;
	int r;

	if (id == 0)
		return -EINVAL;
	if (!registry->used[chunk_of(id)])
		return 0;
	r = slot_get(&copy, entry_of(registry, id), sizeof(copy));
	if (r < 0)
		*why = "wrong checksum of the registry's record";
	if (r <= 0)
		return r;
	unpack(&record, &copy.df);
	reason = record_why(&record, id);
	if (reason) {
		*why = reason;
		return -EUCLEAN;
	}
	*ret = record;
	return 1;
}

uint16_t registry_last(struct registry *registry)
{
	size_t chunk = CHUNKS - 1, end;

	while (chunk > 0 && !registry->used[chunk])
		chunk--;
	end = ((chunk + 1) * REGISTRY_CHUNK - offsetof(struct registry_file_df, entry)) /
	      sizeof(struct registry_entry_df);
	return (uint16_t)MIN(end - 1, (size_t)POOL_ID_MAX);
}

static int use_chunk(struct registry *registry, size_t chunk)
{
	int r;

	if (registry->used[chunk])
		return 0;
	r = file_reserve(registry->file.fd, chunk * REGISTRY_CHUNK, (chunk + 1) * REGISTRY_CHUNK);
	if (r < 0)
		return r;
	registry->used[chunk] = true;
	return 0;
}

static int put(struct registry *registry, const struct pool_record *record, slot_writer *write)
{
	union pool_copy copy;
	int r;

	if (record->pool == 0 || record_why(record, record->pool))
		return -EINVAL;
	r = use_chunk(registry, chunk_of(record->pool));
	if (r < 0)
		return r;
	pack(&copy, record);
	return write(registry->file.durability, entry_of(registry, record->pool), &copy,
		     sizeof(copy));
}

int registry_put(struct registry *registry, const struct pool_record *record)
{
	return put(registry, record, slot_put);
}

int registry_replace(struct registry *registry, const struct pool_record *record)
{
	return put(registry, record, slot_replace);
}

bool registry_salvage(struct registry *registry, uint16_t id, struct pool_record *ret)
{
	struct pool_record record;
	union pool_copy copy;

	if (id == 0 || !registry->used[chunk_of(id)] ||
	    !slot_salvage(&copy, entry_of(registry, id), sizeof(copy)))
		return false;
	unpack(&record, &copy.df);
	if (record_why(&record, id))
		return false;
	*ret = record;
	return true;
}
