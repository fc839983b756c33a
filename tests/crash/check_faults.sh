#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The test of the crash tests: with each fault of media/fault.h planted, the enumeration must fail in the
# operation that it concerns; with none it must not.
set -euo pipefail

program=./heap-kill-faulty
for p in ./heap-kill-faulty ./heap-power-faulty ./publish-kill-faulty ./publish-power-faulty ./check_examples_power; do
	[ -x "$p" ] || { echo "$p was not built"; exit 99; }
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# The same sample each time, where it is drawn at random.
export NVMMD_TEST_SEED=1

# $1: fault, $2: text in the names of operations, $3: what is planted.
plant() {
	local result=0

	NVMMD_TEST_FAULT=$1 NVMMD_TEST_OPERATION=$2 "$program" >"$log" 2>&1 || result=$?
	if [ "$1" = 0 ]; then
		[ "$result" = 0 ] && echo "none planted: none found" && return
		echo "FAILED without a fault:"
	else
		# An assertion of Check's, not a crash of the program.
		[ "$result" = 1 ] && grep -qE '^[^ ]+\.c:[0-9]+:[FE]:' "$log" &&
			echo "found: $3: $(grep -m 1 -oE ':[FE]:.*' "$log" | cut -d : -f 6-)" && return
		echo "NOT FOUND: $3 (fault $1, operations '$2'), status $result:"
	fi
	cat "$log"
	status=1
}

plant 0 "free" "nothing"
plant 1 "collecting" "collecting clears remote before alloc"
plant 2 "limbo" "collecting does not clear limbo"
plant 3 "adopting what was granted" "the owned-span entry is written after the claim"
plant 4 "unowned span" "a freer does not say where it is about to set a bit"
plant 5 "disown" "room of a span that is given up is not hinted"
plant 6 "retir" "the span word says free before the owner word says no head"
plant 7 "fresh span" "the span word is there before the remainder's"
plant 8 "joined" "runs are joined without the head's word covering them"

program=./heap-power-faulty
plant 0 "free of another's" "nothing"
plant 9 "alloc, fresh span" "a mark is trusted that is not drained"
plant 10 "lane ends" "a mark is cleared, and the bits were not flushed"
plant 11 "give again" "a block that was in limbo is given before its limbo bit's end is drained"
plant 12 "alloc, large" "the bit of a large block is not drained"

program=./publish-kill-faulty
plant 0 "cancel" "nothing"
plant 13 "publish" "words are stored before the log is valid"
plant 14 "publish" "the log is cleared before the reservations that it commits"
plant 15 "reserve, owned span" "a block is allocated before its reservation is there"

program=./publish-power-faulty
plant 0 "reserve" "nothing"
plant 16 "publish" "a word's old value is in the log and need not be on the medium"
plant 17 "publish" "the log is cleared, and what it did is not drained"

# A fault of its own, in the place of a user's: one of the programs that it is about.
program=./check_examples_power
plant 0 "queue, open" "nothing"
for structure in "queue, put" "queue, open" "map, set, new" "map, set, known"; do
	plant 1 "$structure" "what a program puts into a block is not made durable ($structure)"
done
exit "$status"
