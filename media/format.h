/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What stands on media. Each struct's size is frozen; doc/media-format.md explains the files.
 *
 *   <base>/node-<k>               struct node_file_df            one writer: daemon k
 *   <base>/registry               struct registry_file_df        one writer: the daemon
 *   <base>/pool-<id>/meta.<k>     struct meta_file_df            one writer: daemon k
 *   <base>/pool-<id>/shelf-<i>    user bytes, nothing else
 *   <base>/pool-<id>/table-<i>.<k>  header, then a span word a unit    one writer: daemon k
 *   <base>/pool-<id>/state-<i>    header, hint bitmap, then a state record a unit
 *   <base>/pool-<id>/lanes.<k>    header, hint arrays, then struct lane_df each
 *
 * The last three exist for heaps only. Compatibility: a reader refuses a file with an unknown bit
 * in `incompat`, refuses to write one with an unknown bit in `ro_compat`, ignores `compat`.
 */
#pragma once

#include "media/store.h"

#define MEDIA_PAGE 4096u
#define MEDIA_LINE 64u
#define MEDIA_VERSION 1u

#define UNIT_SHIFT 14
#define UNIT_SIZE (UINT64_C(1) << UNIT_SHIFT)

#define POOL_ID_MAX 65535u
#define POOL_NAME_MAX 63u
#define POOL_SHELVES_MAX 256u
#define SHELF_SIZE_MAX ((UINT64_C(1) << 40) - UNIT_SIZE) /* offsets have 40 bits, lengths 26 */
#define POOL_ROOTS_MAX 64u
#define ROOT_NAME_MAX 47u

/* 64 bytes: opens every metadata file, is written once, before the pool goes live. */
struct file_header_df {
	m64 magic; /* FILE_MAGIC_*: what the file is */
	m32 version;
	m32 crc; /* CRC-32 of these 64 bytes with this field zero */
	m32 compat;
	m32 ro_compat;
	m32 incompat;
	m16 node; /* the home node, which alone writes the file (state: which lends it) */
	m16 pool; /* 0: not of a pool */
	m64 incarnation;
	m32 index; /* the shelf's, for table-<i> and state-<i> */
	m32 min_block;
	m64 limit; /* units that the file's layout provides for (state) */
	m64 zero;
};
_Static_assert(sizeof(struct file_header_df) == 64, "frozen");

#define FILE_MAGIC(a, b, c, d)                                                     \
	((uint64_t)'n' | (uint64_t)'v' << 8 | (uint64_t)'m' << 16 | (uint64_t)'m' << 24 | \
	 (uint64_t)(a) << 32 | (uint64_t)(b) << 40 | (uint64_t)(c) << 48 | (uint64_t)(d) << 56)
#define FILE_MAGIC_NODE FILE_MAGIC('n', 'o', 'd', 'e')
#define FILE_MAGIC_REGISTRY FILE_MAGIC('r', 'e', 'g', 'i')
#define FILE_MAGIC_META FILE_MAGIC('m', 'e', 't', 'a')
#define FILE_MAGIC_TABLE FILE_MAGIC('t', 'a', 'b', 'l')
#define FILE_MAGIC_STATE FILE_MAGIC('s', 't', 'a', 't')
#define FILE_MAGIC_LANES FILE_MAGIC('l', 'a', 'n', 'e')

/*
 * Two-slot records (media/slot.h). The first 16 bytes of every slot. `commit` is zero while the
 * slot is blank or being written, else SLOT_COMMIT | sequence: so a torn write (zero) is told from
 * rot (not zero, CRC wrong). The valid slot with the higher sequence is the record.
 */
struct slot_head_df {
	m64 commit;
	m32 crc; /* CRC-32 of the whole slot with this field zero and `commit` as it will be */
	m32 zero;
};
_Static_assert(sizeof(struct slot_head_df) == 16, "frozen");

#define SLOT_COMMIT (UINT64_C(0x4e564d4d) << 32)
#define SLOT_SEQ_MASK UINT64_C(0xffffffff)

/* What a node's daemon knows of itself. */
struct node_record_df {
	struct slot_head_df head;
	m16 node;
	m8 clean; /* 1: shut down in order, nothing was open */
	m8 zero0[5];
	m64 starts; /* how often a daemon has served this base */
	m8 boot_id[16];
	m64 last_stop; /* seconds since 1970, of the clean mark */
	m8 name[64];
	m64 owners; /* no session of this node was given an owner number from here on */
	m8 zero1[120];
};
_Static_assert(sizeof(struct node_record_df) == 248, "frozen");

