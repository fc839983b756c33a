/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Giving back what is held of a heap and not used. The daemon does all of it: it alone can tell which of
 * this process's threads are inside their lanes, as it must under pressure, and it retires what is empty.
 */
#include <errno.h>

#include "libclient/block.h"

_public int64_t nvmm_heap_trim(struct nvmm_heap *heap)
{
	struct nvmm_client *nvmm = heap->handle.nvmm;
	_reply reply = NVMM_REPLY_INIT;
	_entry entry = ENTRY_NONE;
	Nvmm__HeapTrim op = NVMM__HEAP_TRIM__INIT;
	Nvmm__Request request = NVMM_REQUEST(HEAP_TRIM, heap_trim, &op);
	int r;

	r = enter(&entry, nvmm);
	if (r < 0)
		return r;
	if (!heap->handle.write)
		return nvmm_fail(nvmm, -EROFS, "heap %u was opened O_RDONLY", heap->handle.pool->id);
	op.id = heap->handle.pool->id;
	r = call_daemon(nvmm, &request, NVMM__REPLY__RESULT_HEAP_TRIMMED, 0, &reply);
	if (r < 0)
		return r;
	return (int64_t)MIN(reply.msg->heap_trimmed->retired, (uint64_t)INT64_MAX);
}
