/* SPDX-License-Identifier: MIT */
/* The table of metrics, and the forms in which it is shown. */
#include "promptd/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "promptd/version.h"

static const struct metric rows[] = {
#define X(kind_, member_, name_, label_, statsd_, meaning_)                                                            \
    {.kind = METRIC_##kind_,                                                                                           \
     .member = #member_,                                                                                               \
     .name = (name_),                                                                                                  \
     .label = (label_),                                                                                                \
     .statsd = (statsd_),                                                                                              \
     .meaning = (meaning_),                                                                                            \
     .offset = offsetof(struct metrics, member_)},
    METRICS_MAP(X)
#undef X
        {.kind = METRIC_HISTOGRAM,
         .name = "rag_atomic_operation_duration_seconds",
         .label = "",
         .statsd = "rag.atomic_operation_duration",
         .meaning = "From the arrival of a message to its outcome: stored, duplicate or failed"},
    {.kind = METRIC_INFO,
     .name = "promptd_build_info",
     .label = "version=\"" PROMPTD_VERSION "\"",
     .statsd = "",
     .meaning = "Always 1; the version of promptd that runs"},
};

enum { ROWS = sizeof rows / sizeof rows[0] };
static_assert((int)ROWS < (int)METRICS_FIELDS, "METRICS_FIELDS must grow with the table");

const struct metric *metrics_row(size_t index)
{
    return index < ROWS ? &rows[index] : NULL;
}

uint64_t metrics_value(const struct metrics *metrics, const struct metric *row)
{
    uint64_t value;
    memcpy(&value, (const char *)metrics + row->offset, sizeof value);
    return value;
}

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
    for (size_t i = 0; i < ROWS; i++) {
        const struct metric *row = &rows[i];
        if (i == 0 || strcmp(row->name, rows[i - 1].name) != 0)
            buffer_printf(buffer, "# HELP %s %s.\n# TYPE %s %s\n", row->name, row->meaning, row->name,
                          metrics_type_name(row));
        if (row->kind == METRIC_COUNTER_BY_REASON)
            append_by_reason(buffer, row, metrics);
        else if (row->kind == METRIC_HISTOGRAM)
            append_histogram(buffer, row, &metrics->durations);
        else
            append_value(buffer, row, metrics);
    }
}

/* --- the state line --------------------------------------------------------------------------------------------- */

void metrics_state_fields(const struct metrics *metrics, struct log_field fields[METRICS_FIELDS])
{
    size_t count = 0;
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].member)
            fields[count++] = log_number(rows[i].member, metrics_value(metrics, &rows[i]));
    fields[count] = (struct log_field){.key = NULL};
}
