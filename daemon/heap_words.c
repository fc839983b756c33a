/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mapping of single words. The engine has checked that the place is in a block, and touches the word inside
 * of its guard: a client may have cut the file short.
 */
#include "daemon/heap_words.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/pool_files.h"
#include "media/format.h"

static int word_map(void *ctx, uint64_t place, m64 **ret)
{
	const struct heap_words *words = ctx;
	uint64_t offset = place & ((UINT64_C(1) << 40) - 1);
	char *page;
	int fd, r;

	r = pool_files_open(&fd, words->dir, words->home, POOL_FILE_SHELF, (uint32_t)(place >> 40) & 255,
			    O_RDWR);
	if (r < 0)
		return r;
	page = mmap(NULL, MEDIA_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    (off_t)(offset & ~(uint64_t)(MEDIA_PAGE - 1)));
	r = page == MAP_FAILED ? -errno : 0;
	close(fd);
	if (r < 0)
		return r;
	*ret = (m64 *)(void *)(page + offset % MEDIA_PAGE);
	return 0;
}

static void word_unmap(void *ctx, m64 *word)
{
	(void)ctx;
	munmap((void *)((uintptr_t)word & ~(uintptr_t)(MEDIA_PAGE - 1)), MEDIA_PAGE);
}

int heap_words_init(struct heap_words *words, int pool_fd, uint16_t home)
{
	int dir = fcntl(pool_fd, F_DUPFD_CLOEXEC, 0);

	if (dir < 0)
		return -errno;
	words->dir = dir;
	words->home = home;
	words->words = (struct grant_words){ .map = word_map, .unmap = word_unmap, .ctx = words };
	return 0;
}

void heap_words_deinit(struct heap_words *words)
{
	if (words->words.ctx)
		close(words->dir);
	words->words.ctx = NULL;
}
