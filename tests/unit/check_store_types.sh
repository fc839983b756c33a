#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# A plain assignment to a media field must not compile, in none of the ways to write one; the
# same file with a typed store must, so that a broken compiler command does not pass.
set -u
: "${CC:=cc}"
src=${top_srcdir:-${srcdir:-.}/..}
dir=$(mktemp -d "${TMPDIR:-/tmp}/nvmmd-test-XXXXXX") || exit 99
trap 'rm -rf "$dir"' EXIT INT TERM
failed=0

# compiles STATEMENT: whether a function with it does
compiles() {
	cat >"$dir/t.c" <<-EOF
		#include "media/format.h"
		void f(struct slot_head_df *h, struct slot_head_df *g, m64 *p, m64 *q);
		void f(struct slot_head_df *h, struct slot_head_df *g, m64 *p, m64 *q)
		{
			(void)h, (void)g, (void)p, (void)q;
			$1
		}
	EOF
	# CC may hold flags: split it
	$CC -std=gnu11 -D_GNU_SOURCE -I"$src" -fsyntax-only "$dir/t.c" >"$dir/log" 2>&1
}

for good in ';' 'media_store64(&h->commit, 1);' 'media_store_release(p, media_load64(q));'; do
	if ! compiles "$good"; then
		echo "FAIL: does not compile: $good"
		cat "$dir/log"
		failed=1
	fi
done
for bad in 'h->commit.raw = 1;' 'h->commit = g->commit;' 'h->commit = 1;' '*h = *g;' '*p = *q;' \
	'p->raw++;' 'p->raw |= 1;' 'h->commit = (m64){ 1 };' 'media_store64(&h->crc, 1);'; do
	if compiles "$bad"; then
		# an incompatible pointer is an error here, but a warning to older compilers
		if [ "$bad" = 'media_store64(&h->crc, 1);' ] && grep -q incompatible "$dir/log"; then
			continue
		fi
		echo "FAIL: compiles: $bad"
		failed=1
	fi
done
exit $failed
