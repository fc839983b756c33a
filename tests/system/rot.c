/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/system/rot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

int rot_ctl(struct harness *h, char *out, size_t room, const char *a, const char *b, const char *c, const char *d)
{
	const char *const argv[] = { "ctl/nvmmctl", a, b, c, d, NULL };

	return harness_command(h, out, room, argv);
}

/* A command on one pool: its exit code. */
int rot_ctl_pool(struct harness *h, char *out, size_t room, nvmm_pool_id id, const char *a, const char *b,
		    const char *c)
{
	char number[16];

	snprintf(number, sizeof(number), "%u", id);
	return b ? rot_ctl(h, out, room, a, b, c ? c : number, c ? number : NULL) :
		   rot_ctl(h, out, room, a, number, NULL, NULL);
}

nvmm_pool_id rot_make(struct nvmm_client *nvmm, nvmm_pool_id id, bool sparse)
{
	struct nvmm_pool_options options = { .size = sizeof(options), .sparse = sparse };
	int r = nvmm_heap_create(nvmm, &id, 4 * MIB, &options);

	must(r == 0, "create: %s", nvmm_errmsg(nvmm));
	return id;
}

void rot_spoil_bytes(int fd, const struct row *row)
{
	uint8_t *bytes = calloc(1, row->len);
	off_t at = row->at;

	if (at >= RECORDS) {
		struct file_header_df header;
		struct state_layout layout;

		ck_assert_int_eq(pread(fd, &header, sizeof(header), 0), sizeof(header));
		ck_assert_int_eq(state_layout_init(&layout, header.min_block.raw), 0);
		at += (off_t)(state_records_offset(header.limit.raw) + layout.stride) - RECORDS;
	}
	if (row->damage != ZERO) {
		must(pread(fd, bytes, row->len, at) == (ssize_t)row->len, "read");
		for (size_t i = 0; i < row->len; i++)
			bytes[i] ^= row->damage == FLIP ? 0xff : 0x01;
	}
	must(pwrite(fd, bytes, row->len, at) == (ssize_t)row->len, "write");
	free(bytes);
}

static void lengthen(int fd, size_t len)
{
	off_t end = lseek(fd, 0, SEEK_END);
	uint8_t *bytes = malloc(len);

	memset(bytes, 0xa5, len);
	must(end >= 0 && pwrite(fd, bytes, len, end) == (ssize_t)len, "write");
	free(bytes);
}

void rot_spoil(struct harness *h, const struct victim *v, const char *file, struct row row)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/pool-%u/%s", h->base, v->id, file);
	if (strcmp(file, REGISTRY) == 0) {
		snprintf(path, sizeof(path), "%s/%s", h->base, file);
		row.at += (long)offsetof(struct registry_file_df, entry) +
			  v->id * (long)sizeof(struct registry_entry_df);
	}
	if (row.damage == GONE) {
		ck_assert_int_eq(unlink(path), 0);
		return;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	must(fd >= 0, "%s: %s", path, strerror(errno));
	if (row.damage == CUT)
		ck_assert_int_eq(ftruncate(fd, row.at), 0);
	else if (row.damage == LONG)
		lengthen(fd, row.len);
	else
		rot_spoil_bytes(fd, &row);
	close(fd);
}

/* Allocates until nothing is left: none of it may be what was allocated before. */
void rot_expect_kept(struct harness *h, const struct victim *v, unsigned row)
{
	struct nvmm_client *nvmm = harness_connect(h);
	struct nvmm_heap *heap = harness_open(nvmm, v->id);
	nvmm_ptr ptr;

	for (unsigned n = 0; n < 1000 && (ptr = nvmm_alloc(heap, 16 + n * 7 % 3000)); n++) {
		for (unsigned k = 0; k < BLOCKS; k++)
			must(ptr != v->live[k], "row %u: block %u is given twice", row, k);
		must(ptr << 16 != 0, "row %u: a block is at offset 0", row);
	}
	nvmm_disconnect(nvmm);
}
