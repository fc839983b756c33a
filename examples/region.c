/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A region: memory that every process may map as it is, and that is still there when all of them
 * have gone. This program walks through the life of one:
 *
 *   create -> open -> map -> store -> unmap -> map again -> read back -> unmap -> close -> destroy
 *
 * The daemon reserves the space when the region is created, so a store into the mapping never fails
 * for want of room, and hands the region to the processes that may have it as a descriptor: nobody
 * opens a shelf by path. What the region means is up to its users; pointers stored in one should be
 * global pointers (see heap.c) or offsets, since each process maps it where it likes.
 *
 * Usage: region [SOCKET]      (default: $NVMM_SOCKET, else the daemon's usual socket)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <nvmm/client.h>

#define REGION_BYTES (UINT64_C(128) << 20)

static const char greeting[] = "hello from a region";

/* Says which step failed; the library's text has the reason and what to do about it. */
static int failed(struct nvmm_client *nvmm, const char *step)
{
	fprintf(stderr, "region: %s: %s\n", step, nvmm_errmsg(nvmm));
	return -1;
}

/* Maps the whole region at an address that the kernel chooses, and stores into it. */
static int store(struct nvmm_client *nvmm, struct nvmm_region *region)
{
	uint64_t size = nvmm_region_size(region);
	void *addr;
	char *last;

	if (nvmm_region_map(region, NULL, size, PROT_READ | PROT_WRITE, 0, 0, &addr) < 0)
		return failed(nvmm, "map for writing");

	memcpy(addr, greeting, sizeof(greeting));
	last = (char *)addr + size - 1;
	*last = '!';

	/*
	 * On persistent memory this is what makes the stores survive a power cut. Elsewhere it does
	 * no harm, and needs no thought: the region's memory outlives the process anyway.
	 */
	nvmm_persist(addr, sizeof(greeting));
	nvmm_persist(last, 1);

	if (nvmm_region_unmap(region, addr, size) < 0)
		return failed(nvmm, "unmap");
	return 0;
}

/* Another mapping, likely at another address: the bytes are the region's, not the mapping's. */
static int read_back(struct nvmm_client *nvmm, struct nvmm_region *region)
{
	uint64_t size = nvmm_region_size(region);
	const char *text;
	void *addr;
	int r = 0;

	if (nvmm_region_map(region, NULL, size, PROT_READ, 0, 0, &addr) < 0)
		return failed(nvmm, "map for reading");

	text = addr;
	if (strcmp(text, greeting) != 0 || text[size - 1] != '!') {
		fprintf(stderr, "region: what was stored is not there\n");
		r = -1;
	} else {
		printf("region: read back \"%s\" and the last of %llu bytes\n", text,
		       (unsigned long long)size);
	}

	if (nvmm_region_unmap(region, addr, size) < 0)
		return failed(nvmm, "unmap");
	return r;
}

static int use(struct nvmm_client *nvmm, nvmm_pool_id id)
{
	struct nvmm_region *region;
	int r;

	if (nvmm_region_open(&region, nvmm, id, O_RDWR) < 0)
		return failed(nvmm, "open");

	r = store(nvmm, region);
	if (r == 0)
		r = read_back(nvmm, region);

	nvmm_region_close(region);
	return r;
}

static int create_use_destroy(struct nvmm_client *nvmm)
{
	nvmm_pool_id id = 0; /* 0: the daemon chooses one and tells */
	int r;

	if (nvmm_region_create(nvmm, &id, REGION_BYTES, NULL) < 0)
		return failed(nvmm, "create");
	printf("region: created pool %u\n", id);

	r = use(nvmm, id);

	/* Without this the region would stay, for this program's next run or for another program. */
	if (nvmm_region_destroy(nvmm, id) < 0)
		return failed(nvmm, "destroy");
	return r;
}

int main(int argc, char **argv)
{
	struct nvmm_options options = {
		.size = sizeof(options),
		.socket = argc > 1 ? argv[1] : NULL,
		.name = "region example",
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
		printf("region: done\n");
	return r == 0 ? 0 : 1;
}
