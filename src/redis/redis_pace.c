/* SPDX-License-Identifier: MIT */
/* The breaker's waits, and shorter ones while a failover may be under way. */
#include "redis_pace.h"

#include "promptd/backoff.h"

int64_t redis_pace_fail(struct redis_pace *pace, int64_t now_ms, unsigned attempts, bool may_be_failover, bool *opened)
{
    const int64_t failover_wait_ms = attempts <= 1 ? 250 : 500;
    *opened = false;
    if (may_be_failover && !pace->breaker.is_open && now_ms < pace->count_again_ms)
        return failover_wait_ms;
    int64_t wait_ms = breaker_fail(&pace->breaker, backoff_chance(), opened);
    pace->count_again_ms = now_ms + wait_ms;
    if (may_be_failover && !pace->breaker.is_open && failover_wait_ms < wait_ms)
        return failover_wait_ms;
    return wait_ms;
}
