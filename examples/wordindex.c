/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wordindex: many processes count the words of real text files in one hash table that lives in a
 * shared heap; other processes, now or after everything was stopped and started, ask it.
 *
 *   wordindex --heap NAME [--socket PATH] [--size BYTES] index [-j N] PATH...
 *   wordindex --heap NAME [--socket PATH] remove [-j N] PATH...
 *   wordindex --heap NAME [--socket PATH] churn [-j N] [-n TIMES] PATH...
 *   wordindex --heap NAME [--socket PATH] query WORD... | dump | stats
 *
 * `index` lists the files, forks N processes, and each takes the next file that nobody has taken,
 * until there are none. `remove` takes back what the files' words have counted; words that no file counts
 * any more go, and their blocks come back when no reader can see them. `churn` does both to each file, over
 * and over. All commands may run at once. The table itself is in wordtable.c.
 *
 * A word is what `tr -cs 'A-Za-z0-9_' '\n'` puts on a line; files with a NUL byte are no text and
 * are passed over, as is what is not a regular file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wordtable.h"

#define HEAP_BYTES (UINT64_C(256) << 20)
#define PROCESSES_MAX 1024

struct arguments {
	struct table_options table;
	unsigned processes;
	unsigned times; /* of churn */
};

/* What is done with the words of each file. */
struct job {
	bool create;
	bool add;
	bool take; /* after that */
	unsigned times;
};

/* Files. The list is made before the processes are, who inherit it. */

static struct {
	char **path;
	size_t n;
	size_t room;
} files;

static int files_add(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_DNR || type == FTW_NS) {
		fprintf(stderr, "wordindex: %s: cannot be read\n", path);
		return -1;
	}
	if (type != FTW_F || !S_ISREG(st->st_mode))
		return 0;
	if (files.n == files.room) {
		size_t room = files.room ? files.room * 2 : 1024;
		char **grown = realloc(files.path, room * sizeof(*grown));

		if (grown == NULL)
			return -1;
		files.path = grown;
		files.room = room;
	}
	files.path[files.n] = strdup(path);
	return files.path[files.n++] ? 0 : -1;
}

