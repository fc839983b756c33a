/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration: read at the start, and again on SIGHUP.
 *
 * What can be reloaded is taken over as a whole from a file without faults; a file with one changes
 * nothing. What cannot (identity, places, the socket) is compared, and named if it differs, so that
 * nobody believes that it took effect.
 */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/notify.h"
#include "daemon/config_verify.h"
#include "daemon/nvmmd.h"

int nvmmd_find_admin(struct nvmmd *nvmmd)
{
	const char *name = nvmmd->config.socket.admin_group;
	struct group *group;

	nvmmd->admin.gid = ACCESS_NO_GROUP;
	if (!name || !name[0])
		return 0;
	group = getgrnam(name);
	if (!group) {
		log_error("socket.admin_group: there is no group '%s'", name);
		return -EINVAL;
	}
	nvmmd->admin.gid = group->gr_gid;
	return 0;
}

static bool same(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

static void say_fixed(bool same_value, const char *key)
{
	if (!same_value)
		log_warning(
			"%s is changed in the configuration: that takes effect at the next start",
			key);
}

static void compare_fixed(const struct config *now, const struct config *new)
{
	say_fixed(now->node.id == new->node.id, "node.id");
	say_fixed(same(now->node.name, new->node.name), "node.name");
	say_fixed(same(now->shelves.base, new->shelves.base), "shelves.base");
	say_fixed(same(now->socket.path, new->socket.path), "socket.path");
	say_fixed(now->socket.mode == new->socket.mode, "socket.mode");
	say_fixed(same(now->socket.group, new->socket.group), "socket.group");
	say_fixed(same(now->runtime, new->runtime), "runtime");
	say_fixed(now->recovery.on_start == new->recovery.on_start, "recovery.on_start");
}

static void take_over(struct nvmmd *nvmmd, struct config *new)
{
	struct config *now = &nvmmd->config;
	char *admin = now->socket.admin_group;

	now->shelves.capacity = new->shelves.capacity;
	now->shelves.memory_margin = new->shelves.memory_margin;
	memory_set_margin(&nvmmd->memory, now->shelves.memory_margin);
	now->durability = new->durability;
	now->epoch = new->epoch;
	epoch_set_interval(nvmmd->epochs.page, now->epoch.interval);
	now->recovery.parallel = new->recovery.parallel;
	now->limits = new->limits;
	now->log = new->log;
	now->socket.admin_group = new->socket.admin_group;
	new->socket.admin_group = admin;
	if (nvmmd_find_admin(nvmmd) < 0)
		log_warning("no group administers pools until the configuration is right");
	log_setup("nvmmd", now->log.level,
		  nvmmd->options->foreground ? LOG_TARGET_STDERR : now->log.target);
}

void nvmmd_reload(struct nvmmd *nvmmd)
{
	struct config new;
	char *error = NULL;
	int r;

	r = config_init(&new);
	if (r == 0 && nvmmd->config_path)
		r = config_load(&new, nvmmd->config_path, &error);
	if (r == 0)
		r = config_verify(&new, &error);
	if (r < 0) {
		log_error("the configuration stays as it is: %s", error ? error : strerror(-r));
	} else {
		compare_fixed(&nvmmd->config, &new);
		take_over(nvmmd, &new);
		nvmmd->counters.reloads++;
		log_info("configuration read again");
	}
	server_look(nvmmd);
	free(error);
	config_deinit(&new);
}
