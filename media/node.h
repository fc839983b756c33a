/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * node-<k>: what the daemon of node k left behind: the clean mark, set last of all at an orderly
 * stop and taken away before the first change after a start.
 */
#pragma once

#include "media/format.h"

struct node_record {
	uint16_t node;
	bool clean;
	uint64_t starts;
	uint8_t boot_id[16];
	uint64_t last_stop; /* seconds since 1970 */
	char name[64];
	uint64_t owners; /* no owner number from here on was given out; see doc/locks.md */
};

struct node_file;

/* Opens or creates node-<k>; *ret_record is what was left (starts 0: nothing). -EUCLEAN + *why. */
int node_file_new(struct node_file **ret, struct node_record *ret_record, int base_fd,
		  uint16_t node, const char **why);
void node_file_free(struct node_file *file);

int node_file_put(struct node_file *file, const struct node_record *record);
