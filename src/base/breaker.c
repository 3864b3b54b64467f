/* SPDX-License-Identifier: MIT */
/* The circuit breaker. */
#include "promptd/breaker.h"

int64_t breaker_fail(struct breaker *breaker, double chance, bool *opened)
{
    *opened = false;
    breaker->failures++;
    if (breaker->failures < breaker->max_failures)
        return backoff_fail(&breaker->backoff, chance);
    *opened = !breaker->is_open;
    breaker->is_open = true;
    return breaker->reset_ms;
}

bool breaker_close(struct breaker *breaker)
{
    bool was_open = breaker->is_open;
    breaker->is_open = false;
    breaker->failures = 0;
    breaker->backoff.failures = 0;
    return was_open;
}
