/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A heap: a pool with an allocator that all processes share. This program walks through the life
 * of one block:
 *
 *   create -> open -> alloc -> translate -> store -> read back -> free -> close -> destroy
 *
 * nvmm_alloc() returns a *global pointer*: a number that means the same block in every process,
 * whatever address the heap is mapped at there. Global pointers are what shared data structures
 * link their nodes with. nvmm_local() turns one into an address of this process in a few
 * instructions; such an address is never stored in shared memory.
 *
 * Usage: heap [SOCKET]      (default: $NVMM_SOCKET, else the daemon's usual socket)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include <nvmm/client.h>

#define HEAP_BYTES (UINT64_C(128) << 20)

/* Says which step failed; the library's text has the reason and what to do about it. */
static int failed(struct nvmm_client *nvmm, const char *step)
{
	fprintf(stderr, "heap: %s: %s\n", step, nvmm_errmsg(nvmm));
	return -1;
}

/* Allocates an int, stores into it and reads it back through its global pointer. */
static int use_block(struct nvmm_client *nvmm, struct nvmm_heap *heap)
{
	nvmm_ptr ptr;
	int *number;

	ptr = nvmm_alloc(heap, sizeof(*number));
	if (ptr == NVMM_NULL)
		return failed(nvmm, "alloc");
	printf("heap: block at pool %u, shelf %u, offset %llu\n", nvmm_ptr_pool(ptr),
	       nvmm_ptr_shelf(ptr), (unsigned long long)nvmm_ptr_offset(ptr));

	number = nvmm_local(nvmm, ptr);
	if (number == NULL)
		return failed(nvmm, "translate");
	*number = 42;
	nvmm_persist(number, sizeof(*number));

	/* The way back, for a program that holds an address and wants to store a pointer. */
	if (nvmm_global(nvmm, number) != ptr) {
		fprintf(stderr, "heap: the address does not translate back\n");
		return -1;
	}
	printf("heap: stored and read %d; the block can hold %zu bytes\n",
	       *(const int *)nvmm_local(nvmm, ptr), nvmm_usable_size(heap, ptr));

	if (nvmm_free(heap, ptr) < 0)
		return failed(nvmm, "free");

	/* Freeing it twice is found out, not acted upon. */
	if (nvmm_free(heap, ptr) != -EALREADY) {
		fprintf(stderr, "heap: a second free was not refused\n");
		return -1;
	}
	return 0;
}

static int open_and_use(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	struct nvmm_heap *heap;
	int r;

	if (nvmm_heap_open(&heap, nvmm, id, O_RDWR) < 0)
		return failed(nvmm, "open");
	r = use_block(nvmm, heap);
	nvmm_heap_close(heap);
	return r;
}

static int create_use_destroy(struct nvmm_client *nvmm)
{
	nvmm_pool_id id = 0; /* 0: the daemon chooses one and tells */
	int r;

	if (nvmm_heap_create(nvmm, &id, HEAP_BYTES, NULL) < 0)
		return failed(nvmm, "create");
	printf("heap: created pool %u\n", id);

	r = open_and_use(nvmm, id);

	/* Without this the heap and all blocks in it would stay, also when the machine's programs
	 * and the daemon have all been stopped and started again. */
	if (nvmm_heap_destroy(nvmm, id) < 0)
		return failed(nvmm, "destroy");
	return r;
}

int main(int argc, char **argv)
{
	struct nvmm_options options = {
		.size = sizeof(options),
		.socket = argc > 1 ? argv[1] : NULL,
		.name = "heap example",
	};
	struct nvmm_client *nvmm;
	int r;

	if (nvmm_connect(&nvmm, &options) < 0) {
		failed(NULL, "connect");
		return 1;
	}

	r = create_use_destroy(nvmm);
	nvmm_disconnect(nvmm);
	if (r == 0)
		printf("heap: done\n");
	return r == 0 ? 0 : 1;
}
