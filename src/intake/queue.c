/* SPDX-License-Identifier: MIT */
/* What was taken from Redis and is not forgotten there yet; see queue.h. */
#include "queue.h"

#include <stdlib.h>

#define LOG_COMPONENT "redis"
#include "promptd/clock.h"
#include "promptd/log.h"

enum {
    TICK_MS = 1000,
    KEEP_ALIVE_MS = 10000,
    LOOK_MS = 5000 /* between looks for the dead, and at the figures */
};

static struct queue *queue_of(struct source *source)
{
    return (struct queue *)source;
}

static uint64_t now_ms(const struct queue *queue)
{
    return uv_now(queue->options.loop);
}

static void queue_move(struct queue *queue, enum queue_state state)
{
    static const char *const names[] = {"down", "unsure", "verifying", "stale", "ready"};
    if (queue->state == state)
        return;
    log_debug(LOG_FIELDS(log_text("from", names[queue->state]), log_text("to", names[state])), "queue state changed");
    queue->state = state;
}

/* --- reading ---------------------------------------------------------------------------------------------------- */

void queue_take(struct queue *queue, const struct queue_item *item, bool redelivered)
{
    if (queue->is_stopped)
        return; /* it is given back with all that Redis holds for us */
    struct queue_entry *entry = queue_entry_new(&queue->entries, item);
    if (!entry) {
        log_error(LOG_FIELDS(log_number("bytes", item->length)), "out of memory: a message stays in Redis, for later");
        queue->has_released = true;
        return;
    }
    queue->room -= queue->room > 0;
    queue->status.last_message_ms = clock_monotonic_ms();
    queue->status.redelivered += redelivered;
    const struct delivery delivery = {.bytes = item->bytes,
                                      .length = item->length,
                                      .arrived_us = clock_monotonic_us(),
                                      .redelivered = redelivered || queue->kind->knows_no_deliveries,
                                      .receipt = &entry->receipt};
    queue->options.sink.on_delivery(queue->options.sink.context, &delivery);
}

static void read_more(struct queue *queue)
{
    size_t count = queue_readable(queue);
    if (queue->state != QUEUE_READY || queue->is_stopped || count == 0)
        return;
    if (queue->takes_over) {
        queue->kind->take_over(queue);
        return;
    }
    if (queue->reading > 0 || queue->read_rests || !redis_link_is_up(queue->links.reader))
        return;
    queue->reading = count;
    queue->read_ms = now_ms(queue);
    queue->kind->read(queue, count);
}

/* --- verifying -------------------------------------------------------------------------------------------------- */

/* A read that is under way would bring what the verification finds as well: it is ended first. */
static void verify(struct queue *queue)
{
    if (queue->state == QUEUE_DOWN || queue->state == QUEUE_VERIFYING)
        return;
    queue_doubt(queue);
    if (queue->reading > 0) {
        queue_links_unblock(&queue->links);
        return;
    }
    queue_move(queue, QUEUE_VERIFYING);
    queue_entries_begin_verifying(&queue->entries);
    queue->kind->verify(queue);
}

void queue_doubt(struct queue *queue)
{
    if (queue->state == QUEUE_READY)
        queue_move(queue, QUEUE_STALE);
}

void queue_read_done(struct queue *queue, size_t taken)
{
    queue->reading = 0;
    queue_links_end_read(&queue->links);
    if (queue->state != QUEUE_READY)
        verify(queue);
    queue->read_rests = taken == 0 && now_ms(queue) - queue->read_ms < TICK_MS / 2; /* a server that does not block */
    queue_go_on(queue);
}

void queue_verified(struct queue *queue)
{
    queue_entries_end_verifying(&queue->entries);
    queue_move(queue, QUEUE_READY);
    queue->alive_ms = now_ms(queue);
    queue->look_ms = now_ms(queue);
    queue->kind->keep_alive(queue);
    queue_go_on(queue);
}

void queue_is_set_up(struct queue *queue)
{
    queue_move(queue, QUEUE_UNSURE);
    if (!redis_link_is_up(queue->links.worker)) {
        queue->status.reconnections += queue->was_ready;
        queue->was_ready = true;
        redis_link_confirm(queue->links.worker);
        log_info(LOG_FIELDS(log_text("mode", queue->kind->mode), log_text("key", queue->options.channel),
                            log_text("consumer", queue->consumer)),
                 "taking messages");
    }
    verify(queue);
}

void queue_taken_over(struct queue *queue, bool is_more)
{
    queue->is_taking_over = false;
    queue->takes_over = is_more;
    queue_go_on(queue);
}

void queue_make_anew(struct queue *queue)
{
    queue->reading = 0;
    queue_links_end_read(&queue->links);
    queue->read_rests = true; /* should the two connections be of two servers */
    queue_move(queue, QUEUE_DOWN);
    if (redis_link_is_up(queue->links.worker))
        queue->kind->set_up(queue);
}

