/* SPDX-License-Identifier: MIT */
/* Opens the modules and joins them: only here do they know of each other, by callbacks. */
#include <string.h>

#include "daemon_private.h"
#include "promptd/clock.h"
#include "promptd/outcome.h"

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

static void on_spooled_orphan(void *context, const uint8_t interview_id[UUID_SIZE], const uint8_t prompt_id[UUID_SIZE],
                              int64_t since_ms)
{
    struct daemon *daemon = context;
    pipeline_on_spooled_orphan(daemon->pipeline, interview_id, prompt_id, since_ms);
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
    struct daemon *daemon = context;
    const struct outcome_record record = {
        .metrics = &daemon->metrics, .troubles = &daemon->troubles, .lines = &daemon->lines};
    outcome_report_found_orphan(&record, interview_id, prompt_id);
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

static void on_outcome(void *context, struct job *job)
{
    struct daemon *daemon = context;
    pipeline_finish(daemon->pipeline, job);
    daemon_close_if_drained(daemon);
}

void wiring_on_unfinished(void *context, struct job *job)
{
    struct daemon *daemon = context;
    pipeline_abandon(daemon->pipeline, job);
}

void wiring_reset_circuits(void *context, bool *redis, bool *database)
{
    struct daemon *daemon = context;
    *redis = daemon->source_open && source_pubsub_close_circuit(daemon->source);
    *database = daemon->store_open && store_close_circuit(daemon->store);
}

/* --- closed ----------------------------------------------------------------------------------------------------- */

static void on_source_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->source_open = false;
    daemon_close_if_drained(daemon);
    daemon_module_closed(daemon);
}

static void on_store_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->store_open = false;
    daemon_on_store_closed(daemon);
    daemon_module_closed(daemon);
}

static void on_spool_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->spool_open = false;
    daemon_module_closed(daemon);
}

static void on_admin_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->admin_open = false;
    daemon_module_closed(daemon);
}

static void on_notify_closed(void *context)
{
    struct daemon *daemon = context;
    daemon->notify_open = false;
    daemon_module_closed(daemon);
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
            .max_bytes = (uint64_t)settings->spool_max_bytes,
            .on_put = on_put,
            .on_fetched = on_fetched,
            .on_grown = on_grown,
            .on_orphan = on_spooled_orphan,
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
            .on_closed = on_admin_closed,
            .context = daemon,
        },
        error);
    daemon->admin_open = daemon->admin;
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
    daemon->notify = notify_new(
        &(struct notify_options){.loop = &daemon->loop, .on_closed = on_notify_closed, .context = daemon});
    daemon->notify_open = daemon->notify;
    return daemon->notify || error_set(error, ERROR_INTERNAL, "out of memory");
}

static bool open_pipeline(struct daemon *daemon, struct error *error)
{
    const struct settings *settings = &daemon->settings;
    daemon->pipeline = pipeline_new(
        &(struct pipeline_options){
            .rules = options_rules(settings),
            .limits = options_limits(settings),
            .record = {.metrics = &daemon->metrics, .troubles = &daemon->troubles, .lines = &daemon->lines},
            .can_store = on_can_store,
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
        .tuning = options_store_tuning(settings),
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
        .on_closed = on_source_closed,
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
