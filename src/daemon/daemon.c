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

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOG_COMPONENT "daemon"
#include "daemon_private.h"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/outcome.h"
#include "promptd/version.h"

enum {
    DAEMON_TICK_MS = 1000,
    DAEMON_CLOSING_MS = 1000,      /* of shutdown_timeout_s: set aside for closing */
    DAEMON_THREADS_GRACE_MS = 500, /* of that: for threads to come home */
    DAEMON_LAST_LOOK_MS = 50,
    DAEMON_GIVE_BACK_MESSAGES = 1000
};

/* --- the end ---------------------------------------------------------------------------------------------------- */

void daemon_module_closed(struct daemon *daemon)
{
    if (daemon->source_open || daemon->admin_open || daemon->notify_open || daemon->store_open || daemon->spool_open ||
        !daemon->handles_open)
        return;
    daemon->handles_open = false;
    signals_close(daemon);
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

void daemon_on_store_closed(struct daemon *daemon)
{
    close_spool(daemon);
}

/* A dial or a look-up that runs in a thread cannot be interrupted, and nothing depends on it any more. The spool has
 * something to write still, and gets what is left of the time. */
static void on_threads_late(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    if (daemon->store_open)
        store_abandon(daemon->store);
    close_spool(daemon);
    if (daemon->spool_open && (int64_t)uv_now(&daemon->loop) < daemon->stop_by_ms) {
        (void)uv_timer_start(&daemon->drain, on_threads_late, DAEMON_LAST_LOOK_MS, 0);
        return;
    }
    pipeline_abandon_rest(daemon->pipeline);
    if (daemon->statsd)
        statsd_flush(daemon->statsd);
    log_info(NULL, "stopped; not everything could be closed in time");
    _exit(0);
}

static void close_admin(struct daemon *daemon)
{
    struct admin *admin = daemon->admin;
    daemon->admin = NULL;
    if (admin)
        admin_close(admin);
}

/* The watchdog, with the timer that feeds it, goes first: closing has its own limit. */
static void close_report(struct daemon *daemon)
{
    close_admin(daemon);
    if (daemon->statsd)
        statsd_stop(daemon->statsd);
    struct notify *notify = daemon->notify;
    daemon->notify = NULL;
    if (notify)
        notify_close(notify);
}

static void start_closing(struct daemon *daemon)
{
    if (daemon->state == DAEMON_CLOSING)
        return;
    daemon->state = DAEMON_CLOSING;
    uv_update_time(&daemon->loop);
    (void)uv_timer_start(&daemon->drain, on_threads_late, DAEMON_THREADS_GRACE_MS, 0);
    close_report(daemon);
    store_close(daemon->store, wiring_on_unfinished);
}

/* What stands on disk only waits for the next start. */
void daemon_close_if_drained(struct daemon *daemon)
{
    if (daemon->state == DAEMON_DRAINING && !daemon->source_open && pipeline_in_memory(daemon->pipeline) == 0)
        start_closing(daemon);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    log_warning(LOG_FIELDS(log_number("waiting", pipeline_waiting(daemon->pipeline))),
                "shutdown_timeout_s is over; what is not settled is given up");
    start_closing(daemon);
}

static void tell_status(struct daemon *daemon)
{
    struct health health;
    snapshot_look(daemon, &health);
    if (daemon->notify)
        notify_status(daemon->notify, &health);
}

void daemon_start_draining(struct daemon *daemon, int signal_number)
{
    log_info(LOG_FIELDS(log_number("waiting", pipeline_waiting(daemon->pipeline))), "stopping on %s",
             signal_number == SIGINT ? "SIGINT" : "SIGTERM");
    daemon->state = DAEMON_DRAINING;
    notify_stopping(daemon->notify);
    tell_status(daemon);
    uint64_t patience_ms = (uint64_t)daemon->settings.shutdown_timeout_s * 1000 - DAEMON_CLOSING_MS;
    uv_update_time(&daemon->loop);
    daemon->stop_by_ms = (int64_t)(uv_now(&daemon->loop) + patience_ms) + DAEMON_CLOSING_MS - 2 * DAEMON_LAST_LOOK_MS;
    (void)uv_timer_start(&daemon->drain, on_drain_timeout, patience_ms ? patience_ms : 1, 0);
    pipeline_stop_fetching(daemon->pipeline);
    source_pubsub_close(daemon->source);
}

/* --- start ------------------------------------------------------------------------------------------------------ */

/* What a burst took goes back to the system when it is over: nothing waits, and nothing came for a second, or much has
 * come since the last time. */
static void give_back_memory(struct daemon *daemon)
{
    uint64_t received = daemon->metrics.received;
    uint64_t since = received - daemon->given_back_at;
    bool is_quiet = received == daemon->received_at_tick;
    daemon->received_at_tick = received;
    if (since == 0 || (!is_quiet && since < DAEMON_GIVE_BACK_MESSAGES) || pipeline_in_memory(daemon->pipeline) > 0)
        return;
    daemon->given_back_at = received;
    if (daemon->store_open)
        store_give_back(daemon->store);
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

static void on_tick(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    outcome_sum_up(&daemon->lines);
    pipeline_pump(daemon->pipeline);
    give_back_memory(daemon);
    int64_t now_ms = (int64_t)uv_now(&daemon->loop);
    tell_status(daemon);
    if (daemon->statsd)
        statsd_flush(daemon->statsd);
    history_look(&daemon->history, &daemon->metrics, now_ms, clock_wall_ms());
    int64_t interval_ms = daemon->settings.reconcile_interval_s * 1000;
    if (interval_ms == 0 || now_ms < daemon->orphans_due_ms || daemon->state != DAEMON_RUNNING)
        return;
    daemon->orphans_due_ms = now_ms + interval_ms;
    pipeline_retry_orphans(daemon->pipeline);
}

static void open_handles(struct daemon *daemon)
{
    signals_open(daemon);
    (void)uv_timer_init(&daemon->loop, &daemon->drain);
    (void)uv_timer_init(&daemon->loop, &daemon->tick);
    daemon->drain.data = daemon;
    daemon->tick.data = daemon;
    (void)uv_timer_start(&daemon->tick, on_tick, DAEMON_TICK_MS, DAEMON_TICK_MS);
    daemon->handles_open = true;
}

static int finish(struct daemon *daemon)
{
    pipeline_abandon_rest(daemon->pipeline);
    outcome_sum_up(&daemon->lines);
    pipeline_free(daemon->pipeline);
    statsd_free(daemon->statsd);
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

static bool start(struct daemon *daemon, struct error *error)
{
    daemon->started_ms = (int64_t)uv_now(&daemon->loop);
    daemon->started_wall_ms = clock_wall_ms();
    if (!redis_address_parse(daemon->settings.redis_url, &daemon->redis, error))
        return false;
    open_handles(daemon);
    log_info(NULL, "promptd %s starting", PROMPTD_VERSION);
    if (wiring_open(daemon, error)) {
        tell_status(daemon);
        notify_ready(daemon->notify);
        return true;
    }
    close_admin(daemon); /* its socket's file must not stay behind */
    return false;
}

int daemon_run(struct settings *settings, const struct daemon_arguments *arguments)
{
    static struct daemon daemon; /* when the start fails the process ends, and its modules as they are with it */
    struct error error = {.code = ERROR_INTERNAL};
    daemon.settings = *settings;
    daemon.arguments = arguments;
    daemon.lines = (struct outcome_lines)OUTCOME_LINES;
    *settings = (struct settings){0};
    (void)signal(SIGPIPE, SIG_IGN); /* hiredis, libpq and the log write to sockets and pipes whose reader may go */
    size_threads(&daemon.settings);
    int status = uv_loop_init(&daemon.loop);
    if (status != 0) {
        log_critical(LOG_FIELDS(log_text("error", uv_strerror(status))), "the event loop cannot be made");
        return error_exit_status(ERROR_INTERNAL);
    }
    if (!start(&daemon, &error)) {
        log_critical(LOG_FIELDS(log_text("error", error.text)), "promptd cannot start");
        return error_exit_status(error.code);
    }
    (void)uv_run(&daemon.loop, UV_RUN_DEFAULT);
    return finish(&daemon);
}
