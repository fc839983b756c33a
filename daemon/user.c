/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Users, by uid.
 */
#include "daemon/user.h"

#include <stdlib.h>

#include "common/macro.h"
#include "daemon/nvmmd.h"

static int user_compare(struct user *a, struct user *b)
{
	return a->uid < b->uid ? -1 : a->uid > b->uid;
}

RB_GENERATE_INTERNAL(users, user, of_uid, user_compare, _unused static)

struct user *user_find(struct nvmmd *nvmmd, uid_t uid)
{
	struct user key = { .uid = uid };

	return RB_FIND(users, &nvmmd->users, &key);
}

struct user *user_get(struct nvmmd *nvmmd, uid_t uid)
{
	struct user *user = user_find(nvmmd, uid);

	if (user)
		return user_ref(user);
	user = calloc(1, sizeof(*user));
	if (!user)
		return NULL;
	user->nvmmd = nvmmd;
	user->uid = uid;
	user->refs = 1;
	TAILQ_INIT(&user->settling);
	TAILQ_INIT(&user->unread);
	RB_INSERT(users, &nvmmd->users, user);
	return user;
}

static uint32_t part_of_user(const struct nvmmd *nvmmd, uid_t uid, uint32_t configured, uint32_t all)
{
	if (configured > 0)
		return configured;
	return uid == 0 || uid == nvmmd->admin.uid ? all : MAX(all / 2, 1u);
}

uint32_t clients_of_user(const struct nvmmd *nvmmd, uid_t uid)
{
	const struct config *config = &nvmmd->config;

	return part_of_user(nvmmd, uid, config->limits.clients_per_user, config->limits.clients);
}

uint32_t pools_of_user(const struct nvmmd *nvmmd, uid_t uid)
{
	const struct config *config = &nvmmd->config;

	return part_of_user(nvmmd, uid, config->limits.pools_per_user, config->limits.pools);
}

struct user *user_ref(struct user *user)
{
	user->refs++;
	return user;
}

void user_unref(struct user *user)
{
	if (!user || --user->refs > 0)
		return;
	RB_REMOVE(users, &user->nvmmd->users, user);
	free(user);
}
