/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The header's inline functions as symbols of the library.
 *
 * C and C++ programs compile the inline functions into themselves. Other languages load the library
 * with dlopen() and look names up in it; they find these. Here the header's functions get other
 * names, so that a function of the real name can call each.
 */
#define nvmm_ptr_pool inline_ptr_pool
#define nvmm_ptr_shelf inline_ptr_shelf
#define nvmm_ptr_offset inline_ptr_offset
#define nvmm_local inline_local
#define nvmm_epoch_enter inline_epoch_enter
#define nvmm_epoch_exit inline_epoch_exit
#include <nvmm/client.h>
#undef nvmm_ptr_pool
#undef nvmm_ptr_shelf
#undef nvmm_ptr_offset
#undef nvmm_local
#undef nvmm_epoch_enter
#undef nvmm_epoch_exit

#define _symbol __attribute__((__visibility__("default")))

_symbol nvmm_pool_id nvmm_ptr_pool(nvmm_ptr ptr);
_symbol uint8_t nvmm_ptr_shelf(nvmm_ptr ptr);
_symbol uint64_t nvmm_ptr_offset(nvmm_ptr ptr);
_symbol void *nvmm_local(struct nvmm_client *nvmm, nvmm_ptr ptr);
_symbol int nvmm_epoch_enter(struct nvmm_client *nvmm);
_symbol void nvmm_epoch_exit(struct nvmm_client *nvmm);

nvmm_pool_id nvmm_ptr_pool(nvmm_ptr ptr)
{
	return inline_ptr_pool(ptr);
}

uint8_t nvmm_ptr_shelf(nvmm_ptr ptr)
{
	return inline_ptr_shelf(ptr);
}

uint64_t nvmm_ptr_offset(nvmm_ptr ptr)
{
	return inline_ptr_offset(ptr);
}

void *nvmm_local(struct nvmm_client *nvmm, nvmm_ptr ptr)
{
	return inline_local(nvmm, ptr);
}

int nvmm_epoch_enter(struct nvmm_client *nvmm)
{
	return inline_epoch_enter(nvmm);
}

void nvmm_epoch_exit(struct nvmm_client *nvmm)
{
	inline_epoch_exit(nvmm);
}
