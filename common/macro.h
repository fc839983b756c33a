/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Language helpers: automatic cleanup, hand-over, sizes.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define _cleanup(fn) __attribute__((__cleanup__(fn)))
#define _noinline __attribute__((__noinline__))
#define _unused __attribute__((__unused__))
#define _printf(fmt, args) __attribute__((__format__(__printf__, fmt, args)))
#define _likely(x) __builtin_expect(!!(x), 1)
#define _unlikely(x) __builtin_expect(!!(x), 0)

/* Declares a pointer that is given to FREE_FN when it leaves its scope. */
#define _auto(free_fn) _cleanup(free_fn##_p)

/* Defines the cleanup function that _auto(free_fn) names. */
#define DEFINE_AUTO(type, free_fn)              \
	_unused static inline void free_fn##_p(type **p) \
	{                                        \
		if (*p)                          \
			free_fn(*p);             \
	}

/* Hands over what an _auto variable holds: returns it and leaves a zero. */
#define take(var)                         \
	({                                \
		__typeof__(var) _v = (var); \
		(var) = 0;                \
		_v;                       \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
/* <sys/param.h>, which others' headers include, has its own. */
#undef MIN
#undef MAX
#define MIN(a, b)                                       \
	({                                              \
		__typeof__(a) _a = (a);                 \
		__typeof__(b) _b = (b);                 \
		_a < _b ? _a : _b;                      \
	})
#define MAX(a, b)                                       \
	({                                              \
		__typeof__(a) _a = (a);                 \
		__typeof__(b) _b = (b);                 \
		_a > _b ? _a : _b;                      \
	})

/* Rounds up to a multiple of a power of two. */
#define ALIGN_UP(x, a) (((x) + ((a) - 1)) & ~((__typeof__(x))(a) - 1))
#define DIV_UP(x, a) (((x) + (a) - 1) / (a))

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
