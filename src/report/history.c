/* SPDX-License-Identifier: MIT */
/* Differences of counters, an interval each. */
#include "promptd/history.h"

enum { HISTORY_INTERVAL_MS = HISTORY_INTERVAL_S * 1000 };

static void add_point(struct history *history, const struct metrics *metrics, int64_t now_ms)
{
    const struct histogram durations = histogram_since(&metrics->durations, &history->durations);
    history->points[history->next] = (struct history_point){
        .at_ms = now_ms,
        .received = metrics->received - history->received,
        .stored = metrics->success - history->success,
        .failed = metrics->failure - history->failure,
        .p50_ms = histogram_quantile_us(&durations, 0.5) / 1000,
        .p99_ms = histogram_quantile_us(&durations, 0.99) / 1000,
    };
    history->next = (history->next + 1) % HISTORY_MAX;
    if (history->count < HISTORY_MAX)
        history->count++;
    history->received = metrics->received;
    history->success = metrics->success;
    history->failure = metrics->failure;
    history->durations = metrics->durations;
}

/* After a stop of the process there is one point for all of it: nobody knows when in it things happened. */
void history_look(struct history *history, const struct metrics *metrics, int64_t now_ms)
{
    if (history->due_ms == 0)
        history->due_ms = now_ms + HISTORY_INTERVAL_MS;
    if (now_ms < history->due_ms)
        return;
    add_point(history, metrics, now_ms);
    history->due_ms += HISTORY_INTERVAL_MS;
    if (history->due_ms <= now_ms)
        history->due_ms = now_ms + HISTORY_INTERVAL_MS;
}

const struct history_point *history_at(const struct history *history, size_t index)
{
    if (index >= history->count)
        return NULL;
    return &history->points[(history->next + HISTORY_MAX - history->count + index) % HISTORY_MAX];
}
