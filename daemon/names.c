/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names of new pools and roots.
 *
 * A name stands on operators' terminals and in their scripts. So it must look like what it is: no character
 * that is not seen or that turns the text around it, no blank at either end. And a command line must not take
 * it for something else: not for an id (digits alone), not for an option (a dash in front).
 */
#include "daemon/names.h"

#include <string.h>

#include "common/text.h"
#include "media/format.h"
#include "media/registry.h"

static bool has_hidden(const char *name, size_t len)
{
	uint32_t c;
	size_t n;

	for (size_t i = 0; i < len; i += n) {
		n = text_utf8(&c, name + i, len - i);
		if (n == 0 || !text_is_shown(c))
			return true;
	}
	return false;
}

/* The first character of text[0..len), or the last one. */
static uint32_t end_of(const char *name, size_t len, bool last)
{
	size_t at = last ? len - 1 : 0;
	uint32_t c = 0;

	while (last && at > 0 && ((unsigned char)name[at] & 0xc0) == 0x80)
		at--;
	text_utf8(&c, name + at, len - at);
	return c;
}

const char *name_refused(const char *name, size_t max)
{
	size_t len = strlen(name);

	if (len == 0 || len > max)
		return "it is empty or too long";
	if (has_hidden(name, len))
		return "it is no UTF-8, or has a character that is not seen or that changes the direction of text";
	if (!registry_name_ok(name, len))
		return "it is '.' or '..', or has a '/'";
	if (text_is_blank(end_of(name, len, false)) || text_is_blank(end_of(name, len, true)))
		return "it begins or ends with a blank";
	if (name[0] == '-')
		return "it begins with '-', which commands take for an option";
	return NULL;
}

const char *pool_name_refused(const char *name)
{
	if (name[0] && name[strspn(name, "0123456789")] == '\0')
		return "it is of digits alone, which commands take for an id";
	return name_refused(name, POOL_NAME_MAX);
}
