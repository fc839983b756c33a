/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Between scenes.c and scene.c.
 */
#pragma once

#include "tests/crash/scenes.h"

#define SCENE_UNITS 96u
#define SCENE_ACTOR 5u
#define SCENE_OTHER 6u

/* What is in limbo becomes free, as the daemon does it when nobody reads. */
void scene_reclaim(struct scene *s);
