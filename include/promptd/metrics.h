/* SPDX-License-Identifier: MIT */
/*
 * The metrics: one table gives each its member, its names and its meaning. Counters, Prometheus, StatsD, the state line
 * of SIGUSR1, the counters of /status and docs/METRICS.md all come from it.
 */
#ifndef PROMPTD_METRICS_H
#define PROMPTD_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "promptd/histogram.h"
#include "promptd/message.h"
#include "promptd/samples.h"

enum metric_kind {
    METRIC_COUNTER,           /* only grows, from 0 at the start */
    METRIC_COUNTER_MS,        /* the same, kept in ms and shown to Prometheus in seconds */
    METRIC_COUNTER_BY_REASON, /* the same, by reject_reason to Prometheus, and as their sum elsewhere */
    METRIC_GAUGE,             /* how it is now */
    METRIC_HISTOGRAM,         /* `durations` */
    METRIC_INFO               /* always 1; its label is what it says */
};

/*
 * kind, member, name and label for Prometheus, name for StatsD, meaning. Rows of one name stand together and have one
 * meaning. At every moment: received = success + duplicate + failure + rejected + dropped + waiting.
 */
#define METRICS_MAP(X)                                                                                                 \
    X(COUNTER, received, "rag_messages_received_total", "", "",                                                        \
      "Messages that arrived, or were taken up again from the spool or from Redis")                                    \
    X(COUNTER, success, "rag_atomic_operation_success_total", "", "rag.atomic_operation_success",                      \
      "Prompts stored, their interviews ready")                                                                        \
    X(COUNTER, duplicate, "rag_duplicate_total", "", "", "Messages whose prompt was there from before")                \
    X(COUNTER, failure, "rag_atomic_operation_failure_total", "", "rag.atomic_operation_failure",                      \
      "Prompts not stored, rolled back or orphaned")                                                                   \
    X(COUNTER, rollback, "rag_rollback_total", "", "rag.rollback_count",                                               \
      "Prompts deleted again because the interview could not be made ready; also counted as failures")                 \
    X(COUNTER, orphaned, "rag_orphaned_prompt_total", "", "rag.orphaned_prompt_count",                                 \
      "Prompts left behind because they could not be deleted again; also counted as failures")                         \
    X(COUNTER_BY_REASON, rejected, "rag_messages_rejected_total", "", "", "Messages that break a rule, by its name")   \
    X(COUNTER, dropped, "rag_messages_dropped_total", "", "",                                                          \
      "Messages given up because a bound was reached or promptd had to stop")                                          \
    X(GAUGE, waiting, "promptd_waiting_messages", "", "",                                                              \
      "Messages taken in that have no outcome yet: in memory, in work or only in the spool")                           \
    X(GAUGE, queue_messages, "promptd_queue_messages", "", "",                                                         \
      "Messages in memory without an outcome, except those that only go to disk")                                      \
    X(GAUGE, queue_bytes, "promptd_queue_bytes", "", "",                                                               \
      "Bytes of memory that they take, and those on their way to disk")                                                \
    X(GAUGE, spool_messages, "promptd_spool_messages", "", "", "Messages in the spool without an outcome")             \
    X(GAUGE, spool_bytes, "promptd_spool_bytes", "", "", "Bytes of their payloads")                                    \
    X(GAUGE, source_backlog, "promptd_source_backlog", "", "",                                                         \
      "Messages in Redis that no promptd has taken yet, with redis_mode list or stream")                               \
    X(GAUGE, source_pending, "promptd_source_pending", "", "",                                                         \
      "Messages in Redis that some promptd has taken and not acknowledged")                                            \
    X(COUNTER, redelivered, "promptd_redelivered_total", "", "",                                                       \
      "Messages that Redis has given out again: what another promptd left behind, or a reply that was lost")           \
    X(GAUGE, dead_letters, "promptd_dead_letters", "", "",                                                             \
      "Dead letters in the spool or in Redis, which wait for a person")                                                \
    X(GAUGE, dead_letter_bytes, "promptd_dead_letter_bytes", "", "",                                                   \
      "Bytes that they count against spool_dead_max_bytes: their payloads, and 256 each")                              \
    X(GAUGE, dead_letters_max_bytes, "promptd_dead_letters_max_bytes", "", "",                                         \
      "The bound of promptd_dead_letter_bytes, spool_dead_max_bytes; 0 without a spool")                               \
    X(COUNTER, dead_letters_dropped, "promptd_dead_letters_dropped_total", "which=\"oldest_rejected\"", "",            \
      "Dead letters lost at spool_dead_max_bytes: rejected ones that made room, new ones that found none")             \
    X(COUNTER, dead_letters_not_kept, "promptd_dead_letters_dropped_total", "which=\"new\"", "",                       \
      "Dead letters lost at spool_dead_max_bytes: rejected ones that made room, new ones that found none")             \
    X(GAUGE, spool_max_bytes, "promptd_spool_max_bytes", "", "",                                                       \
      "The bound of promptd_spool_bytes, spool_max_bytes; 0 without a spool")                                          \
    X(GAUGE, orphans_open, "promptd_orphans_open", "", "", "Reported orphans that are not known to be gone")           \
    X(GAUGE, unsettled_prompts, "promptd_unsettled_prompts", "", "",                                                   \
      "Rows of promptd_unsettled older than recover_after_s, when the recovery last looked")                           \
    X(COUNTER, recovered_settled, "promptd_recovered_total", "result=\"settled\"", "",                                 \
      "Prompts left unsettled, by whomever, that the recovery has settled or rolled back")                             \
    X(COUNTER, recovered_rolled_back, "promptd_recovered_total", "result=\"rolled_back\"", "",                         \
      "Prompts left unsettled, by whomever, that the recovery has settled or rolled back")                             \
    X(COUNTER, stuck, "promptd_interviews_stuck_total", "", "", "Interviews that could not be marked failed")          \
    X(COUNTER, retries, "promptd_retries_total", "", "",                                                               \
      "Attempts made again after a transient error of a message's own")                                                \
    X(COUNTER, gaps, "promptd_subscription_gaps_total", "", "",                                                        \
      "Times without a subscription that have ended; what was published meanwhile was not received")                   \
    X(COUNTER_MS, gap_ms, "promptd_subscription_gap_seconds_total", "", "", "How long they lasted together")           \
    X(COUNTER, redis_reconnections, "promptd_reconnections_total", "link=\"redis\"", "",                               \
      "Times that a link to a server was restored")                                                                    \
    X(COUNTER, database_reconnections, "promptd_reconnections_total", "link=\"database\"", "",                         \
      "Times that a link to a server was restored")                                                                    \
    X(COUNTER, events_published, "promptd_events_published_total", "", "", "Outcome events that Redis has taken")      \
    X(COUNTER, events_dropped, "promptd_events_dropped_total", "", "",                                                 \
      "Outcome events that could not be sent, that Redis refused, or whose sending it has not confirmed")              \
    X(GAUGE, ready, "promptd_ready", "", "", "1 when subscribed and the database answers, as /readyz says")            \
    X(GAUGE, subscribed, "promptd_redis_connected", "", "", "1 when subscribed to the channel")                        \
    X(GAUGE, redis_circuit_open, "promptd_redis_circuit_open", "", "", "1 when the circuit to Redis is open")          \
    X(GAUGE, database_up, "promptd_db_up", "", "", "1 when the database answers and takes writes")                     \
    X(GAUGE, db_circuit_open, "promptd_db_circuit_open", "", "", "1 when the circuit to the database is open")         \
    X(GAUGE, db_connections, "promptd_db_connections", "", "", "Open connections to the database")                     \
    X(COUNTER, log_lines_lost, "promptd_log_lines_lost_total", "", "",                                                 \
      "Lines that found no room, because whoever reads the log does not")                                              \
    X(GAUGE, uptime_s, "promptd_uptime_seconds", "", "", "Seconds since promptd started")

/* Owned by the daemon. Each module counts what happens in it; the daemon sets the gauges before anybody reads them. */
struct metrics {
#define X(kind, member, name, label, statsd, meaning) uint64_t member;
    METRICS_MAP(X)
#undef X
    uint64_t rejected_by[REJECT_COUNT]; /* their sum is `rejected` */
    struct histogram durations;         /* from arrival to outcome, of messages stored, duplicate or failed */
    struct samples samples;             /* some of them, for StatsD */
};

struct metric {
    enum metric_kind kind;
    const char *member; /* its name in the state line and in /status; NULL: in neither */
    const char *name;
    const char *label;  /* "": none */
    const char *statsd; /* "": not sent */
    const char *meaning;
    size_t offset; /* of the member in struct metrics */
};

/* Rows by index, in the table's order, the histogram and the build's information last; NULL at the end. */
const struct metric *metrics_row(size_t index);

/* The value of a counter or gauge. */
uint64_t metrics_value(const struct metrics *metrics, const struct metric *row);

#endif
