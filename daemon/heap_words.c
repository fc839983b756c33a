/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mapping of shelves for words. A dead client may have left a log in each of thousands of lanes, each with
 * words all over the heap: so a shelf is mapped once a settlement, as long as it is, and not once a word. The
 * engine has checked that the place is in a block, and touches the word inside of its guard: a client may cut
 * the file short at any time.
 *
 * A spare descriptor is kept for the moment in which a shelf is opened. Clients may have brought the daemon to its
 * limit; a heap whose dead cannot be settled would have to be given up, and the next start would serve no better.
 */
#include "daemon/heap_words.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/macro.h"
#include "daemon/pool_files.h"
#include "media/format.h"

static int window_map(struct heap_window *window, int fd)
{
	struct stat st;
	void *base;

	if (fstat(fd, &st) < 0)
		return -errno;
	/* A client may have made it any length; none is mapped that no place can lie in. */
	window->len = MIN((uint64_t)st.st_size, SHELF_SIZE_MAX) & ~(uint64_t)(MEDIA_PAGE - 1);
	if (window->len == 0)
		return -EIO;
	base = mmap(NULL, window->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	window->base = base;
	return 0;
}

/* Takes the spare descriptor, if there is one, for whoever opens next. */
static void spare_lend(struct heap_words *words)
{
	if (words->spare >= 0)
		close(words->spare);
	words->spare = -1;
}

static void spare_fill(struct heap_words *words)
{
	if (words->spare < 0)
		words->spare = fcntl(words->dir, F_DUPFD_CLOEXEC, 0);
}

static int window_open(struct heap_words *words, uint32_t shelf)
{
	int fd, r;

	spare_lend(words);
	r = pool_files_open(&fd, words->dir, words->home, POOL_FILE_SHELF, shelf, O_RDWR);
	if (r == 0) {
		r = window_map(&words->window[shelf], fd);
		close(fd);
	}
	spare_fill(words);
	return r;
}

static int word_map(void *ctx, uint64_t place, m64 **ret)
{
	struct heap_words *words = ctx;
	uint32_t shelf = (uint32_t)(place >> 40) & (POOL_SHELVES_MAX - 1);
	uint64_t offset = place & ((UINT64_C(1) << 40) - 1);
	const struct heap_window *window = &words->window[shelf];
	int r = window->base ? 0 : window_open(words, shelf);

	if (r < 0)
		return r;
	if (offset >= window->len)
		return -EIO; /* cut short */
	*ret = (m64 *)(void *)(window->base + offset);
	return 0;
}

static void words_done(void *ctx)
{
	struct heap_words *words = ctx;

	for (unsigned i = 0; i < POOL_SHELVES_MAX; i++) {
		struct heap_window *window = &words->window[i];

		if (window->base)
			munmap(window->base, window->len);
		*window = (struct heap_window){ .base = NULL };
	}
}

int heap_words_init(struct heap_words *words, int pool_fd, uint16_t home)
{
	int dir = fcntl(pool_fd, F_DUPFD_CLOEXEC, 0);

	if (dir < 0)
		return -errno;
	words->dir = dir;
	words->home = home;
	words->spare = -1;
	spare_fill(words);
	words->words = (struct grant_words){ .map = word_map, .done = words_done, .ctx = words };
	return 0;
}

void heap_words_deinit(struct heap_words *words)
{
	if (words->words.ctx) {
		spare_lend(words);
		close(words->dir);
	}
	words->words.ctx = NULL;
}
