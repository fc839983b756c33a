/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The program stops itself by SIGSTOP, and the test knows of it by waitpid(): so neither looks while the other stores.
 * The daemon is stopped as well while what is in the files is taken, so that it is of one moment.
 */
#include "tests/crash/machine.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/macro.h"
#include "media/format.h"
#include "media/store.h"
#include "tests/crash/cut.h"
#include "tests/crash/points.h"

#define TRIED_MAX 65536u
#define AREAS 32u
#define SHELF 0u /* the file that has the program's bytes */

static const char *const names[MACHINE_FILES] = { "shelf-0", "state-0", "lanes.1", "table-0.1", "meta.1" };

/* The machine that runs; in the program, what of it is mapped where. */
static struct machine *the;
static struct area {
	uintptr_t from, to, at; /* `at`: in `words` */
} areas[AREAS];
static unsigned n_areas;

/* Files */

static uint64_t length_of(const char *path)
{
	struct stat st;

	ck_assert_msg(stat(path, &st) == 0, "%s: %m", path);
	return ((uint64_t)st.st_size + MEDIA_PAGE - 1) & ~(uint64_t)(MEDIA_PAGE - 1);
}

static char *reserve_area(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

static void map_file(void *at, const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "%s: %m", path);
	ck_assert_ptr_eq(mmap(at, length_of(path), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), at);
	close(fd);
}

static void file_path(char *buf, size_t room, const struct harness *h, nvmm_pool_id id, unsigned i)
{
	snprintf(buf, room, "%s/pool-%u/%s", h->base, id, names[i]);
}

static void copy_base(const char *to, const char *from)
{
	char command[700];

	snprintf(command, sizeof(command), "rm -rf %s && cp -a %s %s", to, from, to);
	ck_assert_int_eq(system(command), 0);
}

/* The second machine has what the first one had when the program began. */
static void duplicate(struct machine *m)
{
	char path[512];

	copy_base(m->there.base, m->here.base);
	m->image = reserve_area(m->bytes);
	for (unsigned i = 0; i < MACHINE_FILES; i++) {
		file_path(path, sizeof(path), &m->there, m->id, i);
		map_file(m->image + m->file[i].at, path);
	}
}

/* In the program: where an address of its own is in `words` */

static void areas_read(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long from, to, offset;
	char line[700], path[512];

	if (!f)
		abort();
	n_areas = 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %511s", &from, &to, &offset, path) != 4)
			continue;
		for (unsigned i = 0; i < MACHINE_FILES; i++)
			if (strcmp(path, the->file[i].path) == 0 &&
			    from != (uintptr_t)the->words + the->file[i].at) {
				if (n_areas == AREAS)
					abort();
				areas[n_areas++] = (struct area){
					from, to, (uintptr_t)the->words + the->file[i].at + offset };
			}
	}
	fclose(f);
}

static const void *place_known(const void *addr)
{
	uintptr_t a = (uintptr_t)addr;

	for (unsigned i = 0; i < n_areas; i++)
		if (a >= areas[i].from && a < areas[i].to)
			return (const void *)(areas[i].at + (a - areas[i].from));
	return NULL;
}

/* What is not known may have been mapped since. */
static const void *place(const void *addr)
{
	const void *at = place_known(addr);

	if (at)
		return at;
	areas_read();
	return place_known(addr);
}

static void at_point(void)
{
	struct machine_state *s = the->state;

	if (!s->begun || s->ended)
		return;
	if (s->points++ % s->step == s->offset)
		raise(SIGSTOP);
}

void machine_begin(struct machine *m)
{
	raise(SIGSTOP);
	m->state->begun = true;
}

void machine_end(struct machine *m)
{
	m->state->ended = true;
	raise(SIGSTOP);
}

/* Machines */

void machine_init(struct machine *m)
{
	*m = (struct machine){ 0 };
	ck_assert_int_eq(setenv("PMEM_IS_PMEM_FORCE", "1", 1), 0);
	harness_init(&m->here, NULL);
	harness_init(&m->there, NULL);
	m->there.program = NVMMD_POINTS_PATH;
	harness_start(&m->here);
	m->state = harness_shared(sizeof(*m->state));
	m->tried = calloc(TRIED_MAX, sizeof(*m->tried));
	ck_assert_ptr_nonnull(m->tried);
	the = m;
}

