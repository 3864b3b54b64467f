/* SPDX-License-Identifier: MIT */
/* What each module needs of the settings: none of them sees struct settings itself. */
#include <string.h>

#include "daemon_private.h"

struct inbox_limits options_limits(const struct settings *settings)
{
    return (struct inbox_limits){.max_messages = (size_t)settings->queue_max_messages,
                                 .max_bytes = (size_t)settings->queue_max_bytes};
}

struct store_tuning options_store_tuning(const struct settings *settings)
{
    return (struct store_tuning){
        .batch_max = (size_t)settings->batch_max,
        .retry_attempts = (unsigned)settings->retry_attempts,
        .retry_base_ms = settings->retry_base_ms,
        .retry_max_ms = settings->retry_max_ms,
        .lock_patience_ms = settings->lock_patience_s * 1000,
        .reconcile_interval_ms = settings->reconcile_interval_s * 1000,
        .recover_after_s = settings->recover_after_s,
        .pool = {.statement_timeout_ms = settings->statement_timeout_ms,
                 .backoff_max_ms = settings->backoff_max_s * 1000,
                 .breaker_failures = (unsigned)settings->breaker_failures,
                 .breaker_reset_ms = settings->breaker_reset_s * 1000,
                 .ping_interval_ms = settings->heartbeat_interval_s * 1000,
                 .needs = schema_needs_of(settings)},
    };
}

struct link_tuning options_link_tuning(const struct settings *settings)
{
    return (struct link_tuning){
        .backoff_max_ms = settings->backoff_max_s * 1000,
        .breaker_failures = (unsigned)settings->breaker_failures,
        .breaker_reset_ms = settings->breaker_reset_s * 1000,
        .heartbeat_interval_ms = settings->heartbeat_interval_s * 1000,
        .heartbeat_timeout_ms = settings->heartbeat_timeout_s * 1000,
    };
}

struct source_tuning options_source_tuning(const struct settings *settings)
{
    return (struct source_tuning){
        .link = options_link_tuning(settings),
        .message_max_bytes = (size_t)settings->message_max_bytes,
        .memory_max_messages = (size_t)settings->queue_max_messages,
        .memory_max_bytes = (size_t)settings->queue_max_bytes,
        .dead_max = (size_t)settings->redis_dead_max,
        .spool_max_bytes = (uint64_t)settings->spool_max_bytes,
        .spool_dead_max_bytes = (uint64_t)settings->spool_dead_max_bytes,
    };
}

struct statement_statuses options_statuses(const struct settings *settings)
{
    const struct text_list *awaiting = &settings->awaiting_statuses;
    bool any = awaiting->count == 1 && strcmp(awaiting->items[0], "*") == 0;
    return (struct statement_statuses){
        .ready = settings->ready_status,
        .failed = settings->failed_status,
        .awaiting = awaiting->items,
        .awaiting_count = any ? 0 : awaiting->count,
        .any_is_awaiting = any,
    };
}
