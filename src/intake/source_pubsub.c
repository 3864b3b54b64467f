/* SPDX-License-Identifier: MIT */
/* SUBSCRIBE on a redis_link. Pub/Sub keeps nothing for a subscriber that is away: each gap is reported. */
#include "promptd/source_open.h"

#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/redis_link.h"

enum { SOURCE_REPLY_EXTRA_BYTES = 65536 };

struct source_pubsub {
    struct source source; /* first: the source is this */
    struct source_options options;
    void (*on_closed)(void *context);
    void *closed_context;
    struct redis_link *link;
    struct resp_subscriber subscription;
    bool stopped;
    bool is_busy;           /* Redis has said so, and it stands in the log */
    uint64_t last_alive_ms; /* when the subscription was last proved */
    bool in_gap;            /* was subscribed, and is not */
    uint64_t gap_began_ms;
    char gap_cause[256];
    uint64_t gaps;
    uint64_t gap_ms;
    int64_t last_message_ms; /* monotonic */
};

static void end_gap(struct source_pubsub *source)
{
    if (!source->in_gap)
        return;
    source->in_gap = false;
    uint64_t lasted_ms = uv_now(source->options.loop) - source->gap_began_ms;
    source->gaps++;
    source->gap_ms += lasted_ms;
    log_warning(LOG_FIELDS(log_text("cause", source->gap_cause)),
                "subscription restored after %.1f s; messages published meanwhile were not received",
                (double)lasted_ms / 1000);
}

/* --- subscription --------------------------------------------------------------------------------------------- */

/* Also the heartbeat: Redis answers each time. */
static void subscribe(void *context)
{
    const struct source_pubsub *source = context;
    redis_dial_subscribe(redis_link_dial(source->link), source->options.channel, &source->subscription);
}

static void on_subscribed(void *context)
{
    struct source_pubsub *source = context;
    if (source->stopped)
        return;
    source->last_alive_ms = uv_now(source->options.loop);
    if (source->is_busy)
        log_info(NULL, "Redis is no longer busy");
    source->is_busy = false;
    if (redis_link_is_up(source->link)) {
        redis_link_answered(source->link);
        return;
    }
    redis_link_confirm(source->link);
    log_info(LOG_FIELDS(log_text("channel", source->options.channel)), "subscribed");
    end_gap(source);
}

static void on_message(void *context, const char *bytes, size_t length)
{
    struct source_pubsub *source = context;
    if (source->stopped)
        return;
    const struct source_sink *sink = &source->options.sink;
    const struct delivery delivery = {.bytes = bytes, .length = length, .arrived_us = clock_monotonic_us()};
    source->last_alive_ms = uv_now(source->options.loop);
    source->last_message_ms = delivery.arrived_us / 1000;
    sink->on_delivery(sink->context, &delivery);
}

/* The server does not get to anything, but it is there, and the subscription with it. */
static void on_busy(void *context, const char *error)
{
    struct source_pubsub *source = context;
    if (!source->is_busy)
        log_warning(LOG_FIELDS(log_text("error", error)), "Redis is busy; the subscription stays");
    source->is_busy = true;
    source->last_alive_ms = uv_now(source->options.loop);
    redis_link_answered(source->link);
}

/* A connection that died silently, or that of a master that is none any more, was deaf since its last sign of life; one
 * that was closed, since now. */
static void on_lost(void *context, const char *reason)
{
    struct source_pubsub *source = context;
    bool beats = source->options.tuning.link.heartbeat_interval_ms > 0;
    bool silent = beats && redis_link_was_deaf(source->link);
    source->in_gap = true;
    source->gap_began_ms = silent ? source->last_alive_ms : uv_now(source->options.loop);
    strncpy(source->gap_cause, reason, sizeof source->gap_cause - 1);
}

static void finish_close(struct source_pubsub *source)
{
    source->on_closed(source->closed_context);
    free(source);
}

static void on_link_closed(void *context)
{
    struct source_pubsub *source = context;
    source->link = NULL;
    if (source->on_closed)
        finish_close(source);
}

static struct resp_guard_limits limits_of(const struct source_tuning *tuning)
{
    return (struct resp_guard_limits){.bulk_bytes = tuning->message_max_bytes,
                                      .reply_bytes = tuning->message_max_bytes + SOURCE_REPLY_EXTRA_BYTES};
}

/* --- as a source ------------------------------------------------------------------------------------------------ */

static struct source_pubsub *pubsub_of(struct source *source)
{
    return (struct source_pubsub *)source;
}

static void set_tuning(struct source *source, const struct source_tuning *tuning)
{
    struct source_pubsub *pubsub = pubsub_of(source);
    pubsub->options.tuning = *tuning;
    const struct resp_guard_limits limits = limits_of(tuning);
    if (!pubsub->link)
        return;
    redis_link_set_tuning(pubsub->link, &tuning->link);
    redis_dial_set_limits(redis_link_dial(pubsub->link), &limits);
}

static void get_status(const struct source *source, struct source_status *status)
{
    const struct source_pubsub *pubsub = (const struct source_pubsub *)source;
    status->mode = "pubsub";
    redis_address_name(pubsub->options.address, status->server);
    status->heartbeat_is_well = !pubsub->link || !redis_link_is_overdue(pubsub->link);
    status->last_alive_ms = pubsub->last_alive_ms;
    status->last_message_ms = pubsub->last_message_ms;
    status->gaps = pubsub->gaps;
    status->gap_ms = pubsub->gap_ms;
    status->reconnections = pubsub->gaps;
    if (!pubsub->link)
        return;
    redis_link_server_name(pubsub->link, status->server);
    status->is_up = !pubsub->stopped && redis_link_is_up(pubsub->link);
    status->circuit_is_open = redis_link_circuit_is_open(pubsub->link);
    status->failures = redis_link_failures(pubsub->link);
}

static bool reset_circuit(struct source *source)
{
    struct source_pubsub *pubsub = pubsub_of(source);
    return !pubsub->stopped && redis_link_close_circuit(pubsub->link);
}

static void stop(struct source *source)
{
    struct source_pubsub *pubsub = pubsub_of(source);
    pubsub->stopped = true;
    redis_link_close(pubsub->link);
}

static void close_source(struct source *source, void (*on_closed)(void *context), void *context)
{
    struct source_pubsub *pubsub = pubsub_of(source);
    pubsub->on_closed = on_closed;
    pubsub->closed_context = context;
    if (!pubsub->link)
        finish_close(pubsub);
}

static const struct source_ops ops = {
    .set_tuning = set_tuning,
    .get_status = get_status,
    .reset_circuit = reset_circuit,
    .stop = stop,
    .close = close_source,
};

struct source *source_pubsub_new(const struct source_options *options)
{
    struct source_pubsub *source = calloc(1, sizeof *source);
    if (!source)
        return NULL;
    source->source.ops = &ops;
    source->options = *options;
    source->subscription = (struct resp_subscriber){
        .on_subscribed = on_subscribed, .on_message = on_message, .context = source};
    source->link = redis_link_new(&(struct redis_link_options){
        .loop = options->loop,
        .address = options->address,
        .tls = options->tls,
        .tuning = options->tuning.link,
        .limits = limits_of(&options->tuning),
        .on_login = subscribe,
        .on_beat = subscribe,
        .on_lost = on_lost,
        .on_busy = on_busy,
        .on_closed = on_link_closed,
        .context = source,
    });
    if (!source->link) {
        free(source);
        return NULL;
    }
    return &source->source;
}
