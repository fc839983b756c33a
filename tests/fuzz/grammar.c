/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages are built in one arena, as the generated structs are laid out, and packed by protobuf-c.
 */
#include "tests/fuzz/grammar.h"

#include <stdio.h>

#include "tests/fuzz/fuzz.h"

#define ARENA_BYTES (256u << 10)
#define REPEATED_MAX 600u

static _Alignas(16) uint8_t arena[ARENA_BYTES];
static size_t arena_used;

static void *arena_take(size_t size)
{
	void *p = arena + arena_used;

	size = (size + 15) & ~(size_t)15;
	fuzz_must(size <= sizeof(arena) - arena_used, "the arena of requests is too small");
	arena_used += size;
	return memset(p, 0, size);
}

/* Vocabulary */

/* Names that mean the same: a pool's number, a session's, and a list of what another field has one of. */
static void word_name(char ret[24], const char *name)
{
	static const char *const same[][2] = {
		{ "pool", "id" }, { "resume", "session" }, { "expected", "ptr" }, { "desired", "ptr" },
		{ "class_", "class" }, { "last", "after" }, { "file_bytes", "size" }, { "limit", "size" },
	};
	size_t len;

	snprintf(ret, 24, "%s", name);
	len = strlen(ret);
	if (len > 3 && ret[len - 1] == 's' && ret[len - 2] != 's')
		ret[len - 1] = '\0';
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
		if (!strcmp(ret, same[i][0]))
			snprintf(ret, 24, "%s", same[i][1]);
}

static struct word *word_of(struct vocabulary *v, const char *name)
{
	char plain[24];

	word_name(plain, name);
	for (unsigned i = 0; i < v->n; i++)
		if (!strcmp(v->word[i].name, plain))
			return &v->word[i];
	if (v->n == WORDS_MAX)
		return &v->word[WORDS_MAX - 1];
	memcpy(v->word[v->n].name, plain, sizeof(plain));
	return &v->word[v->n++];
}

void vocabulary_value(struct vocabulary *v, const char *name, uint64_t value)
{
	struct word *w = word_of(v, name);

	for (unsigned i = 0; i < w->n_values && i < WORD_VALUES; i++)
		if (w->value[i] == value)
			return;
	w->value[w->n_values++ % WORD_VALUES] = value;
}

void vocabulary_text(struct vocabulary *v, const char *name, const void *data, size_t len)
{
	struct word *w = word_of(v, name);

	if (len > WORD_TEXT)
		return;
	for (unsigned i = 0; i < w->n_texts && i < WORD_VALUES; i++)
		if (w->text[i].len == len && memcmp(w->text[i].data, data, len) == 0)
			return;
	w->text[w->n_texts % WORD_VALUES].len = (uint8_t)len;
	memcpy(w->text[w->n_texts++ % WORD_VALUES].data, data, len);
}

static unsigned kept(unsigned n)
{
	return n < WORD_VALUES ? n : WORD_VALUES;
}

bool vocabulary_choose(struct vocabulary *v, struct choice *c, const char *name, uint64_t *ret)
{
	const struct word *w = word_of(v, name);

	if (w->n_values == 0)
		return false;
	*ret = w->value[choose(c, kept(w->n_values))];
	return true;
}

static size_t value_size(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	default:
		return 4;
	}
}

static void learn_one(struct vocabulary *v, const ProtobufCFieldDescriptor *field, const void *at)
{
	uint64_t value = 0;

	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		if (*(ProtobufCMessage *const *)at)
			vocabulary_learn(v, *(ProtobufCMessage *const *)at);
		break;
	case PROTOBUF_C_TYPE_STRING:
		if (*(char *const *)at)
			vocabulary_text(v, field->name, *(char *const *)at, strlen(*(char *const *)at));
		break;
	case PROTOBUF_C_TYPE_BYTES:
		vocabulary_text(v, field->name, ((const ProtobufCBinaryData *)at)->data,
				((const ProtobufCBinaryData *)at)->len);
		break;
	default:
		memcpy(&value, at, value_size(field->type));
		vocabulary_value(v, field->name, value);
	}
}

void vocabulary_learn(struct vocabulary *v, const ProtobufCMessage *message)
{
	for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
		const char *base = (const char *)message, *at = base + field->offset;
		bool oneof = field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;

		if (oneof && *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
			continue;
		if (field->label != PROTOBUF_C_LABEL_REPEATED) {
			learn_one(v, field, at);
			continue;
		}
		for (size_t k = 0; k < *(const size_t *)(const void *)(base + field->quantifier_offset); k++)
			learn_one(v, field, *(const char *const *)(const void *)at + k * value_size(field->type));
	}
}