void machine_watch(struct machine *m, nvmm_pool_id id)
{
	m->id = id;
	for (unsigned i = 0; i < MACHINE_FILES; i++) {
		file_path(m->file[i].path, sizeof(m->file[i].path), &m->here, id, i);
		m->file[i].at = m->bytes;
		m->bytes += length_of(m->file[i].path);
	}
	m->words = reserve_area(m->bytes);
	for (unsigned i = 0; i < MACHINE_FILES; i++)
		map_file(m->words + m->file[i].at, m->file[i].path);
	m->cut = cut_new(m->words, m->bytes);
	for (unsigned i = 0; i < MACHINE_FILES; i++)
		cut_scan(m->cut, m->words + m->file[i].at, length_of(m->file[i].path), i == SHELF);
	cut_hook(m->cut, place, at_point);
	/* The program's alone. */
	m->backend = media_backend;
	media_backend = &media_backend_pmem;
}

void machine_deinit(struct machine *m)
{
	cut_free(m->cut);
	munmap(m->words, m->bytes);
	munmap(m->image, m->bytes);
	free(m->tried);
	harness_stop(&m->here);
	the = NULL;
}

/* Images */

/* FNV-1a, by words. */
static uint64_t hash_of(const struct machine *m, uint64_t seed)
{
	const uint64_t *words = (const uint64_t *)m->image;
	uint64_t h = seed ^ UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < m->bytes / sizeof(uint64_t); i++)
		h = (h ^ words[i]) * UINT64_C(0x100000001b3);
	return h;
}

static bool is_new(struct machine *m, uint64_t hash)
{
	for (size_t i = 0; i < m->n_tried; i++)
		if (m->tried[i] == hash)
			return false;
	ck_assert_uint_lt(m->n_tried, TRIED_MAX);
	m->tried[m->n_tried++] = hash;
	return true;
}

/* After a power cut each time in another boot. */
static void switch_on(struct machine *m)
{
	char path[256];
	FILE *f;

	if (m->same_boot) {
		ck_assert_int_eq(unsetenv(POINTS_BOOT_ENV), 0);
		harness_start(&m->there);
		return;
	}
	snprintf(path, sizeof(path), "%s/boot_id", m->there.dir);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_gt(fprintf(f, "%08x-0000-4000-8000-000000000000\n", ++m->boots), 0);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(setenv(POINTS_BOOT_ENV, path, 1), 0);
	harness_start(&m->there);
}

/* Whether it is one that was not tried yet. */
static bool try_image(struct machine *m, const struct machine_run *run)
{
	if (!is_new(m, hash_of(m, run->tell(run->arg) * 2 + m->same_boot)))
		return false;
	switch_on(m);
	run->try(run->arg);
	harness_signal(&m->there, SIGKILL);
	return true;
}

static uint64_t try_images(struct machine *m, const struct machine_run *run)
{
	struct cut_images *images = cut_images_new(m->cut, m->state->points, run->most);
	uint64_t n;

	memcpy(m->image, m->words, m->bytes);
	m->same_boot = true;
	n = try_image(m, run);
	m->same_boot = false;
	while (cut_images_copy(images, m->image))
		n += try_image(m, run);
	cut_images_free(images);
	return n;
}

/* The program */

static void daemon_stand(struct machine *m)
{
	int status;

	harness_signal(&m->here, SIGSTOP);
	ck_assert_int_eq(waitpid(m->here.daemon, &status, WUNTRACED), m->here.daemon);
	ck_assert_msg(WIFSTOPPED(status), "the daemon ended: %x", (unsigned)status);
}

/* Waits until it has stopped itself. */
static void program_stopped(struct machine *m)
{
	int status;

	ck_assert_int_eq(waitpid(m->program, &status, WUNTRACED), m->program);
	ck_assert_msg(WIFSTOPPED(status), "the program ended: %x, after %llu points", (unsigned)status,
		      (unsigned long long)m->state->points);
}

static void go_on(struct machine *m)
{
	if (!m->alone)
		harness_signal(&m->here, SIGCONT);
	ck_assert_int_eq(kill(m->program, SIGCONT), 0);
}

uint64_t machine_run(struct machine *m, const struct machine_run *run)
{
	uint64_t n = 0;

	*m->state = (struct machine_state){ .step = run->step, .offset = run->offset };
	media_backend = m->backend;
	m->program = harness_fork(run->program, run->arg);
	media_backend = &media_backend_pmem;
	program_stopped(m);
	daemon_stand(m);
	duplicate(m);
	cut_settle(m->cut);
	while (!m->state->ended) {
		go_on(m);
		program_stopped(m);
		if (!m->alone)
			daemon_stand(m);
		n += try_images(m, run);
	}
	harness_signal(&m->here, SIGCONT);
	ck_assert_int_eq(kill(m->program, SIGCONT), 0);
	harness_join(m->program);
	return n;
}
