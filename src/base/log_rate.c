/* SPDX-License-Identifier: MIT */
/* Counting lines by the second. */
#include "promptd/log_rate.h"

bool log_rate_allows(struct log_rate *rate, int64_t now_us, uint64_t *summary)
{
    int64_t second = now_us / 1000000;
    *summary = 0;
    if (second != rate->second) {
        *summary = log_rate_flush(rate);
        rate->second = second;
        rate->written = 0;
    }
    if (rate->written >= rate->per_second) {
        rate->held_back++;
        return false;
    }
    rate->written++;
    return true;
}

uint64_t log_rate_flush(struct log_rate *rate)
{
    uint64_t held_back = rate->held_back;
    rate->held_back = 0;
    return held_back;
}
