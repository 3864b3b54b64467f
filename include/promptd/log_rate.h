/* SPDX-License-Identifier: MIT */
/* A bound on how often one kind of line is written, and the number of those held back. Pure: the time is passed in. */
#ifndef PROMPTD_LOG_RATE_H
#define PROMPTD_LOG_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* A bucket that holds `burst` lines and is refilled with `per_second`. It begins full. */
struct log_rate {
    uint32_t burst;
    uint32_t per_second;
    uint64_t spent;      /* lines that are not refilled yet */
    int64_t refilled_us; /* until when they are */
    uint64_t held_back;  /* since the last summary */
};

/* May a line be written now? If not it counts as held back. `now_us` never goes back. */
bool log_rate_allows(struct log_rate *rate, int64_t now_us);

/* How many were held back since this was asked last: to be logged where it is not 0. */
uint64_t log_rate_take_held_back(struct log_rate *rate);

#endif
