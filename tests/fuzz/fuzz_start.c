/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A daemon that starts on damaged files: those of pools, the registry's records, the node file, sessions and
 * epoch slots of the daemon before it. It serves; each pool is opened, checked, repaired and used; the
 * canary's pools, which were not damaged, are as they were. A second daemon starts on what the first left.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "media/format.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rig.h"
#include "tests/fuzz/rig_files.h"

const char fuzz_name[] = "start";

#define DAMAGES 8u
#define NAMES_MAX 64u

static struct vocabulary words;
static unsigned long long requests, refused, damages, opened;

void fuzz_begin(void)
{
	rig_begin();
}

void fuzz_end(void)
{
	printf("%llu damages, %llu requests, %llu refused, %llu pools opened\n", damages, requests, refused, opened);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* The names in a directory, in the order of the alphabet, so that a decision means the same each time. */
static unsigned names_of(int dirfd, char name[NAMES_MAX][64])
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fdopendir(fd);
	const struct dirent *entry;
	unsigned n = 0;

	fuzz_must(dir, "fdopendir: %m");
	while (n < NAMES_MAX && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			snprintf(name[n++], 64, "%.63s", entry->d_name);
	closedir(dir);
	qsort(name, n, sizeof(name[0]), by_name);
	return n;
}

/* What must not be damaged: the canary's. */
static bool is_kept(const char *name)
{
	return !strcmp(name, "pool-6") || !strcmp(name, "pool-7") || strstr(name, "lock");
}

static void damage_file(int dirfd, const char *name, struct choice *in)
{
	size_t canary = offsetof(struct registry_file_df, entry[RIG_CANARY_HEAP]);
	int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	damages++;
	if (strcmp(name, "registry") != 0)
		rig_files_damage(fd, in, 0, 0);
	else if (choose(in, 2)) /* records in front of the canary's, and behind them */
		rig_files_damage(fd, in, 0, canary + 2 * sizeof(struct registry_entry_df));
	else
		for (uint64_t at, i = 0, bits = choose_bytes(in, 3); i < 3; i++, bits /= 256) {
			uint8_t byte;

			at = MEDIA_PAGE + sizeof(struct registry_entry_df) +
			     (choose(in, 65536) % (canary - MEDIA_PAGE - sizeof(struct registry_entry_df)));
			if (pread(fd, &byte, 1, (off_t)at) != 1)
				break;
			byte ^= (uint8_t)bits;
			if (pwrite(fd, &byte, 1, (off_t)at) != 1)
				break;
		}
	close(fd);
}

static void damage_dir(int dirfd, struct choice *in)
{
	char name[NAMES_MAX][64];
	unsigned n = names_of(dirfd, name), i;
	int sub;

	if (n == 0)
		return;
	i = choose(in, n);
	if (is_kept(name[i]))
		return;
	sub = openat(dirfd, name[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sub >= 0) {
		damage_dir(sub, in);
		close(sub);
	} else if (choose(in, 16) == 15 && strcmp(name[i], "registry") != 0) {
		unlinkat(dirfd, name[i], 0);
		damages++;
	} else {
		damage_file(dirfd, name[i], in);
	}
}

static void ask(struct rig_client *client, struct choice *in, uint32_t op)
{
	int r = rig_ask(client, &words, in, op);

	requests++;
	refused += r == 1 && client->error < 0;
}

/* A request about pool `id`: the grammar's decisions, a known id first. */
static int about(struct rig_client *client, uint32_t id, uint32_t op, uint8_t a, uint8_t b)
{
	/* No field is left out; the id is a known one, the first, second, ...; then two more fields. */
	uint8_t decisions[] = { 0, 0, (uint8_t)(id - 1), a, a, b, b };
	struct choice fixed = choice_of(decisions, sizeof(decisions));

	requests++;
	return rig_ask(client, &words, &fixed, op);
}

/* An administrator repairs; what is asked at random is asked by a user, who cannot harm the canary. */
static void use_pool(struct rig_client *client, struct rig_client *owner, uint32_t id, struct choice *in)
{
	rig_words(&words);
	about(client, id, NVMM__REQUEST__OP_POOL_STAT, 0, 0);
	rig_words(&words);
	about(client, id, NVMM__REQUEST__OP_CHECK, 0, 0);
	rig_words(&words);
	if (choose(in, 2))
		about(client, id, NVMM__REQUEST__OP_RECOVER, (uint8_t)choose(in, 2), 1);
	rig_words(&words);
	if (about(client, id, NVMM__REQUEST__OP_POOL_OPEN, 1, 0) == 1 && client->error == 0)
		opened++;
	for (unsigned i = choose(in, 8); i > 0 && owner->sock >= 0; i--)
		ask(owner, in, 0);
}

static void use(struct choice *in)
{
	struct rig_client client, owner;

	fuzz_must(rig_connect(&client, RIG_ROOT, false) && rig_hello(&client, false), "Hello: %d", client.error);
	fuzz_must(rig_connect(&owner, 1, false) && rig_hello(&owner, false), "Hello: %d", owner.error);
	for (uint32_t id = 1; id < RIG_CANARY_HEAP && client.sock >= 0; id++)
		use_pool(&client, &owner, id, in);
	rig_hang_up(&client);
	rig_hang_up(&owner);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct choice in = choice_of(data, len);

	rig_reset();
	if (choose(&in, 2)) /* nobody is left of before */
		rig_forget();
	for (unsigned n = 1 + choose(&in, DAMAGES); n > 0; n--)
		damage_dir(choose(&in, 8) < 7 ? rig_base : rig_runtime, &in);
	fuzz_must(rig_start(), "the daemon does not start");
	rig_canary();
	use(&in);
	rig_canary();
	rig_stop(choose(&in, 2));
	fuzz_must(rig_start(), "the daemon does not start again");
	rig_canary();
	rig_stop(true);
	return 0;
}
