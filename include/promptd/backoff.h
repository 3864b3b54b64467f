/* SPDX-License-Identifier: MIT */
/* How long to wait before the next attempt: doubling from a base to a maximum, with jitter. Pure: chance is passed in.
 */
#ifndef PROMPTD_BACKOFF_H
#define PROMPTD_BACKOFF_H

#include <stdint.h>

struct backoff {
    int64_t base_ms;
    int64_t max_ms;
    unsigned failures; /* in a row: 0 after a success */
};

/* Counts one more failure and returns the wait in ms: between half and all of min(base * 2^(failures - 1), max), so
 * that several daemons do not come back together. `chance` is uniform in [0, 1). */
int64_t backoff_fail(struct backoff *backoff, double chance);

/* Uniform in [0, 1), not for secrets. */
double backoff_chance(void);

#endif
