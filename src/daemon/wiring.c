/* SPDX-License-Identifier: MIT */
/* Opens the modules and joins them: what is below speaks upwards by callbacks, which are given here. */
#include <string.h>

#include "daemon_private.h"

/* --- between the modules ---------------------------------------------------------------------------------------- */

static void on_ready(void *context)
{
    struct daemon *daemon = context;
    if (daemon->store)
        store_kick(daemon->store);
}

static bool on_can_store(void *context)
{
    struct daemon *daemon = context;
    return daemon->store && store_is_up(daemon->store);
}

static void on_outcome(void *context, const struct job *job)
{
    struct daemon *daemon = context;
    if (daemon->events)
        events_publish(daemon->events, job);
}

void wiring_reset_circuits(void *context, bool *redis, bool *database)
{
    struct daemon *daemon = context;
    bool is_running = daemon->state == DAEMON_RUNNING; /* nothing that is being closed is dialled again */
    *redis = is_running && daemon->source && source_reset_circuit(daemon->source);
    if (is_running && daemon->events)
        events_reset_circuit(daemon->events);
    *database = is_running && daemon->store && store_close_circuit(daemon->store);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static bool open_admin(struct daemon *daemon, struct error *error)
{
    if (strcmp(daemon->settings.admin_listen, "off") == 0)
        return true;
    daemon->admin = admin_open(
        &(struct admin_options){
            .loop = &daemon->loop,
            .listen = daemon->settings.admin_listen,
            .look = snapshot_look,
            .reset_circuits = wiring_reset_circuits,
            .context = daemon,
        },
        error);
    return daemon->admin;
}

static bool open_statsd(struct daemon *daemon, struct error *error)
{
    const char *server = daemon->settings.statsd;
    if (!server[0] || strcmp(server, "off") == 0)
        return true;
    daemon->statsd = statsd_new(
        &(struct statsd_options){.loop = &daemon->loop, .server = server, .metrics = &daemon->metrics});
    return daemon->statsd || error_set(error, ERROR_INTERNAL, "out of memory");
}

static bool open_notify(struct daemon *daemon, struct error *error)
{
    daemon->notify = notify_new(&daemon->loop);
    return daemon->notify || error_set(error, ERROR_INTERNAL, "out of memory");
}

static bool open_pipeline(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    daemon->pipeline = pipeline_new(
        &(struct pipeline_options){
            .rules = message_rules_of(settings),
            .limits = options_limits(settings),
            .job_size = store_job_size(),
            .record = {.metrics = &daemon->metrics,
                       .recent_failures = &daemon->recent_failures,
                       .on_outcome = settings->events_channel[0] ? on_outcome : NULL,
                       .context = daemon},
            .can_store = on_can_store,
            .may_be_unsettled = store_may_be_unsettled,
            .on_ready = on_ready,
            .context = daemon,
        },
        error);
    return daemon->pipeline;
}

static bool open_store(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    daemon->store = store_new(&(struct store_options){
        .loop = &daemon->loop,
        .database_url = settings->database_url,
        .connections = (size_t)settings->db_connections,
        .in_transaction = settings->atomicity == ATOMICITY_TRANSACTION,
        .statuses = options_statuses(settings),
        .source = settings->sources.items[0],
        .tuning = options_store_tuning(settings),
        .metrics = &daemon->metrics,
        .pipeline = daemon->pipeline,
    });
    return daemon->store || error_set(error, ERROR_INTERNAL, "out of memory");
}

static bool open_events(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    if (!settings->events_channel[0])
        return true;
    daemon->events = events_new(&(struct events_options){
        .loop = &daemon->loop,
        .address = &daemon->redis,
        .tls = daemon->redis_tls,
        .channel = settings->events_channel,
        .statuses = {.ready = settings->ready_status, .failed = settings->failed_status},
        .tuning = options_link_tuning(settings),
        .metrics = &daemon->metrics,
    });
    return daemon->events || error_set(error, ERROR_INTERNAL, "out of memory");
}

static bool open_source(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    daemon->source = source_open(settings->redis_mode,
                                 &(struct source_options){
                                     .loop = &daemon->loop,
                                     .address = &daemon->redis,
                                     .tls = daemon->redis_tls,
                                     .channel = settings->redis_channel,
                                     .directory = settings->spool_dir,
                                     .tuning = options_source_tuning(settings),
                                     .sink = pipeline_sink(daemon->pipeline),
                                 },
                                 error);
    if (!daemon->source)
        return false;
    pipeline_set_source(daemon->pipeline, daemon->source);
    return true;
}

/* Those that may refuse come before those that only wait for the loop to run. */
bool wiring_open(struct daemon *daemon, struct error *error)
{
    return open_pipeline(daemon, error) && open_admin(daemon, error) && open_source(daemon, error) &&
           open_statsd(daemon, error) && open_notify(daemon, error) && open_events(daemon, error) &&
           open_store(daemon, error);
}
