/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who died.
 *
 * The daemon never speaks first: it counts in the epoch page, where clients that want to know wait by a futex,
 * and they ask. It keeps the last deaths; a client that comes late, or had asked a daemon before this one, is
 * told that it may have missed some. A heap that nobody has used since this daemon started is loaded before the
 * answer, since that is what settles those who died before.
 */
#include "daemon/failures.h"

#include <errno.h>

#include "daemon/heap_load.h"
#include "daemon/nvmmd.h"
#include "daemon/request.h"
#include "daemon/session_file.h"

static void note(struct nvmmd *nvmmd, uint32_t pool, uint64_t incarnation, pid_t pid)
{
	struct failures *f = &nvmmd->failures;

	f->failure[f->n++ % FAILURES_KEPT] =
		(struct failure){ .pool = pool, .pid = pid, .incarnation = incarnation };
}

void failures_note(const struct opening *opening)
{
	struct nvmmd *nvmmd = opening->pool->nvmmd;

	note(nvmmd, opening->pool->id, opening->incarnation, opening->session->peer.process.pid);
	if (nvmmd->epochs.page)
		epoch_page_call(nvmmd->epochs.page);
}

void failures_note_image(struct nvmmd *nvmmd, const struct session_image *image)
{
	for (uint32_t i = 0; i < image->n_pools; i++)
		note(nvmmd, image->pools[i].pool, image->pools[i].incarnation, image->process.pid);
}

/* The session's opening of the pool where it happened; NULL: that is not its business. */
static struct opening *concerned(struct session *session, const struct failure *failure)
{
	struct opening *opening;

	LIST_FOREACH (opening, &session->openings, of_session)
		if (opening->pool->id == failure->pool &&
		    opening->incarnation == failure->incarnation)
			return opening;
	return NULL;
}

/* What was there is settled. REQUEST_PENDING: it will be; a heap that cannot be loaded stays as it is. */
static int settled(struct request *request, struct pool *pool)
{
	int r = 0;

	if (pool->record.kind == POOL_HEAP && !pool->damage)
		r = heap_need(request, pool);
	return r == REQUEST_PENDING ? r : 0;
}

static int fill(struct request *request, Nvmm__FailuresReply *reply, uint64_t from)
{
	const struct failures *all = &request->nvmmd->failures;
	Nvmm__Failure *failure;
	int r;

	for (uint64_t k = from; k < all->n; k++) {
		const struct failure *f = &all->failure[k % FAILURES_KEPT];
		struct opening *opening = concerned(request->session, f);

		if (!opening)
			continue;
		r = settled(request, opening->pool);
		if (r != 0)
			return r;
		failure = request_alloc(request, sizeof(*failure));
		if (!failure)
			return request_fail(request, -ENOMEM, "the daemon has no memory");
		nvmm__failure__init(failure);
		failure->pool = f->pool;
		failure->pid = (uint32_t)f->pid;
		reply->failures[reply->n_failures++] = failure;
	}
	return 0;
}

int op_failures(struct request *request)
{
	const Nvmm__Failures *m = request->msg->failures;
	const struct failures *all = &request->nvmmd->failures;
	Nvmm__FailuresReply *reply = request_alloc(request, sizeof(*reply));
	uint64_t from = m->run == request->nvmmd->run ? MIN(m->after, all->n) : 0;
	int r = 0;

	if (!reply)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	nvmm__failures_reply__init(reply);
	reply->failures = request_alloc(request, FAILURES_KEPT * sizeof(*reply->failures));
	if (!reply->failures)
		return request_fail(request, -ENOMEM, "the daemon has no memory");
	reply->run = request->nvmmd->run;
	reply->last = all->n;
	reply->missed = m->run != 0 && (m->run != reply->run || all->n - from > FAILURES_KEPT);
	if (all->n - from > FAILURES_KEPT)
		from = all->n - FAILURES_KEPT;
	if (m->run != 0)
		r = fill(request, reply, from);
	if (r != 0)
		return r;
	request->reply.result_case = NVMM__REPLY__RESULT_FAILURES;
	request->reply.failures = reply;
	return 0;
}
