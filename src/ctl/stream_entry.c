/* SPDX-License-Identifier: MIT */
/* Replies that are entries of a stream. */
#include "stream_entry.h"

#include <string.h>

#include "stream_id.h"

static bool is_text(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING;
}

bool stream_entry_parts(const redisReply *entry, struct dead_id *id, const redisReply **fields)
{
    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || !is_text(entry->element[0]))
        return false;
    *fields = entry->element[1];
    return (*fields)->type == REDIS_REPLY_ARRAY && stream_id_parse(entry->element[0]->str, id);
}

const redisReply *stream_entry_field(const redisReply *fields, const char *name)
{
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        if (is_text(fields->element[i]) && is_text(fields->element[i + 1]) &&
            strcmp(fields->element[i]->str, name) == 0)
            return fields->element[i + 1];
    }
    return NULL;
}

bool stream_entries_are_range(const redisReply *entries, const struct dead_id *from, const struct dead_id *to,
                              size_t most)
{
    struct dead_id least = *from;
    struct dead_id id;
    const redisReply *fields;
    for (size_t i = 0; i < entries->elements; i++) {
        if (!stream_entry_parts(entries->element[i], &id, &fields) || stream_id_is_before(&id, &least) ||
            stream_id_is_before(to, &id))
            return false;
        least = stream_id_next(&id);
    }
    return entries->elements <= most;
}
