/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts. The media backend of a test that is built with NVMM_MEDIA_POINTS: it knows of each
 * 8-byte word of one shared mapping which values the medium may hold. A store is pending until its
 * line is flushed and a drain follows; until then the medium has the word's drained value or that of
 * any pending store, whatever other words have.
 *
 * It lives in shared memory: a child works, dies at a point, and the parent makes the images that the
 * medium may have then. One thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cut;

/* Watches [addr, addr + len), a shared mapping, all of which counts as drained, and becomes the media
 * backend. */
struct cut *cut_new(void *addr, size_t len);
void cut_free(struct cut *cut);

/* Runs fn(arg) in a child that stops just before its k-th point, from 0; negative: it does not. Whether it did. */
bool cut_run(struct cut *cut, long k, void (*fn)(void *arg), void *arg);

/* What stands in the mapping is drained: the machine is on again. */
void cut_settle(struct cut *cut);
/* Words that the medium may not have as they are. */
size_t cut_pending(struct cut *cut);

/* Files: who stores may have them mapped elsewhere, and is not alone */

/*
 * Looks [addr, addr + len) of the watched mapping through at each point, for what changed unannounced: `own`: plain
 * stores of the program, which are pending from then on; else another process's, which counts as drained.
 */
void cut_scan(struct cut *cut, const void *addr, size_t len, bool own);
/* `place` tells where in the watched mapping an address is that was stored to or flushed, or NULL; `at` is called at
 * each point. Either may be NULL. */
void cut_hook(struct cut *cut, const void *(*place)(const void *addr), void (*at)(void));

/* Images */

struct cut_images;

/* Of what the medium may hold now: all of them if they are at most `most`, else a sample that has those
 * without any pending store, with all of them, and with one word of its own kind. */
struct cut_images *cut_images_new(struct cut *cut, uint64_t seed, unsigned most);
void cut_images_free(struct cut_images *images);
/* Writes the next image to the mapping, and settles; false: there is none. */
bool cut_images_next(struct cut_images *images);
/* Writes it to `to`, which is as long; what is watched stays as it is. */
bool cut_images_copy(struct cut_images *images, void *to);
