/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Configuration of a node: keys, defaults, printing.
 *
 * The tables `config_sections` and `config_keys` are the only place where a key's name, type,
 * range, default and help stand: defaults are the table's texts put through the same checks as a
 * user's, config_load.c looks keys up in it, and config_print() writes it out; conf/nvmmd.yaml is
 * what that prints.
 */
#include "daemon/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/macro.h"
#include "common/text.h"
#include "daemon/config_key.h"

#define CONFIG_PATH_MAX 3072u      /* room for the names beneath it within PATH_MAX */
#define CONFIG_NAME_MAX 63u        /* as the field of node_record_df */
#define CONFIG_GROUP_MAX 31u
#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)
#define CONFIG_BYTES_MAX (UINT64_C(1) << 62)

const struct section config_sections[N_SECTIONS] = {
	[SECTION_NODE] = { "node", "This node among those that share the memory." },
	[SECTION_SHELVES] = { "shelves", "Where the shelves, the files of memory, are." },
	[SECTION_SOCKET] = { "socket", "Where programs reach the daemon." },
	[SECTION_EPOCH] = { "epoch", "How blocks come back that were freed with delay." },
	[SECTION_RECOVERY] = { "recovery", "What follows a stop that was not in order." },
	[SECTION_LIMITS] = { "limits", "What users may take." },
	[SECTION_LOG] = { "log", "What the daemon tells of its work." },
};

static const char *const durability_names[] = {
	[DURABILITY_CHOICE_AUTO] = "auto",
	[DURABILITY_CHOICE_PROCESS] = "process",
	[DURABILITY_CHOICE_POWER] = "power",
	NULL,
};

static const char *const recovery_names[] = {
	[RECOVERY_START_ONLINE] = "online",
	[RECOVERY_START_OFFLINE] = "offline",
	[RECOVERY_START_MANUAL] = "manual",
	NULL,
};

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	NULL,
};

static const char *const target_names[] = {
	[LOG_TARGET_STDERR] = "stderr",
	[LOG_TARGET_SYSLOG] = "syslog",
	NULL,
};

#define AT(member) .offset = offsetof(struct config, member)

const struct key config_keys[N_KEYS] = {
	{ SECTION_NODE, KEY_COUNT, "id", "1",
	  AT(node.id), 1, 255, NULL,
	  "Number of this node: another one on each node that shares the shelves." },
	{ SECTION_NODE, KEY_TEXT, "name", "",
	  AT(node.name), 0, CONFIG_NAME_MAX, NULL,
	  "Name of this node, for people. Empty: the host's name." },
	{ SECTION_SHELVES, KEY_PATH, "base", "/var/lib/nvmmd",
	  AT(shelves.base), 1, CONFIG_PATH_MAX, NULL,
	  "Directory of the shelves, on the file system whose memory is to be used: a DAX file\n"
	  "system, famfs, or tmpfs for a trial. Give it a file system or a quota of its own." },
	{ SECTION_SHELVES, KEY_SIZE, "capacity", "0",
	  AT(shelves.capacity), 0, CONFIG_BYTES_MAX, NULL,
	  "Bytes that all pools may take together. 0: what the file system has." },
	{ SECTION_SHELVES, KEY_COUNT, "memory_margin", "5",
	  AT(shelves.memory_margin), 0, 90, NULL,
	  "If the base is memory (tmpfs): percent of the machine's memory, and of each limit of the\n"
	  "daemon's control groups, that stays free. What would take of it is refused (ENOSPC)." },
	{ SECTION_SOCKET, KEY_PATH, "path", "/run/nvmmd/nvmmd.sock",
	  AT(socket.path), 1, SOCKET_PATH_MAX, NULL,
	  "Unix socket that programs connect to." },
	{ SECTION_SOCKET, KEY_MODE, "mode", "0666",
	  AT(socket.mode), 0, 0666, NULL,
	  "Who may connect. What each may open is decided by the pools' own owners and modes." },
	{ SECTION_SOCKET, KEY_TEXT, "group", "",
	  AT(socket.group), 0, CONFIG_GROUP_MAX, NULL,
	  "Group of the socket. Empty: the daemon's." },
	{ SECTION_SOCKET, KEY_TEXT, "admin_group", "",
	  AT(socket.admin_group), 0, CONFIG_GROUP_MAX, NULL,
	  "Group whose members may administer every pool. Empty: root alone." },
	{ SECTION_NONE, KEY_PATH, "runtime", "/run/nvmmd",
	  AT(runtime), 1, CONFIG_PATH_MAX, NULL,
	  "Directory of what outlives the daemon but not the boot: on tmpfs." },
	{ SECTION_NONE, KEY_CHOICE, "durability", "auto",
	  AT(durability), 0, 0, durability_names,
	  "What new pools survive: `process`, the death of any process; `power`, power loss too,\n"
	  "which needs persistent memory; `auto`, the one that the shelves' memory gives." },
	{ SECTION_EPOCH, KEY_COUNT, "interval", "10",
	  AT(epoch.interval), 1, 60000, NULL,
	  "Milliseconds between looks at what is in limbo, while anything is." },
	{ SECTION_EPOCH, KEY_COUNT, "stall_warning", "10000",
	  AT(epoch.stall_warning), 0, 86400000, NULL,
	  "Milliseconds in an epoch after which a thread that holds up others is named in the log.\n"
	  "0: never." },
	{ SECTION_RECOVERY, KEY_CHOICE, "on_start", "online",
	  AT(recovery.on_start), 0, 0, recovery_names,
	  "Heaps that were in use then: `online`, recovered in the background, each usable as soon\n"
	  "as it is done; `offline`, every structure is verified, too, before anybody may open it;\n"
	  "`manual`, refused until `nvmmctl recover`." },
	{ SECTION_RECOVERY, KEY_COUNT, "parallel", "2",
	  AT(recovery.parallel), 1, 64, NULL,
	  "Heaps that are recovered at once." },
	{ SECTION_LIMITS, KEY_COUNT, "clients", "4096",
	  AT(limits.clients), 1, 65536, NULL,
	  "Processes that may be attached together." },
	{ SECTION_LIMITS, KEY_COUNT, "clients_per_user", "0",
	  AT(limits.clients_per_user), 0, 65536, NULL,
	  "Processes of one user. 0: half of `clients`; root has all." },
	{ SECTION_LIMITS, KEY_SIZE, "bytes_per_user", "0",
	  AT(limits.bytes_per_user), 0, CONFIG_BYTES_MAX, NULL,
	  "Bytes in the pools of one user. 0: no limit." },
	{ SECTION_LIMITS, KEY_COUNT, "pools", "4096",
	  AT(limits.pools), 1, 65535, NULL,
	  "Pools that may exist together." },
	{ SECTION_LIMITS, KEY_COUNT, "pools_per_user", "0",
	  AT(limits.pools_per_user), 0, 65535, NULL,
	  "Pools of one user. 0: half of `pools`; root has all." },
	{ SECTION_LIMITS, KEY_COUNT, "lanes_per_client", "4096",
	  AT(limits.lanes_per_client), 1, 65536, NULL,
	  "Threads of one process that may work in one heap at once." },
	{ SECTION_LOG, KEY_CHOICE, "level", "info",
	  AT(log.level), 0, 0, level_names,
	  "The least important messages that are written." },
	{ SECTION_LOG, KEY_CHOICE, "target", "stderr",
	  AT(log.target), 0, 0, target_names,
	  "Where they go. systemd takes what goes to stderr into its journal." },
};

