/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Words in a heap's blocks, for settling what a dead process had begun to publish. The daemon maps no data
 * shelf but while it settles logs that have such words.
 */
#pragma once

#include "media/grant.h"

struct heap_window {
	char *base; /* NULL: the shelf is not mapped */
	uint64_t len;
};

struct heap_words {
	int dir; /* of the pool */
	int spare; /* given back while a shelf is opened; -1: none was to be had */
	uint16_t home;
	struct heap_window window[POOL_SHELVES_MAX];
	struct grant_words words; /* ctx is the struct itself */
};

/* `pool_fd` is borrowed for the call. -errno of duplicating it. */
int heap_words_init(struct heap_words *words, int pool_fd, uint16_t home);
void heap_words_deinit(struct heap_words *words);
