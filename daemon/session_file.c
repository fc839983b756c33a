/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Session files.
 *
 * A file is a fixed head, then for each open pool a fixed record and its lane numbers. It is
 * written under another name and renamed, so that a killed daemon leaves the old one or the new
 * one; the CRC tells rot, and a file of another version of this struct. Nothing is synced: the
 * directory is on tmpfs and what it says is meaningless after a boot, which the boot id proves.
 *
 * Only the daemon's user can write here, but the reader checks all the same: lengths before
 * loops, so that a wrong file costs its own session and no more.
 */
#include "daemon/session_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "common/text.h"
#include "media/format.h"

#define SESSION_FILE_MAGIC UINT64_C(0x33737365736d766e) /* "nvmsess3" */
#define SESSION_FILE_MAX (UINT32_C(64) << 20)

struct session_head {
	uint64_t magic;
	uint32_t crc; /* of the whole file with this field zero */
	uint32_t len; /* of the whole file */
	uint64_t id;
	uint64_t start;
	int64_t since;
	uint64_t last_seq;
	uint64_t done_seq;
	uint64_t done_incarnation;
	uint8_t boot_id[BOOT_ID_LEN];
	uint8_t cookie[SESSION_COOKIE_LEN];
	uint32_t pid;
	uint32_t uid;
	uint32_t gid;
	uint32_t n_pools;
	uint32_t done_pool;
	uint32_t epochs;
	char name[SESSION_NAME_MAX + 1];
};
_Static_assert(sizeof(struct session_head) == 184, "no padding");

struct session_entry {
	uint64_t incarnation;
	uint32_t n_lanes;
	uint16_t pool;
	uint8_t read;
	uint8_t write;
};
_Static_assert(sizeof(struct session_entry) == 16, "no padding");

static void session_file_name(char buf[32], uint64_t id)
{
	snprintf(buf, 32, "session-%" PRIu64, id);
}

int session_file_id(uint64_t *ret, const char *name)
{
	static const char prefix[] = "session-";
	uint64_t id;

	if (strncmp(name, prefix, sizeof(prefix) - 1) != 0)
		return -EINVAL;
	if (text_parse_u64(&id, name + sizeof(prefix) - 1, UINT64_MAX) < 0 || id == 0)
		return -EINVAL;
	*ret = id;
	return 0;
}

/* Writes one pool behind what is there; returns where the next one goes. */
static char *encode_pool(char *p, const struct session_pool *pool)
{
	struct session_entry entry = {
		.incarnation = pool->incarnation,
		.n_lanes = pool->n_lanes,
		.pool = pool->pool,
		.read = pool->read,
		.write = pool->write,
	};
	size_t lanes = pool->n_lanes * sizeof(uint32_t);

	memcpy(p, &entry, sizeof(entry));
	if (lanes > 0)
		memcpy(p + sizeof(entry), pool->lanes, lanes);
	return p + sizeof(entry) + lanes;
}

static void encode_head(struct session_head *head, const struct session_image *s, size_t len)
{
	*head = (struct session_head){
		.magic = SESSION_FILE_MAGIC,
		.len = (uint32_t)len,
		.id = s->id,
		.start = s->process.start,
		.since = s->since,
		.last_seq = s->last_seq,
		.done_seq = s->done.seq,
		.done_incarnation = s->done.incarnation,
		.done_pool = s->done.pool,
		.pid = (uint32_t)s->process.pid,
		.uid = s->uid,
		.gid = s->gid,
		.n_pools = s->n_pools,
		.epochs = s->epochs,
	};
	memcpy(head->boot_id, s->boot_id, BOOT_ID_LEN);
	memcpy(head->cookie, s->cookie, SESSION_COOKIE_LEN);
	memcpy(head->name, s->name, sizeof(head->name));
}

/* Packs the image into one buffer, owned by the caller. */
static int image_encode(char **ret, uint32_t *ret_len, const struct session_image *s)
{
	size_t len = sizeof(struct session_head);
	struct session_head head;
	char *buf, *p;

	for (uint32_t i = 0; i < s->n_pools; i++)
		len += sizeof(struct session_entry) + s->pools[i].n_lanes * sizeof(uint32_t);
	if (len > SESSION_FILE_MAX)
		return -EFBIG;
	buf = malloc(len);
	if (!buf)
		return -ENOMEM;
	p = buf + sizeof(head);
	for (uint32_t i = 0; i < s->n_pools; i++)
		p = encode_pool(p, &s->pools[i]);
	encode_head(&head, s, len);
	memcpy(buf, &head, sizeof(head));
	head.crc = (uint32_t)crc32(0, (const Bytef *)buf, (uInt)len);
	memcpy(buf, &head, sizeof(head));
	*ret = buf;
	*ret_len = (uint32_t)len;
	return 0;
}

