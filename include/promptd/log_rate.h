/* SPDX-License-Identifier: MIT */
/* A bound on how often one kind of line is written: so many a second, and a summary of what was held back. Pure. */
#ifndef PROMPTD_LOG_RATE_H
#define PROMPTD_LOG_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct log_rate {
    uint32_t per_second;
    int64_t second;     /* the one being counted */
    uint32_t written;   /* in it */
    uint64_t held_back; /* since the last summary */
};

/* May a line be written at `now_us`? When a new second has begun after lines were held back, *summary is their number,
 * to be logged once; else 0. */
bool log_rate_allows(struct log_rate *rate, int64_t now_us, uint64_t *summary);

/* What was held back and not yet summed up: for a timer, and for the end of the process. */
uint64_t log_rate_flush(struct log_rate *rate);

#endif