struct node_file_df {
	struct file_header_df header;
	m8 zero[MEDIA_PAGE - 64];
	struct node_record_df slot[2];
};

enum pool_kind {
	POOL_REGION = 1,
	POOL_HEAP = 2,
};

enum pool_state {
	POOL_FREE = 0,       /* the id is free; the incarnation stays */
	POOL_CREATING = 1,   /* files may be there; rolled back at start */
	POOL_LIVE = 2,
	POOL_RESIZING = 3,   /* live; files may be longer than meta says; cut back at start */
	POOL_DESTROYING = 4, /* files may be gone; rolled forward at start */
};

/* Pool flags. */
#define POOL_SPARSE 1u /* space is reserved run by run as it is granted */

/* 256 bytes: one slot of a pool's record in the registry. Identity, access and state. */
struct pool_record_df {
	struct slot_head_df head;
	m16 pool;
	m8 kind;
	m8 state;
	m16 home; /* home node */
	m8 durability;
	m8 flags;
	m64 incarnation; /* raised at each creation under this id */
	m32 uid;
	m32 gid;
	m32 mode; /* rwxrwxrwx, x unused */
	m32 min_block; /* heaps: bytes */
	m64 size; /* bytes promised to users: the sum of the shelves */
	m64 created; /* seconds since 1970 */
	m8 cookie[16]; /* the session that asked for the last change, */
	m64 op_seq; /*   and its request: a retry is answered, not done again */
	m8 name[POOL_NAME_MAX + 1]; /* zero-padded; empty: none */
	m8 priority; /* heaps: who is recovered first, the higher */
	m8 zero[103];
};
_Static_assert(sizeof(struct pool_record_df) == 256, "frozen");

struct registry_entry_df {
	struct pool_record_df slot[2];
};
_Static_assert(sizeof(struct registry_entry_df) == 512, "frozen");

/* Entry i is pool i; entry 0 is unused. Reserved chunk by chunk as ids come into use. */
struct registry_file_df {
	struct file_header_df header;
	m8 zero[MEDIA_PAGE - 64];
	struct registry_entry_df entry[POOL_ID_MAX + 1];
};
#define REGISTRY_CHUNK 65536u

/* 64 bytes: the size of one shelf. Committing it is what makes a shelf longer. */
struct shelf_record_df {
	struct slot_head_df head;
	m32 index;
	m32 zero0;
	m64 size;  /* bytes: a multiple of the page (region) or the unit (heap); 0: no such shelf */
	m64 limit; /* bytes to which it may grow in place; what clients set address space aside for */
	m8 zero1[24];
};
_Static_assert(sizeof(struct shelf_record_df) == 64, "frozen");

struct shelf_entry_df {
	struct shelf_record_df slot[2];
};

/* 128 bytes: one named root of a heap. */
struct root_record_df {
	struct slot_head_df head;
	m64 ptr; /* nvmm_ptr; NVMM_NULL is a value, an empty name is no root */
	m8 name[ROOT_NAME_MAX + 1];
	m8 cookie[16]; /* as in the pool record */
	m64 op_seq;
	m8 zero[32];
};
_Static_assert(sizeof(struct root_record_df) == 128, "frozen");

struct root_entry_df {
	struct root_record_df slot[2];
};

enum service_state {
	SERVICE_CLOSED = 0, /* no writer has the heap: all is drained, no span is open */
	SERVICE_IN_USE = 1, /* it had writers in the boot `boot_id` */
};

/* 64 bytes: how a heap was last left. */
struct service_record_df {
	struct slot_head_df head;
	m8 state;
	m8 zero0[7];
	m8 boot_id[16];
	m8 zero1[24];
};
_Static_assert(sizeof(struct service_record_df) == 64, "frozen");

struct service_entry_df {
	struct service_record_df slot[2];
};

struct meta_file_df {
	struct file_header_df header;
	m8 zero[MEDIA_PAGE - 64];
	struct shelf_entry_df shelf[POOL_SHELVES_MAX];
	struct root_entry_df root[POOL_ROOTS_MAX];
	struct service_entry_df service;
	m8 zero1[MEDIA_PAGE - 128];
};
_Static_assert(sizeof(struct meta_file_df) == 4096 + 32768 + 16384 + 4096, "frozen");

