/* SPDX-License-Identifier: MIT */
/* Reservoir sampling (Vitter's algorithm R). */
#include "promptd/samples.h"

/* xorshift64*: quick, even, and not for secrets. */
static uint64_t roll(struct samples *samples)
{
    uint64_t x = samples->chance ? samples->chance : 0x9E3779B97F4A7C15U;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    samples->chance = x;
    return x * 0x2545F4914F6CDD1DU;
}

void samples_add(struct samples *samples, int64_t duration_us)
{
    uint64_t place = samples->seen++;
    if (place >= SAMPLES_MAX)
        place = roll(samples) % samples->seen;
    if (place < SAMPLES_MAX)
        samples->kept_us[place] = duration_us;
}

size_t samples_count(const struct samples *samples)
{
    return samples->seen < SAMPLES_MAX ? (size_t)samples->seen : SAMPLES_MAX;
}

void samples_clear(struct samples *samples)
{
    samples->seen = 0;
}
