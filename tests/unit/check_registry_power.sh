#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check_registry with libpmem told that all is persistent memory: records go through flush and drain,
# each of which is a point to be killed at as well.
PMEM_IS_PMEM_FORCE=1
export PMEM_IS_PMEM_FORCE
exec ./check_registry
