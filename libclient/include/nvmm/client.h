/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libnvmm-client: shared non-volatile and fabric-attached memory.
 *
 * Functions return 0 or a negative errno, unless said otherwise; nvmm_errmsg() has the text of the
 * last failure of the calling thread. All may be called from any thread at once, unless said
 * otherwise. Out-parameters are untouched on failure. See nvmm-client(3).
 */
#ifndef NVMM_CLIENT_H
#define NVMM_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NVMM_VERSION_MAJOR 0
#define NVMM_VERSION_MINOR 1

#define NVMM_NAME_MAX 63      /* bytes of a pool's name, without the terminating NUL */
#define NVMM_ROOT_NAME_MAX 47 /* bytes of a root's name, likewise */
#define NVMM_SIZE_MAX (UINT64_C(1) << 48) /* bytes of a pool: what a pool's pointers reach */

/* A connection to the node's daemon. */
struct nvmm_client;
/* A pool that is mapped as it is. */
struct nvmm_region;
/* A pool with an allocator in it. */
struct nvmm_heap;

/* 1..65535; 0 where the daemon is to choose. */
typedef uint16_t nvmm_pool_id;

/*
 * A global pointer: pool id 16 bits (high), shelf index 8, offset 40 (low). The same in every
 * process on every node while the pool lives.
 */
typedef uint64_t nvmm_ptr;
#define NVMM_NULL ((nvmm_ptr)0)

static inline nvmm_pool_id nvmm_ptr_pool(nvmm_ptr ptr)
{
	return (nvmm_pool_id)(ptr >> 48);
}

static inline uint8_t nvmm_ptr_shelf(nvmm_ptr ptr)
{
	return (uint8_t)(ptr >> 40);
}

static inline uint64_t nvmm_ptr_offset(nvmm_ptr ptr)
{
	return ptr & ((UINT64_C(1) << 40) - 1);
}

/* Connection */

struct nvmm_options {
	size_t size;        /* sizeof(struct nvmm_options): set it, later versions append fields */
	const char *socket; /* path of the daemon's socket; NULL: $NVMM_SOCKET, else the default */
	const char *name;   /* what `nvmmctl clients` calls this program; NULL: its command name */
	int timeout_ms;     /* how long a call may wait for the daemon; 0: 30 s; -1: for ever */
};

/*
 * Attaches this process to the daemon. `options` may be NULL. The caller owns *ret and gives it to
 * nvmm_disconnect().
 * -ENOENT, -ECONNREFUSED: no daemon there; -EACCES: the socket is not for this user;
 * -EPROTO: not an nvmmd of a version this library knows; -EUSERS: the daemon's limit on clients;
 * -EDQUOT: its limit for this user; -ETIMEDOUT; -ENOMEM.
 */
int nvmm_connect(struct nvmm_client **ret, const struct nvmm_options *options);

/*
 * Detaches: closes what is open, unmaps what was mapped through this connection, frees it. No
 * other thread may be using it or a handle made by it. NULL is allowed.
 */
void nvmm_disconnect(struct nvmm_client *nvmm);

/*
 * The text of the calling thread's last failure on this connection (NULL: of nvmm_connect()).
 * Valid until that thread's next call. Never NULL.
 */
const char *nvmm_errmsg(const struct nvmm_client *nvmm);

/* The library's version, "0.1.0". */
const char *nvmm_version(void);

/* Pools */

enum nvmm_pool_kind {
	NVMM_POOL_REGION = 1,
	NVMM_POOL_HEAP = 2,
};

enum nvmm_durability {
	NVMM_DURABILITY_DEFAULT = 0, /* as the daemon is configured */
	NVMM_DURABILITY_PROCESS = 1, /* survives the death of any process */
	NVMM_DURABILITY_POWER = 2,   /* survives power loss as well: needs persistent memory */
};

struct nvmm_pool_options {
	size_t size;      /* sizeof(struct nvmm_pool_options) */
	const char *name; /* unique, up to NVMM_NAME_MAX bytes of visible UTF-8, not digits alone; NULL: none */
	mode_t mode;      /* rw bits for owner, group, others; 0: 0600 */
	enum nvmm_durability durability;
	uint32_t smallest_block; /* heaps: 16, 32, 64, 128 or 256 bytes; 0: 16 */
	/*
	 * Heaps. Its size is no promise then: space is reserved as it is granted, so that a heap can be far
	 * larger than the memory there is. An allocation that finds none is ENOSPC, or EDQUOT if it is the
	 * owner's share that is used up; what was allocated never lacks it later.
	 */
	bool sparse;
	uint32_t priority; /* heaps: 0..255; the higher, the earlier recovered after a crash */
};

/* Where a heap stands after a stop that was not in order. */
enum nvmm_pool_recovery {
	NVMM_POOL_RECOVERY_NONE = 0,    /* none was needed */
	NVMM_POOL_RECOVERY_WAITING = 1, /* opens wait */
	NVMM_POOL_RECOVERY_RUNNING = 2, /* opens wait */
	NVMM_POOL_RECOVERY_HELD = 3,    /* opens fail until `nvmmctl recover` */
	NVMM_POOL_RECOVERY_DONE = 4,
	NVMM_POOL_RECOVERY_FAILED = 5, /* `nvmmctl recover` says why */
};

