/* SPDX-License-Identifier: MIT */
/*
 * One loop, and what lives on it.
 *
 *     RUNNING ──SIGTERM, SIGINT──▶ DRAINING ──all settled, or time is up──▶ CLOSING ──▶ exit 0
 *                                      └──────── a second signal: exit 128 + signal, at once
 *
 * Draining: the subscription is given up first, then what was received is settled, then the connections are closed.
 */
#include "promptd/daemon.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define LOG_COMPONENT "daemon"
#include "promptd/log.h"
#include "promptd/outcome.h"
#include "promptd/pipeline.h"
#include "promptd/source_pubsub.h"
#include "promptd/store.h"
#include "promptd/version.h"

enum daemon_state {
    DAEMON_RUNNING,  /* receives and stores; leaves by a signal */
    DAEMON_DRAINING, /* settles what it has; leaves when nothing waits or the time is up */
    DAEMON_CLOSING   /* connections and handles go; leaves by the end of the loop */
};

static const int daemon_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
enum { DAEMON_SIGNALS = sizeof daemon_signals / sizeof daemon_signals[0] };

enum {
    DAEMON_TICK_MS = 1000,
    DAEMON_CLOSING_MS = 1000,      /* of shutdown_timeout_s: set aside for closing */
    DAEMON_THREADS_GRACE_MS = 500, /* of that: for threads to come home */
    DAEMON_LAST_LOOK_MS = 50
};

struct daemon {
    struct settings settings;
    const struct daemon_arguments *arguments;
    struct redis_address redis;
    uv_loop_t loop;
    enum daemon_state state;
    int64_t started_ms;
    struct metrics metrics;
    struct pipeline *pipeline;
    struct store *store;
    struct source_pubsub *source;
    struct spool *spool; /* NULL: none */
    bool spool_open;
    bool source_open;
    bool store_open;
    bool store_was_up;
    uv_signal_t signals[DAEMON_SIGNALS];
    uv_timer_t tick; /* once a second: what is due now and then */
    int64_t orphans_due_ms;
    int64_t stop_by_ms; /* on the loop's clock */
    uv_timer_t drain;   /* the end of patience, twice: first for messages, then for threads */
    bool handles_open;
};

static void start_closing(struct daemon *daemon);

/* --- what modules need of the settings ------------------------------------------------------------------------ */

static struct message_rules rules_of(const struct settings *settings)
{
    return (struct message_rules){
        .max_bytes = (size_t)settings->message_max_bytes,
        .prompt_min_chars = (size_t)settings->prompt_min_chars,
        .prompt_max_chars = (size_t)settings->prompt_max_chars,
        .sources = (const char *const *)settings->sources.items,
        .source_count = settings->sources.count,
        .default_source = "rag",
    };
}

static struct inbox_limits limits_of(const struct settings *settings)
{
    return (struct inbox_limits){.max_messages = (size_t)settings->queue_max_messages,
                                 .max_bytes = (size_t)settings->queue_max_bytes};
}

static struct store_tuning tuning_of(const struct settings *settings)
{
    return (struct store_tuning){
        .batch_max = (size_t)settings->batch_max,
        .retry_attempts = (unsigned)settings->retry_attempts,
        .retry_base_ms = settings->retry_base_ms,
        .retry_max_ms = settings->retry_max_ms,
        .settle_timeout_ms = settings->settle_timeout_s * 1000,
        .reconcile_interval_ms = settings->reconcile_interval_s * 1000,
        .pool = {.statement_timeout_ms = settings->statement_timeout_ms,
                 .backoff_max_ms = settings->backoff_max_s * 1000,
                 .breaker_failures = (unsigned)settings->breaker_failures,
                 .breaker_reset_ms = settings->breaker_reset_s * 1000,
                 .ping_interval_ms = settings->heartbeat_interval_s * 1000},
    };
}

static struct source_pubsub_tuning source_tuning_of(const struct settings *settings)
{
    return (struct source_pubsub_tuning){
        .backoff_max_ms = settings->backoff_max_s * 1000,
        .breaker_failures = (unsigned)settings->breaker_failures,
        .breaker_reset_ms = settings->breaker_reset_s * 1000,
        .heartbeat_interval_ms = settings->heartbeat_interval_s * 1000,
        .heartbeat_timeout_ms = settings->heartbeat_timeout_s * 1000,
        .message_max_bytes = (size_t)settings->message_max_bytes,
    };
}

