/* SPDX-License-Identifier: MIT */
/* The metrics as Prometheus scrapes them, and as the state line has them. */
#include "promptd/metrics_text.h"

#include <inttypes.h>
#include <string.h>

/* --- Prometheus ------------------------------------------------------------------------------------------------- */

const char *metrics_type_name(const struct metric *row)
{
    switch (row->kind) {
    case METRIC_COUNTER:
    case METRIC_COUNTER_MS:
    case METRIC_COUNTER_BY_REASON:
        return "counter";
    case METRIC_HISTOGRAM:
        return "histogram";
    case METRIC_GAUGE:
    case METRIC_INFO:
        break;
    }
    return "gauge";
}

static void append_seconds(struct buffer *buffer, uint64_t us)
{
    buffer_printf(buffer, "%" PRIu64 ".%06" PRIu64 "\n", us / 1000000, us % 1000000);
}

static void append_by_reason(struct buffer *buffer, const struct metric *row, const struct metrics *metrics)
{
    for (int reason = REJECT_NONE + 1; reason < REJECT_COUNT; reason++)
        buffer_printf(buffer, "%s{reason=\"%s\"} %" PRIu64 "\n", row->name, reject_name((enum reject_reason)reason),
                      metrics->rejected_by[reason]);
}

static void append_histogram(struct buffer *buffer, const struct metric *row, const struct histogram *histogram)
{
    uint64_t cumulated = 0;
    for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++) {
        cumulated += histogram->buckets[i];
        buffer_printf(buffer, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", row->name, (double)histogram_bounds_us[i] / 1e6,
                      cumulated);
    }
    cumulated += histogram->buckets[HISTOGRAM_BOUNDS];
    buffer_printf(buffer, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum ", row->name, cumulated, row->name);
    append_seconds(buffer, histogram->sum_us);
    buffer_printf(buffer, "%s_count %" PRIu64 "\n", row->name, cumulated);
}

static void append_value(struct buffer *buffer, const struct metric *row, const struct metrics *metrics)
{
    const char *open = *row->label ? "{" : "";
    const char *close = *row->label ? "}" : "";
    buffer_printf(buffer, "%s%s%s%s ", row->name, open, row->label, close);
    if (row->kind == METRIC_INFO)
        buffer_append_text(buffer, "1\n");
    else if (row->kind == METRIC_COUNTER_MS)
        append_seconds(buffer, metrics_value(metrics, row) * 1000);
    else
        buffer_printf(buffer, "%" PRIu64 "\n", metrics_value(metrics, row));
}

void metrics_append_prometheus(const struct metrics *metrics, struct buffer *buffer)
{
    const char *last = "";
    for (size_t i = 0; metrics_row(i); i++) {
        const struct metric *row = metrics_row(i);
        if (strcmp(row->name, last) != 0)
            buffer_printf(buffer, "# HELP %s %s.\n# TYPE %s %s\n", row->name, row->meaning, row->name,
                          metrics_type_name(row));
        if (row->kind == METRIC_COUNTER_BY_REASON)
            append_by_reason(buffer, row, metrics);
        else if (row->kind == METRIC_HISTOGRAM)
            append_histogram(buffer, row, &metrics->durations);
        else
            append_value(buffer, row, metrics);
        last = row->name;
    }
}

/* --- the state line --------------------------------------------------------------------------------------------- */

void metrics_state_fields(const struct metrics *metrics, struct log_field fields[METRICS_FIELDS])
{
    size_t count = 0;
    for (size_t i = 0; metrics_row(i); i++) {
        const struct metric *row = metrics_row(i);
        if (row->member)
            fields[count++] = log_number(row->member, metrics_value(metrics, row));
    }
    fields[count] = (struct log_field){.key = NULL};
}
