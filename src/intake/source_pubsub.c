/* SPDX-License-Identifier: MIT */
/* SUBSCRIBE on a redis_link. Pub/Sub keeps nothing for a subscriber that is away: each gap is reported. */
#include "promptd/source_pubsub.h"

#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "promptd/redis_link.h"

enum {
    SOURCE_DIAL_TIMEOUT_MS = 5000,
    SOURCE_BACKOFF_BASE_MS = 1000,
    SOURCE_LAST_LOOK_MS = 100,
    SOURCE_REPLY_EXTRA_BYTES = 65536
};

enum heartbeat_state {
    HEARTBEAT_OFF,     /* not subscribed, or switched off */
    HEARTBEAT_RESTING, /* until the next beat is due */
    HEARTBEAT_SENT,    /* until the answer comes or the timeout passes */
    HEARTBEAT_OVERDUE  /* the last part of the timeout: the answer may lie unread, if it was us who were late */
};

struct source_pubsub {
    struct source_pubsub_options options;
    void (*on_closed)(void *context);
    void *closed_context;
    struct redis_link *link;
    struct redis_call subscription;
    bool closing;
    enum heartbeat_state heartbeat;
    uv_timer_t *beat;
    bool alive;             /* something came since the beat was sent */
    uint64_t last_alive_ms; /* when the subscription was last proved */
    bool in_gap;            /* was subscribed, and is not */
    uint64_t gap_began_ms;
    char gap_cause[256];
};

static void end_gap(struct source_pubsub *source)
{
    if (!source->in_gap)
        return;
    source->in_gap = false;
    double seconds = (double)(uv_now(source->options.loop) - source->gap_began_ms) / 1000;
    log_warning(LOG_FIELDS(log_text("cause", source->gap_cause)),
                "subscription restored after %.1f s; messages published meanwhile were not received", seconds);
    source->options.on_gap(source->options.context, seconds);
}

/* --- heartbeat ------------------------------------------------------------------------------------------------ */

static void subscribe(struct source_pubsub *source)
{
    const char *argv[] = {"SUBSCRIBE", source->options.channel};
    const size_t lengths[] = {9, strlen(source->options.channel)};
    redis_link_command(source->link, 2, argv, lengths, &source->subscription);
}

static void on_beat(uv_timer_t *timer);

static void heartbeat_move(struct source_pubsub *source, enum heartbeat_state state, int64_t wait_ms)
{
    source->heartbeat = state;
    uv_update_time(source->options.loop);
    (void)uv_timer_start(source->beat, on_beat, (uint64_t)wait_ms, 0);
}

static void heartbeat_await(struct source_pubsub *source)
{
    source->alive = false;
    heartbeat_move(source, HEARTBEAT_SENT, source->options.tuning.heartbeat_timeout_ms - SOURCE_LAST_LOOK_MS);
}

static void heartbeat_rest(struct source_pubsub *source)
{
    if (source->options.tuning.heartbeat_interval_ms > 0)
        heartbeat_move(source, HEARTBEAT_RESTING, source->options.tuning.heartbeat_interval_ms);
}

static void heartbeat_stop(struct source_pubsub *source)
{
    source->heartbeat = HEARTBEAT_OFF;
    (void)uv_timer_stop(source->beat);
}

static void on_beat(uv_timer_t *timer)
{
    struct source_pubsub *source = timer->data;
    switch (source->heartbeat) {
    case HEARTBEAT_OFF:
        return;
    case HEARTBEAT_RESTING:
        subscribe(source);
        heartbeat_await(source);
        return;
    case HEARTBEAT_SENT:
        heartbeat_move(source, HEARTBEAT_OVERDUE, SOURCE_LAST_LOOK_MS);
        return;
    case HEARTBEAT_OVERDUE:
        if (source->alive) { /* messages come: the answer is queued behind them */
            heartbeat_await(source);
            return;
        }
        heartbeat_stop(source);
        redis_link_drop(source->link, "no answer to the heartbeat");
        return;
    }
}

static void on_heartbeat_answered(struct source_pubsub *source)
{
    if (source->heartbeat == HEARTBEAT_SENT || source->heartbeat == HEARTBEAT_OVERDUE)
        heartbeat_rest(source);
}

/* --- subscription --------------------------------------------------------------------------------------------- */

static void on_subscribed(struct source_pubsub *source)
{
    if (redis_link_is_up(source->link)) {
        on_heartbeat_answered(source);
        return;
    }
    redis_link_confirm(source->link);
    log_info(LOG_FIELDS(log_text("channel", source->options.channel)), "subscribed");
    heartbeat_rest(source);
    end_gap(source);
}

static bool is_text(const redisReply *reply, const char *text)
{
    return reply->type == REDIS_REPLY_STRING && reply->len == strlen(text) && memcmp(reply->str, text, reply->len) == 0;
}

