/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories are made under one root that the runner, not the forked test, makes and removes: a
 * test that fails or crashes leaves nothing.
 */
#include "tests/unit/tempdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/suite.h"

static char root[PATH_MAX];
static char root_on_disk[] = "nvmmd-test-XXXXXX"; /* in the directory that the test runs in */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static const char *base(void)
{
	const char *tmpdir = getenv("TMPDIR");

	if (tmpdir && tmpdir[0] == '/')
		return tmpdir;
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

int tempdir_run_suite(Suite *suite)
{
	int status;

	snprintf(root, sizeof(root), "%s/nvmmd-test-XXXXXX", base());
	if (!mkdtemp(root) || !mkdtemp(root_on_disk)) {
		perror(root);
		return 99;
	}
	status = suite_run(suite);
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	nftw(root_on_disk, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return status;
}

static int new_under(const char *parent, const char **ret_path)
{
	static char path[PATH_MAX + 8];
	int fd;

	snprintf(path, sizeof(path), "%s/XXXXXX", parent);
	ck_assert_ptr_nonnull(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	if (ret_path)
		*ret_path = path;
	return fd;
}

int tempdir_new(const char **ret_path)
{
	return new_under(root, ret_path);
}

int tempdir_on_disk(void)
{
	return new_under(root_on_disk, NULL);
}

int tempdir_small(size_t bytes)
{
	const char *path;
	char options[32];
	int fd;

	close(tempdir_new(&path));
	snprintf(options, sizeof(options), "size=%zu", bytes);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", path, "tmpfs", 0, options) < 0)
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

char *tempdir_read(int dirfd, const char *name, size_t *ret_len)
{
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *data;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	data = malloc((size_t)st.st_size + 1);
	ck_assert_ptr_nonnull(data);
	ck_assert_int_eq(pread(fd, data, (size_t)st.st_size, 0), st.st_size);
	close(fd);
	*ret_len = (size_t)st.st_size;
	return data;
}

void tempdir_flip(int dirfd, const char *name, size_t offset)
{
	int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC);
	char byte;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &byte, 1, (off_t)offset), 1);
	byte ^= 0x20;
	ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
	close(fd);
}

size_t tempdir_count(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fdopendir(fd);
	struct dirent *entry;
	size_t n = 0;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir)))
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(dir);
	return n;
}