/* --- the connections' word -------------------------------------------------------------------------------------- */

/* Before the first letter: a key that can hold none is a matter of set-up. */
static void on_dead_length(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_ERROR)
        queue_links_refuse(&queue->links, queue->links.worker, reply);
    else
        queue->kind->set_up(queue);
}

static void on_worker_login(void *context)
{
    struct queue *queue = context;
    struct queue_command command;
    queue->takes_over = queue->is_taking_over = false; /* the answer was lost with the connection */
    queue_command_begin(&command, "XLEN", queue->keys[QUEUE_KEY_DEAD]);
    queue_links_ask(&queue->links, &command, on_dead_length);
}

static void on_worker_lost(void *context)
{
    struct queue *queue = context;
    queue_move(queue, QUEUE_DOWN);
    queue_entries_redo(&queue->entries, QUEUE_ENTRY_ACKING, SIZE_MAX);
    if (queue->on_closed)
        queue_end(queue);
}

static void on_reader_up(void *context)
{
    struct queue *queue = context;
    if (queue->state != QUEUE_READY)
        verify(queue);
    queue_go_on(queue);
}

/* What was on its way is ours in Redis, and unknown here: it is asked for when the next connection stands. */
static void on_reader_lost(void *context)
{
    struct queue *queue = context;
    queue->reading = 0;
    queue_doubt(queue);
}

/* --- from time to time ------------------------------------------------------------------------------------------ */

void queue_on_kept(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (queue_is_error(reply, "MOVED "))
        queue_links_refuse(&queue->links, queue->links.worker, reply);
    queue_links_complain(&queue->links, "to note that promptd lives", reply);
}

/* Whoever has been away for too long, stopped or cut off, may have lost what it held. */
static void keep_alive(struct queue *queue)
{
    uint64_t since_ms = now_ms(queue) - queue->alive_ms;
    if (since_ms < KEEP_ALIVE_MS)
        return;
    if (since_ms > QUEUE_TAKEOVER_MS - KEEP_ALIVE_MS || (queue->has_released && !queue->is_stopped)) {
        queue->has_released = false;
        verify(queue);
        return;
    }
    queue->alive_ms = now_ms(queue);
    queue->kind->keep_alive(queue);
}

static void on_dead_count(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_INTEGER)
        queue->status.dead_letters = queue_number(reply);
}

static void look(struct queue *queue)
{
    struct queue_command command;
    queue->look_ms = now_ms(queue) + LOOK_MS;
    queue_command_begin(&command, "XLEN", queue->keys[QUEUE_KEY_DEAD]);
    queue_links_ask(&queue->links, &command, on_dead_count);
    queue->kind->look(queue);
}

/* What is held is read back as it was, however the setting has changed: a list's messages are known by their bytes. */
static void set_bulk_max(struct queue *queue)
{
    size_t longest = queue_entries_longest(&queue->entries);
    size_t message_max = queue->options.tuning.message_max_bytes;
    queue->bulk_max_bytes = longest > message_max ? longest : message_max;
    queue_links_set_tuning(&queue->links, queue->bulk_max_bytes);
}

static void on_tick(uv_timer_t *timer)
{
    struct queue *queue = timer->data;
    queue->read_rests = false;
    if (queue->is_giving_back)
        return;
    queue_links_tick(&queue->links);
    if (queue->bulk_max_bytes > queue->options.tuning.message_max_bytes)
        set_bulk_max(queue);
    queue_entries_redo(&queue->entries, QUEUE_ENTRY_REFUSED, QUEUE_BATCH_MAX);
    queue_go_on(queue);
    if ((queue->state != QUEUE_READY && queue->state != QUEUE_STALE) || !redis_link_is_up(queue->links.worker))
        return;
    keep_alive(queue); /* also while there is no reader: what is held is ours */
    if (queue->state == QUEUE_READY && now_ms(queue) >= queue->look_ms)
        look(queue);
}

/* Once a turn of the loop: what has ended in it is acknowledged together. */
static void on_later(uv_timer_t *timer)
{
    struct queue *queue = timer->data;
    queue_acknowledge_more(queue);
    read_more(queue);
    if (!queue->on_closed || queue->is_giving_back)
        return;
    if (queue->state == QUEUE_DOWN) {
        queue_end(queue);
    } else if (queue->state != QUEUE_VERIFYING && !queue_has(queue, QUEUE_ENTRY_DONE) &&
               !queue_has(queue, QUEUE_ENTRY_ACKING) && queue->reading == 0) {
        queue->is_giving_back = true;
        queue->kind->give_back(queue);
    }
}

