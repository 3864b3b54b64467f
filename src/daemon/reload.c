/* SPDX-License-Identifier: MIT */
/* Reload: the settings are read again, and those that are live take effect. */
#define LOG_COMPONENT "daemon"
#include "daemon_private.h"
#include "promptd/log.h"

#include <unistd.h>

/* Settings that others point into stay as they were at start. */
static void apply_settings(struct daemon *daemon, struct settings *next)
{
    struct settings *now = &daemon->settings;
    settings_take_live(now, next);
    log_set_level(now->log_level);
    const struct message_rules rules = message_rules_of(now);
    const struct inbox_limits limits = options_limits(now);
    const struct store_tuning tuning = options_store_tuning(now);
    const struct source_tuning source_tuning = options_source_tuning(now);
    pipeline_set_rules(daemon->pipeline, &rules);
    pipeline_set_limits(daemon->pipeline, &limits);
    store_set_tuning(daemon->store, &tuning);
    source_set_tuning(daemon->source, &source_tuning);
    if (daemon->events)
        events_set_tuning(daemon->events, &source_tuning.link);
}

/* The last that may refuse: when it has not, all takes effect. */
static bool reload_tls(struct daemon *daemon, const struct settings *next, struct error *error)
{
    return !daemon->redis_tls || redis_tls_reload(daemon->redis_tls, next, error);
}

void reload_settings(struct daemon *daemon)
{
    const struct daemon_arguments *given = daemon->arguments;
    struct settings next;
    struct settings_command command;
    struct error error;
    char fixed[256];
    if (!log_reopen(&error))
        log_error(LOG_FIELDS(log_text("error", error.text)), "the log file cannot be opened again; the old one stays");
    if (!settings_read_command(given->argc, given->argv, given->program, &next, &command, &error) ||
        !settings_load(&next, &command, environ, &error) || !reload_tls(daemon, &next, &error)) {
        log_error(LOG_FIELDS(log_text("error", error.text)), "settings not reloaded; nothing was changed");
        settings_free(&next);
        return;
    }
    if (settings_fixed_differences(&daemon->settings, &next, fixed, sizeof fixed) > 0)
        log_warning(LOG_FIELDS(log_text("settings", fixed)), "changes of these settings need a restart");
    apply_settings(daemon, &next);
    settings_free(&next);
    log_info(NULL, "settings reloaded");
}