static struct statement_statuses statuses_of(const struct settings *settings)
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

/* --- the way of a message --------------------------------------------------------------------------------------- */

static void on_message(void *context, const char *bytes, size_t length)
{
    struct daemon *daemon = context;
    pipeline_receive(daemon->pipeline, bytes, length);
}

static void on_oversize(void *context, size_t bytes)
{
    struct daemon *daemon = context;
    pipeline_refuse_oversize(daemon->pipeline, bytes);
}

static void on_gap(void *context, double seconds)
{
    struct daemon *daemon = context;
    daemon->metrics.gaps++;
    daemon->metrics.gap_ms += (uint64_t)(seconds * 1000);
    daemon->metrics.redis_reconnections++;
}

static void on_put(void *context, void *token, enum spool_put_result result, int64_t sequence)
{
    struct daemon *daemon = context;
    pipeline_on_put(daemon->pipeline, token, result, sequence);
}

static void on_fetched(void *context, const struct spool_entry *entries, size_t count, bool end)
{
    struct daemon *daemon = context;
    pipeline_on_fetched(daemon->pipeline, entries, count, end);
}

static void on_grown(void *context, uint64_t added)
{
    struct daemon *daemon = context;
    pipeline_on_grown(daemon->pipeline, added);
}

static void on_ready(void *context)
{
    struct daemon *daemon = context;
    if (daemon->store_open)
        store_kick(daemon->store);
}

static bool on_can_store(void *context)
{
    struct daemon *daemon = context;
    if (!daemon->store_open)
        return false;
    /* A server that took no writes is found well again only by a write: with nothing else to write, a message is it. */
    return store_is_up(daemon->store) ||
           (store_connections(daemon->store) > 0 && pipeline_in_memory(daemon->pipeline) == 0);
}

static void on_store_up(void *context)
{
    struct daemon *daemon = context;
    if (daemon->store_was_up)
        daemon->metrics.database_reconnections++;
    daemon->store_was_up = true;
    pipeline_resume(daemon->pipeline);
}

static void on_found(void *context, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE])
{
    (void)context;
    outcome_report_found_orphan(interview_id, prompt_id);
}

static struct job *on_take(void *context)
{
    struct daemon *daemon = context;
    return pipeline_take(daemon->pipeline);
}

static void on_orphan(void *context, const struct job *job)
{
    struct daemon *daemon = context;
    pipeline_report_orphan(daemon->pipeline, job);
}

/* What stands on disk only waits for the next start. */
static void close_if_drained(struct daemon *daemon)
{
    if (daemon->state == DAEMON_DRAINING && !daemon->source_open && pipeline_in_memory(daemon->pipeline) == 0)
        start_closing(daemon);
}

static void on_outcome(void *context, struct job *job)
{
    struct daemon *daemon = context;
    pipeline_finish(daemon->pipeline, job);
    close_if_drained(daemon);
}

static void on_unfinished(void *context, struct job *job)
{
    struct daemon *daemon = context;
    pipeline_abandon(daemon->pipeline, job);
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

static void close_handles(struct daemon *daemon)
{
    if (daemon->source_open || daemon->store_open || daemon->spool_open || !daemon->handles_open)
        return;
    daemon->handles_open = false;
    for (int i = 0; i < DAEMON_SIGNALS; i++)
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
    uv_close((uv_handle_t *)&daemon->drain, NULL);
    uv_close((uv_handle_t *)&daemon->tick, NULL);
}

/* After the store has given its jobs back: the last outcomes are written. */
static void close_spool(struct daemon *daemon)
{
    if (!daemon->spool)
        return;
    struct spool *spool = daemon->spool;
    pipeline_abandon_rest(daemon->pipeline);
    daemon->spool = NULL;
    spool_close(spool);
}

static void on_source_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->source_open = false;
    close_if_drained(daemon);
    close_handles(daemon);
}

static void on_store_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->store_open = false;
    close_spool(daemon);
    close_handles(daemon);
}

