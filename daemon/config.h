/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Configuration of a node: one YAML file. Keys, defaults, ranges and help stand once, in the table
 * of config.c; nvmmd.yaml(5) explains them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "common/log.h"
#include "media/store.h"

enum durability_choice {
	DURABILITY_CHOICE_AUTO, /* what libpmem says of the mapping */
	DURABILITY_CHOICE_PROCESS,
	DURABILITY_CHOICE_POWER,
};

/* What becomes of heaps that were in use when the daemon before this one did not stop in order. */
enum recovery_start {
	RECOVERY_START_ONLINE,  /* recovered in the background, each usable when it is done */
	RECOVERY_START_OFFLINE, /* likewise, and every structure is verified before anybody may open it */
	RECOVERY_START_MANUAL,  /* not before `nvmmctl recover` says so */
};

struct config {
	struct {
		uint32_t id;    /* 1..255 */
		char *name;     /* default: the host's name */
	} node;
	struct {
		char *base;        /* directory of the shelves */
		uint64_t capacity; /* bytes; 0: what the file system has */
		uint32_t memory_margin; /* percent of memory that stays free, if the base is memory */
	} shelves;
	struct {
		char *path;
		mode_t mode;
		char *group;       /* owner group of the socket; empty: the daemon's */
		char *admin_group; /* whose members may administer all pools; empty: root alone */
	} socket;
	char *runtime;             /* directory on tmpfs for sessions */
	enum durability_choice durability;
	struct {
		uint32_t interval;      /* ms between rounds of reclamation */
		uint32_t stall_warning; /* ms; 0: never */
	} epoch;
	struct {
		enum recovery_start on_start;
		uint32_t parallel; /* heaps recovered at once */
	} recovery;
	struct {
		uint32_t clients;           /* sessions together */
		uint32_t clients_per_user;  /* 0: as `clients` */
		uint64_t bytes_per_user;    /* 0: no limit */
		uint32_t pools;             /* 1..65535 */
		uint32_t pools_per_user;    /* 0: as `pools` */
		uint32_t lanes_per_client;  /* threads of one process in one heap */
	} limits;
	struct {
		enum log_level level;
		enum log_target target;
	} log;
};

/* Defaults; strings are owned. 0, or -ENOMEM. */
int config_init(struct config *config);
void config_deinit(struct config *config);

/*
 * Replaces an initialised configuration by the defaults and what `path` says. -EINVAL: it is wrong;
 * *error (owned by the caller; NULL or a text of his before, which is freed) is then
 * "path:line:column: what is wrong, what is expected". Another -errno: it cannot be read; *error
 * says why, without a place in it, or is untouched for want of memory. On failure `config` stays.
 */
int config_load(struct config *config, const char *path, char **error);

/* Writes the effective configuration as commented YAML. */
void config_print(const struct config *config, FILE *out);