struct nvmm_pool_info {
	size_t size; /* sizeof(struct nvmm_pool_info): set it before the call */
	nvmm_pool_id id;
	enum nvmm_pool_kind kind;
	enum nvmm_durability durability;
	uint64_t incarnation; /* tells two pools of one id apart */
	uint64_t bytes;       /* promised to users */
	uint64_t file_bytes;  /* reserved in all of its files, metadata included */
	uint32_t shelves;
	uint32_t smallest_block; /* heaps */
	uint32_t openers;        /* sessions that have it open */
	uid_t uid;
	gid_t gid;
	mode_t mode;
	int64_t created; /* seconds since 1970 */
	char name[NVMM_NAME_MAX + 1];
	/* Metadata was found rotten: the pool is not served. If that is the pool's own record, kind and
	 * all that it would tell are 0. */
	bool damaged;
	bool sparse; /* heaps: `file_bytes` grow as blocks are granted */
	uint64_t overgrown; /* bytes that clients added to its files, and that are not cut off yet */
	uint64_t cuts;      /* how often the daemon cut its files back */
	enum nvmm_pool_recovery recovery;
};

/* -ENOENT: no such pool; -EINVAL: not a name. */
int nvmm_pool_lookup(struct nvmm_client *nvmm, const char *name, nvmm_pool_id *ret);

/*
 * Fills up to `n` infos, in the order of their ids, of pools with an id above `after`. Returns how
 * many (0: no more), or a negative errno. Each info's `size` is set by the call.
 */
int nvmm_pool_list(struct nvmm_client *nvmm, nvmm_pool_id after, struct nvmm_pool_info *infos, size_t n);

int nvmm_pool_stat(struct nvmm_client *nvmm, nvmm_pool_id id, struct nvmm_pool_info *ret);

/* For opens from now on; the owner or root only: else -EPERM. */
int nvmm_pool_chmod(struct nvmm_client *nvmm, nvmm_pool_id id, mode_t mode);
/* Root; the owner, to a group of his. (uid_t)-1, (gid_t)-1: as it is. Else -EPERM. */
int nvmm_pool_chown(struct nvmm_client *nvmm, nvmm_pool_id id, uid_t uid, gid_t gid);

/*
 * Grows a pool to `bytes`, in place where its last shelf can, else by a further shelf; others go on
 * using it. -EINVAL: smaller than it is, or out of range; -ENOSPC: the shelf base is full;
 * -EDQUOT; -EPERM: not the owner.
 */
int nvmm_pool_resize(struct nvmm_client *nvmm, nvmm_pool_id id, uint64_t bytes);

#define NVMM_DESTROY_FORCED 1u /* also if others have it open */

/*
 * Destroys a pool of any kind. `flags`: 0, or NVMM_DESTROY_FORCED: what others have mapped stays
 * theirs until they close it, nobody else can open it, and the id is given out again after that.
 * What nvmm_local() or nvmm_map() opened on this connection does not count as open; it is unmapped.
 * -EBUSY: others have it open, or this connection has a handle on it; -EPERM: not the owner;
 * -ENOENT; -EINVAL.
 */
int nvmm_pool_destroy(struct nvmm_client *nvmm, nvmm_pool_id id, unsigned flags);

/*
 * Closes a pool that nvmm_local() or nvmm_map() opened, and unmaps its shelves: the addresses of its
 * blocks become invalid, so no other thread may be using one or translating a pointer of this pool.
 * Ranges of nvmm_map() stay until nvmm_unmap(). A later nvmm_local() opens the pool again. 0 also if
 * the pool is not open here; -EBUSY: a handle on it exists; then nothing has changed.
 */
int nvmm_pool_release(struct nvmm_client *nvmm, nvmm_pool_id id);

/* Regions */

/*
 * Creates a region of `bytes` (rounded up to pages), all zero, its space reserved. *id: the wanted
 * pool id, or 0 and the chosen one is returned. `options` may be NULL.
 * -EEXIST: id or name is taken; -EBUSY: the id's old pool is still open somewhere; -ENOSPC;
 * -EDQUOT; -EINVAL; -EOPNOTSUPP: durability `power` on a medium that has none.
 */
int nvmm_region_create(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
		       const struct nvmm_pool_options *options);

/* `flags`: O_RDONLY or O_RDWR. -ENOENT; -EACCES; -EINVAL: not a region; -EUCLEAN: damaged. */
int nvmm_region_open(struct nvmm_region **ret, struct nvmm_client *nvmm, nvmm_pool_id id, int flags);

/* Unmaps nothing: what nvmm_region_map() mapped stays until nvmm_region_unmap(). NULL allowed. */
void nvmm_region_close(struct nvmm_region *region);

/* Like mmap(2): `len` bytes from `offset` (a multiple of the page). `prot`: PROT_READ or with
 * PROT_WRITE (-EACCES on a region opened O_RDONLY); `flags`: 0, or MAP_FIXED, MAP_FIXED_NOREPLACE,
 * MAP_POPULATE, which are passed on. */
