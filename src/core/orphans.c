/* SPDX-License-Identifier: MIT */
/* A short list: linear search is fine for something that should not exist. */
#include "orphans.h"

#include <stdlib.h>
#include <string.h>

void orphans_free(struct orphans *orphans)
{
    free(orphans->list);
    *orphans = (struct orphans){0};
}

static struct orphan *find(struct orphans *orphans, const uint8_t prompt_id[UUID_SIZE])
{
    for (size_t i = 0; i < orphans->count; i++)
        if (memcmp(orphans->list[i].prompt_id, prompt_id, UUID_SIZE) == 0)
            return &orphans->list[i];
    return NULL;
}

static bool grow(struct orphans *orphans)
{
    if (orphans->count < orphans->capacity)
        return true;
    if (orphans->capacity == ORPHANS_MAX)
        return false;
    size_t capacity = orphans->capacity ? orphans->capacity * 2 : 16;
    if (capacity > ORPHANS_MAX)
        capacity = ORPHANS_MAX;
    struct orphan *list = realloc(orphans->list, capacity * sizeof *list);
    if (!list)
        return false;
    orphans->list = list;
    orphans->capacity = capacity;
    return true;
}

bool orphans_add(struct orphans *orphans, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE],
                 int64_t since_ms)
{
    if (find(orphans, prompt_id))
        return true;
    if (!grow(orphans))
        return false;
    struct orphan *orphan = &orphans->list[orphans->count++];
    memcpy(orphan->interview_id, interview_id, UUID_SIZE);
    memcpy(orphan->prompt_id, prompt_id, UUID_SIZE);
    orphan->since_ms = since_ms;
    orphan->in_work = false;
    return true;
}

struct orphan *orphans_next(struct orphans *orphans)
{
    for (size_t i = 0; i < orphans->count; i++)
        if (!orphans->list[i].in_work)
            return &orphans->list[i];
    return NULL;
}

void orphans_attempted(struct orphans *orphans, const uint8_t prompt_id[UUID_SIZE], bool resolved)
{
    struct orphan *orphan = find(orphans, prompt_id);
    if (!orphan)
        return;
    orphan->in_work = false;
    if (resolved)
        *orphan = orphans->list[--orphans->count];
}