static int write_all(int fd, const char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_file(int dirfd, const char *name, const char *buf, size_t len)
{
	static const char temp[] = ".session.new";
	int fd, r;

	media_point_call();
	fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	media_point_call();
	r = fchmod(fd, 0600) < 0 ? -errno : write_all(fd, buf, len);
	if (close(fd) < 0 && r == 0)
		r = -errno;
	media_point_call();
	if (r == 0 && renameat(dirfd, temp, dirfd, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dirfd, temp, 0);
	return r;
}

int session_file_write(int runtime_fd, const struct session_image *image)
{
	char name[32], *buf;
	uint32_t len;
	int r;

	r = image_encode(&buf, &len, image);
	if (r < 0)
		return r;
	session_file_name(name, image->id);
	r = write_file(runtime_fd, name, buf, len);
	free(buf);
	return r;
}

void session_image_free(struct session_image *image)
{
	if (!image)
		return;
	for (uint32_t i = 0; image->pools && i < image->n_pools; i++)
		free(image->pools[i].lanes);
	free(image->pools);
	free(image);
}

/* Whether the lengths that stand in the buffer fit into it, so that decoding needs no checks. */
static bool entries_fit(const char *p, size_t left, uint32_t n)
{
	struct session_entry entry;

	for (; n > 0; n--) {
		if (left < sizeof(entry))
			return false;
		memcpy(&entry, p, sizeof(entry));
		left -= sizeof(entry);
		if (entry.pool == 0 || entry.n_lanes > LANES_MAX || entry.read > 1 ||
		    entry.write > 1 || left < entry.n_lanes * sizeof(uint32_t))
			return false;
		left -= entry.n_lanes * sizeof(uint32_t);
		p += sizeof(entry) + entry.n_lanes * sizeof(uint32_t);
	}
	return left == 0;
}

static int decode_pools(struct session_image *image, const char *p, uint32_t n)
{
	image->pools = calloc(n ? n : 1, sizeof(*image->pools));
	if (!image->pools)
		return -ENOMEM;
	image->n_pools = n;
	for (uint32_t i = 0; i < n; i++) {
		struct session_pool *pool = &image->pools[i];
		struct session_entry entry;

		memcpy(&entry, p, sizeof(entry));
		p += sizeof(entry);
		*pool = (struct session_pool){ .pool = entry.pool,
					       .read = entry.read,
					       .write = entry.write,
					       .n_lanes = entry.n_lanes,
					       .incarnation = entry.incarnation };
		if (entry.n_lanes == 0)
			continue;
		pool->lanes = malloc(entry.n_lanes * sizeof(uint32_t));
		if (!pool->lanes) {
			pool->n_lanes = 0;
			return -ENOMEM;
		}
		memcpy(pool->lanes, p, entry.n_lanes * sizeof(uint32_t));
		p += entry.n_lanes * sizeof(uint32_t);
	}
	return 0;
}

static int image_decode(struct session_image **ret, char *buf, size_t len)
{
	_auto(session_image_free) struct session_image *image = NULL;
	struct session_head head;
	uint32_t crc;
	int r;

	if (len < sizeof(head))
		return -EUCLEAN;
	memcpy(&head, buf, sizeof(head));
	crc = take(head.crc);
	memcpy(buf, &head, sizeof(head));
	if (head.magic != SESSION_FILE_MAGIC || head.len != len ||
	    crc != (uint32_t)crc32(0, (const Bytef *)buf, (uInt)len) || head.id == 0 ||
	    head.pid == 0 || head.pid > INT32_MAX || head.done_pool > POOL_ID_MAX || head.epochs > 1 ||
	    strnlen(head.name, sizeof(head.name)) == sizeof(head.name) ||
	    !entries_fit(buf + sizeof(head), len - sizeof(head), head.n_pools))
		return -EUCLEAN;
	image = calloc(1, sizeof(*image));
	if (!image)
		return -ENOMEM;
	image->id = head.id;
	image->process = (struct process_id){ (pid_t)head.pid, head.start };
	image->uid = head.uid;
	image->gid = head.gid;
	image->since = head.since;
	image->epochs = (uint8_t)head.epochs;
	image->last_seq = head.last_seq;
	image->done = (struct session_done){ head.done_seq, head.done_incarnation,
					     (uint16_t)head.done_pool };
	memcpy(image->boot_id, head.boot_id, BOOT_ID_LEN);
	memcpy(image->cookie, head.cookie, SESSION_COOKIE_LEN);
	memcpy(image->name, head.name, sizeof(image->name));
	r = decode_pools(image, buf + sizeof(head), head.n_pools);
	if (r < 0)
		return r;
	*ret = take(image);
	return 0;
}

int session_file_read(struct session_image **ret, int runtime_fd, const char *name)
{
	struct stat st;
	char *buf = NULL;
	ssize_t n = 0;
	int fd, r = 0;

	fd = openat(runtime_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (!S_ISREG(st.st_mode) || st.st_size > SESSION_FILE_MAX)
		r = -EUCLEAN;
	else if (!(buf = malloc((size_t)st.st_size + 1)))
		r = -ENOMEM;
	else if ((n = read(fd, buf, (size_t)st.st_size)) < 0)
		r = -errno;
	close(fd);
	if (r == 0)
		r = image_decode(ret, buf, (size_t)n);
	free(buf);
	return r;
}

int session_file_remove(int runtime_fd, uint64_t id)
{
	char name[32];

	session_file_name(name, id);
	media_point_call();
	return unlinkat(runtime_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" */
static int parse_uuid(uint8_t ret[BOOT_ID_LEN], const char *text)
{
	unsigned n = 0;

	for (const char *p = text; n < 2 * BOOT_ID_LEN && *p; p++) {
		const char *hex = "0123456789abcdef";
		const char *digit = *p == '-' ? NULL : strchr(hex, *p);

		if (*p == '-')
			continue;
		if (!digit)
			return -EBADMSG;
		ret[n / 2] = (uint8_t)((n % 2 ? ret[n / 2] << 4 : 0) | (digit - hex));
		n++;
	}
	return n == 2 * BOOT_ID_LEN ? 0 : -EBADMSG;
}

const char *boot_id_path = "/proc/sys/kernel/random/boot_id";

int boot_id_read(uint8_t ret[BOOT_ID_LEN])
{
	char buf[64] = "";
	ssize_t n;
	int fd;

	fd = open(boot_id_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	return n < 0 ? -EIO : parse_uuid(ret, buf);
}
