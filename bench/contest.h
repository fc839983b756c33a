/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A contest: workers that are measured in turn, round after round (A B C A B C ...), so that what
 * changes on the machine meanwhile meets all of them. Ratios are taken within each round.
 */
#pragma once

#include <stdbool.h>

#include "bench/cell.h"

enum peer {
	PEER_NVMM,
	PEER_NVMM_POWER,
	PEER_MIMALLOC,
	PEER_JEMALLOC,
	PEER_GLIBC,
	PEER_PMEMOBJ,
	PEER_BOOST,
	PEERS,
};

#define PEER_BIT(peer) (1u << (peer))
#define PEERS_ALL ((1u << PEERS) - 1)

#define ROUNDS_MAX 101
#define ENTRANTS_MAX PEERS

struct series {
	double value[ROUNDS_MAX];
	unsigned n;
};

struct entrant {
	enum peer peer;
	struct cell cell;
	bool failed;      /* why was said on stderr */
	struct series ns; /* of a pair, by round */
	struct series round_trip_ns;
	unsigned disturbed; /* rounds that something else ran beside, after three tries */
};

struct contest {
	struct entrant entrant[ENTRANTS_MAX];
	unsigned n;
	unsigned rounds;
};

const char *peer_name(enum peer peer);
/* Whether its worker was built. */
bool peer_present(enum peer peer);
/* Whether two processes can hand blocks to each other. */
bool peer_shared(enum peer peer);

/* Adds an entrant if its worker is there; its number, or -1. */
int contest_add(struct contest *contest, enum peer peer, const struct cell *cell);
/* The same cell for all peers of a set that can do it. */
void contest_init(struct contest *contest, const struct cell *cell, unsigned peers);

/* Runs it; `dir` is for files of the workers. Entrants that fail are marked. */
void contest_run(struct contest *contest, const char *dir);

double series_median(const struct series *series);
/* The entrant of a peer that did not fail; NULL: none. */
const struct entrant *contest_find(const struct contest *contest, enum peer peer);
/* Median of the ratios of two series' rounds. */
double series_ratio(const struct series *a, const struct series *b);
/* The same of two entrants' times. */
double contest_ratio(const struct entrant *a, const struct entrant *b);
