/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A journal that a user can fill hides what others did, and costs the daemon a system call a line. So one user never
 * has the whole rate of a kind.
 */
#include "daemon/client_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "daemon/nvmmd.h"

#define SECOND_MS 1000u

static const struct {
	enum log_level level;
	unsigned sum;
	unsigned user;
} kinds[CLIENT_LINES] = {
	[CLIENT_EVENT] = { LOG_LEVEL_INFO, 50, 20 },
	[CLIENT_COMPLAINT] = { LOG_LEVEL_WARNING, 20, 10 },
	[CLIENT_DAMAGE] = { LOG_LEVEL_ERROR, 20, 10 },
};

/* The rate */

unsigned line_limit_sum(enum client_line kind)
{
	return kinds[kind].sum;
}

unsigned line_limit_user(enum client_line kind)
{
	return kinds[kind].user;
}

static struct line_user *find_user(struct line_limit *limit, uid_t uid)
{
	struct line_user *user;

	for (unsigned i = 0; i < limit->n_users; i++)
		if (limit->users[i].uid == uid)
			return &limit->users[i];
	if (uid == CLIENT_LOG_NOBODY || limit->n_users == CLIENT_LOG_USERS)
		return &limit->users[CLIENT_LOG_USERS];
	user = &limit->users[limit->n_users++];
	user->uid = uid;
	return user;
}

bool line_limit_take(struct line_limit *limit, enum client_line kind, uid_t uid, uint64_t second)
{
	struct line_user *user;

	if (limit->second != second)
		*limit = (struct line_limit){ .second = second };
	user = find_user(limit, uid);
	if (limit->written[kind] < kinds[kind].sum && user->written[kind] < kinds[kind].user) {
		limit->written[kind]++;
		user->written[kind]++;
		return true;
	}
	limit->dropped[kind]++;
	user->dropped++;
	return false;
}

unsigned line_limit_dropped(const struct line_limit *limit)
{
	unsigned n = 0;

	for (unsigned i = 0; i < CLIENT_LINES; i++)
		n += limit->dropped[i];
	return n;
}

uid_t line_limit_noisiest(const struct line_limit *limit)
{
	const struct line_user *most = &limit->users[CLIENT_LOG_USERS];

	for (unsigned i = 0; i < limit->n_users; i++)
		if (limit->users[i].dropped > most->dropped)
			most = &limit->users[i];
	return most == &limit->users[CLIENT_LOG_USERS] ? CLIENT_LOG_NOBODY : most->uid;
}

void line_limit_told(struct line_limit *limit)
{
	memset(limit->dropped, 0, sizeof(limit->dropped));
	for (unsigned i = 0; i <= CLIENT_LOG_USERS; i++)
		limit->users[i].dropped = 0;
}

/* The log */

/* Tells what was dropped in the second that is over; once. */
static void tell_dropped(struct client_log *log)
{
	const struct line_limit *l = &log->limit;
	uid_t uid = line_limit_noisiest(l);
	char whose[48] = "";

	if (line_limit_dropped(l) == 0)
		return;
	if (uid != CLIENT_LOG_NOBODY)
		snprintf(whose, sizeof(whose), ", most of them of uid %u", uid);
	log_warning("lines about clients were not logged: %u of events, %u complaints, %u of damage%s",
		    l->dropped[CLIENT_EVENT], l->dropped[CLIENT_COMPLAINT], l->dropped[CLIENT_DAMAGE], whose);
	line_limit_told(&log->limit);
}

static void second_over(uv_timer_t *timer)
{
	tell_dropped(timer->data);
}

void client_log(struct nvmmd *nvmmd, enum client_line kind, uid_t uid, const char *fmt, ...)
{
	struct client_log *log = &nvmmd->client_log;
	uint64_t second = (uint64_t)nvmmd_now();
	char text[512];
	va_list args;

	if (log->limit.second != second)
		tell_dropped(log);
	if (!line_limit_take(&log->limit, kind, uid, second)) {
		if (log->ready && !uv_is_active((uv_handle_t *)&log->timer))
			uv_timer_start(&log->timer, second_over, SECOND_MS, 0);
		return;
	}
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_write(kinds[kind].level, "%s", text);
}

void client_log_start(struct nvmmd *nvmmd)
{
	struct client_log *log = &nvmmd->client_log;

	uv_timer_init(&nvmmd->loop, &log->timer);
	log->timer.data = log;
	log->ready = true;
}

void client_log_stop(struct nvmmd *nvmmd)
{
	struct client_log *log = &nvmmd->client_log;

	if (!log->ready)
		return;
	tell_dropped(log);
	log->ready = false;
	uv_close((uv_handle_t *)&log->timer, NULL);
}
