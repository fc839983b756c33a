/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The public header as strict C11, twice, and every call of it: all are in the library.
 */
#include <nvmm/client.h>
#include <nvmm/client.h>

#include <stdio.h>

typedef void (*function)(void);

static const function functions[] = {
	(function)nvmm_alloc, (function)nvmm_alloc_aligned, (function)nvmm_cancel,
	(function)nvmm_cond_broadcast, (function)nvmm_cond_signal, (function)nvmm_cond_timedwait,
	(function)nvmm_cond_wait, (function)nvmm_connect, (function)nvmm_disconnect,
	(function)nvmm_drain, (function)nvmm_epoch_current, (function)nvmm_epoch_enter,
	(function)nvmm_epoch_enter_slow, (function)nvmm_epoch_exit,
	(function)nvmm_epoch_exit_slow, (function)nvmm_epoch_frontier,
	(function)nvmm_epoch_synchronize, (function)nvmm_errmsg,
	(function)nvmm_flush, (function)nvmm_free, (function)nvmm_free_deferred,
	(function)nvmm_global, (function)nvmm_heap_check, (function)nvmm_heap_classes,
	(function)nvmm_heap_close, (function)nvmm_heap_create, (function)nvmm_heap_destroy,
	(function)nvmm_heap_destroy_forced, (function)nvmm_heap_open,
	(function)nvmm_heap_recover, (function)nvmm_heap_shelves, (function)nvmm_heap_stat,
	(function)nvmm_heap_sweep, (function)nvmm_heap_trim, (function)nvmm_heap_walk,
	(function)nvmm_invalidate, (function)nvmm_local, (function)nvmm_local_slow,
	(function)nvmm_map, (function)nvmm_memcpy_persist, (function)nvmm_memset_persist,
	(function)nvmm_mutex_consistent, (function)nvmm_mutex_lock,
	(function)nvmm_mutex_timedlock, (function)nvmm_mutex_trylock,
	(function)nvmm_mutex_unlock, (function)nvmm_on_failure, (function)nvmm_persist,
	(function)nvmm_pool_chmod, (function)nvmm_pool_chown, (function)nvmm_pool_destroy,
	(function)nvmm_pool_list, (function)nvmm_pool_lookup, (function)nvmm_pool_release,
	(function)nvmm_pool_resize, (function)nvmm_pool_stat, (function)nvmm_ptr_offset,
	(function)nvmm_ptr_pool, (function)nvmm_ptr_shelf, (function)nvmm_publish,
	(function)nvmm_realloc, (function)nvmm_realloc_in, (function)nvmm_region_close,
	(function)nvmm_region_create, (function)nvmm_region_destroy,
	(function)nvmm_region_destroy_forced, (function)nvmm_region_map,
	(function)nvmm_region_open, (function)nvmm_region_size, (function)nvmm_region_unmap,
	(function)nvmm_reserve, (function)nvmm_root_cas, (function)nvmm_root_get,
	(function)nvmm_root_list, (function)nvmm_root_remove, (function)nvmm_root_set,
	(function)nvmm_rwlock_consistent, (function)nvmm_rwlock_rdlock,
	(function)nvmm_rwlock_timedrdlock, (function)nvmm_rwlock_timedwrlock,
	(function)nvmm_rwlock_tryrdlock, (function)nvmm_rwlock_trywrlock,
	(function)nvmm_rwlock_unlock, (function)nvmm_rwlock_wrlock, (function)nvmm_unmap,
	(function)nvmm_usable_size, (function)nvmm_version, (function)nvmm_wait_settled,
	(function)nvmm_zalloc,
};

int main(void)
{
	nvmm_ptr ptr = UINT64_C(0x1234560000000042);

	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		if (!functions[i])
			return 1;
	if (nvmm_ptr_pool(ptr) != 0x1234 || nvmm_ptr_shelf(ptr) != 0x56 ||
	    nvmm_ptr_offset(ptr) != 0x42)
		return 1;
	printf("%s\n", nvmm_version());
	return 0;
}