/* Reads a whole file into *buf, which grows. Returns its length, -1 on an error. */
static ssize_t file_read(const char *path, char **buf, size_t *room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t n = fd < 0 ? -1 : 1;

	while (n > 0) {
		if (length == *room) {
			size_t grown = *room ? *room * 2 : 1 << 20;
			char *p = realloc(*buf, grown);

			if (p == NULL) {
				n = -1;
				break;
			}
			*buf = p;
			*room = grown;
		}
		n = read(fd, *buf + length, *room - length);
		if (n > 0)
			length += (size_t)n;
	}
	if (n < 0)
		fprintf(stderr, "wordindex: %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return n < 0 ? -1 : (ssize_t)length;
}

static bool is_word_byte(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static int each_word(struct table *t, const char *text, size_t length,
		     int (*fn)(struct table *t, const char *text, size_t length))
{
	size_t i = 0;

	while (i < length) {
		size_t start;

		while (i < length && !is_word_byte((unsigned char)text[i]))
			i++;
		start = i;
		while (i < length && is_word_byte((unsigned char)text[i]))
			i++;
		if (i > start && fn(t, text + start, i - start) < 0)
			return -1;
	}
	return 0;
}

/* Indexing, and the reverse */

static int do_text(struct table *t, const struct job *job, const char *text, size_t length)
{
	int r = 0;

	if (job->add)
		r = each_word(t, text, length, table_add);
	if (job->take && r == 0)
		r = each_word(t, text, length, table_take);
	return r;
}

/*
 * `next` is the number of the next file that nobody has taken. It is shared by this run's processes
 * alone and of no use later, so it is in ordinary shared memory and not in the heap.
 */
static int do_files(struct table *t, const struct job *job, _Atomic size_t *next)
{
	char *buf = NULL;
	size_t room = 0;
	int r = 0;

	while (r == 0) {
		/* ordering: relaxed; each number is had by one process, nothing else goes with it. */
		size_t i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
		ssize_t n;

		if (i / job->times >= files.n)
			break;
		n = file_read(files.path[i % files.n], &buf, &room);
		if (n < 0)
			r = -1;
		else if (n > 0 && memchr(buf, 0, (size_t)n) == NULL)
			r = do_text(t, job, buf, (size_t)n);
	}
	free(buf);
	return r;
}

/* One process; returns its exit code. It connects for itself: a connection is not carried over fork. */
static int work(const struct arguments *args, const struct job *job, _Atomic size_t *next)
{
	struct table t;
	int r;

	if (table_open(&t, &args->table, true, job->create) < 0)
		return 1;
	r = do_files(&t, job, next);
	table_close(&t);
	return r == 0 ? 0 : 1;
}

/* Waits for all workers; how many failed. */
static unsigned wait_all(unsigned started)
{
	unsigned bad = 0;

	while (started-- > 0) {
		int status;

		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
			bad++;
	}
	return bad;
}

static int list_files(char **paths)
{
	if (*paths == NULL) {
		fprintf(stderr, "wordindex: no PATH given\n");
		return 2;
	}
	for (; *paths != NULL; paths++) {
		if (nftw(*paths, files_add, 64, FTW_PHYS) != 0) {
			fprintf(stderr, "wordindex: %s: cannot be walked\n", *paths);
			return 1;
		}
	}
	return 0;
}

/* Goes through the files with several processes. */
static int run_job(const struct arguments *args, const struct job *job, char **paths)
{
	_Atomic size_t *next;
	unsigned started = 0, bad;
	int r;

	r = list_files(paths);
	if (r != 0)
		return r;
	next = mmap(NULL, sizeof(*next), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (next == MAP_FAILED)
		return 1;
	fflush(NULL);
	while (started < args->processes) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(work(args, job, next));
		if (pid < 0)
			break;
		started++;
	}
	bad = wait_all(started) + (args->processes - started);
	if (bad > 0) {
		fprintf(stderr, "wordindex: %u of %u processes failed\n", bad, args->processes);
		return 1;
	}
	printf("wordindex: %u processes went through %zu files\n", started, files.n);
	return 0;
}

/* Asking */

static int run_query(struct table *t, char **words)
{
	uint64_t count;

	for (; *words != NULL; words++) {
		if (table_count(t, *words, &count) < 0)
			return 1;
		printf("%" PRIu64 " %s\n", count, *words);
	}
	return 0;
}

static bool dump_word(void *ctx, const struct word *w)
{
	(void)ctx;
	return printf("%" PRIu64 " %.*s\n", word_count(w), (int)w->length, w->text) > 0;
}

static int run_dump(struct table *t, char **args)
{
	(void)args;
	return table_walk(t, dump_word, NULL) && fflush(stdout) == 0 ? 0 : 1;
}

struct stats {
	uint64_t words;
	uint64_t occurrences;
	uint64_t bytes;
};

static bool stats_word(void *ctx, const struct word *w)
{
	struct stats *s = ctx;

	s->words++;
	s->occurrences += word_count(w);
	s->bytes += w->length;
	return true;
}

static int run_stats(struct table *t, char **args)
{
	struct nvmm_heap_info info = { .size = sizeof(info) };
	struct stats s = { 0 };

	(void)args;
	if (!table_walk(t, stats_word, &s))
		return 1;
	if (nvmm_heap_stat(t->heap, &info) < 0)
		return failed(t->nvmm, "heap") < 0;
	printf("words        %" PRIu64 "\n"
	       "occurrences  %" PRIu64 "\n"
	       "word bytes   %" PRIu64 "\n"
	       "buckets      %" PRIu64 "\n"
	       "heap bytes   %" PRIu64 "\n"
	       "heap used    %" PRIu64 "\n"
	       "heap blocks  %" PRIu64 "\n",
	       s.words, s.occurrences, s.bytes, t->n_buckets, info.bytes, info.used, info.blocks);
	return 0;
}

/* Command line */

static const char usage[] =
	"usage: wordindex --heap NAME [--socket PATH] [--size BYTES] COMMAND\n"
	"\n"
	"commands:\n"
	"  index [-j N] PATH...   N processes (default 1) add the words of all text files to the index;\n"
	"                         the heap is made if it is not there, with --size bytes (K, M, G)\n"
	"  remove [-j N] PATH...  take back what the words of the files have counted\n"
	"  churn [-j N] [-n TIMES] PATH...\n"
	"                         add and take back the words of each file, TIMES times (default 1)\n"
	"  query WORD...          print 'count word' for each\n"
	"  dump                   print 'count word' for all words\n"
	"  stats                  print figures of the index and its heap\n";

static const struct command {
	const char *name;
	int (*run)(struct table *t, char **args);
} commands[] = {
	{ "query", run_query },
	{ "dump", run_dump },
	{ "stats", run_stats },
};

static int parse_size(uint64_t *ret, const char *text)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno != 0 || end == text || n == 0 || n > UINT64_MAX >> 30)
		return -1;
	if (*end != '\0') {
		unit = strchr(units, *end);
		if (unit == NULL || end[1] != '\0')
			return -1;
		n <<= 10 * (unit - units + 1);
	}
	*ret = n;
	return 0;
}