static void on_spool_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->spool_open = false;
    close_handles(daemon);
}

/* A dial or a look-up that runs in a thread cannot be interrupted, and nothing depends on it any more. The spool has
 * something to write still, and gets what is left of the time. */
static void on_threads_late(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    close_spool(daemon);
    if (daemon->spool_open && (int64_t)uv_now(&daemon->loop) < daemon->stop_by_ms) {
        (void)uv_timer_start(&daemon->drain, on_threads_late, DAEMON_LAST_LOOK_MS, 0);
        return;
    }
    pipeline_abandon_rest(daemon->pipeline);
    outcome_flush_log();
    log_info(NULL, "stopped; not everything could be closed in time");
    _exit(0);
}

static void start_closing(struct daemon *daemon)
{
    if (daemon->state == DAEMON_CLOSING)
        return;
    daemon->state = DAEMON_CLOSING;
    uv_update_time(&daemon->loop);
    (void)uv_timer_start(&daemon->drain, on_threads_late, DAEMON_THREADS_GRACE_MS, 0);
    store_close(daemon->store, on_unfinished);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    log_warning(LOG_FIELDS(log_number("waiting", pipeline_waiting(daemon->pipeline))),
                "shutdown_timeout_s is over; what is not settled is given up");
    start_closing(daemon);
}

static void start_draining(struct daemon *daemon, int signal_number)
{
    log_info(LOG_FIELDS(log_number("waiting", pipeline_waiting(daemon->pipeline))), "stopping on %s",
             signal_number == SIGINT ? "SIGINT" : "SIGTERM");
    daemon->state = DAEMON_DRAINING;
    uint64_t patience_ms = (uint64_t)daemon->settings.shutdown_timeout_s * 1000 - DAEMON_CLOSING_MS;
    uv_update_time(&daemon->loop);
    daemon->stop_by_ms = (int64_t)(uv_now(&daemon->loop) + patience_ms) + DAEMON_CLOSING_MS - 2 * DAEMON_LAST_LOOK_MS;
    (void)uv_timer_start(&daemon->drain, on_drain_timeout, patience_ms ? patience_ms : 1, 0);
    pipeline_stop_fetching(daemon->pipeline);
    source_pubsub_close(daemon->source);
}

/* --- signals ---------------------------------------------------------------------------------------------------- */

static void log_state(const struct daemon *daemon)
{
    const struct metrics *m = &daemon->metrics;
    const struct source_pubsub *source = daemon->source_open ? daemon->source : NULL;
    const struct store *store = daemon->store_open ? daemon->store : NULL;
    const struct spool_counts spool = daemon->spool ? spool_counts(daemon->spool) : (struct spool_counts){0};
    log_info(LOG_FIELDS(log_number("received", m->received), log_number("success", m->success),
                        log_number("duplicate", m->duplicate), log_number("failure", m->failure),
                        log_number("rollback", m->rollback), log_number("orphaned", m->orphaned),
                        log_number("rejected", m->rejected), log_number("dropped", m->dropped),
                        log_number("waiting", pipeline_waiting(daemon->pipeline)),
                        log_number("queue_messages", pipeline_in_memory(daemon->pipeline)),
                        log_number("queue_bytes", pipeline_memory_bytes(daemon->pipeline)),
                        log_number("spool_messages", spool.waiting), log_number("spool_bytes", spool.waiting_bytes),
                        log_number("dead_letters", spool.dead),
                        log_number("orphans_open", pipeline_open_orphans(daemon->pipeline)),
                        log_number("retries", m->retries), log_number("gaps", m->gaps), log_number("gap_ms", m->gap_ms),
                        log_number("redis_reconnections", m->redis_reconnections),
                        log_number("database_reconnections", m->database_reconnections),
                        log_number("subscribed", source && source_pubsub_is_subscribed(source)),
                        log_number("redis_circuit_open", source && source_pubsub_circuit_is_open(source)),
                        log_number("database_up", store && store_is_up(store)),
                        log_number("db_circuit_open", store && store_circuit_is_open(store)),
                        log_number("db_connections", store ? store_connections(store) : 0),
                        log_number("uptime_s", ((int64_t)uv_now(&daemon->loop) - daemon->started_ms) / 1000)),
             "state");
}

