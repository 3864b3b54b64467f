/* SPDX-License-Identifier: MIT */
/* A token bucket of log lines. */
#include "promptd/log_rate.h"

static void refill(struct log_rate *rate, int64_t now_us)
{
    uint64_t elapsed_us = (uint64_t)(now_us - rate->refilled_us);
    uint64_t us_per_line = 1000000 / rate->per_second;
    uint64_t lines = elapsed_us / us_per_line;
    if (lines >= rate->spent) {
        rate->spent = 0;
        rate->refilled_us = now_us;
        return;
    }
    rate->spent -= lines;
    rate->refilled_us += (int64_t)(lines * us_per_line);
}

bool log_rate_allows(struct log_rate *rate, int64_t now_us)
{
    refill(rate, now_us);
    if (rate->spent >= rate->burst) {
        rate->held_back++;
        return false;
    }
    rate->spent++;
    return true;
}

uint64_t log_rate_take_held_back(struct log_rate *rate)
{
    uint64_t held_back = rate->held_back;
    rate->held_back = 0;
    return held_back;
}
