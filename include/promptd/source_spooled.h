/* SPDX-License-Identifier: MIT */
/*
 * The spool as a source: it stands around one that keeps nothing, and makes it one that keeps every message, on disk,
 * until its outcome.
 *
 *     inner ──▶ put ─▶ on disk ─┬─ there is room, nothing older waits: delivered at once
 *                               └─ else it stays on disk only, and is fetched in its turn
 */
#ifndef PROMPTD_SOURCE_SPOOLED_H
#define PROMPTD_SOURCE_SPOOLED_H

#include "promptd/source_open.h"

/* Makes the source inside: its sink is that of `options`. NULL when out of memory. */
typedef struct source *(*source_inner_new)(const struct source_options *options);

/* Opens the spool, blocking. NULL with ERROR_SPOOL when it cannot be used; see spool_open. */
struct source *source_spooled_new(const struct source_options *options, source_inner_new inner_new,
                                  struct error *error);

#endif
