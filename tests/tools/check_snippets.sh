#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Every block of code in README.md, doc/ and the manual pages is compiled, run or parsed, as
# snippets.list says; a block that the list does not name fails.
# The checks are called by the names that the list has, and by a trap.
# shellcheck disable=SC2317
set -eu

src=$(cd "${srcdir:-.}/.." && pwd)
build=$(cd .. && pwd)
tools=$src/tests/tools
library=$build/libclient/.libs

if ! command -v nm >/dev/null || nm -D "$library/libnvmm-client.so" | grep -q '__[at]san_init'; then
	echo "skipped: the library is built with a sanitizer, the programs would not be"
	exit 77
fi

dir=$(mktemp -d "${NVMMD_TEST_DIR:-/dev/shm}/snippets.XXXXXX")
daemon=
cleanup() {
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
	[ -z "$daemon" ] || wait "$daemon" || true
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

failed=0
fail() {
	echo "$name: $1"
	[ ! -s "$dir/out" ] || sed 's/^/    /' "$dir/out"
	failed=1
}

# extract FILE: writes its blocks to $dir/block.NUMBER
extract() {
	rm -f "$dir"/block.*
	awk -v to="$dir/block." '
		/^```/ { inside = !inside; if (inside) { n++; printf "" >(to n) } else close(to n); next }
		/^\.Bd -literal/ { inside = 1; n++; printf "" >(to n); next }
		/^\.Ed/ { if (inside) close(to n); inside = 0; next }
		inside { if (FILENAME !~ /\.md$/) gsub(/\\e/, "\\"); print >(to n) }
	' "$src/$1"
}

start_daemon() {
	mkdir "$dir/base" "$dir/run"
	printf 'shelves:\n  base: %s\nsocket:\n  path: %s\nruntime: %s\n' \
		"$dir/base" "$dir/run/sock" "$dir/run" >"$dir/nvmmd.yaml"
	"$build/run" nvmmd --config "$dir/nvmmd.yaml" >"$dir/log" 2>&1 &
	daemon=$!
	NVMM_SOCKET=$dir/run/sock
	export NVMM_SOCKET
	tries=0
	until "$build/run" nvmmctl status >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ $tries -gt 300 ]; then
			cat "$dir/log"
			exit 1
		fi
		sleep 0.1
	done
}

compile() {
	${CC:-cc} -std=gnu11 -Wall -Wextra -Werror "-I$src/libclient/include" "$@" >"$dir/out" 2>&1 ||
		fail "does not compile"
}

do_program() {
	cp "$1" "$dir/block.c"
	rm -f "$dir/program"
	compile -o "$dir/program" "$dir/block.c" "-L$library" -lnvmm-client "-Wl,-rpath,$library"
	[ -x "$dir/program" ] || return 0
	status=0
	NVMM_SOCKET=$dir/nobody "$dir/program" >"$dir/out" 2>&1 || status=$?
	if [ "$status" = 0 ] || [ "$status" -gt 125 ] || [ ! -s "$dir/out" ]; then
		fail "without a daemon it ends with $status"
	fi
	for i in 1 2; do
		"$dir/program" >"$dir/out" 2>&1 || fail "run $i fails"
	done
}

do_fragment() {
	{
		cat "$tools/snippet_${file##*/}.h"
		echo 'void fragment(void); void fragment(void) {'
		cat "$1"
		echo '}'
	} >"$dir/block.c"
	compile -c -o "$dir/block.o" "$dir/block.c"
}

do_config() {
	# A group that there is, and a directory for what is to be made.
	mkdir -p "$dir/trial"
	sed "s/group: storage/group: root/; s|/dev/shm/trial|$dir/trial|; s|/mnt/pmem0|$dir/trial|" "$1" \
		>"$dir/block.yaml"
	"$build/run" nvmmd --check-config --config "$dir/block.yaml" >"$dir/out" 2>&1 ||
		fail "nvmmd does not accept it"
}

# Commands find the programs of the build tree, and a group that there is.
do_ctl() {
	if grep -q jq "$1" && ! command -v jq >/dev/null; then
		do_syntax "$1"
		return
	fi
	sed "s/analytics/$(id -g)/g" "$1" >"$dir/block.sh"
	"$build/run" sh -e "$dir/block.sh" >"$dir/out" 2>&1 </dev/null || fail "a command fails"
}

do_tour() {
	sed "s|/dev/shm/try|$dir/try|g" "$1" >"$dir/block.sh"
	(cd "$build" && timeout 120 bash -e "$dir/block.sh") >"$dir/out" 2>&1 </dev/null ||
		fail "a command fails"
}

do_syntax() {
	sh -n "$1" >"$dir/out" 2>&1 || fail "the shell does not understand it"
}

do_none() {
	:
}

start_daemon
checked=0
for path in "$src"/README.md "$src"/doc/*.md "$src"/*/*.[1358]; do
	file=${path#"$src"/}
	extract "$file"
	n=1
	while [ -e "$dir/block.$n" ]; do
		name="$file, block $n"
		rm -f "$dir/out"
		action=$(awk -v f="$file" -v n="$n" '$1 == f && $2 == n { print $3 }' "$tools/snippets.list")
		case $action in
		program | fragment | config | ctl | tour | syntax | none) "do_$action" "$dir/block.$n" ;;
		*) fail "it is not in tests/tools/snippets.list" ;;
		esac
		checked=$((checked + 1))
		n=$((n + 1))
	done
done
listed=$(grep -c '^[^#]' "$tools/snippets.list")
if [ "$checked" != "$listed" ]; then
	echo "snippets.list has $listed blocks, the files have $checked"
	failed=1
fi
exit $failed
