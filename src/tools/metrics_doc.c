/* SPDX-License-Identifier: MIT */
/* Prints docs/METRICS.md from the table of metrics. Not installed; scripts/generate-docs runs it. */
#include <stdio.h>
#include <stdlib.h>

#include "promptd/metrics_text.h"

static const char introduction[] =
    "<!-- Made by scripts/generate-docs from include/promptd/metrics.h; change it there. -->\n"
    "# Metrics\n"
    "\n"
    "`GET /metrics` (see `admin_listen`) has all of them in Prometheus' text format, each from the start on. With\n"
    "`statsd` those that have a name for it are sent there, once a second. The line that SIGUSR1 has written to the "
    "log,\n"
    "and `counters` in `GET /status`, have them by their short names.\n"
    "\n"
    "Counters begin with 0 when promptd starts. At every moment, also within one answer:\n"
    "\n"
    "    received = success + duplicate + failure + rejected + dropped + waiting\n"
    "\n"
    "A message that is taken up again from the spool after a restart counts as received again.\n";

static void print_code(const char *text)
{
    if (text && *text)
        printf(" `%s` |", text);
    else
        printf(" |");
}

static void print_row(const struct metric *row)
{
    const char *label = row->kind == METRIC_COUNTER_BY_REASON ? "reason" : row->label;
    printf("| `%s", row->name);
    if (*label)
        printf("{%s}", label);
    printf("` | %s |", metrics_type_name(row));
    print_code(row->member);
    print_code(row->statsd);
    printf(" %s |\n", row->meaning);
}

static void print_reasons(void)
{
    printf("\n## Reasons\n\nEach has its own `rag_messages_rejected_total`, 0 from the start. Of several faults of a "
           "message the first in this\nlist counts.\n\n| reason | |\n| --- | --- |\n");
    for (int reason = REJECT_NONE + 1; reason < REJECT_COUNT; reason++)
        printf("| `%s` | %s |\n", reject_name((enum reject_reason)reason), reject_meaning((enum reject_reason)reason));
}

static void print_buckets(void)
{
    printf("\n## Buckets of the histogram\n\nUpper bounds in seconds:");
    for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++)
        printf(" %g%s", (double)histogram_bounds_us[i] / 1e6, i + 1 < HISTOGRAM_BOUNDS ? "," : ".\n");
    printf("\nTo StatsD durations go in milliseconds, %d a second at most: a fair sample, with its rate (`|@…`).\n",
           SAMPLES_MAX);
}

int main(void)
{
    fputs(introduction, stdout);
    puts("\n## All of them\n\n| Prometheus | kind | short name | StatsD | meaning |\n| --- | --- | --- | --- | --- |");
    for (size_t i = 0; metrics_row(i); i++)
        print_row(metrics_row(i));
    print_buckets();
    print_reasons();
    return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
