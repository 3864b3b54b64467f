/* SPDX-License-Identifier: MIT */
/* Ids of entries of a stream, as Redis writes them: "1795923918858-0". */
#ifndef PROMPTCTL_STREAM_ID_H
#define PROMPTCTL_STREAM_ID_H

#include "dead_store.h"

bool stream_id_parse(const char *text, struct dead_id *id); /* both parts, and nothing else */
void stream_id_format(const struct dead_id *id, char text[DEAD_ID_SIZE]);
bool stream_id_is_same(const struct dead_id *left, const struct dead_id *right);
bool stream_id_is_before(const struct dead_id *left, const struct dead_id *right);

/* The one behind it; of the highest that there can be, itself. */
struct dead_id stream_id_next(const struct dead_id *id);

#endif