/* Every answer of a subscribed connection comes here: ["subscribe", channel, n] and ["message", channel, bytes]. */
static void on_push(void *context, const redisReply *reply)
{
    struct source_pubsub *source = context;
    if (source->closing)
        return;
    if (reply->type == REDIS_REPLY_ERROR) {
        redis_link_drop(source->link, reply->str);
        return;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3)
        return;
    source->alive = true;
    source->last_alive_ms = uv_now(source->options.loop);
    const redisReply *payload = reply->element[2];
    if (is_text(reply->element[0], "subscribe"))
        on_subscribed(source);
    else if (is_text(reply->element[0], "message") && payload->type == REDIS_REPLY_STRING)
        source->options.on_message(source->options.context, payload->str, payload->len);
}

static void on_login(void *context)
{
    subscribe(context);
}

/* A connection that died silently was deaf since its last sign of life; one that was closed, since now. */
static void on_lost(void *context, const char *reason)
{
    struct source_pubsub *source = context;
    bool silent = source->heartbeat == HEARTBEAT_OFF && source->options.tuning.heartbeat_interval_ms > 0;
    source->in_gap = true;
    source->gap_began_ms = silent ? source->last_alive_ms : uv_now(source->options.loop);
    heartbeat_stop(source);
    strncpy(source->gap_cause, reason, sizeof source->gap_cause - 1);
}

static void on_oversize(void *context, size_t bytes)
{
    struct source_pubsub *source = context;
    if (!source->closing)
        source->options.on_oversize(source->options.context, bytes);
}

static void on_beat_closed(uv_handle_t *handle)
{
    free(handle);
}

static void on_link_closed(void *context)
{
    struct source_pubsub *source = context;
    uv_close((uv_handle_t *)source->beat, on_beat_closed);
    void (*on_closed)(void *) = source->on_closed;
    void *closed_context = source->closed_context;
    free(source);
    on_closed(closed_context);
}

static struct redis_link_tuning link_tuning(const struct source_pubsub_tuning *tuning)
{
    return (struct redis_link_tuning){
        .backoff_max_ms = tuning->backoff_max_ms,
        .breaker_failures = tuning->breaker_failures,
        .breaker_reset_ms = tuning->breaker_reset_ms,
        .reply_max_bytes = 2 * tuning->message_max_bytes + SOURCE_REPLY_EXTRA_BYTES,
    };
}

struct source_pubsub *source_pubsub_new(const struct source_pubsub_options *options)
{
    struct source_pubsub *source = calloc(1, sizeof *source);
    uv_timer_t *beat = calloc(1, sizeof *beat);
    if (!source || !beat) {
        free(source);
        free(beat);
        return NULL;
    }
    source->options = *options;
    source->beat = beat;
    source->subscription = (struct redis_call){.on_reply = on_push, .context = source};
    source->link = redis_link_new(&(struct redis_link_options){
        .loop = options->loop,
        .address = options->address,
        .dial_timeout_ms = SOURCE_DIAL_TIMEOUT_MS,
        .backoff_base_ms = SOURCE_BACKOFF_BASE_MS,
        .tuning = link_tuning(&options->tuning),
        .on_login = on_login,
        .on_lost = on_lost,
        .on_oversize = on_oversize,
        .on_closed = on_link_closed,
        .context = source,
    });
    if (!source->link) {
        free(source);
        free(beat);
        return NULL;
    }
    (void)uv_timer_init(options->loop, beat); /* always 0 */
    beat->data = source;
    return source;
}

void source_pubsub_set_tuning(struct source_pubsub *source, const struct source_pubsub_tuning *tuning)
{
    source->options.tuning = *tuning;
    const struct redis_link_tuning link = link_tuning(tuning);
    redis_link_set_tuning(source->link, &link);
    if (redis_link_is_up(source->link) && source->heartbeat == HEARTBEAT_OFF)
        heartbeat_rest(source);
}

unsigned source_pubsub_failures(const struct source_pubsub *source)
{
    return redis_link_failures(source->link);
}

bool source_pubsub_circuit_is_open(const struct source_pubsub *source)
{
    return redis_link_circuit_is_open(source->link);
}

bool source_pubsub_close_circuit(struct source_pubsub *source)
{
    return redis_link_close_circuit(source->link);
}

bool source_pubsub_heartbeat_is_well(const struct source_pubsub *source)
{
    return source->heartbeat != HEARTBEAT_OVERDUE;
}

uint64_t source_pubsub_last_alive_ms(const struct source_pubsub *source)
{
    return source->last_alive_ms;
}

bool source_pubsub_is_subscribed(const struct source_pubsub *source)
{
    return redis_link_is_up(source->link);
}

void source_pubsub_close(struct source_pubsub *source, void (*on_closed)(void *context), void *context)
{
    source->on_closed = on_closed;
    source->closed_context = context;
    source->closing = true;
    heartbeat_stop(source);
    redis_link_close(source->link);
}
