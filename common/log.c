/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log. A message is formatted and escaped in a buffer on the stack and leaves by one write(2)
 * or one syslog(3), so that lines of threads do not mix and no lock is held across a slow
 * terminal. Setup may be called again while other threads log (a reload): level and target are
 * words of their own; the program's name stays what the first call made it.
 *
 * Priority prefixes are written when stderr is the journal's stream, which $JOURNAL_STREAM proves
 * by device and inode: the variable alone is inherited by programs whose stderr went elsewhere.
 */
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "common/text.h"

#define MESSAGE_MAX 2048 /* bytes of a message before escaping */
#define LINE_MAX_BYTES (4 * MESSAGE_MAX + 128)

static const struct {
	int priority; /* syslog's */
	const char *label;
} levels[] = {
	[LOG_LEVEL_ERROR] = { LOG_ERR, "error: " },
	[LOG_LEVEL_WARNING] = { LOG_WARNING, "warning: " },
	[LOG_LEVEL_INFO] = { LOG_INFO, "" },
	[LOG_LEVEL_DEBUG] = { LOG_DEBUG, "debug: " },
};

static char log_program[64];
static int log_level = LOG_LEVEL_INFO;
static int log_target = LOG_TARGET_STDERR;
static int log_journal;

static int word_get(const int *word)
{
	/* ordering: relaxed; each word stands for itself, a message may see the level before. */
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void word_set(int *word, int v)
{
	/* ordering: relaxed; pairs with nothing, see word_get(). */
	__atomic_store_n(word, v, __ATOMIC_RELAXED);
}

static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat st;

	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return strcmp(stream, own) == 0;
}

void log_setup(const char *program, enum log_level level, enum log_target target)
{
	if (log_program[0] == '\0')
		snprintf(log_program, sizeof(log_program), "%s", program);
	if (target == LOG_TARGET_SYSLOG)
		openlog(log_program, LOG_PID, LOG_DAEMON);
	word_set(&log_journal, stderr_is_journal());
	word_set(&log_target, (int)target);
	word_set(&log_level, (int)level);
}

/* Copies `text` with control, unseen and invalid characters as \xNN; dst has 4 bytes for each and one more. */
static size_t escape(char *dst, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char *to = dst;
	uint32_t c;

	for (size_t i = 0; i < len;) {
		size_t n = text_utf8(&c, text + i, len - i);

		if (n > 0 && text_is_shown(c)) {
			memcpy(to, text + i, n);
			to += n;
			i += n;
			continue;
		}
		for (n = MAX(n, (size_t)1); n > 0; n--, i++) {
			*to++ = '\\';
			*to++ = 'x';
			*to++ = hex[(uint8_t)text[i] >> 4];
			*to++ = hex[(uint8_t)text[i] & 15];
		}
	}
	*to = '\0';
	return (size_t)(to - dst);
}

static size_t write_prefix(char *line, size_t len, enum log_level level)
{
	int n;

	if (word_get(&log_journal))
		n = snprintf(line, len, "<%d>", levels[level].priority);
	else
		n = snprintf(line, len, "%s%s%s", log_program, log_program[0] ? ": " : "",
			     levels[level].label);
	return n < 0 ? 0 : (size_t)n;
}

static void write_all(const char *line, size_t len)
{
	while (len > 0) {
		ssize_t n = write(STDERR_FILENO, line, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nowhere is left to say so */
		line += n;
		len -= (size_t)n;
	}
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char message[MESSAGE_MAX], line[LINE_MAX_BYTES];
	int saved = errno, n;
	size_t len, at = 0;
	va_list args;

	if ((int)level > word_get(&log_level))
		return;
	va_start(args, fmt);
	n = vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (n < 0)
		return;
	len = MIN((size_t)n, sizeof(message) - 1);
	if (len < (size_t)n)
		memcpy(message + len - 3, "...", 3);

	if (word_get(&log_target) == LOG_TARGET_SYSLOG) {
		escape(line, message, len);
		syslog(levels[level].priority, "%s", line);
	} else {
		at = write_prefix(line, sizeof(line) - 4 * MESSAGE_MAX, level);
		at += escape(line + at, message, len);
		line[at++] = '\n';
		write_all(line, at);
	}
	errno = saved;
}
