/* SPDX-License-Identifier: MIT */
/* Exponential backoff with jitter. */
#include "promptd/backoff.h"

#include <stdlib.h>
#include <sys/random.h>

int64_t backoff_fail(struct backoff *backoff, double chance)
{
    int64_t wait = backoff->base_ms;
    for (unsigned i = 0; i < backoff->failures && wait < backoff->max_ms; i++)
        wait *= 2;
    if (wait > backoff->max_ms)
        wait = backoff->max_ms;
    backoff->failures++;
    return wait - (int64_t)((double)wait / 2 * chance);
}

double backoff_chance(void)
{
    uint32_t value;
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) != (ssize_t)sizeof value)
        return 0.5;
    return (double)value / 4294967296.0;
}
