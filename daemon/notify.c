/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Talking to systemd, where the build has libsystemd; this is the one file that knows of it.
 */
#include <config.h>

#include "daemon/notify.h"

#include <errno.h>

#ifdef HAVE_SYSTEMD
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include <systemd/sd-daemon.h>

void notify(const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	sd_notify(0, text);
}

uint64_t notify_watchdog_ms(void)
{
	uint64_t us;

	/* Half of what is allowed, as sd_watchdog_enabled(3) advises. */
	return sd_watchdog_enabled(0, &us) > 0 ? us / 2000 : 0;
}

int notify_socket(void)
{
	int n = sd_listen_fds(1);

	if (n < 0)
		return n;
	if (n == 0)
		return -ENOENT;
	if (n > 1 || sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, NULL, 0) <= 0)
		return -EINVAL;
	return SD_LISTEN_FDS_START;
}

#else

void notify(const char *fmt, ...)
{
	(void)fmt;
}

uint64_t notify_watchdog_ms(void)
{
	return 0;
}

int notify_socket(void)
{
	return -ENOENT;
}

#endif
