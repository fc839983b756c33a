/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is wrong with a configuration whose every value is right by itself.
 */
#pragma once

struct config;

/* Whether values contradict each other. 0, or -EINVAL with *error, to be freed: "key: what is wrong". -ENOMEM. */
int config_verify(const struct config *config, char **error);

/* Whether a daemon can start with it on this machine as it is now: groups, directories, the socket's path. Changes
 * nothing. As config_verify(), which it includes. */
int config_verify_start(const struct config *config, char **error);
