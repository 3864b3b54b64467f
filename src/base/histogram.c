/* SPDX-License-Identifier: MIT */
/* Buckets of durations. */
#include "promptd/histogram.h"

const int64_t histogram_bounds_us[HISTOGRAM_BOUNDS] = {
    500,    1000,   2500,    5000,    10000,   25000,    50000,    100000,
    250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000, 60000000,
};

void histogram_add(struct histogram *histogram, int64_t duration_us)
{
    size_t bucket = 0;
    while (bucket < HISTOGRAM_BOUNDS && duration_us > histogram_bounds_us[bucket])
        bucket++;
    histogram->buckets[bucket]++;
    histogram->sum_us += duration_us > 0 ? (uint64_t)duration_us : 0;
}

static uint64_t count_all(const struct histogram *histogram)
{
    uint64_t count = 0;
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
        count += histogram->buckets[i];
    return count;
}

struct histogram histogram_since(const struct histogram *now, const struct histogram *before)
{
    struct histogram since = {.sum_us = now->sum_us - before->sum_us};
    for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
        since.buckets[i] = now->buckets[i] - before->buckets[i];
    return since;
}

double histogram_quantile_us(const struct histogram *histogram, double quantile)
{
    double rank = quantile * (double)count_all(histogram);
    double below = 0;
    double low = 0;
    for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
        double inside = (double)histogram->buckets[i];
        double high = (double)histogram_bounds_us[i];
        if (inside > 0 && below + inside >= rank)
            return low + (high - low) * (rank - below) / inside;
        below += inside;
        low = high;
    }
    return below < rank ? low : 0;
}
