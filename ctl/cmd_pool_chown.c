/* SPDX-License-Identifier: BSD-3-Clause */
/* nvmmctl pool chown: USER, USER:GROUP or :GROUP, as names or numbers. */
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "ctl/poolview.h"

#define ID_KEPT UINT32_MAX

static enum ctl_exit parse_user(struct ctl *ctl, const char *text, uid_t *ret)
{
	const struct passwd *passwd;
	uint64_t number;

	if (!*text)
		return CTL_DONE;
	passwd = getpwnam(text);
	if (passwd) {
		*ret = passwd->pw_uid;
		return CTL_DONE;
	}
	if (text_parse_u64(&number, text, ID_KEPT - 1) < 0)
		return ctl_usage(ctl, "there is no user '%s'", text);
	*ret = (uid_t)number;
	return CTL_DONE;
}

static enum ctl_exit parse_group(struct ctl *ctl, const char *text, gid_t *ret)
{
	const struct group *group;
	uint64_t number;

	if (!text)
		return CTL_DONE;
	group = getgrnam(text);
	if (group) {
		*ret = group->gr_gid;
		return CTL_DONE;
	}
	if (text_parse_u64(&number, text, ID_KEPT - 1) < 0)
		return ctl_usage(ctl, "there is no group '%s'", text);
	*ret = (gid_t)number;
	return CTL_DONE;
}

/* An absent part leaves *ret. Splits the argument, in place, at its colon. */
static enum ctl_exit parse_owner(struct ctl *ctl, char *text, uid_t *uid, gid_t *gid)
{
	char *colon = strchr(text, ':');
	enum ctl_exit code;

	if (!*text || (colon && !colon[1]))
		return ctl_usage(ctl, "'%s' is none, expected USER, USER:GROUP or :GROUP", text);
	if (colon)
		*colon = 0;
	code = parse_user(ctl, text, uid);
	if (code == CTL_DONE)
		code = parse_group(ctl, colon ? colon + 1 : NULL, gid);
	return code;
}

static enum ctl_exit run(struct ctl *ctl)
{
	enum ctl_exit code;
	nvmm_pool_id id;
	uid_t uid = ID_KEPT;
	gid_t gid = ID_KEPT;
	int r;

	code = parse_owner(ctl, ctl->args[1], &uid, &gid);
	if (code == CTL_DONE)
		code = ctl_connect(ctl);
	if (code == CTL_DONE)
		code = poolview_find(ctl, ctl->args[0], &id);
	if (code != CTL_DONE)
		return code;
	r = nvmm_pool_chown(ctl->nvmm, id, uid, gid);
	if (r < 0)
		return ctl_fail(ctl, r);
	return poolview_write_changed(ctl, id);
}

static const char help[] =
	"OWNER is USER, USER:GROUP or :GROUP, by name or number. Administrators may give a pool\n"
	"to anyone; its owner may give it to a group of his.\n"
	"\n"
	"Examples:\n"
	"  nvmmctl pool chown words alice:analytics\n"
	"  nvmmctl pool chown words :analytics\n";

const struct command command_pool_chown = {
	.name = "pool chown",
	.args = "POOL OWNER",
	.summary = "Gives a pool to another user or group",
	.help = help,
	.min_args = 2,
	.max_args = 2,
	.run = run,
};
