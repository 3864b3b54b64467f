/* SPDX-License-Identifier: MIT */
/* A ring of the last failures. */
#include "promptd/recent_failures.h"

#include "promptd/clock.h"

struct recent_failure *recent_failures_add(struct recent_failures *failures, enum outcome outcome)
{
    struct recent_failure *failure = &failures->list[failures->next];
    failures->next = (failures->next + 1) % RECENT_FAILURES_MAX;
    if (failures->count < RECENT_FAILURES_MAX)
        failures->count++;
    *failure = (struct recent_failure){.at_ms = clock_monotonic_ms(), .outcome = outcome};
    return failure;
}

const struct recent_failure *recent_failures_at(const struct recent_failures *failures, size_t index)
{
    if (index >= failures->count)
        return NULL;
    return &failures->list[(failures->next + RECENT_FAILURES_MAX - 1 - index) % RECENT_FAILURES_MAX];
}