/* Settings that others point into stay as they were at start; only values are taken over. */
static void apply_settings(struct daemon *daemon, const struct settings *next)
{
    struct settings *now = &daemon->settings;
    settings_take_live(now, next);
    log_set_level(now->log_level);
    const struct message_rules rules = rules_of(now);
    const struct inbox_limits limits = limits_of(now);
    const struct store_tuning tuning = tuning_of(now);
    const struct source_pubsub_tuning source_tuning = source_tuning_of(now);
    pipeline_set_rules(daemon->pipeline, &rules);
    pipeline_set_limits(daemon->pipeline, &limits);
    store_set_tuning(daemon->store, &tuning);
    source_pubsub_set_tuning(daemon->source, &source_tuning);
    if (daemon->spool)
        spool_set_max_bytes(daemon->spool, (uint64_t)now->spool_max_bytes);
}

static void reload(struct daemon *daemon)
{
    struct settings next;
    struct error error;
    char fixed[256];
    if (!log_reopen(&error))
        log_error(LOG_FIELDS(log_text("error", error.text)), "the log file cannot be opened again; the old one stays");
    if (!settings_load(daemon->arguments->argc, daemon->arguments->argv, daemon->arguments->environment, false, &next,
                       NULL, &error)) {
        log_error(LOG_FIELDS(log_text("error", error.text)), "settings not reloaded; nothing was changed");
        return;
    }
    if (settings_fixed_differences(&daemon->settings, &next, fixed, sizeof fixed) > 0)
        log_warning(LOG_FIELDS(log_text("settings", fixed)), "changes of these settings need a restart");
    apply_settings(daemon, &next);
    settings_free(&next);
    log_info(NULL, "settings reloaded");
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    if (number == SIGUSR1) {
        log_state(daemon);
    } else if (number == SIGUSR2) {
        if (daemon->source_open)
            source_pubsub_close_circuit(daemon->source);
        if (daemon->store_open)
            store_close_circuit(daemon->store);
    } else if (number == SIGHUP) {
        if (daemon->state == DAEMON_RUNNING)
            reload(daemon);
    } else if (daemon->state == DAEMON_RUNNING) {
        start_draining(daemon, number);
    } else {
        log_warning(LOG_FIELDS(log_number("waiting", pipeline_waiting(daemon->pipeline))),
                    "second signal: ending at once");
        _exit(128 + number);
    }
}

/* --- start ------------------------------------------------------------------------------------------------------ */

static void on_tick(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    outcome_flush_log();
    pipeline_pump(daemon->pipeline);
    int64_t now_ms = (int64_t)uv_now(&daemon->loop);
    int64_t interval_ms = daemon->settings.reconcile_interval_s * 1000;
    if (interval_ms == 0 || now_ms < daemon->orphans_due_ms || daemon->state != DAEMON_RUNNING)
        return;
    daemon->orphans_due_ms = now_ms + interval_ms;
    pipeline_retry_orphans(daemon->pipeline);
}

