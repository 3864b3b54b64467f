/* SPDX-License-Identifier: MIT */
/* The last ten minutes in steps of five seconds: how many messages came and how they ended, and how long it took. */
#ifndef PROMPTD_HISTORY_H
#define PROMPTD_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "promptd/metrics.h"

enum { HISTORY_INTERVAL_S = 5, HISTORY_MAX = 120 };

/* What happened in the interval that ended at `at_ms` (monotonic). */
struct history_point {
    int64_t at_ms;
    uint64_t received;
    uint64_t stored;
    uint64_t failed;
    double p50_ms; /* of the durations that ended in it; 0 where there were none */
    double p99_ms;
};

/* A ring. Zero-initialised is empty, and begins with counters of 0. */
struct history {
    struct history_point points[HISTORY_MAX];
    size_t count;
    size_t next;
    int64_t due_ms; /* monotonic: when the interval ends */
    uint64_t received;
    uint64_t success;
    uint64_t failure;
    struct histogram durations;
};

/* To be called about once a second: adds a point whenever an interval has passed. */
void history_look(struct history *history, const struct metrics *metrics, int64_t now_ms);

/* The oldest is 0; NULL past the newest. */
const struct history_point *history_at(const struct history *history, size_t index);

#endif
