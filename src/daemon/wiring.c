/* SPDX-License-Identifier: MIT */
/* Opens the modules and joins them: what is below speaks upwards by callbacks, which are given here. */
#include <string.h>

#include "daemon_private.h"
#include "promptd/clock.h"

/* --- the way of a message --------------------------------------------------------------------------------------- */
static void on_message(void *context, const char *bytes, size_t length)
{
    struct daemon *daemon = context;
    daemon->last_message_wall_ms = clock_wall_ms();
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

static void on_ready(void *context)
{
    struct daemon *daemon = context;
    if (daemon->store_open)
        store_kick(daemon->store);
}

static bool on_can_store(void *context)
{
    struct daemon *daemon = context;
    return daemon->store_open && store_is_up(daemon->store);
}

void wiring_reset_circuits(void *context, bool *redis, bool *database)
{
    struct daemon *daemon = context;
    bool is_running = daemon->state == DAEMON_RUNNING; /* nothing that is being closed is dialled again */
    *redis = is_running && daemon->source_open && source_pubsub_close_circuit(daemon->source);
    *database = is_running && daemon->store_open && store_close_circuit(daemon->store);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static bool open_spool(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    if (!settings->spool_dir[0])
        return true;
    daemon->spool = spool_open(
        &(struct spool_options){
            .loop = &daemon->loop,
            .directory = settings->spool_dir,
            .limits = options_spool_limits(settings),
            .on_put = pipeline_on_put,
            .on_fetched = pipeline_on_fetched,
            .on_grown = pipeline_on_grown,
            .context = daemon->pipeline,
        },
        error);
    if (!daemon->spool)
        return false;
    daemon->spool_open = true;
    pipeline_use_spool(daemon->pipeline, daemon->spool);
    return true;
}

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
    if (!daemon->settings.statsd[0])
        return true;
    daemon->statsd = statsd_new(&(struct statsd_options){
        .loop = &daemon->loop, .server = daemon->settings.statsd, .metrics = &daemon->metrics});
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
    daemon->pipeline = pipeline_new(&(struct pipeline_options){.rules = options_rules(settings),
                                                               .limits = options_limits(settings),
                                                               .record = {.metrics = &daemon->metrics,
                                                                          .recent_failures = &daemon->recent_failures,
                                                                          .lines = &daemon->lines},
                                                               .can_store = on_can_store,
                                                               .may_be_unsettled = store_may_be_unsettled,
                                                               .on_ready = on_ready,
                                                               .context = daemon},
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
    if (!daemon->store)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    daemon->store_open = true;
    return true;
}

static bool open_source(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    daemon->source = source_pubsub_new(&(struct source_pubsub_options){
        .loop = &daemon->loop,
        .address = &daemon->redis,
        .channel = settings->redis_channel,
        .tuning = options_source_tuning(settings),
        .on_message = on_message,
        .on_oversize = on_oversize,
        .on_gap = on_gap,
        .context = daemon,
    });
    if (!daemon->source)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    daemon->source_open = true;
    return true;
}

/* In this order: what a message needs later is there before the first one can arrive. Those that may refuse come
 * before those that dial. */
bool wiring_open(struct daemon *daemon, struct error *error)
{
    return open_pipeline(daemon, error) && open_admin(daemon, error) && open_spool(daemon, error) &&
           open_statsd(daemon, error) && open_notify(daemon, error) && open_store(daemon, error) &&
           open_source(daemon, error);
}
