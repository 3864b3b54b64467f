/* SPDX-License-Identifier: MIT */
/* A fair sample, bounded, of durations that come in any number. Pure. */
#ifndef PROMPTD_SAMPLES_H
#define PROMPTD_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

enum { SAMPLES_MAX = 64 };

/* Zero-initialised is empty. */
struct samples {
    int64_t kept_us[SAMPLES_MAX]; /* the first min(seen, SAMPLES_MAX) are in use */
    uint64_t seen;                /* since the last samples_clear */
    uint64_t chance;              /* state of the dice */
};

/* Each duration that was seen is among the kept ones with the same probability. */
void samples_add(struct samples *samples, int64_t duration_us);
size_t samples_count(const struct samples *samples);
void samples_clear(struct samples *samples);

#endif
