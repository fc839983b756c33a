#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# The checks of sources find what they are there to find, name its place, and let good sources pass.
set -eu
top=$(cd "${srcdir:-$(dirname "$0")/..}/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/nvmmd-rules.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM HUP

# expect RC SCRIPT PLACE FILE: writes standard input to FILE of an otherwise empty tree.
expect() {
	rm -rf "$dir/tree"
	mkdir -p "$dir/tree/${4%/*}"
	cat >"$dir/tree/$4"
	rc=0
	"$top/scripts/$2" "$dir/tree" >"$dir/out" 2>&1 || rc=$?
	if [ "$rc" != "$1" ] || { [ -n "$3" ] && ! grep -q "^$3" "$dir/out"; }; then
		echo "$2 ended with $rc, expected $1 and '$3':"
		cat "$dir/out"
		exit 1
	fi
}

expect 0 check-layers '' media/a.c <<'END'
#include "media/a.h"
#include "common/b.h"
#include <nvmm.h>
END
expect 1 check-layers 'media/a.c:2:' media/a.c <<'END'
#include "media/a.h"
#include "daemon/b.h"
END
expect 1 check-layers 'daemon/a.c:1:' daemon/a.c <<'END'
#include "libclient/b.h"
END
expect 1 check-layers 'daemon/a.c:1:' daemon/a.c <<'END'
#include <nvmm/client.h>
END
expect 1 check-layers 'proto/a.h:1:' proto/a.h <<'END'
#include "frame.h"
END
expect 1 check-layers 'common/a.c:1:' common/a.c <<'END'
 # include "media/b.h"
END
expect 1 check-layers 'examples/a.c:1:' examples/a.c <<'END'
#include "common/macro.h"
END

expect 0 check-ordering '' media/a.c <<'END'
	/* ordering: release; pairs with f(). */
	media_store_release(p, 1);
	/*
	 * COMMIT: it is there.
	 *   ordering: release.
	 */
	if (media_cas(p, 0, 1))
		return;
	/* media_or(p, 1) is only spoken of. */
END
expect 1 check-ordering 'media/a.c:1:' media/a.c <<'END'
	media_or(p, 1);
	/* ordering: too late. */
END
expect 1 check-ordering 'daemon/a.h:2:' daemon/a.h <<'END'

	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
END
expect 1 check-ordering 'libclient/a.c:10:' libclient/a.c <<'END'
/* ordering: too far away. */








	atomic_fetch_add_explicit(p, 1, memory_order_relaxed);
END
