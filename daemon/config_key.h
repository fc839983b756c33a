/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keys of the configuration: what config.c defines, config_load.c reads by and tests walk.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/config.h"

enum key_type {
	KEY_COUNT,  /* uint32_t */
	KEY_SIZE,   /* uint64_t */
	KEY_MODE,   /* mode_t */
	KEY_CHOICE, /* an enum, in the order of `choices` */
	KEY_TEXT,   /* char * */
	KEY_PATH,   /* char *, absolute */
};

enum section_id {
	SECTION_NODE,
	SECTION_SHELVES,
	SECTION_SOCKET,
	SECTION_EPOCH,
	SECTION_RECOVERY,
	SECTION_LIMITS,
	SECTION_LOG,
	SECTION_NONE, /* keys at the top level */
};
#define N_SECTIONS ((size_t)SECTION_NONE)
#define N_KEYS ((size_t)23)

struct section {
	const char *name;
	const char *help;
};

struct key {
	enum section_id section;
	enum key_type type;
	const char *name;
	const char *preset; /* default, as a user would write it */
	size_t offset;      /* in struct config */
	uint64_t min, max;  /* of a number; of a text's length in bytes */
	const char *const *choices;
	const char *help;
};

extern const struct section config_sections[N_SECTIONS];
extern const struct key config_keys[N_KEYS]; /* in the order in which they are printed */

/* Checks and stores one value. -EINVAL: it is none for this key; -ENOMEM. */
int key_set(struct config *config, const struct key *key, const char *text);

/* Writes what a value of the key may be: "a whole number from 1 to 255". */
void key_print_expected(FILE *out, const struct key *key);

/* Presets alone; node.name may be empty until config_name_node() puts the host's name there. */
int config_set_presets(struct config *config);
int config_name_node(struct config *config);
