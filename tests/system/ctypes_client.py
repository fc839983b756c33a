# SPDX-License-Identifier: BSD-3-Clause
"""The client library without a compiler: loaded by an interpreter, its inline functions called."""
import ctypes as C
import os

lib = C.CDLL("libnvmm-client.so.0", use_errno=True)
handle, ptr = C.c_void_p, C.c_uint64


def function(name, result, *arguments):
    f = getattr(lib, name)
    f.restype, f.argtypes = result, arguments
    return f


errmsg = function("nvmm_errmsg", C.c_char_p, handle)
connect = function("nvmm_connect", C.c_int, C.POINTER(handle), handle)
create = function("nvmm_heap_create", C.c_int, handle, C.POINTER(C.c_uint16), C.c_uint64, handle)
heap_open = function("nvmm_heap_open", C.c_int, C.POINTER(handle), handle, C.c_uint16, C.c_int)
alloc = function("nvmm_alloc", ptr, handle, C.c_size_t)
local = function("nvmm_local", handle, handle, ptr)
to_global = function("nvmm_global", ptr, handle, handle)
enter = function("nvmm_epoch_enter", C.c_int, handle)
leave = function("nvmm_epoch_exit", None, handle)
ptr_pool = function("nvmm_ptr_pool", C.c_uint16, ptr)
ptr_shelf = function("nvmm_ptr_shelf", C.c_uint8, ptr)
ptr_offset = function("nvmm_ptr_offset", C.c_uint64, ptr)
destroy = function("nvmm_heap_destroy", C.c_int, handle, C.c_uint16)
close = function("nvmm_heap_close", None, handle)
disconnect = function("nvmm_disconnect", None, handle)

nvmm, heap, pool = handle(), handle(), C.c_uint16(0)
assert connect(C.byref(nvmm), None) == 0, errmsg(None)
assert create(nvmm, C.byref(pool), 16 << 20, None) == 0, errmsg(nvmm)
assert heap_open(C.byref(heap), nvmm, pool, os.O_RDWR) == 0, errmsg(nvmm)
block = alloc(heap, 64)
assert block != 0, errmsg(nvmm)
address = local(nvmm, block)
C.memmove(address, b"hello\0", 6)
assert to_global(nvmm, address) == block
assert enter(nvmm) == 0, errmsg(nvmm)
assert C.string_at(local(nvmm, block)) == b"hello"
leave(nvmm)
assert ptr_pool(block) == pool.value
assert ptr_shelf(block) << 40 | ptr_offset(block) == block & (1 << 48) - 1
close(heap)
assert destroy(nvmm, pool) == 0, errmsg(nvmm)
assert destroy(nvmm, pool) < 0 and errmsg(nvmm)
disconnect(nvmm)