/* Requests */

static uint64_t make_value(struct vocabulary *v, struct choice *c, const char *name)
{
	unsigned how = choose(c, 8);
	uint64_t value;

	if (how < 6 && vocabulary_choose(v, c, name, &value))
		return how == 5 ? value + (choose(c, 2) ? 1 : UINT64_MAX) : value;
	return choose_number(c);
}

/* Bytes of a text: known ones, or any, long ones too; with `terminated` a string. */
static void make_text(ProtobufCBinaryData *ret, struct vocabulary *v, struct choice *c, const char *name)
{
	const struct word *w = word_of(v, name);
	unsigned how = choose(c, 6);

	if (how < 4 && w->n_texts > 0) {
		unsigned i = choose(c, kept(w->n_texts));

		ret->len = w->text[i].len;
		ret->data = arena_take(ret->len + 1);
		memcpy(ret->data, w->text[i].data, ret->len);
		return;
	}
	ret->len = how == 5 ? choose(c, 400) : how == 4 ? 16 : choose(c, 4);
	ret->data = arena_take(ret->len + 1);
	for (size_t i = 0; i < ret->len; i++)
		ret->data[i] = how == 5 && i > 8 ? 'x' : choose_byte(c);
}

static ProtobufCMessage *make_message(struct vocabulary *v, struct choice *c,
				      const ProtobufCMessageDescriptor *descriptor);

static void make_one(struct vocabulary *v, struct choice *c, const ProtobufCFieldDescriptor *field, void *at)
{
	ProtobufCBinaryData text;
	uint64_t value;

	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)at = make_message(v, c, field->descriptor);
		break;
	case PROTOBUF_C_TYPE_STRING:
		make_text(&text, v, c, field->name);
		*(char **)at = (char *)text.data;
		break;
	case PROTOBUF_C_TYPE_BYTES:
		make_text(at, v, c, field->name);
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)at = choose(c, 2);
		break;
	default:
		value = make_value(v, c, field->name);
		memcpy(at, &value, value_size(field->type));
	}
}

static void make_repeated(struct vocabulary *v, struct choice *c, const ProtobufCFieldDescriptor *field,
			  char *base)
{
	size_t n = choose(c, 6), size = value_size(field->type);
	char *list;

	if (n == 5)
		n = choose(c, REPEATED_MAX);
	list = arena_take(n * size + 1);
	for (size_t i = 0; i < n; i++)
		make_one(v, c, field, list + i * size);
	*(char **)(void *)(base + field->offset) = list;
	*(size_t *)(void *)(base + field->quantifier_offset) = n;
}

/* Most fields are set; a field that is not has its default. */
static ProtobufCMessage *make_message(struct vocabulary *v, struct choice *c,
				      const ProtobufCMessageDescriptor *descriptor)
{
	ProtobufCMessage *message = arena_take(descriptor->sizeof_message);
	unsigned skip = choose(c, 256);

	protobuf_c_message_init(descriptor, message);
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		char *base = (char *)message;

		if (skip >> i % 8 & 1 && skip > 128)
			continue;
		if (field->label == PROTOBUF_C_LABEL_REPEATED)
			make_repeated(v, c, field, base);
		else if (!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
			make_one(v, c, field, base + field->offset);
	}
	return message;
}

size_t grammar_request(struct vocabulary *v, struct choice *c, uint32_t op, uint64_t seq, uint8_t *buf,
		       size_t room)
{
	const ProtobufCMessageDescriptor *descriptor = &nvmm__request__descriptor;
	Nvmm__Request request = NVMM__REQUEST__INIT;
	const ProtobufCFieldDescriptor *field;
	size_t len;

	arena_used = 0;
	field = op ? protobuf_c_message_descriptor_get_field(descriptor, op) :
		     &descriptor->fields[choose(c, descriptor->n_fields)];
	request.seq = seq;
	if (field && field->type == PROTOBUF_C_TYPE_MESSAGE) {
		request.op_case = (Nvmm__Request__OpCase)field->id;
		*(ProtobufCMessage **)(void *)((char *)&request + field->offset) =
			make_message(v, c, field->descriptor);
	}
	len = protobuf_c_message_get_packed_size(&request.base);
	if (len > room)
		return 0;
	return protobuf_c_message_pack(&request.base, buf);
}
