/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One request of a client, from its bytes to its reply.
 *
 * A handler returns 0 with the reply filled, a negative errno with a text, or REQUEST_PENDING: then
 * a job or a pool has the request and ends it with request_finish(), or begins it again with
 * request_run().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/macro.h"
#include "daemon/job.h"
#include "daemon/peer.h"
#include "media/grant.h"
#include "proto/frame.h"
#include "proto/nvmm.pb-c.h"

#define REQUEST_PENDING 1
#define REQUEST_TEXT_LEN 384u

struct connection;
struct nvmmd;
struct pool;
struct request_chunk;
struct session;

struct request {
	struct nvmmd *nvmmd;
	struct connection *connection; /* a reference */
	struct session *session;       /* a reference; NULL: Hello */
	const struct request_op *op;
	Nvmm__Request *msg;
	Nvmm__Reply reply;
	char text[REQUEST_TEXT_LEN];
	int fds[FRAME_FDS_MAX]; /* owned; sent with the reply */
	size_t n_fds;
	struct request_chunk *chunks; /* what request_alloc() gave */
	TAILQ_ENTRY(request) of_pool;
	struct job resume;    /* of a request that waited for a pool */
	struct pool *resumes; /* a reference, meanwhile */
	int load_error;       /* of the heap's load that it waited for */
	unsigned rounds; /* of reclamation that it asked for */
	bool cut_waited; /* for files that were cut back, once */
	bool waited;     /* for readers, once */
	bool flight_waited; /* for its user to read replies */
	uint64_t settle_upto; /* SettleWait: number of the last opening that it waits for, plus 1; 0: not known */
	uint64_t look;        /* SettleWait: number of its look at the openers; 0: not begun */
	pid_t dying;          /* SettleWait: who was about to die then */
	bool settled;         /* it has waited until the dead were settled, once */
	bool relieved;   /* there is no more space to be given back for it */
	struct grant_press press; /* how far it has looked for room */
	uint64_t pass; /* over all slots, that it waits for; 0: none */
	TAILQ_ENTRY(request) of_epochs;
};

struct request_op {
	const char *name;
	int (*handle)(struct request *request);
	bool mutation;  /* its answer is kept for a repeat */
	bool strings;   /* it carries strings: checked for NUL */
	bool descriptors; /* its reply has some */
};

/*
 * Takes a packet in: validates it and runs it. Whatever is wrong with it ends the connection, after
 * a reply that says why. The frame is borrowed; its descriptors are closed.
 */
void request_receive(struct connection *connection, struct frame *frame);

/* Ends a connection for what it sent, after a reply with the reason. */
void request_refuse(struct connection *connection, int r, const char *why);

/* Runs the request's handler, and ends it unless it is pending. */
void request_run(struct request *request);

/* Answers with `r` and frees the request. */
void request_finish(struct request *request, int r);
/* Frees it unanswered: its connection or session is gone. */
void request_free(struct request *request);

/* Sets the text of an error and returns it. */
int request_fail(struct request *request, int r, const char *fmt, ...) _printf(3, 4);

/* strerror() of a negative errno, or what it means here. Static memory. */
const char *request_error_text(int r);

/* Zeroed memory that lives as long as the request. NULL: there is none. */
void *request_alloc(struct request *request, size_t size);
char *request_strdup(struct request *request, const char *text);

/* Takes a descriptor for the reply. */
void request_add_fd(struct request *request, int fd);

/* Closes those that it has: it begins again later. */
void request_drop_fds(struct request *request);

/* Whether a daemon before this one did the request, and died before its reply was read. */
bool request_was_done(const struct request *request);

const struct peer *request_peer(const struct request *request);

/* Handlers, by what they are about. */

/* session_ops.c */
int op_hello(struct request *request);
int op_goodbye(struct request *request);

/* pool_ops.c */
int op_pool_lookup(struct request *request);
int op_pool_list(struct request *request);
int op_pool_stat(struct request *request);
int op_pool_chmod(struct request *request);
int op_pool_chown(struct request *request);
/* open_ops.c */
int op_pool_open(struct request *request);
int op_pool_close(struct request *request);
int op_shelf_open(struct request *request);
/* pool_create.c, pool_resize.c, pool_destroy.c */
int op_pool_create(struct request *request);
int op_pool_resize(struct request *request);
int op_pool_destroy(struct request *request);
/* heap_ops.c */
int op_lane_take(struct request *request);
int op_lane_return(struct request *request);
int op_span_get(struct request *request);
int op_run_get(struct request *request);
/* heap_stat.c */
int op_heap_stat(struct request *request);
int op_heap_map(struct request *request);
/* settle_ops.c */
int op_settle_wait(struct request *request);
/* owner.c */
int op_owner_state(struct request *request);
/* failures.c */
int op_failures(struct request *request);
/* heap_space.c */
int op_heap_trim(struct request *request);
/* root.c */
int op_root_get(struct request *request);
int op_root_set(struct request *request);
int op_root_cas(struct request *request);
int op_root_remove(struct request *request);
int op_root_list(struct request *request);
/* epoch_ops.c */
int op_epoch_open(struct request *request);
int op_epoch_grow(struct request *request);
int op_epoch_sync(struct request *request);
int op_epochs(struct request *request);
/* recover_ops.c */
int op_recover(struct request *request);
int op_recover_status(struct request *request);
int op_check(struct request *request);
int op_exclusive(struct request *request);
/* status.c */
int op_status(struct request *request);
int op_clients(struct request *request);
