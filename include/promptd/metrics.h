/* SPDX-License-Identifier: MIT */
/* The counters: one table gives each its member, its name for Prometheus, and its meaning. */
#ifndef PROMPTD_METRICS_H
#define PROMPTD_METRICS_H

#include <stdint.h>

#include "promptd/message.h"

/* member, name, meaning; received = success + duplicate + failure + rejected + dropped + waiting, at every moment */
#define METRICS_COUNTER_MAP(X)                                                                                         \
    X(received, "rag_messages_received_total", "messages that arrived, or were taken up again from the spool")         \
    X(success, "rag_atomic_operation_success_total", "prompts stored, their interviews ready")                         \
    X(duplicate, "rag_duplicate_total", "messages whose prompt was there from before")                                 \
    X(failure, "rag_atomic_operation_failure_total", "prompts not stored, rolled back or orphaned")                    \
    X(rollback, "rag_rollback_total", "prompts deleted again because the interview could not be made ready")           \
    X(orphaned, "rag_orphaned_prompt_total", "prompts left behind because they could not be deleted again")            \
    X(rejected, "rag_messages_rejected_total", "messages that break a rule")                                           \
    X(dropped, "rag_messages_dropped_total", "messages given up because a bound was reached or promptd had to stop")   \
    X(retries, "promptd_retries_total", "attempts made again after a transient error of a message's own")              \
    X(redis_reconnections, "promptd_reconnections_total{link=\"redis\"}", "subscriptions restored")                    \
    X(database_reconnections, "promptd_reconnections_total{link=\"database\"}", "times the database came back")        \
    X(gaps, "promptd_subscription_gaps_total", "times without a subscription, once there had been one")                \
    X(gap_ms, "promptd_subscription_gap_seconds_total", "how long they lasted together; kept in ms")

/* Owned by the daemon; each module counts what happens in it. */
struct metrics {
#define X(member, name, meaning) uint64_t member;
    METRICS_COUNTER_MAP(X)
#undef X
    uint64_t rejected_by[REJECT_COUNT];
};

#endif
