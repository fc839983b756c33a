/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Drives a fuzz target without libFuzzer: first each file of the target's corpus as it is, then, until the
 * time is over, random inputs and mutations of the corpus. Each input is a pure function of the seed and
 * its number. They run in a child: if it dies, the input stands in memory that both have, and is written
 * to a file that can be replayed.
 *
 *   target [FILE...]        with files: runs these and nothing else
 *   NVMMD_TEST_SEED=N       other mutations
 *   NVMMD_TEST_FUZZ=N       so many inputs instead of a time
 *   NVMMD_TEST_FUZZ_SECONDS=N
 *
 * The time only says how much is tried; what is wrong is found by aborts, sanitizers, and a limit that only
 * a hang exceeds.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#ifdef __SANITIZE_ADDRESS__
#define SECONDS 30u
#else
#define SECONDS 2u
#endif
#define INPUT_SECONDS 120u /* of one input: it hangs */
#define CORPUS_MAX 1024u

struct input {
	uint64_t number;
	size_t len;
	char name[256]; /* of a file; else it is made of its number */
	uint8_t data[FUZZ_ROOM];
};

static char *corpus[CORPUS_MAX];
static unsigned n_corpus;

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static unsigned dice(uint64_t *state, size_t sides)
{
	return (unsigned)(next_random(state) % sides);
}

static uint8_t odd_byte(uint64_t *state)
{
	static const uint8_t odd[] = { 0, 1, 0x7f, 0x80, 0xff, '\n', ':', '-' };

	return dice(state, 2) ? odd[dice(state, sizeof(odd))] : (uint8_t)next_random(state);
}

/* One change: of a byte or bit, a piece left out, doubled, or put somewhere else. */
static void mutate(struct input *in, uint64_t *state)
{
	size_t at = dice(state, in->len), n = 1 + dice(state, in->len - at < 16 ? in->len - at : 16);

	switch (dice(state, 6)) {
	case 0:
		in->data[at] ^= (uint8_t)(1u << dice(state, 8));
		break;
	case 1:
		memmove(&in->data[at], &in->data[at + n], in->len - at - n);
		in->len -= n;
		break;
	case 2:
		if (in->len + n <= FUZZ_ROOM) {
			memmove(&in->data[at + n], &in->data[at], in->len - at);
			in->len += n;
		}
		break;
	case 3:
		memmove(&in->data[dice(state, in->len - n + 1)], &in->data[at], n);
		break;
	case 4:
		memset(&in->data[at], odd_byte(state), n);
		break;
	default:
		in->data[at] = odd_byte(state);
		break;
	}
}

/* Reads a file of the corpus. One that is too long is cut. */
static void read_input(struct input *in, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, in->data, sizeof(in->data));

	if (n < 0) {
		perror(path);
		exit(1);
	}
	close(fd);
	in->len = (size_t)n;
	snprintf(in->name, sizeof(in->name), "%s", path);
}

/* Half of the inputs are random bytes, the others mutations of the corpus. */
static void make_input(struct input *in, uint64_t number, uint64_t seed)
{
	uint64_t state = seed + number * UINT64_C(0x2545f4914f6cdd1d);

	in->number = number;
	if (n_corpus > 0 && dice(&state, 2)) {
		read_input(in, corpus[dice(&state, n_corpus)]);
		for (unsigned i = 1 + dice(&state, 1 + dice(&state, 8)); i > 0 && in->len > 0; i--)
			mutate(in, &state);
	} else {
		in->len = dice(&state, 1 + dice(&state, FUZZ_ROOM / 8));
		for (size_t i = 0; i < in->len; i++)
			in->data[i] = (uint8_t)next_random(&state);
	}
	in->name[0] = '\0';
}

static void run_input(struct input *in)
{
	alarm(INPUT_SECONDS);
	(void)LLVMFuzzerTestOneInput(in->data, in->len);
	alarm(0);
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void run_random(struct input *in, uint64_t seed)
{
	const char *count = getenv("NVMMD_TEST_FUZZ"), *seconds = getenv("NVMMD_TEST_FUZZ_SECONDS");
	uint64_t most = count ? strtoull(count, NULL, 0) : UINT64_MAX, n = 0;
	time_t end = now() + (time_t)(seconds ? strtoul(seconds, NULL, 0) : SECONDS);

	for (; n < most && (count || now() < end); n++) {
		make_input(in, n, seed);
		run_input(in);
	}
	printf("%llu random inputs\n", (unsigned long long)n);
}

static void run(struct input *in, char **files, uint64_t seed)
{
	fuzz_begin();
	for (char **file = files; *file; file++) {
		read_input(in, *file);
		run_input(in);
	}
	for (unsigned i = 0; !*files && i < n_corpus; i++) {
		read_input(in, corpus[i]);
		run_input(in);
	}
	if (!*files) {
		printf("%u inputs of the corpus\n", n_corpus);
		run_random(in, seed);
	}
	fuzz_end();
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void find_corpus(void)
{
	const struct dirent *entry;
	char path[512];
	DIR *dir;

	snprintf(path, sizeof(path), "%s/%s", FUZZ_CORPUS, fuzz_name);
	dir = opendir(path);
	if (!dir)
		return;
	while (n_corpus < CORPUS_MAX && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (asprintf(&corpus[n_corpus], "%s/%s", path, entry->d_name) < 0)
			exit(1);
		n_corpus++;
	}
	closedir(dir);
	qsort(corpus, n_corpus, sizeof(corpus[0]), by_name);
}

/* Keeps the input for a replay, beside the test's log. */
static void keep(const struct input *in, int status)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "fuzz-%s.found", fuzz_name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, in->data, in->len) != (ssize_t)in->len)
		perror(path);
	if (fd >= 0)
		close(fd);
	printf("status 0x%x at %s %llu, %zu bytes, kept in %s:\n", status,
	       in->name[0] ? in->name : "random input", (unsigned long long)in->number, in->len, path);
	for (size_t i = 0; i < in->len; i++)
		printf("%02x%s", in->data[i], i % 32 == 31 ? "\n" : " ");
	printf("\n");
}

int main(int argc, char **argv)
{
	const char *seed = getenv("NVMMD_TEST_SEED");
	struct input *in = mmap(NULL, sizeof(*in), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				-1, 0);
	int status = 1;
	pid_t pid;

	if (in == MAP_FAILED || argc < 1)
		return 1;
	find_corpus();
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		run(in, argv + 1, seed ? strtoull(seed, NULL, 0) : 1);
		exit(0);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (status == 0)
		return 0;
	keep(in, status);
	return 1;
}
