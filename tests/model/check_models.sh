#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs the Promela models through spin: each must hold in all its states, and each of its variants that is
# wrong on purpose must be found wrong, by an assertion. doc/models.md says what they are about.
#
# Usage: check_models.sh [MODEL...]    names without .pml; all of them by default
# Exit: 0 as it should be, 1 not, 77 skipped.
set -u

here=$(cd "$(dirname "$0")" && pwd)
compiler=${CC:-cc}
memory=900 # MiB, each

if ! command -v spin >/dev/null; then
	echo "check_models: skipped: spin is not installed"
	exit 77
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/nvmmd-test-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
failed=0
models=" $* "

# $1: model, further: definitions. Its report goes to $dir/out. Where there are few states, the compiler's time
# is most of it.
explore() {
	case $1 in
	publish | durable) optimize=-O0 depth=200000 hash=18 ;;
	*) optimize=-O1 depth=4000000 hash=20 ;;
	esac
	cp "$here/$1.pml" "$dir/model.pml"
	shift
	(
		cd "$dir" || exit 1
		rm -f pan out ./*.trail
		spin -a "$@" model.pml >out 2>&1 &&
			$compiler $optimize -w -DSAFETY -DCOLLAPSE -DMEMLIM=$memory -o pan pan.c >>out 2>&1 &&
			timeout 300 ./pan -m$depth -w$hash >out 2>&1
	)
}

wanted() {
	[ "$models" = "  " ] || case $models in *" $1 "*) ;; *) return 1 ;; esac
}

states() {
	sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$dir/out"
}

bad() {
	echo "FAIL $1"
	cat "$dir/out"
	failed=1
}

# The model as it is: explored to the end, without an error.
holds() {
	wanted "$1" || return 0
	explore "$@"
	if grep -q 'errors: 0$' "$dir/out" && ! grep -qE 'max search depth|not completed' "$dir/out"; then
		echo "PASS $*: holds in $(states) states"
	else
		bad "$*: does not hold, or was not explored to the end"
	fi
}

# A variant that is wrong.
breaks() {
	wanted "$1" || return 0
	explore "$@"
	if grep -q 'assertion violated' "$dir/out"; then
		echo "PASS $*: found wrong after $(states) states"
	else
		bad "$*: is wrong, and was not found wrong"
	fi
}

holds collect
breaks collect -DREMOTE_FIRST
breaks collect -DHINT_BEFORE_OR
breaks collect -DHINT_NO_BARRIER
breaks collect -DNO_FREEING
breaks collect -DENTRY_FIRST
breaks collect -DUNHINT_LATE -DDISOWN_BLIND
breaks collect -DHINT_UNOWNED -DDISOWN_BLIND

holds epoch
holds epoch -DFENCE -DNO_BARRIER
breaks epoch -DNO_BARRIER
breaks epoch -DEQUAL_IS_RIPE
breaks epoch -DRAISE_FIRST
breaks epoch -DFREE_ALL
breaks epoch -DEARLY_EXIT

holds spans
holds spans -DUNITS=2 -DLANES=1
breaks spans -DCLASS_BEFORE_CLAIM
breaks spans -DENTRY_AFTER_CLAIM
breaks spans -DNO_VERIFY
breaks spans -DRECORD_LATE
breaks spans -DNO_REQUEST_CHECK
breaks spans -DLOAD_NO_HINT
breaks spans -DUNHINT_LATE -DDISOWN_BLIND
breaks spans -DUNITS=2 -DLANES=1 -DINTERIOR_NONE
breaks spans -DUNITS=2 -DLANES=1 -DNO_JOIN

holds revoke
holds revoke -DFENCED
breaks revoke -DNO_BARRIER
breaks revoke -DTAKE_UNASKED
breaks revoke -DTAKEN_EARLY
breaks revoke -DNO_WAIT
breaks revoke -DNO_RESET
breaks revoke -DNO_BUSY_LOOK

holds reclaim
holds reclaim -DFENCED
breaks reclaim -DRIPE_AT
breaks reclaim -DNO_BARRIER
breaks reclaim -DSCAN_FIRST
breaks reclaim -DRAISE_FIRST
breaks reclaim -DQUEUE
breaks reclaim -DG_LOST
breaks reclaim -DTWO_SNAPSHOTS

holds limbo -DSTAYS
holds limbo -DBLOCKS=1 -DWMAX=4
holds limbo -DBLOCKS=1 -DNOT_AGAIN
holds limbo -DBLOCKS=1 -DOWNER_DEFERS
breaks limbo -DBLOCKS=1 -DHINT_FIRST
breaks limbo -DBLOCKS=1 -DNO_FREEING
breaks limbo -DBLOCKS=1 -DLIMBO_FIRST
breaks limbo -DBLOCKS=1 -DLOOK_FIRST
breaks limbo -DBLOCKS=1 -DLOAD_BLIND
breaks limbo -DBLOCKS=1 -DLOAD_NO_HINT
breaks limbo -DBLOCKS=1 -DREMOTE_FIRST
breaks limbo -DBLOCKS=1 -DOWNER_DEFERS -DOWNED_NO_LHINT
breaks limbo -DSTAYS -DODD_BLIND
breaks limbo -DSTAYS -DODD_FIRST

holds publish
breaks publish -DPINS_FIRST
breaks publish -DUNPINNED
breaks publish -DFREE_AT_ONCE
breaks publish -DSPANS_FIRST
breaks publish -DRESERVATIONS_FIRST
breaks publish -DENTRY_FIRST
breaks publish -DALLOC_FIRST
breaks publish -DLOG_LATE
breaks publish -DCLEAR_FIRST
breaks publish -DLEAVE_FIRST
breaks publish -DRECLAIM_FIRST

holds durable
breaks durable -DCONTENT_UNDRAINED
breaks durable -DCOMMIT_UNDRAINED
breaks durable -DWORD_UNFLUSHED
breaks durable -DAPPLIED_UNDRAINED
breaks durable -DCLEARED_UNDRAINED
breaks durable -DENTRY_UNDRAINED
breaks durable -DCANCEL_UNDRAINED
breaks durable -DLEFT_UNDRAINED
breaks durable -DFOUND_VALID
breaks durable -DFOUND_WORD
breaks durable -DFOUND_CLEAR
breaks durable -DFOUND_GONE
breaks durable -DFOUND_LIMBO
breaks durable -DFOUND_CANCELLED
breaks durable -DSETTLE_CLEARS_FIRST

holds open
breaks open -DCLEAR_EARLY
breaks open -DNO_RELOOK
breaks open -DTRUST_EARLY
breaks open -DNO_VERSION
breaks open -DEND_BLIND
breaks open -DFLUSH_FIRST
breaks open -DLIMBO_UNDRAINED

holds lock
breaks lock -DTAKE_UNSETTLED
breaks lock -DTAKE_BLIND
breaks lock -DNO_CALLS
breaks lock -DWAKE_FIRST
breaks lock -DNO_FLAG
breaks lock -DSLEEP_BLIND

exit $failed
