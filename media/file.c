/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of a shelf base.
 *
 * Space is reserved by fallocate(2) alone, never by writing or by a longer size: only then does the
 * kernel promise that a later store finds its page. The files of sparse heaps are long and empty; what
 * of them may be touched is reserved before (media/backing.h). A mapping may be longer than its file; pages
 * behind the end fault until the file has grown to them, and are then there without mapping anew,
 * so addresses stay. It is laid over address space that was set aside at a multiple of 2 MiB, so
 * that the kernel may use huge pages.
 *
 * Where the file system has it (DAX), a mapping is synchronous (MAP_SYNC): the file's own metadata
 * is durable before the first store to a page, so that flushing by instruction is enough.
 *
 * Each system call that changes a name or a length stands behind a point at which a test can kill
 * the process: what changes a shelf base goes through here.
 */
#include "media/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libpmem.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <zlib.h>

#include "common/fd.h"

#define HUGE_PAGE (UINT64_C(2) << 20)

static int create(int *ret, int dirfd, const char *name)
{
	_auto_fd int fd = -1;
	int r;

	media_point_call();
	fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	media_point_call();
	/* The mode is a promise (rights of clients rest on it); the umask is the starter's. */
	r = fchmod(fd, 0600) < 0 ? -errno : 0;
	if (r < 0) {
		file_remove(dirfd, name);
		return r;
	}
	*ret = fd_take(&fd);
	return 0;
}

int file_create(int *ret, int dirfd, const char *name, uint64_t size)
{
	return file_create_sparse(ret, dirfd, name, size, size);
}

int file_create_sparse(int *ret, int dirfd, const char *name, uint64_t reserved, uint64_t size)
{
	_auto_fd int fd = -1;
	int r = create(&fd, dirfd, name);

	if (r < 0)
		return r;
	r = file_reserve(fd, 0, reserved);
	if (r == 0)
		r = file_lengthen(fd, size);
	if (r < 0) {
		file_remove(dirfd, name);
		return r;
	}
	*ret = fd_take(&fd);
	return 0;
}

int file_make_dir(int dirfd, const char *name)
{
	media_point_call();
	if (mkdirat(dirfd, name, 0700) < 0)
		return -errno;
	media_point_call();
	/* The umask may have taken bits away; a name that was made just now is no symbolic link. */
	return fchmodat(dirfd, name, 0700, 0) < 0 ? -errno : 0;
}

int file_remove(int dirfd, const char *name)
{
	media_point_call();
	return unlinkat(dirfd, name, 0) < 0 ? -errno : 0;
}

