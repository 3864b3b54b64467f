/* SPDX-License-Identifier: MIT */
/* The last outcomes that went wrong, for people who look: ids, times and reasons, never a message's content. */
#ifndef PROMPTD_RECENT_FAILURES_H
#define PROMPTD_RECENT_FAILURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/job.h"
#include "promptd/text.h"

enum { RECENT_FAILURES_MAX = 100 };

struct recent_failure {
    int64_t at_ms; /* monotonic */
    enum outcome outcome;
    bool has_interview_id;
    bool has_prompt_id;
    uint8_t interview_id[UUID_SIZE];
    uint8_t prompt_id[UUID_SIZE];
    struct job_failure why; /* the text of a rejection is its name */
};

/* A ring: the oldest is forgotten first. Zero-initialised is empty. */
struct recent_failures {
    struct recent_failure list[RECENT_FAILURES_MAX];
    size_t count;
    size_t next;
};

/* Room for one more, cleared but for its time and outcome; the caller fills it in at once. */
struct recent_failure *recent_failures_add(struct recent_failures *failures, enum outcome outcome);

/* The newest is 0; NULL past the oldest. */
const struct recent_failure *recent_failures_at(const struct recent_failures *failures, size_t index);

#endif
