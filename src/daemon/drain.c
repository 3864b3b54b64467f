/* SPDX-License-Identifier: MIT */
/* How the process ends: draining, then closing (see daemon.c). */
#include <assert.h>
#include <signal.h>
#include <unistd.h>

#define LOG_COMPONENT "daemon"
#include "daemon_private.h"
#include "promptd/log.h"

enum {
    DRAIN_CLOSING_MS = 1000, /* of shutdown_timeout_s: set aside for closing; half of it for threads to return */
    DRAIN_LAST_LOOK_MS = 50
};

/* The shortest timeout there is leaves some of it for settling, too. */
static uint64_t closing_ms(const struct daemon *daemon)
{
    uint64_t most_ms = (uint64_t)daemon->settings.shutdown_timeout_s * 750;
    return most_ms < DRAIN_CLOSING_MS ? most_ms : DRAIN_CLOSING_MS;
}

static const char *state_name(enum daemon_state state)
{
    static const char *const names[] = {"running", "draining", "closing"};
    return names[state];
}

/* The only mover: there is one way, and no way back. */
static void daemon_move(struct daemon *daemon, enum daemon_state state, const char *reason)
{
    assert(state == daemon->state + 1);
    log_debug(LOG_FIELDS(log_text("from", state_name(daemon->state)), log_text("to", state_name(state)),
                         log_text("reason", reason)),
              "state changed");
    daemon->state = state;
}

static void on_events_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->events = NULL;
}

/* After the source, whose end may be a message's outcome, too. */
static void close_events(struct daemon *daemon)
{
    if (!daemon->events || daemon->events_closing)
        return;
    daemon->events_closing = true;
    events_close(daemon->events, on_events_closed, daemon);
}

static void on_source_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->source = NULL;
    pipeline_set_source(daemon->pipeline, NULL);
    close_events(daemon);
}

/* After the store has given its jobs back: the last outcomes are written, and published. */
static void close_source(struct daemon *daemon)
{
    if (daemon->source_closing)
        return;
    daemon->source_closing = true;
    pipeline_abandon_rest(daemon->pipeline);
    snapshot_keep_source(daemon);
    source_close(daemon->source, on_source_closed, daemon);
}

/* A dial or a look-up that runs in a thread cannot be interrupted, and nothing depends on it any more. The source and
 * the events have something to write still, and get what is left of the time. */
static void on_threads_late(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    if (daemon->store)
        store_abandon(daemon->store);
    close_source(daemon);
    close_events(daemon); /* a source that hangs holds nothing up */
    if ((daemon->source || daemon->events) && (int64_t)uv_now(&daemon->loop) < daemon->stop_by_ms) {
        (void)uv_timer_start(&daemon->drain, on_threads_late, DRAIN_LAST_LOOK_MS, 0);
        return;
    }
    if (daemon->statsd)
        statsd_flush(daemon->statsd);
    log_info(NULL, "stopped; not everything could be closed in time");
    log_close();
    _exit(0);
}

/* The watchdog, with the timer that feeds it, goes first: closing has its own limit. */
static void close_report(struct daemon *daemon)
{
    if (daemon->admin)
        admin_close(daemon->admin);
    if (daemon->statsd)
        statsd_stop(daemon->statsd);
    notify_close(daemon->notify);
    daemon->admin = NULL;
    daemon->notify = NULL;
}

static void on_store_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->store = NULL;
    close_source(daemon);
}

/* From here on the loop ends by itself, when the last module has closed its handles. */
static void start_closing(struct daemon *daemon, const char *reason)
{
    daemon_move(daemon, DAEMON_CLOSING, reason);
    uv_update_time(&daemon->loop);
    (void)uv_timer_start(&daemon->drain, on_threads_late, closing_ms(daemon) / 2, 0);
    uv_unref((uv_handle_t *)&daemon->drain);
    uv_unref((uv_handle_t *)&daemon->progress);
    uv_unref((uv_handle_t *)&daemon->tick);
    uv_unref((uv_handle_t *)&daemon->log_again);
    for (int i = 0; i < DAEMON_SIGNALS; i++)
        uv_unref((uv_handle_t *)&daemon->signals[i]);
    close_report(daemon);
    store_close(daemon->store, on_store_closed, daemon);
}

/* Before the loop waits: whatever has happened in it, is the next part of the end due? What is kept elsewhere
 * waits for the next start. */
static void on_progress(uv_prepare_t *handle)
{
    struct daemon *daemon = handle->data;
    if (daemon->state == DAEMON_DRAINING && snapshot_in_memory(daemon) == 0)
        start_closing(daemon, "all is settled");
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    log_warning(LOG_FIELDS(log_number("waiting", snapshot_waiting(daemon))),
                "shutdown_timeout_s is over; what is not settled is given up");
    start_closing(daemon, "shutdown_timeout_s is over");
}

void drain_start(struct daemon *daemon, int signal_number)
{
    const char *name = signal_number == SIGINT ? "SIGINT" : "SIGTERM";
    log_info(LOG_FIELDS(log_number("waiting", snapshot_waiting(daemon))), "stopping on %s", name);
    daemon_move(daemon, DAEMON_DRAINING, name);
    notify_stopping(daemon->notify);
    snapshot_notify(daemon);
    uint64_t patience_ms = (uint64_t)daemon->settings.shutdown_timeout_s * 1000 - closing_ms(daemon);
    uv_update_time(&daemon->loop);
    daemon->stop_by_ms = (int64_t)(uv_now(&daemon->loop) + patience_ms + closing_ms(daemon)) - 2 * DRAIN_LAST_LOOK_MS -
                         LOG_LAST_LINES_MS;
    (void)uv_timer_start(&daemon->drain, on_drain_timeout, patience_ms, 0);
    (void)uv_prepare_start(&daemon->progress, on_progress);
    pipeline_stop(daemon->pipeline);
    source_stop(daemon->source);
}

void drain_open(struct daemon *daemon)
{
    (void)uv_timer_init(&daemon->loop, &daemon->drain);
    (void)uv_prepare_init(&daemon->loop, &daemon->progress);
    daemon->drain.data = daemon;
    daemon->progress.data = daemon;
}

void drain_close(struct daemon *daemon)
{
    uv_close((uv_handle_t *)&daemon->drain, NULL);
    uv_close((uv_handle_t *)&daemon->progress, NULL);
}