int file_remove_dir(int dirfd, const char *name)
{
	media_point_call();
	return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int file_rename(int dirfd, const char *from, const char *to)
{
	struct stat st;

	media_point_call();
	if (renameat2(dirfd, from, dirfd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* The file system cannot; the base's lock keeps others away in between. */
	if (fstatat(dirfd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(dirfd, from, dirfd, to) < 0 ? -errno : 0;
}

int file_cut(int fd, uint64_t size)
{
	media_point_call();
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int file_open(int *ret, int dirfd, const char *name, int flags)
{
	_auto_fd int fd = -1;
	struct stat st;

	/* O_NONBLOCK: what stands there may be a FIFO, whose open would wait for a peer */
	fd = openat(dirfd, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == ENXIO || errno == ENODEV || errno == EISDIR ? -EINVAL : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*ret = fd_take(&fd);
	return 0;
}

/* Who decides about each slice of a reservation. */
static struct {
	int (*admit)(void *ctx, uint64_t bytes);
	void *ctx;
} gate;

void file_gate_set(int (*admit)(void *ctx, uint64_t bytes), void *ctx)
{
	gate.admit = admit;
	gate.ctx = ctx;
}

static int reserve_slice(int fd, uint64_t from, uint64_t to)
{
	int r = gate.admit ? gate.admit(gate.ctx, to - from) : 0;

	if (r < 0)
		return r;
	media_point_call();
	do
		r = fallocate(fd, 0, (off_t)from, (off_t)(to - from)) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r;
}

int file_reserve_beside(int fd, uint64_t from, uint64_t to)
{
	int r = 0;

	if (from > to)
		return -EINVAL;
	if (to > INT64_MAX)
		return -EFBIG;
	/* Slices end at multiples of their length, so that none begins within a huge page. */
	for (uint64_t end; r == 0 && from < to; from = end) {
		end = MIN(to, ALIGN_UP(from + 1, FILE_SLICE));
		r = reserve_slice(fd, from, end);
	}
	return r;
}

int file_reserve(int fd, uint64_t from, uint64_t to)
{
	struct stat before, after;
	int r;

	if (fstat(fd, &before) < 0)
		return -errno;
	r = file_reserve_beside(fd, from, to);
	if (r == 0)
		return 0;
	/* Some file systems keep what they had got before the space ran out. */
	if (fstat(fd, &after) == 0 && after.st_size > before.st_size) {
		int cut = file_cut(fd, (uint64_t)before.st_size);

		if (cut < 0)
			return cut;
	}
	return r;
}

int file_punch(int fd, uint64_t from, uint64_t to)
{
	int r;

	media_point_call();
	do
		r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
			      (off_t)(to - from)) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r;
}

int file_lengthen(int fd, uint64_t size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size < size ? file_cut(fd, size) : 0;
}

/* Address space without memory, aligned for huge pages if it can hold one. */
static int set_aside(char **ret, uint64_t len)
{
	uint64_t align = len >= HUGE_PAGE ? HUGE_PAGE : MEDIA_PAGE;
	uint64_t slack = align == HUGE_PAGE ? align : 0;
	char *base, *start;

	base = mmap(NULL, len + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (base == MAP_FAILED)
		return -errno;
	start = (char *)ALIGN_UP((uintptr_t)base, align);
	if (start > base)
		munmap(base, (size_t)(start - base));
	if (start + len < base + len + slack)
		munmap(start + len, (size_t)(base + slack - start));
	*ret = start;
	return 0;
}

/* Lays the file over [addr, addr + len), synchronously where it is persistent memory. */
static int lay_over(char *addr, int fd, uint64_t len, int prot)
{
	void *p;

	p = mmap(addr, len, prot, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, fd, 0);
	if (p == MAP_FAILED)
		p = mmap(addr, len, prot, MAP_SHARED | MAP_FIXED, fd, 0);
	return p == MAP_FAILED ? -errno : 0;
}

int file_map(void **ret, int fd, uint64_t len, uint64_t reserve, bool write)
{
	int prot = write ? PROT_READ | PROT_WRITE : PROT_READ, r;
	char *addr = NULL;
	struct stat st;

	reserve = MAX(len, reserve);
	if (len == 0 || reserve > INT64_MAX - HUGE_PAGE)
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size < len)
		return -ENODATA;
	reserve = ALIGN_UP(reserve, MEDIA_PAGE);
	r = set_aside(&addr, reserve);
	if (r < 0)
		return r;
	r = lay_over(addr, fd, reserve, prot);
	if (r < 0) {
		munmap(addr, reserve);
		return r;
	}
	*ret = addr;
	return 0;
}

void file_unmap(void *addr, uint64_t reserve)
{
	if (addr)
		munmap(addr, ALIGN_UP(reserve, MEDIA_PAGE));
}

int file_sync(int fd)
{
	media_point_call();
	return fsync(fd) < 0 ? -errno : 0;
}

bool file_is_pmem(const void *addr, uint64_t len)
{
	return pmem_is_pmem(addr, len) == 1;
}

/* Whether file_map() got a synchronous mapping of this file. */
static bool maps_sync(int fd)
{
	void *p = mmap(NULL, MEDIA_PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, MEDIA_PAGE);
	return true;
}

enum durability file_durability(int fd, const void *addr, uint64_t len)
{
	struct statfs fs;

	if (file_is_pmem(addr, len) || maps_sync(fd))
		return DURABILITY_POWER;
	if (fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
		return DURABILITY_PROCESS;
	return DURABILITY_SYNC;
}

union header_copy {
	uint64_t word[sizeof(struct file_header_df) / sizeof(uint64_t)];
	struct file_header_df header;
};

static uint32_t header_crc(union header_copy copy)
{
	memset((char *)copy.word + offsetof(struct file_header_df, crc), 0, sizeof(uint32_t));
	return (uint32_t)crc32(0, (const Bytef *)copy.word, sizeof(copy.word));
}

void file_header_seal(struct file_header_df *h, uint64_t magic, uint16_t node, uint16_t pool,
		      uint64_t incarnation, uint32_t index, uint32_t min_block, uint64_t limit)
{
	union header_copy copy = {
		.header = {
			.magic = { magic },
			.version = { MEDIA_VERSION },
			.node = { node },
			.pool = { pool },
			.incarnation = { incarnation },
			.index = { index },
			.min_block = { min_block },
			.limit = { limit },
		},
	};
	uint32_t crc = header_crc(copy);

	memcpy((char *)copy.word + offsetof(struct file_header_df, crc), &crc, sizeof(crc));
	media_copy(h, copy.word, sizeof(copy.word));
}

static const char *header_why(const union header_copy *copy, uint64_t magic, uint16_t pool,
			      uint64_t incarnation, uint32_t index)
{
	const struct file_header_df *h = &copy->header;

	if (h->magic.raw != magic)
		return "wrong magic number: the file is not what its name says, or its header "
		       "is damaged";
	if (h->crc.raw != header_crc(*copy))
		return "wrong checksum of the header";
	if (h->version.raw != MEDIA_VERSION)
		return "unknown format version: made by another release";
	if (h->incompat.raw != 0 || h->ro_compat.raw != 0)
		return "unknown feature: made by a newer release";
	if (h->pool.raw != pool)
		return "header of another pool";
	if (h->incarnation.raw != incarnation)
		return "header of an earlier pool of this id";
	if (h->index.raw != index)
		return "header of another shelf";
	return NULL;
}

static union header_copy header_load(const struct file_header_df *h)
{
	const m64 *from = (const m64 *)(const void *)h;
	union header_copy copy;

	for (size_t i = 0; i < ARRAY_SIZE(copy.word); i++)
		copy.word[i] = media_load64(&from[i]);
	return copy;
}

bool file_header_whole(const struct file_header_df *h)
{
	union header_copy copy = header_load(h);

	return copy.header.magic.raw != 0 && copy.header.crc.raw == header_crc(copy);
}

int file_header_check(const struct file_header_df *h, uint64_t magic, uint16_t pool,
		      uint64_t incarnation, uint32_t index, const char **why)
{
	union header_copy copy = header_load(h);
	const char *reason;

	reason = header_why(&copy, magic, pool, incarnation, index);
	if (!reason)
		return 0;
	*why = reason;
	return -EUCLEAN;
}
