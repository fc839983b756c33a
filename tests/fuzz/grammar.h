/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests from the descriptors that protobuf-c makes of proto/nvmm.proto: every message of Request's
 * `op`, each field filled as its name and type say. A message that is added to the protocol is covered
 * without a change here.
 *
 * A vocabulary remembers, for each field name, values that replies had: ids that exist, lanes that were
 * given, refs that were granted. Requests use these as often as others.
 */
#pragma once

#include "proto/frame.h"
#include "proto/nvmm.pb-c.h"
#include "tests/fuzz/choice.h"

#define WORD_VALUES 8u
#define WORD_TEXT 64u
#define WORDS_MAX 96u

/* What is known of a field name. */
struct word {
	char name[24];
	unsigned n_values; /* ever; the last WORD_VALUES of them are kept */
	uint64_t value[WORD_VALUES];
	unsigned n_texts;
	struct {
		uint8_t len;
		uint8_t data[WORD_TEXT];
	} text[WORD_VALUES];
};

struct vocabulary {
	unsigned n;
	struct word word[WORDS_MAX];
};

/* Remembers all fields of a message. */
void vocabulary_learn(struct vocabulary *v, const ProtobufCMessage *message);
void vocabulary_value(struct vocabulary *v, const char *name, uint64_t value);
void vocabulary_text(struct vocabulary *v, const char *name, const void *data, size_t len);
/* A value that is known for the name, if any is. */
bool vocabulary_choose(struct vocabulary *v, struct choice *c, const char *name, uint64_t *ret);

/* Makes a request of `op` (a field number of Request's; 0: any that there is) and packs it. Returns its length. */
size_t grammar_request(struct vocabulary *v, struct choice *c, uint32_t op, uint64_t seq, uint8_t *buf,
		       size_t room);
