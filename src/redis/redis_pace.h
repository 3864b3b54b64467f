/* SPDX-License-Identifier: MIT */
/* How long to wait before the next dial. */
#ifndef PROMPTD_REDIS_PACE_H
#define PROMPTD_REDIS_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/breaker.h"

struct redis_pace {
    struct breaker breaker;
    int64_t count_again_ms; /* until then what may be a failover is no failure more */
};

/*
 * A dial has failed, the `attempts`th of this outage: the wait in milliseconds. What may be a failover, a master that a
 * Sentinel has just named and that is none or not there, is looked at often, and yet counts as one failure a backoff,
 * as without Sentinels. `opened`: the circuit opened by it.
 */
int64_t redis_pace_fail(struct redis_pace *pace, int64_t now_ms, unsigned attempts, bool may_be_failover, bool *opened);

#endif
