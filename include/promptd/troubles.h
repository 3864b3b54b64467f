/* SPDX-License-Identifier: MIT */
/* The last outcomes that went wrong, for people who look: ids, times and reasons, never a message's content. */
#ifndef PROMPTD_TROUBLES_H
#define PROMPTD_TROUBLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/job.h"
#include "promptd/text.h"

enum { TROUBLES_MAX = 100 };

struct trouble {
    int64_t wall_ms;
    enum outcome outcome;
    bool has_interview_id;
    bool has_prompt_id;
    uint8_t interview_id[UUID_SIZE];
    uint8_t prompt_id[UUID_SIZE];
    char sqlstate[SQLSTATE_SIZE]; /* "": none */
    char reason[JOB_ERROR_SIZE];  /* fit for the log: a rejection's name, or what the failure said */
};

/* A ring: the oldest is forgotten first. Zero-initialised is empty. */
struct troubles {
    struct trouble list[TROUBLES_MAX];
    size_t count;
    size_t next;
};

/* Room for one more, cleared but for its time and outcome; the caller fills it in at once. */
struct trouble *troubles_add(struct troubles *troubles, enum outcome outcome);

/* The newest is 0; NULL past the oldest. */
const struct trouble *troubles_at(const struct troubles *troubles, size_t index);

#endif
