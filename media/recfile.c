/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of header and two-slot records.
 *
 * A file is made under a draft's name, reserved, sealed, synced, and only then renamed: whatever
 * carries the real name was whole once. So a header that is not right is damage, never a creation
 * that was cut short, and is refused without touching the file. Drafts have one fixed name for
 * each file, which the next creation or opening removes; only the daemon that holds the base's
 * lock makes any.
 *
 * Durability is the strongest that the file's medium has, whatever the pool was promised: an
 * acknowledged creation should not be lost with the power where the medium can help it. What a
 * daemon stored before it was killed is made durable at opening, before anybody acts on it.
 */
#include "media/recfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

#define DRAFT_NAME_MAX 64

static void draft_name(char name[DRAFT_NAME_MAX], const struct recfile_id *id)
{
	snprintf(name, DRAFT_NAME_MAX, ".%s.new", id->name);
}

static int seal(int fd, const struct recfile_id *id)
{
	void *addr = NULL;
	int r;

	r = file_map(&addr, fd, MEDIA_PAGE, 0, true);
	if (r < 0)
		return r;
	file_header_seal(addr, id->magic, id->node, id->pool, id->incarnation, 0, 0, 0);
	/* Persistent memory: the header is in the caches, where fsync(2) of DAX finds it too. */
	file_unmap(addr, MEDIA_PAGE);
	return file_sync(fd);
}

/* Gives the draft its name if nothing has it. */
static int publish(int dirfd, const char *draft, const char *name)
{
	int r = file_rename(dirfd, draft, name);

	return r < 0 ? r : file_sync(dirfd);
}

int recfile_create(int dirfd, const struct recfile_id *id)
{
	char draft[DRAFT_NAME_MAX];
	_auto_fd int fd = -1;
	int r;

	draft_name(draft, id);
	file_remove(dirfd, draft);
	r = file_create(&fd, dirfd, draft, id->size);
	if (r < 0)
		return r;
	r = seal(fd, id);
	/*
	 * COMMIT: the rename makes the file exist.
	 *   crash before: a draft, which the next opening or creation removes.
	 *   crash after:  the file, whole: it was synced in seal().
	 *   durable:      the directory is synced before the return.
	 */
	if (r == 0)
		r = publish(dirfd, draft, id->name);
	if (r < 0)
		file_remove(dirfd, draft);
	return r;
}

/* What the header page holds besides the header is zero as long as no feature uses it. */
static bool padding_is_zero(const char *page)
{
	const m64 *word = (const m64 *)(const void *)page;
	uint64_t any = 0;

	for (size_t i = sizeof(struct file_header_df) / 8; i < MEDIA_PAGE / 8; i++)
		any |= media_load64(&word[i]);
	return any == 0;
}

static int check(const struct recfile *file, const struct recfile_id *id, const char **why)
{
	const struct file_header_df *header = (const void *)file->addr;
	int r;

	r = file_header_check(header, id->magic, id->pool, id->incarnation, 0, why);
	if (r < 0)
		return r;
	if (!id->any_node && media_load16(&header->node) != id->node) {
		*why = "header of another node";
		return -EUCLEAN;
	}
	if (media_load32(&header->compat) == 0 && !padding_is_zero(file->addr)) {
		*why = "bytes behind the header that should be zero are not";
		return -EUCLEAN;
	}
	return 0;
}

static int open_length(struct recfile *file, const struct recfile_id *id, const char **why)
{
	struct stat st;

	if (fstat(file->fd, &st) < 0)
		return -errno;
	file->length = (uint64_t)st.st_size;
	if (file->length < id->size) {
		*why = "the file was cut short";
		return -EUCLEAN;
	}
	return 0;
}

static int open_steps(struct recfile *file, int dirfd, const struct recfile_id *id,
		      const char **why)
{
	void *addr = NULL;
	int r;

	r = file_open(&file->fd, dirfd, id->name, id->read_only ? O_RDONLY : O_RDWR);
	if (r < 0)
		return r;
	r = open_length(file, id, why);
	if (r < 0)
		return r;
	r = file_map(&addr, file->fd, id->size, id->reserve, !id->read_only);
	if (r < 0)
		return r;
	file->addr = addr;
	file->reserve = MAX(id->size, id->reserve);
	r = check(file, id, why);
	if (r < 0 || id->read_only)
		return r;
	file->durability = file_durability(file->fd, file->addr, id->size);
	return media_sync(file->durability, file->addr, id->size);
}

int recfile_open(struct recfile *ret, int dirfd, const struct recfile_id *id, const char **why)
{
	struct recfile file = { .fd = -1 };
	char draft[DRAFT_NAME_MAX];
	int r;

	draft_name(draft, id);
	if (!id->read_only)
		file_remove(dirfd, draft);
	r = open_steps(&file, dirfd, id, why);
	if (r < 0) {
		recfile_deinit(&file);
		return r;
	}
	*ret = file;
	return 0;
}

void recfile_deinit(struct recfile *file)
{
	file_unmap(file->addr, file->reserve);
	fd_close_p(&file->fd);
	file->addr = NULL;
}
