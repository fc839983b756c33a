/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests for spans and large blocks, and what they do when room is short.
 *
 * Then all hints are looked at for a span with room; then those that are empty are retired, and their units
 * granted; then idle threads are made to give up what they hold, and both begins anew. In a large heap that
 * takes long, and the daemon has other pools to serve: so it goes in slices of hint words, and what was found out so
 * far is the caller's to keep. A slice begins with what is quick, since room may have come meanwhile. What others do
 * between two slices may hide a span from a pass: they found room, too, and theirs is hinted when they leave it.
 */
#include <errno.h>

#include "media/class.h"
#include "media/grant_private.h"

enum press_stage {
	PRESS_ROOM,  /* spans with room are looked for, */
	PRESS_EMPTY, /* empty ones retired, */
	PRESS_IDLE,  /* what idle threads hold is taken */
	PRESS_ROOM_AGAIN,
	PRESS_EMPTY_AGAIN,
	PRESS_END,
};

/* What is asked for: spans of a class, or one run. */
struct asked {
	bool run;
	unsigned class;
	struct span span;
	uint64_t align;
	uint64_t *refs;
};

/* 1: granted; 0: there is no room for it. */
static int fresh(struct grant *g, const struct asked *asked)
{
	int r;

	if (!asked->run)
		return grant_fresh_spans(g, asked->class, 1, asked->refs);
	r = grant_fresh(g, asked->span, asked->align, asked->refs);
	return r == -ENOSPC ? 0 : r < 0 ? r : 1;
}

static int retire_slice(struct grant *g, const struct asked *asked, struct grant_trim *pass)
{
	int64_t bytes = grant_trim_slice(g, pass);

	if (bytes < 0)
		return (int)bytes;
	return pass->left == 0 ? fresh(g, asked) : 0;
}

/* A slice of the stage: 1: granted; 0: go on. */
static int press_slice(struct grant *g, const struct asked *asked, struct grant_press *press)
{
	int r;

	switch ((enum press_stage)press->stage) {
	case PRESS_ROOM:
	case PRESS_ROOM_AGAIN:
		return asked->run ? 0 : grant_room_slice(g, &press->pass, asked->class, asked->refs);
	case PRESS_EMPTY:
	case PRESS_EMPTY_AGAIN:
		return retire_slice(g, asked, &press->pass);
	default:
		r = grant_revoke(g);
		if (r == 0)
			press->stage = PRESS_EMPTY_AGAIN; /* nobody had anything */
		return r < 0 ? r : 0;
	}
}

/* Goes on until a slice has ended and its stage has not. */
static int press_on(struct grant *g, const struct asked *asked, struct grant_press *press)
{
	for (;;) {
		int r = press_slice(g, asked, press);

		if (r != 0)
			return r;
		if (press->pass.left > 0)
			return -EAGAIN;
		press->pass = (struct grant_trim){ .begun = false };
		if (++press->stage >= PRESS_END)
			break;
	}
	*press = (struct grant_press){ .stage = PRESS_ROOM };
	return -ENOSPC;
}

int grant_spans_slice(struct grant *g, unsigned class, uint32_t want, uint64_t *refs,
		      struct grant_press *press)
{
	struct asked asked = { .class = class, .refs = refs };
	int r;

	if (class >= CLASS_COUNT || class < g->heap->first_class || want == 0 || want > GRANT_SPANS_MAX)
		return -EINVAL;
	space_begin(g);
	r = grant_left_spans(g, class, want, refs);
	if (r == 0)
		r = grant_fresh_spans(g, class, want, refs);
	return r != 0 ? r : press_on(g, &asked, press);
}

int grant_run_slice(struct grant *g, uint64_t units, uint64_t align, uint64_t *ref,
		    struct grant_press *press)
{
	struct asked asked = {
		.run = true,
		.span = { .kind = SPAN_LARGE, .class = CLASS_LARGE, .length = (uint32_t)units },
		.align = align,
		.refs = ref,
	};
	int r;

	if (units == 0 || units > SHELF_SIZE_MAX >> UNIT_SHIFT || align == 0 ||
	    align > GRANT_ALIGN_MAX || (align & (align - 1)) != 0)
		return -EINVAL;
	space_begin(g);
	r = fresh(g, &asked);
	if (r == 0)
		r = press_on(g, &asked, press);
	return r < 0 ? r : 0;
}

int grant_spans(struct grant *g, unsigned class, uint32_t want, uint64_t *refs)
{
	struct grant_press press = { .stage = PRESS_ROOM };
	int r;

	do
		r = grant_spans_slice(g, class, want, refs, &press);
	while (r == -EAGAIN);
	return r;
}

int grant_run(struct grant *g, uint64_t units, uint64_t align, uint64_t *ref)
{
	struct grant_press press = { .stage = PRESS_ROOM };
	int r;

	do
		r = grant_run_slice(g, units, align, ref, &press);
	while (r == -EAGAIN);
	return r;
}
