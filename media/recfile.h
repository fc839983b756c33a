/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of a header page and two-slot records behind it: registry, meta.<k>, node-<k>. They are
 * small, belong to one daemon, and must be right after any crash. One writer; no client.
 */
#pragma once

#include "media/file.h"

/* What a file must be. */
struct recfile_id {
	const char *name;
	uint64_t magic;
	uint16_t node; /* whose daemon writes it */
	uint16_t pool;
	uint64_t incarnation;
	uint64_t size;    /* bytes of a whole one: a multiple of the page */
	uint64_t reserve; /* bytes to which it may grow; at least `size` */
	bool read_only;   /* mapped for reading: nothing is made durable, no draft removed */
	bool any_node;    /* whichever node made it: the registry */
};

struct recfile {
	int fd;
	char *addr;
	uint64_t length; /* bytes when it was opened */
	uint64_t reserve;
	enum durability durability;
};

/*
 * Makes the file whole or not at all, durable on return. -EEXIST: it is there; -ENOSPC and others
 * of file_create(). What an earlier call that was killed had left is removed first.
 */
int recfile_create(int dirfd, const struct recfile_id *id);

/*
 * Opens and maps it for writing and checks header and length. -ENOENT; -EUCLEAN with the reason as
 * a static string in *why, the file untouched.
 */
int recfile_open(struct recfile *ret, int dirfd, const struct recfile_id *id, const char **why);
void recfile_deinit(struct recfile *file);