static void open_handles(struct daemon *daemon)
{
    for (int i = 0; i < DAEMON_SIGNALS; i++) {
        (void)uv_signal_init(&daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        int status = uv_signal_start(&daemon->signals[i], on_signal, daemon_signals[i]);
        if (status != 0)
            log_error(LOG_FIELDS(log_text("error", uv_strerror(status))), "signal %d cannot be watched",
                      daemon_signals[i]);
    }
    (void)uv_timer_init(&daemon->loop, &daemon->drain);
    (void)uv_timer_init(&daemon->loop, &daemon->tick);
    daemon->drain.data = daemon;
    daemon->tick.data = daemon;
    (void)uv_timer_start(&daemon->tick, on_tick, DAEMON_TICK_MS, DAEMON_TICK_MS);
    daemon->handles_open = true;
}

static bool open_spool(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    if (!settings->spool_dir[0])
        return true;
    daemon->spool = spool_open(
        &(struct spool_options){
            .loop = &daemon->loop,
            .directory = settings->spool_dir,
            .max_bytes = (uint64_t)settings->spool_max_bytes,
            .on_put = on_put,
            .on_fetched = on_fetched,
            .on_grown = on_grown,
            .on_closed = on_spool_closed,
            .context = daemon,
        },
        error);
    if (!daemon->spool)
        return false;
    daemon->spool_open = true;
    pipeline_use_spool(daemon->pipeline, daemon->spool);
    return true;
}

/* In this order: what a message needs later is there before the first one can arrive. */
static bool open_modules(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    daemon->pipeline = pipeline_new(&(struct pipeline_options){.rules = rules_of(settings),
                                                               .limits = limits_of(settings),
                                                               .metrics = &daemon->metrics,
                                                               .can_store = on_can_store,
                                                               .on_ready = on_ready,
                                                               .context = daemon},
                                    error);
    if (!daemon->pipeline)
        return false;
    daemon->store = store_new(&(struct store_options){
        .loop = &daemon->loop,
        .database_url = settings->database_url,
        .connections = (size_t)settings->db_connections,
        .in_transaction = settings->atomicity == ATOMICITY_TRANSACTION,
        .statuses = statuses_of(settings),
        .tuning = tuning_of(settings),
        .metrics = &daemon->metrics,
        .take = on_take,
        .on_orphan = on_orphan,
        .on_outcome = on_outcome,
        .on_found = on_found,
        .on_up = on_store_up,
        .on_closed = on_store_closed,
        .context = daemon,
    });
    if (!daemon->store)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    daemon->store_open = true;
    if (!open_spool(daemon, error))
        return false;
    daemon->source = source_pubsub_new(&(struct source_pubsub_options){
        .loop = &daemon->loop,
        .address = &daemon->redis,
        .channel = settings->redis_channel,
        .tuning = source_tuning_of(settings),
        .on_message = on_message,
        .on_oversize = on_oversize,
        .on_gap = on_gap,
        .on_closed = on_source_closed,
        .context = daemon,
    });
    if (!daemon->source)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    daemon->source_open = true;
    return true;
}

static int finish(struct daemon *daemon)
{
    pipeline_abandon_rest(daemon->pipeline);
    outcome_flush_log();
    pipeline_free(daemon->pipeline);
    int status = uv_loop_close(&daemon->loop);
    if (status != 0)
        log_critical(LOG_FIELDS(log_text("error", uv_strerror(status))), "the event loop was not left clean");
    redis_address_free(&daemon->redis);
    settings_free(&daemon->settings);
    log_info(NULL, "stopped");
    return status == 0 ? 0 : error_exit_status(ERROR_INTERNAL);
}

/*
 * A dial or a cancel may block for as long as a frozen server likes. Each session has at most one of both; the rest is
 * for everyone else.
 */
static void size_threads(const struct settings *settings)
{
    char threads[24];
    (void)snprintf(threads, sizeof threads, "%lld", (long long)(2 * settings->db_connections + 4));
    (void)setenv("UV_THREADPOOL_SIZE", threads, 0);
}

int daemon_run(struct settings *settings, const struct daemon_arguments *arguments)
{
    struct daemon daemon = {.settings = *settings, .arguments = arguments};
    struct error error = {.code = ERROR_INTERNAL};
    *settings = (struct settings){0};
    (void)signal(SIGPIPE, SIG_IGN); /* hiredis, libpq and the log write to sockets and pipes whose reader may go */
    size_threads(&daemon.settings);
    int status = uv_loop_init(&daemon.loop);
    if (status != 0) {
        log_critical(LOG_FIELDS(log_text("error", uv_strerror(status))), "the event loop cannot be made");
        return error_exit_status(ERROR_INTERNAL);
    }
    daemon.started_ms = (int64_t)uv_now(&daemon.loop);
    if (!redis_address_parse(daemon.settings.redis_url, &daemon.redis, &error)) {
        log_critical(LOG_FIELDS(log_text("error", error.text)), "redis_url cannot be used");
        return error_exit_status(error.code);
    }
    open_handles(&daemon);
    log_info(NULL, "promptd %s starting", PROMPTD_VERSION);
    if (!open_modules(&daemon, &error)) {
        log_critical(LOG_FIELDS(log_text("error", error.text)), "promptd cannot start");
        return error_exit_status(error.code);
    }
    (void)uv_run(&daemon.loop, UV_RUN_DEFAULT);
    return finish(&daemon);
}