/* Choices are stored as unsigned, modes as uint32_t. */
_Static_assert(sizeof(enum durability_choice) == sizeof(unsigned), "as stored");
_Static_assert(sizeof(enum recovery_start) == sizeof(unsigned), "as stored");
_Static_assert(sizeof(enum log_level) == sizeof(unsigned), "as stored");
_Static_assert(sizeof(enum log_target) == sizeof(unsigned), "as stored");
_Static_assert(sizeof(mode_t) == sizeof(uint32_t), "as stored");

/* Values */

static void *key_field(const struct config *config, const struct key *key)
{
	return (char *)(uintptr_t)config + key->offset;
}

static bool key_is_text(const struct key *key)
{
	return key->type == KEY_TEXT || key->type == KEY_PATH;
}

static bool is_printable(const char *text, size_t len)
{
	uint32_t c;
	size_t n;

	for (size_t i = 0; i < len; i += n) {
		n = text_utf8(&c, text + i, len - i);
		if (n == 0 || !text_is_shown(c))
			return false;
	}
	return true;
}

static int key_set_text(char **field, const struct key *key, const char *text)
{
	size_t len = strlen(text);
	char *copy;

	if (len < key->min || len > key->max || !is_printable(text, len))
		return -EINVAL;
	if (key->type == KEY_PATH && text[0] != '/')
		return -EINVAL;
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int key_set_choice(unsigned *field, const struct key *key, const char *text)
{
	for (unsigned i = 0; key->choices[i]; i++) {
		if (!strcmp(key->choices[i], text)) {
			*field = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int key_set_number(void *field, const struct key *key, const char *text)
{
	uint64_t value;
	int r;

	if (key->type == KEY_SIZE)
		r = text_parse_size(&value, text);
	else
		r = text_parse_u64(&value, text, UINT32_MAX);
	if (r < 0 || value < key->min || value > key->max)
		return -EINVAL;
	if (key->type == KEY_SIZE)
		*(uint64_t *)field = value;
	else
		*(uint32_t *)field = (uint32_t)value;
	return 0;
}

int key_set(struct config *config, const struct key *key, const char *text)
{
	void *field = key_field(config, key);

	switch (key->type) {
	case KEY_COUNT:
	case KEY_SIZE:
		return key_set_number(field, key, text);
	case KEY_MODE:
		return text_parse_mode(field, text) < 0 ? -EINVAL : 0;
	case KEY_CHOICE:
		return key_set_choice(field, key, text);
	case KEY_TEXT:
	case KEY_PATH:
		return key_set_text(field, key, text);
	}
	return -EINVAL;
}

static void print_size(FILE *out, uint64_t bytes)
{
	static const char *const units[] = { "", "KiB", "MiB", "GiB", "TiB" };
	size_t unit = 0;

	while (bytes && bytes % 1024 == 0 && unit + 1 < ARRAY_SIZE(units)) {
		bytes /= 1024;
		unit++;
	}
	fprintf(out, "%" PRIu64 "%s", bytes, units[unit]);
}

void key_print_expected(FILE *out, const struct key *key)
{
	switch (key->type) {
	case KEY_COUNT:
		fprintf(out, "a whole number from %" PRIu64 " to %" PRIu64, key->min, key->max);
		break;
	case KEY_SIZE:
		fputs("a size in bytes or like 64GiB", out);
		if (key->min == 0)
			fputs(", or 0", out);
		break;
	case KEY_MODE:
		fputs("an octal mode of read and write bits like 0660", out);
		break;
	case KEY_CHOICE:
		for (unsigned i = 0; key->choices[i]; i++) {
			if (i)
				fputs(key->choices[i + 1] ? ", " : " or ", out);
			fputs(key->choices[i], out);
		}
		break;
	case KEY_TEXT:
		fprintf(out, "a printable text of at most %" PRIu64 " bytes", key->max);
		break;
	case KEY_PATH:
		fprintf(out, "an absolute path of at most %" PRIu64 " bytes", key->max);
		break;
	}
}

/* Object */

int config_name_node(struct config *config)
{
	char host[CONFIG_NAME_MAX + 1] = "";

	if (*config->node.name)
		return 0;
	if (gethostname(host, sizeof(host) - 1) < 0 && errno != ENAMETOOLONG)
		*host = 0;
	free(config->node.name);
	config->node.name = strdup(*host ? host : "localhost");
	return config->node.name ? 0 : -ENOMEM;
}

int config_set_presets(struct config *config)
{
	int r;

	*config = (struct config){ 0 };
	for (size_t i = 0; i < N_KEYS; i++) {
		r = key_set(config, &config_keys[i], config_keys[i].preset);
		if (r < 0)
			return r;
	}
	return 0;
}

int config_init(struct config *config)
{
	int r;

	r = config_set_presets(config);
	if (r == 0)
		r = config_name_node(config);
	if (r < 0)
		config_deinit(config);
	return r;
}

void config_deinit(struct config *config)
{
	for (size_t i = 0; i < N_KEYS; i++) {
		if (key_is_text(&config_keys[i]))
			free(*(char **)key_field(config, &config_keys[i]));
	}
	*config = (struct config){ 0 };
}

/* Printing */

static void print_indent(FILE *out, const struct key *key)
{
	if (key->section != SECTION_NONE)
		fputs("  ", out);
}

static void print_comment(FILE *out, const struct key *key)
{
	print_indent(out, key);
	fputs("# ", out);
	for (const char *c = key->help; *c; c++) {
		fputc(*c, out);
		if (*c != '\n')
			continue;
		print_indent(out, key);
		fputs("# ", out);
	}
	fputc('\n', out);
	print_indent(out, key);
	fputs("# Takes ", out);
	key_print_expected(out, key);
	fputs(".\n", out);
}

static void print_text(FILE *out, const char *text)
{
	fputc('"', out);
	for (const char *c = text; *c; c++) {
		if (*c == '"' || *c == '\\')
			fputc('\\', out);
		fputc(*c, out);
	}
	fputc('"', out);
}

static void print_value(FILE *out, const struct config *config, const struct key *key)
{
	void *field = key_field(config, key);

	switch (key->type) {
	case KEY_COUNT:
		fprintf(out, "%" PRIu32, *(uint32_t *)field);
		break;
	case KEY_SIZE:
		print_size(out, *(uint64_t *)field);
		break;
	case KEY_MODE:
		fprintf(out, "%04o", (unsigned)*(mode_t *)field);
		break;
	case KEY_CHOICE:
		fputs(key->choices[*(unsigned *)field], out);
		break;
	case KEY_TEXT:
	case KEY_PATH:
		print_text(out, *(char **)field);
		break;
	}
}

void config_print(const struct config *config, FILE *out)
{
	enum section_id section = SECTION_NONE;

	fputs("# nvmmd: configuration of a node. nvmmd.yaml(5) explains it, and\n"
	      "# `nvmmd --check-config` says what is wrong with it.\n",
	      out);
	for (size_t i = 0; i < N_KEYS; i++) {
		if (config_keys[i].section != SECTION_NONE && config_keys[i].section != section)
			fprintf(out, "\n# %s\n%s:\n", config_sections[config_keys[i].section].help,
				config_sections[config_keys[i].section].name);
		else if (config_keys[i].section == SECTION_NONE)
			fputc('\n', out);
		section = config_keys[i].section;
		print_comment(out, &config_keys[i]);
		print_indent(out, &config_keys[i]);
		fprintf(out, "%s: ", config_keys[i].name);
		print_value(out, config, &config_keys[i]);
		fputc('\n', out);
	}
}
