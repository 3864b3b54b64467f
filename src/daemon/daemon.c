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

#define LOG_COMPONENT "daemon"
#include "daemon_private.h"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/outcome.h"
#include "promptd/version.h"

enum { DAEMON_TICK_MS = 1000, DAEMON_LOG_AGAIN_MS = 20, DAEMON_GIVE_BACK_MESSAGES = 1000 };

/* What a burst took goes back to the system when it is over: nothing waits, and nothing came for a second, or much has
 * come since the last time. */
static void give_back_memory(struct daemon *daemon)
{
    uint64_t received = daemon->metrics.received;
    uint64_t since = received - daemon->given_back_at;
    bool is_quiet = received == daemon->received_at_tick;
    daemon->received_at_tick = received;
    if (since == 0 || (!is_quiet && since < DAEMON_GIVE_BACK_MESSAGES) || snapshot_in_memory(daemon) > 0)
        return;
    daemon->given_back_at = received;
    if (daemon->store)
        store_trim_memory(daemon->store);
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

/* Whoever reads the log is behind: what is kept follows as it reads. */
static void on_log_again(uv_timer_t *timer)
{
    if (log_retry())
        (void)uv_timer_stop(timer);
}

static void on_tick(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    outcome_sum_up();
    if (!log_retry())
        (void)uv_timer_start(&daemon->log_again, on_log_again, 0, DAEMON_LOG_AGAIN_MS);
    pipeline_demand(daemon->pipeline);
    give_back_memory(daemon);
    snapshot_notify(daemon);
    if (daemon->statsd)
        statsd_flush(daemon->statsd);
    history_look(&daemon->history, &daemon->metrics, clock_monotonic_ms());
}

static void open_handles(struct daemon *daemon)
{
    signals_open(daemon);
    drain_open(daemon);
    (void)uv_timer_init(&daemon->loop, &daemon->tick);
    daemon->tick.data = daemon;
    (void)uv_timer_init(&daemon->loop, &daemon->log_again);
    (void)uv_timer_start(&daemon->tick, on_tick, DAEMON_TICK_MS, DAEMON_TICK_MS);
}

/* When every module is closed: the daemon's own handles did not keep the loop. */
static void close_handles(struct daemon *daemon)
{
    signals_close(daemon);
    drain_close(daemon);
    uv_close((uv_handle_t *)&daemon->tick, NULL);
    uv_close((uv_handle_t *)&daemon->log_again, NULL);
    (void)uv_run(&daemon->loop, UV_RUN_DEFAULT);
}

static int finish(struct daemon *daemon)
{
    close_handles(daemon);
    outcome_sum_up();
    pipeline_free(daemon->pipeline);
    statsd_free(daemon->statsd);
    int status = uv_loop_close(&daemon->loop);
    if (status != 0)
        log_critical(LOG_FIELDS(log_text("error", uv_strerror(status))), "the event loop was not left clean");
    redis_address_free(&daemon->redis);
    redis_tls_free(daemon->redis_tls);
    settings_free(&daemon->settings);
    log_info(NULL, "stopped");
    return status == 0 ? 0 : error_exit_status(ERROR_INTERNAL);
}

/* Whoever names CAs believes that there is TLS. */
static bool open_tls(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    if (daemon->redis.tls)
        daemon->redis_tls = redis_tls_new(settings, error);
    else if (settings->redis_tls_ca_file[0] || settings->redis_tls_cert_file[0] || settings->redis_tls_key_file[0])
        log_warning(NULL, "redis_tls_… has no effect, and Redis is spoken to without TLS: redis_url is not rediss://");
    return daemon->redis_tls || !daemon->redis.tls;
}

static bool start(struct daemon *daemon, struct error *error)
{
    daemon->started_ms = clock_monotonic_ms();
    if (!redis_address_parse(daemon->settings.redis_url, &daemon->redis, error))
        return false;
    if (!open_tls(daemon, error))
        return false;
    open_handles(daemon);
    log_info(NULL, "promptd %s starting", PROMPTD_VERSION);
    if (threads_open(daemon, error) && wiring_open(daemon, error)) {
        snapshot_notify(daemon);
        notify_ready(daemon->notify);
        return true;
    }
    if (daemon->admin)
        admin_close(daemon->admin); /* its socket's file must not stay behind */
    return false;
}

int daemon_run(struct settings *settings, const struct daemon_arguments *arguments)
{
    static struct daemon daemon; /* when the start fails the process ends, and its modules as they are with it */
    struct error error = {.code = ERROR_INTERNAL};
    daemon.settings = *settings;
    daemon.arguments = arguments;
    *settings = (struct settings){0};
    (void)signal(SIGPIPE, SIG_IGN); /* hiredis, libpq and the log write to sockets and pipes whose reader may go */
    int status = uv_loop_init(&daemon.loop);
    if (status != 0) {
        log_critical(LOG_FIELDS(log_text("error", uv_strerror(status))), "the event loop cannot be made");
        return error_exit_status(ERROR_INTERNAL);
    }
    signals_block_wishes(true); /* no other thread gets them: at the end they would meet their default action there */
    if (!start(&daemon, &error)) {
        log_critical(LOG_FIELDS(log_text("error", error.text)), "promptd cannot start");
        return error_exit_status(error.code);
    }
    signals_block_wishes(false);
    (void)uv_run(&daemon.loop, UV_RUN_DEFAULT);
    return finish(&daemon);
}
