/* SPDX-License-Identifier: MIT */
/* Orphans that promptd itself has reported and not seen gone: they are tried again, so they are kept in mind. */
#ifndef PROMPTD_ORPHANS_H
#define PROMPTD_ORPHANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/text.h"

struct orphan {
    uint8_t interview_id[UUID_SIZE];
    uint8_t prompt_id[UUID_SIZE];
    int64_t since_ms; /* wall clock: when it was reported */
    bool in_work;     /* another attempt is under way */
};

/* Bounded: what does not fit is in the log, and found in the data by promptctl orphans. */
enum { ORPHANS_MAX = 10000 };

struct orphans {
    struct orphan *list;
    size_t count;
    size_t capacity;
};

void orphans_free(struct orphans *orphans);

/* false when it is not kept, for lack of room or memory. One that is known already is not added twice. */
bool orphans_add(struct orphans *orphans, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE],
                 int64_t since_ms);

/* Any that is not in work, or NULL. Valid until the next call. */
struct orphan *orphans_next(struct orphans *orphans);

/* The attempt is over. Resolved ones are forgotten. */
void orphans_attempted(struct orphans *orphans, const uint8_t prompt_id[UUID_SIZE], bool resolved);

#endif