int nvmm_region_map(struct nvmm_region *region, void *hint, size_t len, int prot, int flags,
		    uint64_t offset, void **ret);
int nvmm_region_unmap(struct nvmm_region *region, void *addr, size_t len);
uint64_t nvmm_region_size(struct nvmm_region *region);

/* nvmm_pool_destroy() of a region: -EINVAL: it is a heap. */
int nvmm_region_destroy(struct nvmm_client *nvmm, nvmm_pool_id id);
int nvmm_region_destroy_forced(struct nvmm_client *nvmm, nvmm_pool_id id);

/* Heaps */

/*
 * As nvmm_region_create(); `bytes` are rounded up to units of 16 KiB, two at least. The first unit is never given: no
 * block of a heap is at offset 0 of its pool, so programs that keep offsets may take 0 for none. Heaps that were
 * made by versions before this rule go on as they were.
 */
int nvmm_heap_create(struct nvmm_client *nvmm, nvmm_pool_id *id, uint64_t bytes,
		     const struct nvmm_pool_options *options);

/* `flags`: O_RDONLY (translate and read) or O_RDWR. Errors as nvmm_region_open(). */
int nvmm_heap_open(struct nvmm_heap **ret, struct nvmm_client *nvmm, nvmm_pool_id id, int flags);

/*
 * Gives back what this process holds in the heap, and the handle. Addresses of its blocks become
 * invalid with the connection's last handle on it. No other thread may be using the handle. NULL
 * is allowed.
 */
void nvmm_heap_close(struct nvmm_heap *heap);

/* nvmm_pool_destroy() of a heap: -EINVAL: it is a region. */
int nvmm_heap_destroy(struct nvmm_client *nvmm, nvmm_pool_id id);

/* nvmm_pool_destroy() with NVMM_DESTROY_FORCED, of a pool of either kind. */
int nvmm_heap_destroy_forced(struct nvmm_client *nvmm, nvmm_pool_id id);

/*
 * Gives back what this process's threads hold to allocate from and are not just using, frees what is ripe in
 * limbo, and retires spans that are empty, whoever left them; of a sparse heap free memory goes back to the file
 * system. Returns how many bytes of spans became free for any use, 0 or more; or a negative errno: -EROFS;
 * -EACCES; -ETIMEDOUT. Threads that allocate afterwards ask the daemon again: not for every day.
 */
int64_t nvmm_heap_trim(struct nvmm_heap *heap);

struct nvmm_shelf {
	void *addr;
	uint64_t len; /* bytes that are there by now */
	uint32_t index;
};

/*
 * Maps all shelves of the heap and tells where they are: up to `n`, in the order of their indexes; `shelves` may
 * be NULL with n 0. Returns how many there are, or a negative errno. Addresses stay as they are while the heap
 * is open here; a length or the number grows when the heap does. For who registers memory with a device.
 */
int nvmm_heap_shelves(struct nvmm_heap *heap, struct nvmm_shelf *shelves, size_t n);

struct nvmm_heap_info {
	size_t size;        /* sizeof(struct nvmm_heap_info): set it before the call */
	uint64_t bytes;     /* of all shelves */
	uint64_t used;      /* in allocated blocks, rounded up to their size classes */
	uint64_t limbo;     /* of `used`: freed with delay, not yet free */
	uint64_t free;      /* in free runs and in spans' free blocks */
	uint64_t largest;   /* the largest block that can be had; of a sparse heap, if the base has its space */
	uint64_t blocks;    /* allocated */
	uint64_t spans;
	uint64_t overhead;  /* bytes of spans that no block can have: used + free + overhead = bytes */
	uint64_t suspects;  /* blocks that may have been free when power was cut; counted as used */
	uint64_t suspect_bytes;
};

/* Counts the heap; beside running allocation it is a near figure, else exact. Any thread. */
int nvmm_heap_stat(struct nvmm_heap *heap, struct nvmm_heap_info *ret);

/* What is in spans of one size class. */
struct nvmm_heap_class {
	uint64_t block_size; /* bytes; 0: large blocks, of whole units of 16 KiB */
	uint64_t spans;
	uint64_t bytes;  /* that the spans take */
	uint64_t blocks; /* that they have, allocated or not */
	uint64_t used;   /* blocks that are allocated, those in limbo included */
	uint64_t limbo;  /* blocks in limbo */
};

/* Counts the heap by size classes, those that have spans, the smallest first, large blocks last: fills up
 * to `n` of `classes`, and returns how many there are, at most 52, or an error. As nvmm_heap_stat(). */
int nvmm_heap_classes(struct nvmm_heap *heap, struct nvmm_heap_class *classes, size_t n);

/* Recovery of heaps. The daemon recovers by itself what a crash left; these look, and decide the rest. */

enum nvmm_block_state {
	NVMM_BLOCK_ALLOCATED = 1,
	NVMM_BLOCK_LIMBO = 2,   /* freed with delay, not yet free */
	NVMM_BLOCK_SUSPECT = 3, /* allocated, or free before power was cut: nobody else can tell */
};

/*
 * Calls fn for each allocated block, with the bytes that it can hold. Beside others' allocation, what
 * they allocate and free meanwhile may be met or not; no block is met twice. fn may use the heap,
 * and free. Stops at the first value that is not 0 and returns it. -EUCLEAN: the heap is damaged.
 */
