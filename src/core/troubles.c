/* SPDX-License-Identifier: MIT */
/* A ring of the last troubles. */
#include "promptd/troubles.h"

#include "promptd/clock.h"

struct trouble *troubles_add(struct troubles *troubles, enum outcome outcome)
{
    struct trouble *trouble = &troubles->list[troubles->next];
    troubles->next = (troubles->next + 1) % TROUBLES_MAX;
    if (troubles->count < TROUBLES_MAX)
        troubles->count++;
    *trouble = (struct trouble){.wall_ms = clock_wall_ms(), .outcome = outcome};
    return trouble;
}

const struct trouble *troubles_at(const struct troubles *troubles, size_t index)
{
    if (index >= troubles->count)
        return NULL;
    return &troubles->list[(troubles->next + TROUBLES_MAX - 1 - index) % TROUBLES_MAX];
}
