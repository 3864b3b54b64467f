/* SPDX-License-Identifier: MIT */
/* Entries of a stream, as XRANGE answers with them: [id, [field, value, …]]. */
#ifndef PROMPTCTL_STREAM_ENTRY_H
#define PROMPTCTL_STREAM_ENTRY_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>

#include "dead_store.h"

/* false: this is none. */
bool stream_entry_parts(const redisReply *entry, struct dead_id *id, const redisReply **fields);

/* The value of a field, a string; NULL: there is none. */
const redisReply *stream_entry_field(const redisReply *fields, const char *name);

/* Whether an array has nothing but entries from one id to another, ascending, and no more than `most`: else a reader of
 * pages might never come to an end. */
bool stream_entries_are_range(const redisReply *entries, const struct dead_id *from, const struct dead_id *to,
                              size_t most);

#endif
