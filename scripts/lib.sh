# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# What scripts/test and scripts/quickstart share: a scratch place that is always removed, a copy of
# the tree to build in, and commands that can be interrupted at any time.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by the scripts
jobs=$(nproc)
scratch=
shm=
running=

# Ends what runs, then removes all that was made. Runs however the script ends.
cleanup() {
	local status=$?

	trap - EXIT
	trap '' INT TERM HUP
	[ -z "$running" ] || end_group "$running"
	if declare -F before_cleanup >/dev/null; then
		before_cleanup "$status"
	fi
	[ -z "$scratch" ] || rm -rf "$scratch"
	[ -z "$shm" ] || rm -rf "$shm"
	exit "$status"
}

# $1: a name for the scratch directories: one on disk for builds, one on tmpfs for memory.
make_scratch() {
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	scratch=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX")
	shm=$(mktemp -d "/dev/shm/$1.XXXXXX")
	# Tests become other users, who must get at what is in there.
	chmod 0711 "$scratch" "$shm"
	mkdir -m 1777 "$shm/tmp"
	export TMPDIR=$shm/tmp
}

# Ends a process group: asks, then insists.
end_group() {
	local i

	kill -TERM -- "-$1" 2>/dev/null || return 0
	for ((i = 0; i < 50; i++)); do
		kill -0 -- "-$1" 2>/dev/null || return 0
		sleep 0.1
	done
	kill -KILL -- "-$1" 2>/dev/null || true
}

# Runs a command in a process group of its own and waits for it. A signal to the script is acted upon
# at once, and ends the group.
run() {
	local status=0

	setsid "$@" </dev/null &
	running=$!
	wait "$running" || status=$?
	running=
	return "$status"
}

# Copies the tree without what git does not know, so that nothing is ever written into it.
copy_tree() {
	mkdir -p "$1"
	if git -C "$top" ls-files -z -co --exclude-standard >"$scratch/files" 2>/dev/null; then
		tar -C "$top" --ignore-failed-read --warning=no-failed-read \
			--null -T "$scratch/files" -cf - | tar -C "$1" -xf -
	else
		tar -C "$top" --exclude=./.git --exclude=./autom4te.cache -cf - . | tar -C "$1" -xf -
	fi
}