/* table-<i>.<k>: MEDIA_PAGE of header, then one span word a unit; media/span.h has the bits. */
struct table_file_df {
	struct file_header_df header;
	m8 zero[MEDIA_PAGE - 64];
	m64 word[];
};

/*
 * state-<i>: MEDIA_PAGE of header; the hint bitmap of `limit` bits, padded to a page; the limbo hint
 * bitmap, likewise; then the state records, whose stride depends on the smallest block (media/span.h). A record's tail:
 */
struct state_tail_df {
	m64 owner; /* OWNER_* or a lane (media/span.h) */
	m64 open;  /* `power`: OPEN_* and a version (media/mark.h) */
	m64 word;  /* a head's: the span word that it was granted with, */
	m64 seal;  /*   and state_seal() of it: two files tell of each span */
};
_Static_assert(sizeof(struct state_tail_df) == 32, "frozen");

#define SIZE_CLASSES_MAX 64u
#define CLASS_HINTS 8u

#define LANE_OWNED 128u

/* The daemon, short of room, takes the spans of an idle lane back. Above these bits of the word is a
 * number that settling raises: who still uses the lane finds that it is not his any more. */
enum revoke {
	REVOKE_NONE = 0,
	REVOKE_WANTED = 1,
	REVOKE_TAKING = 2,
	REVOKE_TAKEN = 3,
};
#define REVOKE_STATE UINT64_C(3)

/*
 * What one publish does, all or nothing (media/publish.h). A log holds while `commit` says so and the
 * CRC is right; cleared, it keeps the sequence number alone.
 */
#define LOG_ACTIONS 64u
#define LOG_COMMIT (UINT64_C(0x4e564c47) << 32) /* then 24 bits of sequence number, 8 of count */
#define LOG_COMMIT_MASK (UINT64_C(0xffffffff) << 32)

enum log_kind {
	LOG_COMMIT_BLOCK = 1, /* a reserved block stays; `value`: lane << 8 | place of its entry */
	LOG_FREE_BLOCK = 2,   /* a block is freed with delay */
	LOG_STORE = 3,        /* the word at `where` becomes `value`; it was `old` */
};

struct log_action_df {
	m64 where; /* kind in bits 63..48, the place in the heap below */
	m64 old;
	m64 value;
};
_Static_assert(sizeof(struct log_action_df) == 24, "frozen");

struct log_df {
	m64 commit; /* LOG_COMMIT | sequence << 8 | count */
	m32 crc;    /* CRC-32 of `commit` as it will be, then of the `count` actions */
	m32 zero;
	struct log_action_df action[LOG_ACTIONS];
};
_Static_assert(sizeof(struct log_df) == 1552, "frozen");

#define LANE_RESERVED 128u

/* 4096 bytes: one thread's place in a heap. Its own cache lines; one writer: its thread. */
struct lane_df {
	m64 owned[LANE_OWNED]; /* span refs (media/span.h), written before the owner word */
	m64 reserved[LANE_RESERVED]; /* blocks that vanish if the process dies; 0: none (media/reserve.h) */
	struct log_df log;
	m8 zero0[368];
	/*
	 * What each call reads. Processors take a load for one of what was stored at the same offset of another page
	 * a moment ago, and wait; programs fill the beginnings of pages.
	 */
	m64 revoke; /* REVOKE_*, and how often it was settled: media/lane.c */
	m8 zero1[56];
	m64 busy;    /* 1 while its thread is inside the allocator */
	m64 freeing; /* span freed into last without owning it: its hint may be unset; 0: none */
	m64 holder;  /* the process that has it, of which the daemon makes a number; 0: nobody */
	m8 zero2[40];
};
_Static_assert(sizeof(struct lane_df) == 4096, "frozen");

/* lanes.<k>: MEDIA_PAGE of header, hint arrays of each class, lanes. */
struct lanes_file_df {
	struct file_header_df header;
	m64 watch; /* odd while the daemon looks for limbo here; never the truth (media/limbo.h) */
	m8 zero[MEDIA_PAGE - 72];
	m64 hint[SIZE_CLASSES_MAX][CLASS_HINTS]; /* span refs; never the truth */
	struct lane_df lane[];
};
_Static_assert(sizeof(struct lanes_file_df) == 8192, "frozen");

#define LANES_MAX 65536u