int nvmm_heap_walk(struct nvmm_heap *heap,
		   int (*fn)(nvmm_ptr ptr, size_t size, enum nvmm_block_state state, void *arg),
		   void *arg);

struct nvmm_finding {
	const char *file;  /* in the pool's directory; all strings are valid during the call */
	uint64_t offset;   /* bytes, in it */
	const char *what;  /* which rule is broken */
	const char *so;    /* what follows from it */
};

struct nvmm_heap_report {
	size_t size; /* sizeof(struct nvmm_heap_report): set it before the call */
	void (*found)(const struct nvmm_finding *finding, void *arg); /* NULL: nobody; set it */
	void *arg;           /* of `found`; set it */
	uint64_t blocks;     /* allocated */
	uint64_t used;       /* bytes of them */
	uint64_t limbo;      /* of `used` */
	uint64_t suspects;   /* of `blocks` */
	uint64_t violations; /* rules that were found broken; `found` has heard of the first 64 */
};

/*
 * Has the daemon read all metadata of the heap, and says what is wrong with them; changes nothing. 0: it
 * was read, whatever was found. Beside others' allocation the counts are near.
 */
int nvmm_heap_check(struct nvmm_heap *heap, struct nvmm_heap_report *report);

enum nvmm_recover_mode {
	NVMM_RECOVER_ONLINE = 0,  /* beside others: what is empty is given back, the rest verified */
	NVMM_RECOVER_OFFLINE = 1, /* alone: what was interrupted is completed, all of it is verified */
};

/*
 * Recovers the heap, and waits for it; `progress` (may be NULL) is told now and then how many bytes of how
 * many are done. The heap stays open. -EBUSY: OFFLINE, and others have it open (opens meanwhile
 * wait); -EUCLEAN: damage was found; -EROFS: opened read-only; -EACCES. With OFFLINE no other thread
 * may be using the heap.
 */
int nvmm_heap_recover(struct nvmm_heap *heap, enum nvmm_recover_mode mode,
		      void (*progress)(uint64_t done, uint64_t total, void *arg), void *arg);

#define NVMM_SWEEP_SUSPECTS 0u /* blocks of which nobody knows since power was cut */
#define NVMM_SWEEP_ALL 1u      /* every block: -EBUSY while others have the heap open */

struct nvmm_sweep_info {
	size_t size;    /* sizeof(struct nvmm_sweep_info): set it before the call */
	uint64_t asked; /* blocks */
	uint64_t freed;
	uint64_t bytes; /* of those freed */
};

/*
 * Asks is_live about blocks, and frees those that the program says it does not reach. A crash in between
 * leaves each block as it was or free: sweep again. The caller vouches for it that nobody takes
 * one of these blocks into use meanwhile. `ret` may be NULL. -EROFS: opened read-only; -EUCLEAN:
 * the heap is damaged.
 */
int nvmm_heap_sweep(struct nvmm_heap *heap, unsigned flags,
		    bool (*is_live)(nvmm_ptr ptr, size_t size, void *arg), void *arg,
		    struct nvmm_sweep_info *ret);

/* Blocks */

/*
 * Allocates `size` bytes and returns the pointer, or NVMM_NULL with errno: EINVAL: size 0, or more
 * than a shelf can ever hold; ENOSPC: the heap has no room for it, or, if it is sparse, the shelf
 * base has none; EDQUOT: a sparse heap's owner may have no more; ENOMEM: the process has none;
 * EROFS: opened read-only; EDEADLK: called from a signal handler that interrupted the allocator;
 * ETIMEDOUT, ECONNRESET: the daemon was needed and did not answer.
 * The content is undefined. A block is aligned to the largest power of two, up to 4096, that
 * divides its usable size; that is a multiple of 16 whenever `size` is.
 */
nvmm_ptr nvmm_alloc(struct nvmm_heap *heap, size_t size);

/* The same, zeroed. A block above 128 KiB in memory that nobody was given before is not written to. */
nvmm_ptr nvmm_zalloc(struct nvmm_heap *heap, size_t size);

/*
 * The same as nvmm_alloc() at a local address, in every process, that is a multiple of `align`: a power of
 * two up to 2 MiB (else EINVAL). All else that takes a block takes it. Above 16 KiB of alignment a block
 * takes whole units of 16 KiB.
 */
nvmm_ptr nvmm_alloc_aligned(struct nvmm_heap *heap, size_t align, size_t size);

/*
 * Makes a block hold `size` bytes: where it is, if they fit and a new block would not be more than a quarter
 * smaller; else in a new block that gets the bytes that fit, and the old one is freed. Returns the block's pointer, or
 * NVMM_NULL with errno, and the block is as it was: as nvmm_alloc(); EINVAL also: not the start of an
 * allocated block. NVMM_NULL: nvmm_alloc(). A new block has nvmm_alloc()'s alignment. The caller alone uses
 * the block meanwhile. Not crash-atomic: of a caller that dies both blocks may stay allocated; never
 * neither. Where that matters: nvmm_realloc_in(), or nvmm_reserve() and nvmm_publish().
 */
