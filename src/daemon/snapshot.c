/* SPDX-License-Identifier: MIT */
/* How everything is at this moment, for those who ask: state line, metrics, health, status page. */
#include "daemon_private.h"
#include "promptd/clock.h"
#include "promptd/log.h"

static struct source_status look_at_source(const struct daemon *daemon)
{
    struct source_status status = daemon->last_source;
    if (daemon->source && !daemon->source_closing)
        source_get_status(daemon->source, &status);
    return status;
}

void snapshot_keep_source(struct daemon *daemon)
{
    source_get_status(daemon->source, &daemon->last_source);
    daemon->last_source.is_up = false;
}

size_t snapshot_waiting(const struct daemon *daemon)
{
    return pipeline_waiting(daemon->pipeline) + look_at_source(daemon).kept;
}

size_t snapshot_in_memory(const struct daemon *daemon)
{
    return pipeline_in_memory(daemon->pipeline) + look_at_source(daemon).kept_in_memory;
}

/* Whoever looks notices, and the tick looks all the time. Not to be ready begins with the start. */
static void note_readiness(struct daemon *daemon, struct health *health)
{
    const char *reasons[HEALTH_REASONS_MAX];
    bool ready = health_not_ready(health, reasons) == 0;
    if (ready != (bool)daemon->metrics.ready || daemon->ready_since_ms == 0)
        daemon->ready_since_ms = ready || daemon->metrics.ready ? health->now_ms : health->started_ms;
    daemon->metrics.ready = ready;
    health->ready_since_ms = daemon->ready_since_ms;
}

static void set_gauges(struct daemon *daemon, const struct health *health)
{
    struct metrics *metrics = &daemon->metrics;
    const struct source_status *source = &health->source;
    metrics->waiting = pipeline_waiting(daemon->pipeline) + source->kept;
    metrics->queue_messages = pipeline_in_memory(daemon->pipeline) + source->kept_in_memory;
    metrics->queue_bytes = pipeline_memory_bytes(daemon->pipeline) + source->memory_bytes;
    metrics->spool_messages = source->spool_messages;
    metrics->spool_bytes = source->spool_bytes;
    metrics->spool_max_bytes = source->spool_directory ? (uint64_t)daemon->settings.spool_max_bytes : 0;
    metrics->dead_letters = source->dead_letters;
    metrics->dead_letter_bytes = source->dead_letter_bytes;
    metrics->dead_letters_max_bytes = source->spool_directory ? (uint64_t)daemon->settings.spool_dead_max_bytes : 0;
    metrics->dead_letters_dropped = source->dead_letters_dropped;
    metrics->dead_letters_not_kept = source->dead_letters_not_kept;
    metrics->source_backlog = source->backlog;
    metrics->source_pending = source->pending;
    metrics->redelivered = source->redelivered;
    metrics->gaps = source->gaps;
    metrics->gap_ms = source->gap_ms;
    metrics->redis_reconnections = source->reconnections;
    metrics->subscribed = daemon->state == DAEMON_RUNNING && source->is_up;
    metrics->redis_circuit_open = source->circuit_is_open;
    metrics->database_up = daemon->store && store_is_up(daemon->store);
    metrics->db_circuit_open = daemon->store && store_circuit_is_open(daemon->store);
    metrics->db_connections = daemon->store ? store_connections(daemon->store) : 0;
    metrics->log_lines_lost = log_lost_lines();
    metrics->uptime_s = (uint64_t)(health->now_ms - health->started_ms) / 1000;
}

/* Told times must not differ by a millisecond from look to look: only what is more is a clock that was set. */
static int64_t look_at_wall_clock(struct daemon *daemon)
{
    enum { UNSEEN_MS = 10 };
    int64_t wall_ms = clock_wall_ms() - clock_monotonic_ms();
    if (wall_ms > daemon->wall_ms + UNSEEN_MS || wall_ms < daemon->wall_ms - UNSEEN_MS)
        daemon->wall_ms = wall_ms;
    return daemon->wall_ms;
}

void snapshot_look(void *context, struct health *health)
{
    struct daemon *daemon = context;
    const struct settings *settings = &daemon->settings;
    *health = (struct health){
        .draining = daemon->state != DAEMON_RUNNING,
        .now_ms = clock_monotonic_ms(),
        .started_ms = daemon->started_ms,
        .wall_ms = look_at_wall_clock(daemon),
        .atomicity = settings->atomicity == ATOMICITY_TRANSACTION ? "transaction" : "compensate",
        .source = look_at_source(daemon),
        .channel = settings->redis_channel,
        .max_failures = (unsigned)settings->breaker_failures,
        .db_connections_wanted = (size_t)settings->db_connections,
        .limits = options_limits(settings),
        .metrics = &daemon->metrics,
        .recent_failures = &daemon->recent_failures,
        .history = &daemon->history,
    };
    if (daemon->events) {
        health->events.channel = settings->events_channel;
        health->events.connected = events_are_connected(daemon->events);
        health->events.waiting = events_waiting(daemon->events);
    }
    if (daemon->store)
        health->orphan_count = store_list_orphans(daemon->store, health->orphans, HEALTH_ORPHANS_MAX);
    set_gauges(daemon, health);
    note_readiness(daemon, health);
}

void snapshot_notify(struct daemon *daemon)
{
    struct health health;
    snapshot_look(daemon, &health);
    if (daemon->notify)
        notify_status(daemon->notify, &health);
}