/* Options may stand before and behind the command. Returns the index of the first that is none. */
static int parse_options(struct arguments *args, int argc, char **argv)
{
	static const struct option options[] = {
		{ "heap", required_argument, NULL, 'H' }, { "socket", required_argument, NULL, 's' },
		{ "size", required_argument, NULL, 'S' }, { "jobs", required_argument, NULL, 'j' },
		{ "times", required_argument, NULL, 'n' }, { "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "H:s:S:j:n:h", options, NULL)) != -1) {
		switch (c) {
		case 'H':
			args->table.heap = optarg;
			break;
		case 's':
			args->table.socket = optarg;
			break;
		case 'S':
			if (parse_size(&args->table.heap_bytes, optarg) < 0)
				return -1;
			break;
		case 'j':
			args->processes = (unsigned)strtoul(optarg, NULL, 10);
			if (args->processes < 1 || args->processes > PROCESSES_MAX)
				return -1;
			break;
		case 'n':
			args->times = (unsigned)strtoul(optarg, NULL, 10);
			if (args->times < 1)
				return -1;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		default:
			return -1;
		}
	}
	return args->table.heap && optind < argc ? optind : -1;
}

static int run_command(const struct arguments *args, const char *name, char **words)
{
	const struct job churn = { .add = true, .take = true, .times = args->times };

	if (strcmp(name, "index") == 0)
		return run_job(args, &(struct job){ .create = true, .add = true, .times = 1 }, words);
	if (strcmp(name, "remove") == 0)
		return run_job(args, &(struct job){ .take = true, .times = 1 }, words);
	if (strcmp(name, "churn") == 0)
		return run_job(args, &churn, words);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct table t;
		int r;

		if (strcmp(commands[i].name, name) != 0)
			continue;
		if (table_open(&t, &args->table, false, false) < 0)
			return 1;
		r = commands[i].run(&t, words);
		table_close(&t);
		return r;
	}
	fprintf(stderr, "wordindex: no such command: %s\n%s", name, usage);
	return 2;
}

int main(int argc, char **argv)
{
	struct arguments args = { .table.heap_bytes = HEAP_BYTES, .processes = 1, .times = 1 };
	int first = parse_options(&args, argc, argv);

	if (first < 0) {
		fputs(usage, stderr);
		return 2;
	}
	return run_command(&args, argv[first], argv + first + 1);
}
