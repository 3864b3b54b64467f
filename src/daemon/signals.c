/* SPDX-License-Identifier: MIT */
/* Signals, and the reload that one of them asks for. */
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define LOG_COMPONENT "daemon"
#include "daemon_private.h"
#include "promptd/log.h"

static const int watched[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
static_assert(sizeof watched / sizeof watched[0] == DAEMON_SIGNALS, "each has a handle");

static void log_state(struct daemon *daemon)
{
    struct log_field fields[METRICS_FIELDS];
    snapshot_gauges(daemon);
    metrics_state_fields(&daemon->metrics, fields);
    log_info(fields, "state");
}

/* Settings that others point into stay as they were at start; only values are taken over. */
static void apply_settings(struct daemon *daemon, const struct settings *next)
{
    struct settings *now = &daemon->settings;
    settings_take_live(now, next);
    log_set_level(now->log_level);
    const struct message_rules rules = options_rules(now);
    const struct inbox_limits limits = options_limits(now);
    const struct store_tuning tuning = options_store_tuning(now);
    const struct source_pubsub_tuning source_tuning = options_source_tuning(now);
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
        bool redis;
        bool database;
        wiring_reset_circuits(daemon, &redis, &database);
    } else if (number == SIGHUP) {
        if (daemon->state != DAEMON_RUNNING)
            return;
        notify_reloading(daemon->notify);
        reload(daemon);
        notify_ready(daemon->notify);
    } else if (daemon->state == DAEMON_RUNNING) {
        daemon_start_draining(daemon, number);
    } else {
        log_warning(LOG_FIELDS(log_number("waiting", pipeline_waiting(daemon->pipeline))),
                    "second signal: ending at once");
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

/* What would be a question or a wish must not end the last few moments with the default action. */
void signals_close(struct daemon *daemon)
{
    for (int i = 0; i < DAEMON_SIGNALS; i++) {
        uv_close((uv_handle_t *)&daemon->signals[i], NULL);
        if (watched[i] != SIGTERM && watched[i] != SIGINT)
            (void)signal(watched[i], SIG_IGN); /* cannot fail: the number is valid */
    }
}
