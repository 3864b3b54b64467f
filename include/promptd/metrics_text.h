/* SPDX-License-Identifier: MIT */
/* The forms in which the metrics are shown: Prometheus' text, and the fields of the state line. */
#ifndef PROMPTD_METRICS_TEXT_H
#define PROMPTD_METRICS_TEXT_H

#include "promptd/buffer.h"
#include "promptd/log.h"
#include "promptd/metrics.h"

/* What Prometheus calls its type: counter, gauge or histogram. */
const char *metrics_type_name(const struct metric *row);

/* The text that Prometheus scrapes. */
void metrics_append_prometheus(const struct metrics *metrics, struct buffer *buffer);

/* The fields of the state line, and one with a NULL key, which ends them. */
enum {
#define X(kind, member, name, label, statsd, meaning) METRICS_FIELD_##member,
    METRICS_MAP(X)
#undef X
        METRICS_FIELD_END,
    METRICS_FIELDS
};
void metrics_state_fields(const struct metrics *metrics, struct log_field fields[METRICS_FIELDS]);

#endif