nvmm_ptr nvmm_realloc(struct nvmm_heap *heap, nvmm_ptr ptr, size_t size);

/*
 * Frees a block, from any process that has the heap open for writing. NVMM_NULL does nothing.
 * -EINVAL: not the start of a block of this heap; -EALREADY: it is free already; both exact unless
 * two threads race on one block. -EBUSY: it is reserved, see nvmm_reserve().
 */
int nvmm_free(struct nvmm_heap *heap, nvmm_ptr ptr);

/* The bytes that the block can hold, or 0 if it is not the start of an allocated block. */
size_t nvmm_usable_size(struct nvmm_heap *heap, nvmm_ptr ptr);

/*
 * Frees a block that others may still be reading, in an epoch: it can no longer be found (the caller has
 * unlinked it), and comes back when every reader that may have found it has left. The daemon does it,
 * also when this process is gone. Errors as nvmm_free(), and those of a first call: see
 * nvmm_epoch_enter().
 */
int nvmm_free_deferred(struct nvmm_heap *heap, nvmm_ptr ptr);

/*
 * Crash-atomic changes. A block is reserved, filled, and published together with whatever makes it
 * reachable: all or nothing, whoever dies. doc/crash-consistency.md shows programs that are written so.
 */

/*
 * Allocates a block that is free again if this process dies, or closes the heap, before it is published. Any thread
 * of the process may publish or cancel it; nobody frees it meanwhile (-EBUSY). A thread's lane has room for 128.
 * Returns and errors as nvmm_alloc(), and ENOBUFS: the lane is full.
 */
nvmm_ptr nvmm_reserve(struct nvmm_heap *heap, size_t size);

enum nvmm_action_kind {
	NVMM_ACTION_COMMIT = 1, /* the reserved block `ptr` stays */
	NVMM_ACTION_FREE = 2,   /* the block `ptr` is freed with delay, as by nvmm_free_deferred() */
	NVMM_ACTION_STORE = 3,  /* the 8-byte word at `ptr`, aligned, in an allocated block, becomes `value` */
};

struct nvmm_action {
	enum nvmm_action_kind kind;
	nvmm_ptr ptr;
	uint64_t value;
};

/* For initialisers: struct nvmm_action actions[] = { NVMM_COMMIT(node), NVMM_STORE(head, node) }; */
#define NVMM_COMMIT(block) { NVMM_ACTION_COMMIT, (block), 0 }
#define NVMM_FREE(block) { NVMM_ACTION_FREE, (block), 0 }
#define NVMM_STORE(word, value) { NVMM_ACTION_STORE, (word), (value) }

#define NVMM_PUBLISH_MAX 64u /* actions at once */

/*
 * Does all of `n` actions, or, of a process that dies in it, all or none once its death is settled. Words are stored
 * in their order (each with release), then blocks are committed, then freed. Readers may see some words changed and
 * others not yet. Nobody else writes these words, or frees these blocks but with delay, until it has
 * returned or nvmm_wait_settled() has: writers have a lock of their own. In durability `power` all of it is
 * durable when it returns, and what the caller has flushed (nvmm_flush()) before it is durable before any of it.
 * On failure nothing has changed: -E2BIG: more than NVMM_PUBLISH_MAX; -EINVAL: a block that is not reserved (commit)
 * or not a block's start (free), a word that is not aligned or not in an allocated block of this heap, a
 * word or block twice; -EALREADY: a block is free already; -EBUSY: a block to be freed is reserved, or one to be
 * committed is being published or cancelled by another thread; those of nvmm_free_deferred().
 */
int nvmm_publish(struct nvmm_heap *heap, const struct nvmm_action *actions, size_t n);

/* Frees a reserved block. -EINVAL: it is none; -EBUSY: it is being published or cancelled by another thread; else as
 * nvmm_free_deferred(). NVMM_NULL does nothing. */
int nvmm_cancel(struct nvmm_heap *heap, nvmm_ptr ptr);

/*
 * nvmm_realloc(), crash-atomic, of the block whose pointer stands in the 8-byte word at `where`, which is aligned and in
 * an allocated block of the same heap, not in the one it names: whoever dies, the word names the old block, as it was,
 * or the new one with the content, and the other is free. A word of NVMM_NULL gets a new block. The old
 * one is freed with delay: readers in an epoch may still have it. Returns what the word names now, or
 * NVMM_NULL with errno, and nothing has changed: as nvmm_reserve(); EINVAL: the word is none, or names
 * none or the block it is in; EBUSY: the block is reserved; those of nvmm_publish(). Nobody else writes
 * the word or the block, or frees it, meanwhile.
 */
nvmm_ptr nvmm_realloc_in(struct nvmm_heap *heap, nvmm_ptr where, size_t size);

/*
 * Returns when what every process that is dead by now was publishing in this heap is done, and what it had reserved is
 * free: to be called after a lock was found to be a dead process's, before what it guards is looked at. -EUCLEAN: the
 * heap is damaged; -ETIMEDOUT, -ECONNRESET: the daemon did not answer.
 */
int nvmm_wait_settled(struct nvmm_heap *heap);

