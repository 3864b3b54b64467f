/* SPDX-License-Identifier: MIT */
/*
 * PUBLISH on a redis_link. What is to be sent, and what was sent and is not answered, is one queue:
 *
 *     oldest   sent, not answered   │   waits for the connection   newest
 *     ◀─ answered, or lost with it  │ next                         ◀─ events_publish
 *
 * Answers come in the order of the commands, so each is the oldest's.
 */
#include "promptd/events.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define LOG_COMPONENT "events"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/redis_link.h"

enum {
    EVENTS_REPLY_MAX_BYTES = 65536,
    EVENTS_CLOSE_MS = 1000,
    EVENTS_SPELL_MS = 10000, /* without a drop: then a spell of drops is over */
    EVENTS_MAX = 10000,      /* several batches may have their outcomes in one turn of the loop */
    EVENTS_MAX_BYTES = 4194304,
    EVENTS_JSON_KEPT_BYTES = 16384
};

struct event {
    TAILQ_ENTRY(event) link;
    size_t length;
    char text[];
};

TAILQ_HEAD(event_queue, event);

struct events {
    struct events_options options;
    struct redis_link *link; /* NULL: closed */
    struct redis_call published;
    struct redis_call pinged;
    struct event_queue queue;
    struct event *next; /* the first that was not sent; NULL: all were */
    size_t count;
    size_t bytes;
    struct buffer json;
    bool is_closing; /* until all is answered, or the time for that is over */
    uv_timer_t timer;
    bool is_dropping;
    uint64_t dropped_at_ms; /* the last one */
    uint64_t dropped;       /* in this spell */
    void (*on_closed)(void *context);
    void *closed_context;
};

/* --- drops -------------------------------------------------------------------------------------------------------- */

static void note_dropped(struct events *events, size_t count, const char *reason)
{
    if (count == 0)
        return;
    events->options.metrics->events_dropped += count;
    events->dropped += count;
    events->dropped_at_ms = uv_now(events->options.loop);
    if (!events->is_dropping)
        log_error(LOG_FIELDS(log_text("channel", events->options.channel), log_text("error", reason)),
                  "outcome events are dropped");
    events->is_dropping = true;
}

static void note_published(struct events *events)
{
    events->options.metrics->events_published++;
    if (!events->is_dropping || uv_now(events->options.loop) - events->dropped_at_ms < EVENTS_SPELL_MS)
        return;
    log_info(LOG_FIELDS(log_number("dropped", events->dropped)), "outcome events are published again");
    events->is_dropping = false;
    events->dropped = 0;
}

/* --- the queue ---------------------------------------------------------------------------------------------------- */

static void remove_oldest(struct events *events)
{
    struct event *event = TAILQ_FIRST(&events->queue);
    TAILQ_REMOVE(&events->queue, event, link);
    events->count--;
    events->bytes -= event->length;
    free(event);
}

/* Up to the event `end`, or all. */
static void drop_oldest(struct events *events, const struct event *end, const char *reason)
{
    size_t dropped = 0;
    for (; TAILQ_FIRST(&events->queue) != end; dropped++)
        remove_oldest(events);
    note_dropped(events, dropped, reason);
}

bool events_are_connected(const struct events *events)
{
    return events->link && redis_link_is_up(events->link);
}

static void send_waiting(struct events *events)
{
    const char *channel = events->options.channel;
    while (events->next && events_are_connected(events)) {
        struct event *event = events->next;
        const char *argv[] = {"PUBLISH", channel, event->text};
        const size_t lengths[] = {7, strlen(channel), event->length};
        events->next = TAILQ_NEXT(event, link);
        redis_dial_command(redis_link_dial(events->link), 3, argv, lengths, &events->published);
    }
}

void events_publish(struct events *events, const struct job *job)
{
    struct buffer *json = &events->json;
    buffer_reset(json, EVENTS_JSON_KEPT_BYTES);
    events_append(json, job, &events->options.statuses, clock_wall_ms());
    if (events->count == EVENTS_MAX || events->bytes + json->length > EVENTS_MAX_BYTES) {
        note_dropped(events, 1, "too many of them wait for Redis");
        return;
    }
    struct event *event = json->failed ? NULL : malloc(sizeof *event + json->length);
    if (!event) {
        note_dropped(events, 1, "out of memory");
        return;
    }
    event->length = json->length;
    memcpy(event->text, json->data, json->length);
    TAILQ_INSERT_TAIL(&events->queue, event, link);
    events->count++;
    events->bytes += event->length;
    if (!events->next)
        events->next = event;
    send_waiting(events);
}

