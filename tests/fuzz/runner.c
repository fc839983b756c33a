/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Drives a fuzz target: mutations of its seeds, each a pure function of the seed number and the input's
 * own. They run in a child; if it dies, the input that it died of stands in memory that both have.
 *
 *   NVMMD_TEST_SEED=N    other mutations
 *   NVMMD_TEST_FUZZ=N    so many inputs
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define SECONDS 600u /* for all of them: one that hangs is found */

struct input {
	unsigned number;
	size_t len;
	uint8_t data[FUZZ_ROOM];
};

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

/* The first inputs are the seeds as they are. */
static void make_input(struct input *in, unsigned number, unsigned seeds, uint64_t seed)
{
	uint64_t state = seed + number * UINT64_C(0x2545f4914f6cdd1d);

	in->number = number;
	in->len = fuzz_seed(number < seeds ? number : dice(&state, seeds), in->data);
	for (unsigned i = number < seeds ? 0 : 1 + dice(&state, 1 + dice(&state, 8)); i > 0 && in->len > 0; i--)
		mutate(in, &state);
}

static void run(struct input *in, unsigned inputs, uint64_t seed)
{
	unsigned seeds = 0;

	while (fuzz_seed(seeds, in->data) > 0)
		seeds++;
	alarm(SECONDS);
	fuzz_begin();
	for (unsigned i = 0; i < inputs; i++) {
		make_input(in, i, seeds, seed);
		(void)LLVMFuzzerTestOneInput(in->data, in->len);
	}
	fuzz_end();
}

int main(void)
{
	const char *seed = getenv("NVMMD_TEST_SEED"), *count = getenv("NVMMD_TEST_FUZZ");
	unsigned inputs = count ? (unsigned)strtoul(count, NULL, 0) : fuzz_inputs;
	struct input *in = mmap(NULL, sizeof(*in), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				-1, 0);
	int status = 1;
	pid_t pid;

	if (in == MAP_FAILED)
		return 1;
	pid = fork();
	if (pid == 0) {
		run(in, inputs, seed ? strtoull(seed, NULL, 0) : 1);
		exit(0);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (status == 0) {
		printf("%u inputs\n", inputs);
		return 0;
	}
	printf("status 0x%x at input %u of seed %s, %zu bytes:\n", status, in->number, seed ? seed : "1",
	       in->len);
	for (size_t i = 0; i < in->len; i++)
		printf("%02x%s", in->data[i], i % 32 == 31 ? "\n" : " ");
	printf("\n");
	return 1;
}
