/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/call_fixture.h"

#include <string.h>
#include <unistd.h>

struct fake fake;
struct nvmm_client *nvmm;

void call_setup(void)
{
	fake_init(&fake);
}

void call_teardown(void)
{
	nvmm_disconnect(nvmm);
	nvmm = NULL;
	fake_stop(&fake);
}

int call_connect(int timeout_ms)
{
	struct nvmm_options options = {
		.size = sizeof(options),
		.socket = fake.path,
		.timeout_ms = timeout_ms,
	};

	return nvmm_connect(&nvmm, &options);
}

enum fake_action call_answer_pool(Nvmm__Reply *reply, uint32_t id, uint32_t kind)
{
	static __thread Nvmm__PoolInfo pool;

	nvmm__pool_info__init(&pool);
	pool.id = id;
	pool.kind = kind;
	pool.incarnation = 3;
	pool.min_block = 16;
	pool.shelves = 1;
	reply->result_case = NVMM__REPLY__RESULT_POOL;
	reply->pool = &pool;
	return FAKE_REPLY;
}

enum fake_action call_serve_lookup(struct fake *f, int conn, const Nvmm__Request *request, Nvmm__Reply *reply,
				   int *fds, size_t *n_fds)
{
	const char *name = request->pool_lookup->name;

	if (strncmp(name, "late", 4) == 0)
		usleep(500000);
	return call_answer_pool(reply, (uint32_t)strlen(name), NVMM_POOL_REGION);
}
