/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks at a wanted alignment, and blocks that change their size.
 *
 * A block stays where it is if the new size fits and a new block would not be more than a quarter
 * smaller: sizes that go up and down a little cost nothing. Units of a large block are not given back
 * one by one, nor does it grow into its neighbours: both would change the word of a span that others may
 * be reading. The new block is there and filled before the old one is freed.
 *
 * nvmm_realloc_in() does the same for the block that a word in the heap names, by reserve and publish: until
 * the publish the word and the old block are as they were and the new one is reserved; after it the word
 * names the new one, whose content was flushed before, and the old one is in limbo.
 */
#include <errno.h>
#include <string.h>

#include "libclient/block.h"

_public nvmm_ptr nvmm_alloc_aligned(struct nvmm_heap *heap, size_t align, size_t size)
{
	struct lane *lane = lanes_find(&heap->lanes);
	nvmm_ptr ptr;
	int r = 0;

	if (align == 0 || (align & (align - 1)) != 0 || align > LANE_ALIGN_MAX) {
		errno = EINVAL;
		nvmm_fail(heap->handle.nvmm, -EINVAL,
			  "an alignment of %zu: powers of two up to 2 MiB are allowed", align);
		return NVMM_NULL;
	}
	if (size == 0)
		r = -EINVAL;
	else if (!lane)
		r = block_lane(heap, &lane);
	if (r < 0)
		return block_failed(heap, size, r);
	ptr = lane_alloc_aligned(lane, align, size);
	return ptr ? ptr : block_failed(heap, size, lane_error(lane));
}

/* Bytes of a block that nvmm_alloc() would give. */
static uint64_t usual_size(const struct heap *heap, size_t size)
{
	if (size > CLASS_SIZE_MAX)
		return ALIGN_UP((uint64_t)size, UNIT_SIZE);
	return size_classes[MAX(class_of(size), heap->first_class)].size;
}

static bool stays(const struct heap *heap, const struct span_at *at, size_t size)
{
	return size <= at->block_size && usual_size(heap, size) >= at->block_size / 4 * 3;
}

/* To a new block; the old one is `old` bytes long. */
static nvmm_ptr move(struct nvmm_heap *heap, nvmm_ptr ptr, uint64_t old, size_t size)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;
	nvmm_ptr moved = nvmm_alloc(heap, size);
	void *from, *to;
	int r;

	if (moved == NVMM_NULL)
		return NVMM_NULL;
	from = nvmm_local(nvmm, ptr);
	to = nvmm_local(nvmm, moved);
	r = from && to ? 0 : -errno;
	if (r == 0) {
		memcpy(to, from, MIN(old, (uint64_t)size));
		r = nvmm_free(heap, ptr);
	}
	if (r < 0) {
		(void)nvmm_free(heap, moved);
		errno = -r;
		return NVMM_NULL;
	}
	return moved;
}

static nvmm_ptr no_block(struct nvmm_heap *heap, nvmm_ptr ptr)
{
	nvmm_fail(heap->handle.nvmm, -EINVAL, "%#llx is not an allocated block of heap %u",
		  (unsigned long long)ptr, heap->handle.pool->id);
	errno = EINVAL;
	return NVMM_NULL;
}

_public nvmm_ptr nvmm_realloc(struct nvmm_heap *heap, nvmm_ptr ptr, size_t size)
{
	struct span_at at;
	uint32_t index;
	int r;

	if (ptr == NVMM_NULL)
		return nvmm_alloc(heap, size);
	if (size - 1 >= SHELF_SIZE_MAX)
		return block_failed(heap, size, -EINVAL);
	if (!heap->handle.write)
		return block_failed(heap, size,
				    nvmm_fail(heap->handle.nvmm, -EROFS,
					      "heap %u was opened O_RDONLY", heap->handle.pool->id));
	r = block_find(heap, ptr, &at, &index);
	if (r == -EINVAL || (r == 0 && !block_allocated(heap, &at, index)))
		return no_block(heap, ptr);
	if (r < 0)
		return block_failed(heap, size, r);
	if (stays(&heap->handle.pool->heap, &at, size))
		return ptr;
	return move(heap, ptr, at.block_size, size);
}

