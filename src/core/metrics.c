/* SPDX-License-Identifier: MIT */
/* The table of metrics. */
#include "promptd/metrics.h"

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