struct nvmm_failure {
	nvmm_pool_id pool; /* that it had open */
	pid_t pid;         /* of the dead process; 0, and pool 0: nvmmd was started anew, or there were very
			    * many: others may have died of whom nobody will tell */
};

/*
 * From now on `fn` is called for each process that dies while it has a pool open which this connection has open,
 * too, once for each such pool: after its death is settled, as after nvmm_wait_settled(). The calls come one at a
 * time, on a thread of the library's with all signals blocked; `fn` may call the library, except for
 * nvmm_disconnect(). It replaces the function before; NULL: none. When it returns, the function before is not running,
 * unless it is the caller. nvmm_disconnect() ends it, and so does a lost session; a forked child has none. Errors:
 * -ENOMEM, -EAGAIN: no thread; those of a first nvmm_epoch_enter().
 */
int nvmm_on_failure(struct nvmm_client *nvmm, void (*fn)(const struct nvmm_failure *failure, void *arg),
		    void *arg);

/* Roots: up to 64 named pointers in a heap, changed by the daemon, each change all or nothing. */

/* -ENOENT: no such root. */
int nvmm_root_get(struct nvmm_heap *heap, const char *name, nvmm_ptr *ret);
/* Makes or replaces it. -ENOSPC: 64 roots are there; -EACCES: opened read-only. */
int nvmm_root_set(struct nvmm_heap *heap, const char *name, nvmm_ptr ptr);
/*
 * Stores `desired` if the root is `*expected` (NVMM_NULL also matches a root that is not there);
 * else returns -EAGAIN and the present value in *expected.
 */
int nvmm_root_cas(struct nvmm_heap *heap, const char *name, nvmm_ptr *expected, nvmm_ptr desired);
int nvmm_root_remove(struct nvmm_heap *heap, const char *name);

struct nvmm_root {
	char name[NVMM_ROOT_NAME_MAX + 1];
	nvmm_ptr ptr;
};
/* Fills up to `n`; returns how many roots there are, or a negative errno. */
int nvmm_root_list(struct nvmm_heap *heap, struct nvmm_root *roots, size_t n);

/* Pointers */

/*
 * The local address of a global pointer; NULL for NVMM_NULL, and, with errno, where its pool can't
 * be opened by this user or its shelf cannot be mapped. Maps a shelf at first use; a pool that has
 * no handle is opened, for writing if allowed, until nvmm_pool_release() or nvmm_disconnect().
 */
void *nvmm_local_slow(struct nvmm_client *nvmm, nvmm_ptr ptr);

/* The global pointer of an address in a mapped shelf, or NVMM_NULL if it is in none. */
nvmm_ptr nvmm_global(struct nvmm_client *nvmm, const void *addr);

/* First member of struct nvmm_client, for nvmm_local() alone: shelf addresses by pool. */
struct nvmm_translation {
	char *const *const *shelf_base; /* [pool][shelf], NULL at either level: not mapped */
	uint64_t epoch_id; /* for nvmm_epoch_enter() alone: of this connection, never used twice */
};

static inline void *nvmm_local(struct nvmm_client *nvmm, nvmm_ptr ptr)
{
	const struct nvmm_translation *t = (const struct nvmm_translation *)(const void *)nvmm;
	char *const *shelves;
	char *base;

	/* ordering: acquire, twice: the table was filled before its address was stored with
	 * release, and the mapping made before its own. */
	shelves = __atomic_load_n(&t->shelf_base[ptr >> 48], __ATOMIC_ACQUIRE);
	if (__builtin_expect(shelves != NULL, 1)) {
		base = __atomic_load_n(&shelves[(uint8_t)(ptr >> 40)], __ATOMIC_ACQUIRE);
		if (__builtin_expect(base != NULL, 1))
			return base + (ptr & ((UINT64_C(1) << 40) - 1));
	}
	return nvmm_local_slow(nvmm, ptr);
}

/*
 * Maps one range of a pool for itself, as nvmm_region_map(): `ptr` on a page boundary, within one
 * shelf. The pool is opened as nvmm_local() does.
 */
int nvmm_map(struct nvmm_client *nvmm, nvmm_ptr ptr, size_t len, void *hint, int prot, int flags,
	     void **ret);
int nvmm_unmap(struct nvmm_client *nvmm, void *addr, size_t len);

/*
 * Epochs: between enter and exit a thread may use any block that it finds in a pool that this
 * connection has open, though others unlink it and free it with nvmm_free_deferred() meanwhile.
 */

/* A slot's word: an epoch, and in these low bits how deep its thread is in it; 0: outside. */
#define NVMM_EPOCH_NEST_MASK ((UINT64_C(1) << 20) - 1)

/* A slot of the calling thread, for the inline functions alone; never changed while it may be used. */
struct nvmm_epoch_place {
	uint64_t id; /* of the connection; 0: of none */
	uint64_t *slot;
	const uint64_t *current; /* what is stored by who enters */
};
extern __thread const struct nvmm_epoch_place *nvmm_epoch_place
	__attribute__((__tls_model__("initial-exec")));
int nvmm_epoch_enter_slow(struct nvmm_client *nvmm);
void nvmm_epoch_exit_slow(struct nvmm_client *nvmm);

