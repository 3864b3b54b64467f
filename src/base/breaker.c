/* SPDX-License-Identifier: MIT */
/* The circuit breaker's three states. */
#include "promptd/breaker.h"

int64_t breaker_fail(struct breaker *breaker, double chance, bool *opened)
{
    *opened = false;
    breaker->failures++;
    if (breaker->failures < breaker->max_failures)
        return backoff_fail(&breaker->backoff, chance);
    *opened = breaker->state == BREAKER_CLOSED;
    breaker->state = BREAKER_OPEN;
    return breaker->reset_ms;
}

void breaker_attempt(struct breaker *breaker)
{
    if (breaker->state == BREAKER_OPEN)
        breaker->state = BREAKER_HALF_OPEN;
}

bool breaker_close(struct breaker *breaker)
{
    bool was_open = breaker->state != BREAKER_CLOSED;
    breaker->state = BREAKER_CLOSED;
    breaker->failures = 0;
    backoff_succeed(&breaker->backoff);
    return was_open;
}
