/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration, of a grammar: sections and keys of the key table, in any order, with values that they may
 * have, nearly may have, or may not; anchors, tags, flows, documents.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "daemon/config_key.h"
#include "tests/fuzz/choice.h"
#include "tests/fuzz/config_input.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "yaml";

#define TEXT_ROOM 16384u

static unsigned long long taken, refused;
static char text[TEXT_ROOM];
static size_t used;

void fuzz_begin(void)
{
}

void fuzz_end(void)
{
	printf("%llu taken, %llu refused\n", taken, refused);
}

__attribute__((format(printf, 1, 2))) static void put(const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(text + used, TEXT_ROOM - used, fmt, args);
	va_end(args);
	if (n > 0 && (size_t)n < TEXT_ROOM - used)
		used += (size_t)n;
}

static void put_number(struct choice *c, const struct key *key)
{
	static const char *const units[] = { "", "", "KiB", "MiB", "GiB", "TiB", "k", "B", " MiB", "%" };
	uint64_t value;

	switch (choose(c, 5)) {
	case 0:
		value = key->min;
		break;
	case 1:
		value = key->max;
		break;
	case 2:
		value = key->min + choose(c, 256);
		break;
	case 3:
		value = key->max + 1;
		break;
	default:
		value = choose_number(c);
		break;
	}
	put(choose(c, 8) < 7 ? "%" PRIu64 : "0x%" PRIx64, value);
	if (key->type == KEY_SIZE || choose(c, 16) == 15)
		put("%s", units[choose(c, sizeof(units) / sizeof(units[0]))]);
}

/* Texts with what YAML takes for itself. */
static void put_text(struct choice *c, const struct key *key)
{
	static const char *const quotes[] = { "", "", "\"", "'" };
	const char *quote = quotes[choose(c, 4)];
	unsigned n = choose(c, 8) == 7 ? choose(c, 4096) : choose(c, 24);

	put("%s%s", quote, key->type == KEY_PATH && choose(c, 8) < 7 ? "/" : "");
	for (unsigned i = 0; i < n; i++)
		put("%c", choose(c, 4) == 0 ? 1 + choose(c, 255) : 'a' + i % 26);
	put("%s", quote);
}

static void put_value(struct choice *c, const struct key *key)
{
	static const char *const odd[] = { "", "~", "true", "[a, b]", "{a: b}", "*a", "!!str 3", "&a 3", "|\n    x",
					   ">-\n    y\n    z", "\"\\x41\\u263a\"", "? x", "- 1" };
	unsigned n = 0;

	if (choose(c, 12) == 11) {
		put("%s", odd[choose(c, sizeof(odd) / sizeof(odd[0]))]);
		return;
	}
	if (choose(c, 16) == 15)
		put("&a ");
	switch (key->type) {
	case KEY_CHOICE:
		while (key->choices[n])
			n++;
		put("%s", key->choices[choose(c, n)]);
		break;
	case KEY_MODE:
		put("0%o", choose(c, 4) < 3 ? choose(c, 512) : choose(c, 65536));
		break;
	case KEY_TEXT:
	case KEY_PATH:
		put_text(c, key);
		break;
	default:
		put_number(c, key);
		break;
	}
}

static void put_key(struct choice *c, const char *indent, const struct key *key)
{
	put("%s%s%s", indent, choose(c, 32) == 31 ? "x" : "", key->name);
	put("%s", choose(c, 32) == 31 ? " " : ": ");
	put_value(c, key);
	put("%s\n", choose(c, 16) == 15 ? " # why" : "");
}

/* A section with some of its keys, perhaps one twice, perhaps one of another section. */
static void put_section(struct choice *c, unsigned section)
{
	unsigned skip = choose(c, 256);

	if (section < N_SECTIONS)
		put("%s:%s\n", config_sections[section].name, choose(c, 32) == 31 ? " {}" : "");
	for (unsigned i = 0; i < N_KEYS; i++)
		if (config_keys[i].section == section && !(skip >> i % 8 & 1))
			put_key(c, section < N_SECTIONS ? "  " : "", &config_keys[i]);
	if (choose(c, 16) == 15)
		put_key(c, "  ", &config_keys[choose(c, N_KEYS)]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct choice c = choice_of(data, len);

	used = 0;
	if (choose(&c, 8) == 7)
		put("---\n");
	while (!choice_done(&c) && used < TEXT_ROOM / 2)
		put_section(&c, choose(&c, N_SECTIONS + 1));
	if (config_input(text, used))
		taken++;
	else
		refused++;
	return 0;
}