/* --- as a source ------------------------------------------------------------------------------------------------ */

static void demand(struct source *source, size_t messages, size_t bytes)
{
    struct queue *queue = queue_of(source);
    bool had_room = queue->room > 0;
    queue->room = messages;
    queue->room_bytes = bytes;
    if (!had_room && messages > 0)
        queue_go_on(queue);
}

static void acknowledge(struct source *source, struct receipt *receipt, const struct disposition *disposition)
{
    queue_acknowledge(queue_of(source), (struct queue_entry *)receipt, disposition);
}

/* Redis holds it for us still: it is given back with the rest, or found at the next verification. */
static void release(struct source *source, struct receipt *receipt)
{
    struct queue *queue = queue_of(source);
    queue->has_released = true;
    queue_entry_free(&queue->entries, (struct queue_entry *)receipt);
}

static void set_tuning(struct source *source, const struct source_tuning *tuning)
{
    struct queue *queue = queue_of(source);
    queue->options.tuning = *tuning;
    set_bulk_max(queue);
}

static void get_status(const struct source *source, struct source_status *status)
{
    const struct queue *queue = (const struct queue *)source;
    *status = queue->status;
    status->mode = queue->kind->mode;
    status->is_up = !queue->is_stopped && queue->state == QUEUE_READY && queue_links_are_up(&queue->links);
    status->memory_bytes = queue->entries.bytes;
    status->keeps_queue = true;
    queue_links_get_status(&queue->links, status);
}

static bool reset_circuit(struct source *source)
{
    return queue_links_reset_circuit(&queue_of(source)->links);
}

static void stop(struct source *source)
{
    struct queue *queue = queue_of(source);
    queue->is_stopped = true;
    queue_links_unblock(&queue->links);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct queue *queue = handle->data;
    if (--queue->open_handles > 0)
        return;
    for (size_t i = 0; i < QUEUE_KEYS_MAX; i++)
        free(queue->keys[i]);
    queue->on_closed(queue->closed_context);
    free(queue);
}

static void on_links_closed(void *context)
{
    struct queue *queue = context;
    uv_close((uv_handle_t *)&queue->tick, on_handle_closed);
    uv_close((uv_handle_t *)&queue->later, on_handle_closed);
}

/* The receipts have come back; what is left here was done, and could not be acknowledged. */
void queue_end(struct queue *queue)
{
    size_t left = queue->entries.count;
    if (queue->is_closing)
        return;
    queue->is_closing = true;
    (void)uv_timer_stop(&queue->tick); /* one link may be gone long before the other */
    (void)uv_timer_stop(&queue->later);
    queue_entries_free(&queue->entries);
    if (left > 0)
        log_warning(LOG_FIELDS(log_number("messages", left)),
                    "stopping before Redis has taken all acknowledgements; these messages come again");
    queue_links_close(&queue->links);
}

static void close_source(struct source *source, void (*on_closed)(void *context), void *context)
{
    struct queue *queue = queue_of(source);
    queue->on_closed = on_closed;
    queue->closed_context = context;
    if (redis_link_is_up(queue->links.worker))
        queue_go_on(queue);
    else
        queue_end(queue);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

static const struct source_ops ops = {
    .demand = demand,
    .acknowledge = acknowledge,
    .release = release,
    .set_tuning = set_tuning,
    .get_status = get_status,
    .reset_circuit = reset_circuit,
    .stop = stop,
    .close = close_source,
};

struct source *queue_new(const struct source_options *options, const struct queue_kind *kind)
{
    struct queue *queue = calloc(1, kind->size);
    if (!queue)
        return NULL;
    queue->source.ops = &ops;
    queue->options = *options;
    queue->kind = kind;
    queue->bulk_max_bytes = options->tuning.message_max_bytes;
    queue->on_later = on_later;
    queue->open_handles = 2;
    queue_entries_init(&queue->entries);
    const struct queue_links_options links = {.source = &queue->options,
                                              .mode = kind->mode,
                                              .on_worker_login = on_worker_login,
                                              .on_worker_lost = on_worker_lost,
                                              .on_reader_up = on_reader_up,
                                              .on_reader_lost = on_reader_lost,
                                              .on_closed = on_links_closed,
                                              .context = queue};
    if (!queue_name_consumer(queue) || !kind->init(queue) ||
        !queue_links_open(&queue->links, &links, queue->bulk_max_bytes))
        return NULL;                                  /* the process ends */
    (void)uv_timer_init(options->loop, &queue->tick); /* always 0 */
    (void)uv_timer_init(options->loop, &queue->later);
    queue->tick.data = queue;
    queue->later.data = queue;
    (void)uv_timer_start(&queue->tick, on_tick, TICK_MS, TICK_MS);
    return &queue->source;
}
