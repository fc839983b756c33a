/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of a shelf base: made whole or not at all, their space reserved before anybody maps them.
 * All belong to the daemon's user, mode 0600, and are opened relative to a directory descriptor
 * with O_NOFOLLOW | O_CLOEXEC. No function here is called by a client.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "media/format.h"

/*
 * Creates `name` under `dirfd` (-EEXIST if it is there) with `size` bytes reserved by fallocate,
 * all zero. -ENOSPC and others of open(2), fallocate(2); nothing is left behind on failure. Where the
 * file system has no fallocate: -EOPNOTSUPP.
 */
int file_create(int *ret, int dirfd, const char *name, uint64_t size);
/* The same with its first `reserved` bytes reserved alone. */
int file_create_sparse(int *ret, int dirfd, const char *name, uint64_t reserved, uint64_t size);

/* The other changes of a directory and of a length. -errno of the system call. */
int file_make_dir(int dirfd, const char *name); /* mode 0700, whatever the umask is */
int file_remove(int dirfd, const char *name);
int file_remove_dir(int dirfd, const char *name);
/* -EEXIST: `to` is there. */
int file_rename(int dirfd, const char *from, const char *to);
int file_cut(int fd, uint64_t size);

/* Opens an existing one; flags O_RDONLY or O_RDWR. -ENOENT; -ELOOP; -EINVAL: not a regular file. */
int file_open(int *ret, int dirfd, const char *name, int flags);

/* Reserves bytes [from, to), extending the file if `to` is behind its end. On -ENOSPC the file is
 * as long as before. */
int file_reserve(int fd, uint64_t from, uint64_t to);
/* The same of a file that others may make longer meanwhile: a failure leaves its length alone, whoever made it. */
int file_reserve_beside(int fd, uint64_t from, uint64_t to);

/*
 * Sets what is asked before each slice of a reservation, in the thread that makes it: 0, or an error that ends
 * it. NULL: nothing is asked. Before there are threads, or when they are gone.
 */
void file_gate_set(int (*admit)(void *ctx, uint64_t bytes), void *ctx);
#define FILE_SLICE (UINT64_C(32) << 20) /* bytes; a multiple of the page and of huge pages */

/* Gives back what is reserved of bytes [from, to), which read as zero then; the file keeps its length. */
int file_punch(int fd, uint64_t from, uint64_t to);

/* Makes the file `size` bytes long without reserving anything: for the files of sparse heaps, whose
 * space is reserved before it is used. */
int file_lengthen(int fd, uint64_t size);

/*
 * Maps `len` bytes shared; with `reserve` > len, address space of `reserve` bytes is set aside, so
 * that the mapping serves the file when it has grown: until then a touch of what is behind the
 * file's end is a SIGBUS. -ENODATA: the file is shorter than `len`; -EINVAL: len 0; of mmap(2).
 */
int file_map(void **ret, int fd, uint64_t len, uint64_t reserve, bool write);
/* The `reserve` that was given, or `len` if that was more. */
void file_unmap(void *addr, uint64_t reserve);

/* fsync: of a file's content, or of the names in a directory. */
int file_sync(int fd);

/* Whether the mapping is persistent memory to libpmem (PMEM_IS_PMEM_FORCE=1 says so in tests). */
bool file_is_pmem(const void *addr, uint64_t len);

/*
 * The strongest durability that a mapped file of this kind can have: POWER on persistent memory
 * (libpmem's word, or the kernel's by MAP_SYNC), PROCESS on tmpfs, else SYNC.
 */
enum durability file_durability(int fd, const void *addr, uint64_t len);

/* Headers. */

/* Fills `h` (media or not) and seals it with its CRC. */
void file_header_seal(struct file_header_df *h, uint64_t magic, uint16_t node, uint16_t pool,
		      uint64_t incarnation, uint32_t index, uint32_t min_block, uint64_t limit);

/*
 * Validates a header; a copy is checked, so that nobody changes it meanwhile. 0, or -EUCLEAN with
 * the reason as a static string in *why: wrong magic, version, CRC, unknown incompat or ro_compat
 * feature, wrong pool, incarnation or index.
 */
int file_header_check(const struct file_header_df *h, uint64_t magic, uint16_t pool,
		      uint64_t incarnation, uint32_t index, const char **why);

/* Whether a header is as it was sealed: what file_header_check() refuses in it is not rot then. */
bool file_header_whole(const struct file_header_df *h);
