/* SPDX-License-Identifier: MIT */
/* Signals. */
#include <assert.h>
#include <signal.h>
#include <unistd.h>

#define LOG_COMPONENT "daemon"
#include "daemon_private.h"
#include "promptd/log.h"
#include "promptd/metrics_text.h"

static const int watched[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
static_assert(sizeof watched / sizeof watched[0] == DAEMON_SIGNALS, "each has a handle");

static bool is_wish(int number)
{
    return number != SIGTERM && number != SIGINT;
}

void signals_block_wishes(bool blocked)
{
    sigset_t wishes;
    (void)sigemptyset(&wishes); /* these cannot fail: the numbers are valid */
    for (int i = 0; i < DAEMON_SIGNALS; i++)
        if (is_wish(watched[i]))
            (void)sigaddset(&wishes, watched[i]);
    (void)pthread_sigmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &wishes, NULL);
}

static void log_state(struct daemon *daemon)
{
    struct log_field fields[METRICS_FIELDS];
    struct health health;
    snapshot_look(daemon, &health);
    metrics_state_fields(&daemon->metrics, fields);
    log_write(LOG_LEVEL_INFO, LOG_COMPONENT, fields, "state"); /* who asks gets it, whatever log_level is */
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    if (number == SIGUSR1) {
        log_state(daemon);
    } else if (number == SIGUSR2) {
        bool redis;
        bool database;
        wiring_reset_circuits(daemon, &redis, &database);
    } else if (number == SIGHUP) {
        if (daemon->state != DAEMON_RUNNING)
            return;
        notify_reloading(daemon->notify);
        reload_settings(daemon);
        notify_ready(daemon->notify);
    } else if (daemon->state == DAEMON_RUNNING) {
        drain_start(daemon, number);
    } else {
        log_warning(LOG_FIELDS(log_number("waiting", snapshot_waiting(daemon))), "second signal: ending at once");
        log_close();
        _exit(128 + number);
    }
}

void signals_open(struct daemon *daemon)
{
    for (int i = 0; i < DAEMON_SIGNALS; i++) {
        (void)uv_signal_init(&daemon->loop, &daemon->signals[i]);
        daemon->signals[i].data = daemon;
        int status = uv_signal_start(&daemon->signals[i], on_signal, watched[i]);
        if (status != 0)
            log_error(LOG_FIELDS(log_text("error", uv_strerror(status))), "signal %d cannot be watched", watched[i]);
    }
}

/* A question or a wish must not end the last few moments with the default action, which libuv brings back. */
void signals_close(struct daemon *daemon)
{
    signals_block_wishes(true);
    for (int i = 0; i < DAEMON_SIGNALS; i++) {
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
        if (is_wish(watched[i]))
            (void)signal(watched[i], SIG_IGN);
    }
}