/* Branches, not choices of a value: a processor that foresees them waits for no slot's word. */
static inline void nvmm_epoch_pin(uint64_t *slot, const uint64_t *current)
{
	/* ordering: relaxed; the thread's own. */
	uint64_t word = __atomic_load_n(slot, __ATOMIC_RELAXED);

	if (__builtin_expect(word == 0, 1)) {
		/* ordering: acquire; all that the daemon had seen when it raised the epoch is seen. */
		word = __atomic_load_n(current, __ATOMIC_ACQUIRE);
		/* ordering: relaxed, and the compiler's fence: the daemon's membarrier makes it a full
		 * one. */
		__atomic_store_n(slot, word, __ATOMIC_RELAXED);
	} else {
		/* ordering: relaxed; the first entry counts. */
		__atomic_store_n(slot, word + 1, __ATOMIC_RELAXED);
	}
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void nvmm_epoch_unpin(uint64_t *slot)
{
	/* ordering: relaxed; the thread's own. */
	uint64_t word = __atomic_load_n(slot, __ATOMIC_RELAXED);

	if (__builtin_expect((word & NVMM_EPOCH_NEST_MASK) <= 1, 1))
		/* ordering: release; all use of blocks comes before. */
		__atomic_store_n(slot, 0, __ATOMIC_RELEASE);
	else
		/* ordering: release; as above, though the thread stays inside. */
		__atomic_store_n(slot, word - 1, __ATOMIC_RELEASE);
}

/*
 * Enters an epoch; nests, up to a million deep. A thread's first call on a connection may ask the daemon
 * for a place: -ENOMEM, -ENOSPC (in the daemon's runtime directory), -EMFILE, -EUSERS (131072 threads, or more
 * places than the process's threads can need), -EDQUOT (the user's processes have too many),
 * -ETIMEDOUT, -ECONNRESET, -ENOTCONN (after fork), -EDEADLK (from a signal handler that interrupted the
 * library). Later ones return 0, never wait, and may be made from signal handlers. A thread's end ends
 * the epoch that it is in.
 */
static inline int nvmm_epoch_enter(struct nvmm_client *nvmm)
{
	const struct nvmm_translation *t = (const struct nvmm_translation *)(const void *)nvmm;

	/* ordering: relaxed; the thread's own, and loaded once: a signal handler may change it. */
	const struct nvmm_epoch_place *place = __atomic_load_n(&nvmm_epoch_place, __ATOMIC_RELAXED);

	if (__builtin_expect(place->id != t->epoch_id, 0))
		return nvmm_epoch_enter_slow(nvmm);
	nvmm_epoch_pin(place->slot, place->current);
	return 0;
}

/* Leaves what the thread's last nvmm_epoch_enter() on this connection entered. */
static inline void nvmm_epoch_exit(struct nvmm_client *nvmm)
{
	const struct nvmm_translation *t = (const struct nvmm_translation *)(const void *)nvmm;

	/* ordering: relaxed; as on entry. */
	const struct nvmm_epoch_place *place = __atomic_load_n(&nvmm_epoch_place, __ATOMIC_RELAXED);

	if (__builtin_expect(place->id != t->epoch_id, 0))
		nvmm_epoch_exit_slow(nvmm);
	else
		nvmm_epoch_unpin(place->slot);
}

/*
 * Waits until every reader has left that was in an epoch when it was called, in any process that has a
 * pool open which this connection has open. -EDEADLK: the caller is in one itself; -ETIMEDOUT: one
 * of them stays longer than options.timeout_ms; -ENOSYS: the daemon has no membarrier(2).
 */
int nvmm_epoch_synchronize(struct nvmm_client *nvmm);

/*
 * The node's epoch: a number that rises by one each epoch.interval and never falls, with nothing in limbo and
 * without a daemon, too. The frontier: readers of numbers below it have left, as far as the daemon knows. Once the
 * frontier is above a number that nvmm_epoch_current() returned, all readers that were inside at that time have
 * left. The daemon looks while blocks are in limbo, and after nvmm_epoch_frontier() was called, which does not wait
 * for it. 0 with errno: as nvmm_epoch_enter().
 */
uint64_t nvmm_epoch_current(struct nvmm_client *nvmm);
uint64_t nvmm_epoch_frontier(struct nvmm_client *nvmm);

/* Locks */

/*
 * Locks in shared memory, for the threads of all processes that have the pool open for writing. Zeroed memory is an
 * unlocked lock; there is nothing to initialise or destroy. A lock stands at a multiple of 8 in a heap's block or a
 * region; at a multiple of 64 it has its cache lines for itself. `nvmm` is the connection through which the pool is
 * open; it unlocks what it has locked. doc/locks.md has the argument.
 *
 * Locks are robust. A process that dies, disconnects or loses its session gives up all that it holds, when the daemon
 * has settled its death; so does a reboot. Who locks next has the lock with -EOWNERDEAD: what it guards may be
 * half changed. He repairs it and says so with nvmm_mutex_consistent(); who unlocks without makes the lock
 * -ENOTRECOVERABLE for all, until its memory is zeroed while nobody uses it. In a heap, what the dead process was
 * publishing is done by then, as after nvmm_wait_settled(). A thread that ends with a lock keeps it until its
 * process ends. A forked child has none of its parent's locks.
 *
 * Locking and unlocking need no daemon while owners live; only the death of one does: without a daemon its lock stays
 * taken. There is no strict order among waiters: a running thread may overtake those that sleep, which are woken
 * by real-time priority, then in their order. One that has slept often or for 1 ms has the lock left to those that
 * slept. Priorities are not inherited. Waiting is no cancellation point. Not for
 * signal handlers.
 *
 * Deadlines are of CLOCK_MONOTONIC; NULL: none. A dead owner's lock may cost up to 20 ms beyond one, for the question.
 *
 * Errors of all: -EINVAL: not a multiple of 8, or not a deadline; -EROFS: the shelf is mapped read-only (in memory of
 * nvmm_map() and nvmm_region_map() nobody can tell); -ECONNRESET: the session is lost; -ENOTCONN: after fork.
 */
struct nvmm_mutex {
	uint64_t word;   /* the library's, all of it */
	uint32_t thread;
	uint32_t zero[13];
};

/* -EOWNERDEAD: locked, see above; -ENOTRECOVERABLE; -EDEADLK: this thread has it. */
int nvmm_mutex_lock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex);
/* -EBUSY: another has it. Never asks the daemon: of a dead owner's, too. */
int nvmm_mutex_trylock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex);
/* -ETIMEDOUT: not until `deadline`. */
int nvmm_mutex_timedlock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex, const struct timespec *deadline);
/* -EPERM: this thread does not have it. */
int nvmm_mutex_unlock(struct nvmm_client *nvmm, struct nvmm_mutex *mutex);
/* What it guards is whole again. -EINVAL: this thread has not got it with -EOWNERDEAD. */
int nvmm_mutex_consistent(struct nvmm_client *nvmm, struct nvmm_mutex *mutex);

