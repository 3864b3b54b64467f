/* SPDX-License-Identifier: MIT */
/* Durations counted in buckets: cheap to add to, and good enough to tell a median from a tail. Pure. */
#ifndef PROMPTD_HISTOGRAM_H
#define PROMPTD_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_BOUNDS = 16 };

/* Upper bounds of the buckets in microseconds, inclusive, 0.5 ms to 60 s; what is longer has a bucket of its own. */
extern const int64_t histogram_bounds_us[HISTOGRAM_BOUNDS];

/* Zero-initialised is empty. */
struct histogram {
    uint64_t buckets[HISTOGRAM_BOUNDS + 1]; /* each on its own, not cumulated; the last one is above all bounds */
    uint64_t sum_us;
};

void histogram_add(struct histogram *histogram, int64_t duration_us);

/* What was added since `before`, an earlier copy. */
struct histogram histogram_since(const struct histogram *now, const struct histogram *before);

/* The duration that the share `quantile` (0 to 1) of all was below, in microseconds, as even within its bucket; the
 * highest bound where it is above all of them. 0 for an empty histogram. */
double histogram_quantile_us(const struct histogram *histogram, double quantile);

#endif