/* --- ending ------------------------------------------------------------------------------------------------------- */

static void close_link(struct events *events)
{
    (void)uv_timer_stop(&events->timer);
    redis_link_close(events->link);
}

static void on_timer(uv_timer_t *timer)
{
    close_link(timer->data);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static void on_published(void *context, const redisReply *reply)
{
    struct events *events = context;
    remove_oldest(events);
    if (reply->type == REDIS_REPLY_ERROR) {
        char reason[256];
        redis_address_copy_error(events->options.address, reply->str, reason, sizeof reason);
        note_dropped(events, 1, reason);
    } else {
        note_published(events);
    }
    if (events->is_closing && events->count == 0)
        close_link(events);
}

/* An account that may not PING is told so, and that is a sign of life, too. Any other error is why nothing can be
 * published either: no login, a server that is loading or has too many clients. */
static void on_pinged(void *context, const redisReply *reply)
{
    struct events *events = context;
    if (redis_link_is_up(events->link)) {
        redis_link_answered(events->link);
        return;
    }
    if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOPERM", 6) != 0) {
        (void)redis_dial_refuse(redis_link_dial(events->link), reply->str);
        return;
    }
    redis_link_confirm(events->link);
    log_info(LOG_FIELDS(log_text("channel", events->options.channel)), "ready to publish outcome events");
    send_waiting(events);
}

/* Also the heartbeat, without which a connection that died in silence would take the next events with it. */
static void ping(void *context)
{
    const struct events *events = context;
    const char *argv[] = {"PING"};
    redis_dial_command(redis_link_dial(events->link), 1, argv, NULL, &events->pinged);
}

/* Whether Redis still got what was on its way nobody knows. Sent again it might be there twice. */
static void on_lost(void *context, const char *reason)
{
    struct events *events = context;
    log_warning(LOG_FIELDS(log_text("error", reason)), "connection for outcome events lost");
    drop_oldest(events, events->next, reason);
    if (events->is_closing)
        close_link(events);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

void events_set_tuning(struct events *events, const struct link_tuning *tuning)
{
    redis_link_set_tuning(events->link, tuning);
}

size_t events_waiting(const struct events *events)
{
    return events->count;
}

void events_reset_circuit(struct events *events)
{
    (void)redis_link_close_circuit(events->link);
}

/* The timer's memory is the last to go. */
static void on_timer_closed(uv_handle_t *handle)
{
    struct events *events = handle->data;
    void (*on_closed)(void *) = events->on_closed;
    void *context = events->closed_context;
    drop_oldest(events, NULL, "promptd stops"); /* what came since the link was closed */
    buffer_free(&events->json);
    free(events);
    on_closed(context);
}

static void on_link_closed(void *context)
{
    struct events *events = context;
    events->link = NULL;
    drop_oldest(events, NULL, "promptd stops");
    if (events->is_dropping)
        log_info(LOG_FIELDS(log_number("dropped", events->dropped)), "no outcome events any more");
    uv_close((uv_handle_t *)&events->timer, on_timer_closed);
}

void events_close(struct events *events, void (*on_closed)(void *context), void *context)
{
    events->on_closed = on_closed;
    events->closed_context = context;
    events->is_closing = events_are_connected(events) && events->count > 0;
    uv_update_time(events->options.loop);
    if (events->is_closing)
        (void)uv_timer_start(&events->timer, on_timer, EVENTS_CLOSE_MS, 0);
    else
        close_link(events);
}

struct events *events_new(const struct events_options *options)
{
    struct events *events = calloc(1, sizeof *events);
    if (!events)
        return NULL;
    events->options = *options;
    TAILQ_INIT(&events->queue);
    events->published = (struct redis_call){.on_reply = on_published, .context = events};
    events->pinged = (struct redis_call){.on_reply = on_pinged, .context = events};
    events->link = redis_link_new(&(struct redis_link_options){
        .loop = options->loop,
        .address = options->address,
        .tls = options->tls,
        .tuning = options->tuning,
        .limits = {.bulk_bytes = EVENTS_REPLY_MAX_BYTES, .reply_bytes = EVENTS_REPLY_MAX_BYTES},
        .is_second = true,
        .on_login = ping,
        .on_beat = ping,
        .on_lost = on_lost,
        .on_closed = on_link_closed,
        .context = events,
    });
    if (!events->link) {
        free(events);
        return NULL;
    }
    (void)uv_timer_init(options->loop, &events->timer); /* always 0 */
    events->timer.data = events;
    return events;
}