/* Processes that read at once; further ones wait. Threads of one process share one place. */
#define NVMM_RWLOCK_READERS 32u

/*
 * One writer, or readers. A reader is let in while no writer has the lock or waits for readers to leave; so writers
 * that follow each other closely keep readers out. Reading again while one reads may wait for a writer who
 * waits for the first reading to end, for ever.
 */
struct nvmm_rwlock {
	struct nvmm_mutex writer;
	uint32_t drain;
	uint32_t crowd;
	uint32_t zero[14];
	uint64_t readers[NVMM_RWLOCK_READERS];
};

/*
 * For reading. -EOWNERDEAD: a writer died with it, and the caller does not have the lock: he takes it for writing, and
 * repairs; -ENOTRECOVERABLE; -EDEADLK: this thread has it for writing; -EAGAIN: 65535 threads of the process read. A
 * reader that dies gives up its place and harms nobody.
 */
int nvmm_rwlock_rdlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock);
int nvmm_rwlock_tryrdlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock);
int nvmm_rwlock_timedrdlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock, const struct timespec *deadline);
/* For writing. As nvmm_mutex_lock(): -EOWNERDEAD: locked, and no reader is there. */
int nvmm_rwlock_wrlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock);
int nvmm_rwlock_trywrlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock);
int nvmm_rwlock_timedwrlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock, const struct timespec *deadline);
/* What the caller has. -EPERM: nothing. */
int nvmm_rwlock_unlock(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock);
/* As nvmm_mutex_consistent(), of who has it for writing. */
int nvmm_rwlock_consistent(struct nvmm_client *nvmm, struct nvmm_rwlock *rwlock);

struct nvmm_cond {
	uint32_t seq;
	uint32_t waited;
	uint32_t zero[14];
};

/*
 * Unlocks the mutex, waits to be signalled, and locks it again. May return for no reason, so callers look at what they
 * wait for again. Returns as nvmm_mutex_lock() does of the locking; -EPERM: this thread does not have the mutex.
 */
int nvmm_cond_wait(struct nvmm_client *nvmm, struct nvmm_cond *cond, struct nvmm_mutex *mutex);
/* -ETIMEDOUT: nobody signalled until `deadline`; the mutex is locked all the same. */
int nvmm_cond_timedwait(struct nvmm_client *nvmm, struct nvmm_cond *cond, struct nvmm_mutex *mutex,
			const struct timespec *deadline);
/* Wakes one waiter, or all; more may return. A process that dies with a wake-up does not lose it: another one returns. */
int nvmm_cond_signal(struct nvmm_client *nvmm, struct nvmm_cond *cond);
int nvmm_cond_broadcast(struct nvmm_client *nvmm, struct nvmm_cond *cond);

/* Persistence: of user bytes at local addresses. For pools of durability `process` not needed. */

/* Starts writing back; done when a later nvmm_drain() of the same thread returns. */
void nvmm_flush(const void *addr, size_t len);
void nvmm_drain(void);
/* Both. */
void nvmm_persist(const void *addr, size_t len);
/* Drops this CPU's cached copy, so that the next read sees what another node wrote back. */
void nvmm_invalidate(const void *addr, size_t len);
void *nvmm_memcpy_persist(void *dst, const void *src, size_t len);
void *nvmm_memset_persist(void *dst, int c, size_t len);

#ifdef __cplusplus
}
#endif

#endif