/* In the place that a word names */

/* The word at `where`, in an allocated block of this heap. NULL, errno and a text: there is none. */
static const uint64_t *word_find(struct nvmm_heap *heap, nvmm_ptr where)
{
	const uint64_t *word;
	struct span_at at;
	uint32_t index;

	if (where % sizeof(uint64_t) == 0 && nvmm_ptr_pool(where) == heap->handle.pool->id) {
		/* Maps its shelf. */
		word = nvmm_local(heap->handle.nvmm, where);
		if (!word)
			return NULL;
		if (heap_block_around(&heap->handle.pool->heap, where, &at, &index) == 0 &&
		    block_allocated(heap, &at, index))
			return word;
	}
	nvmm_fail(heap->handle.nvmm, -EINVAL,
		  "%#llx is no aligned word of an allocated block of heap %u",
		  (unsigned long long)where, heap->handle.pool->id);
	errno = EINVAL;
	return NULL;
}

/* Copies to a reserved block; durable with what is published next. */
static int fill(struct nvmm_heap *heap, nvmm_ptr to, nvmm_ptr from, size_t bytes)
{
	const void *source = nvmm_local(heap->handle.nvmm, from);
	void *target = source ? nvmm_local(heap->handle.nvmm, to) : NULL;

	if (!target)
		return -errno;
	memcpy(target, source, bytes);
	if (heap->handle.pool->heap.durability == DURABILITY_POWER)
		nvmm_flush(target, bytes);
	return 0;
}

/* Replaces `ptr`, of which `bytes` are kept, in the word at `where`; NVMM_NULL: there was none. */
static nvmm_ptr replace(struct nvmm_heap *heap, nvmm_ptr where, nvmm_ptr ptr, size_t bytes,
			size_t size)
{
	nvmm_ptr moved = nvmm_reserve(heap, size);
	const struct nvmm_action actions[] = {
		NVMM_COMMIT(moved),
		NVMM_STORE(where, moved),
		NVMM_FREE(ptr),
	};
	int r = 0;

	if (moved == NVMM_NULL)
		return NVMM_NULL;
	if (ptr != NVMM_NULL)
		r = fill(heap, moved, ptr, bytes);
	if (r == 0)
		r = nvmm_publish(heap, actions, ptr != NVMM_NULL ? 3 : 2);
	if (r == 0)
		return moved;
	(void)nvmm_cancel(heap, moved);
	errno = -r;
	return NVMM_NULL;
}

_public nvmm_ptr nvmm_realloc_in(struct nvmm_heap *heap, nvmm_ptr where, size_t size)
{
	struct span_at at;
	const uint64_t *word;
	nvmm_ptr ptr;
	uint32_t index;
	int r;

	if (size - 1 >= SHELF_SIZE_MAX)
		return block_failed(heap, size, -EINVAL);
	word = word_find(heap, where);
	if (!word)
		return NVMM_NULL;
	/* ordering: acquire; whoever stored the pointer had filled the block. */
	ptr = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	if (ptr == NVMM_NULL)
		return replace(heap, where, NVMM_NULL, 0, size);
	r = block_find(heap, ptr, &at, &index);
	if (r == -EINVAL || (r == 0 && !block_allocated(heap, &at, index)) ||
	    (r == 0 && where - ptr < at.block_size))
		return no_block(heap, ptr);
	if (r < 0)
		return block_failed(heap, size, r);
	if (heap->handle.write && stays(&heap->handle.pool->heap, &at, size))
		return ptr;
	return replace(heap, where, ptr, (size_t)MIN(at.block_size, (uint64_t)size), size);
}
