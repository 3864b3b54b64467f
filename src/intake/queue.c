/* SPDX-License-Identifier: MIT */
/* What was taken from Redis and is not forgotten there yet; see queue.h. */
#include "queue.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_COMPONENT "redis"
#include "promptd/clock.h"
#include "promptd/log.h"
#include "promptd/redis_sentinel.h"

enum {
    DIAL_TIMEOUT_MS = 5000,
    BACKOFF_BASE_MS = 1000,
    TICK_MS = 1000,
    REPLY_EXTRA_BYTES = 65536,
    RETRY_MS = 1000,
    PLAIN_MS = 60000
};

enum { CALL_EXEC, CALL_PING, CALL_READER_ID, CALL_INFO, CALL_DEAD };
static_assert(CALL_DEAD + 1 == QUEUE_CALLS, "the kinds' calls come behind these");

static void on_later(uv_timer_t *timer);
static void finish_close(struct queue *queue);
static void verify(struct queue *queue);

static struct queue *queue_of(struct source *source)
{
    return (struct queue *)source;
}

static uint64_t now_ms(const struct queue *queue)
{
    return uv_now(queue->options.loop);
}

/* --- what is held ----------------------------------------------------------------------------------------------- */

void queue_take(struct queue *queue, const struct queue_item *item, bool redelivered)
{
    if (queue->is_stopped)
        return; /* it is given back with all that Redis holds for us */
    struct queue_entry *entry = queue_entry_new(queue, item);
    if (!entry) {
        log_error(LOG_FIELDS(log_number("bytes", item->length)), "out of memory: a message stays in Redis, for later");
        queue->has_released = true;
        return;
    }
    TAILQ_INSERT_TAIL(&queue->held, entry, link);
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

/* --- reading ---------------------------------------------------------------------------------------------------- */

/* A reply is in memory as a whole: so many messages fit, should each be as large as may be. */
static size_t readable(const struct queue *queue)
{
    size_t held_bytes = 2 * queue->held_bytes; /* each has a job, too */
    size_t max_bytes = queue->options.tuning.memory_max_bytes;
    size_t bytes = held_bytes < max_bytes ? max_bytes - held_bytes : 0;
    size_t by_bytes = (bytes < queue->room_bytes ? bytes : queue->room_bytes) / queue->options.tuning.message_max_bytes;
    size_t count = queue->room < QUEUE_READ_MAX ? queue->room : QUEUE_READ_MAX;
    if (queue->entry_count >= QUEUE_HELD_MAX || queue->room == 0 || (by_bytes == 0 && queue->entry_count > 0))
        return 0;
    return by_bytes == 0 ? 1 : by_bytes < count ? by_bytes : count;
}

static void read_more(struct queue *queue)
{
    size_t count = readable(queue);
    if (!queue->is_ready || queue->is_stopped || queue->reading > 0 || queue->read_rests || count == 0 ||
        !redis_link_is_up(queue->reader))
        return;
    queue->reading = count;
    queue->read_ms = now_ms(queue);
    queue->read_bytes = redis_link_received_bytes(queue->reader);
    queue->kind->read(queue, count);
}

void queue_read_done(struct queue *queue, size_t taken)
{
    queue->reading = 0;
    queue->status.last_alive_ms = now_ms(queue);
    if (queue->must_verify)
        verify(queue);
    queue->read_rests = taken == 0 && now_ms(queue) - queue->read_ms < TICK_MS / 2; /* a server that does not block */
    (void)uv_timer_start(&queue->later, on_later, 0, 0);
}

void queue_make_anew(struct queue *queue)
{
    queue->reading = 0;
    queue->read_rests = true; /* should the two connections be of two servers */
    queue->is_ready = queue->is_set_up = queue->is_verified = false;
    if (redis_link_is_up(queue->worker) && !queue->is_verifying)
        queue->kind->set_up(queue);
}

/* --- verifying -------------------------------------------------------------------------------------------------- */

static void set_all_unseen(struct queue *queue)
{
    struct queue_entry *entry;
    TAILQ_FOREACH(entry, &queue->held, link)
    entry->is_seen = false;
    TAILQ_FOREACH(entry, &queue->done, link)
    entry->is_seen = false;
    TAILQ_FOREACH(entry, &queue->acking, link)
    entry->is_seen = false; /* should they be refused, they are among those that are done */
}

static bool is_same(const struct queue_entry *entry, const struct queue_item *item)
{
    if (entry->id[0])
        return strcmp(entry->id, item->id) == 0;
    return entry->length == item->length && entry->is_skipped == !item->bytes &&
           (entry->is_skipped || memcmp(entry->payload, item->bytes, item->length) == 0);
}

static struct queue_entry *find_unseen(struct queue_entries *entries, const struct queue_item *item)
{
    struct queue_entry *entry;
    TAILQ_FOREACH(entry, entries, link)
    if (!entry->is_seen && is_same(entry, item))
        return entry;
    return NULL;
}

bool queue_verify_id(struct queue *queue, const char *id)
{
    const struct queue_item item = {.id = id};
    struct queue_entry *entry = find_unseen(&queue->held, &item);
    if (!entry)
        entry = find_unseen(&queue->done, &item);
    if (entry)
        entry->is_seen = true;
    return entry;
}

void queue_verify_one(struct queue *queue, const struct queue_item *item)
{
    struct queue_entry *entry = find_unseen(&queue->held, item);
    if (!entry)
        entry = find_unseen(&queue->done, item);
    if (entry)
        entry->is_seen = true;
    else
        queue_take(queue, item, true); /* its reply was lost */
}

/* What Redis does not hold for us any more is acknowledged already, or another's. */
void queue_verified(struct queue *queue)
{
    struct queue_entry *entry;
    struct queue_entry *next;
    TAILQ_FOREACH(entry, &queue->held, link)
    entry->is_foreign = !entry->is_seen;
    for (entry = TAILQ_FIRST(&queue->done); entry; entry = next) {
        next = TAILQ_NEXT(entry, link);
        if (entry->is_seen)
            continue;
        TAILQ_REMOVE(&queue->done, entry, link);
        queue_entry_free(queue, entry);
    }
    queue->is_verifying = false;
    queue->is_verified = true;
    queue->is_ready = true;
    queue->alive_ms = now_ms(queue);
    queue->look_ms = now_ms(queue);
    queue->kind->keep_alive(queue);
    (void)uv_timer_start(&queue->later, on_later, 0, 0);
}

/* A read that is under way would bring what the verification finds as well: it is ended first. */
static void end_read(struct queue *queue)
{
    struct queue_command command;
    if (queue->reading == 0 || !queue->reader_id[0] || !redis_link_is_up(queue->worker))
        return;
    queue_command_begin(&command, "CLIENT");
    queue_command_add(&command, "UNBLOCK");
    queue_command_add(&command, queue->reader_id);
    queue_send(queue, queue->worker, &command, 0, NULL);
}

static void verify(struct queue *queue)
{
    queue->is_ready = false;
    if (queue->is_verifying || !queue->is_set_up)
        return;
    queue->must_verify = queue->reading > 0;
    if (queue->must_verify) {
        end_read(queue);
        return;
    }
    queue->is_verifying = true;
    set_all_unseen(queue);
    queue->kind->verify(queue);
}

void queue_is_set_up(struct queue *queue)
{
    queue->is_set_up = true;
    if (!redis_link_is_up(queue->worker)) {
        queue->status.reconnections += queue->was_ready;
        queue->was_ready = true;
        redis_link_confirm(queue->worker);
        log_info(LOG_FIELDS(log_text("mode", queue->kind->mode), log_text("key", queue->options.channel),
                            log_text("consumer", queue->consumer)),
                 "taking messages");
    }
    verify(queue);
}

/* --- acknowledging ---------------------------------------------------------------------------------------------- */

static void ack_failed(struct queue *queue, const char *why)
{
    TAILQ_CONCAT(&queue->acking, &queue->done, link);
    TAILQ_CONCAT(&queue->done, &queue->acking, link);
    if (!why)
        return;
    if (!queue->ack_refused)
        log_error(LOG_FIELDS(log_text("error", why)), "Redis refuses acknowledgements; trying again");
    queue->ack_refused = true;
    queue->plain_until_ms = now_ms(queue) + PLAIN_MS;
    queue->retry_ms = now_ms(queue) + RETRY_MS;
    (void)uv_timer_start(&queue->later, on_later, 0, 0);
}

static void forget_acknowledged(struct queue *queue)
{
    struct queue_entry *entry;
    while ((entry = TAILQ_FIRST(&queue->acking))) {
        TAILQ_REMOVE(&queue->acking, entry, link);
        queue_entry_free(queue, entry);
    }
    if (queue->ack_refused && TAILQ_EMPTY(&queue->done)) {
        log_info(NULL, "Redis takes acknowledgements again");
        queue->ack_refused = false;
    }
    (void)uv_timer_start(&queue->later, on_later, 0, 0);
}

static void on_exec(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type != REDIS_REPLY_ARRAY) {
        ack_failed(queue, reply->type == REDIS_REPLY_ERROR ? reply->str : "the transaction was not carried out");
        return;
    }
    for (size_t i = 0; i < reply->elements; i++)
        queue_complain(queue, "an acknowledgement", reply->element[i]);
    forget_acknowledged(queue);
}

static void on_plain(void *context, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR)
        ack_failed(context, reply->str);
    else
        forget_acknowledged(context);
}

enum choice { CHOICE_ALL, CHOICE_WELL, CHOICE_DEAD };

/* false: there is none. */
static bool choose(struct queue *queue, enum choice choice)
{
    struct queue_entry *entry = TAILQ_FIRST(&queue->done);
    int count = 0;
    while (entry && count < QUEUE_BATCH_MAX) {
        struct queue_entry *next = TAILQ_NEXT(entry, link);
        if (choice == CHOICE_ALL || entry->is_dead == (choice == CHOICE_DEAD)) {
            TAILQ_REMOVE(&queue->done, entry, link);
            TAILQ_INSERT_TAIL(&queue->acking, entry, link);
            count++;
        }
        entry = next;
    }
    return count > 0;
}

/* A Redis that is full takes no transaction at all, not even one that makes room: then what has no dead letter goes
 * without one, and whatever has waits for room. */
static void acknowledge_more(struct queue *queue)
{
    struct queue_command command;
    if (!queue->is_verified || queue->is_verifying || TAILQ_EMPTY(&queue->done) || !TAILQ_EMPTY(&queue->acking))
        return;
    bool is_plain = now_ms(queue) < queue->plain_until_ms && choose(queue, CHOICE_WELL);
    bool may_retry = now_ms(queue) >= queue->retry_ms;
    if (!is_plain && (!may_retry || !choose(queue, CHOICE_ALL)))
        return;
    log_flush(); /* its line comes first: what Redis forgets has one, should the process be killed now */
    if (is_plain) {
        queue->kind->forget(queue, CALL_EXEC, on_plain);
        return;
    }
    queue_command_begin(&command, "MULTI");
    queue_send(queue, queue->worker, &command, 0, NULL);
    queue->kind->forget(queue, 0, NULL);
    queue_command_begin(&command, "EXEC");
    queue_send(queue, queue->worker, &command, CALL_EXEC, on_exec);
}

static void acknowledge(struct source *source, struct receipt *receipt, const struct disposition *disposition)
{
    struct queue *queue = queue_of(source);
    struct queue_entry *entry = (struct queue_entry *)receipt;
    TAILQ_REMOVE(&queue->held, entry, link);
    entry->is_dead = disposition;
    if (disposition && !queue_entry_keep_words(entry, disposition)) {
        log_error(NULL, "out of memory: a message that has ended stays in Redis; it is taken up again later");
        queue->has_released = true;
        queue_entry_free(queue, entry);
        return;
    }
    TAILQ_INSERT_TAIL(&queue->done, entry, link);
    (void)uv_timer_start(&queue->later, on_later, 0, 0);
}

/* Redis holds it for us still: it is given back with the rest, or found at the next verification. */
static void release(struct source *source, struct receipt *receipt)
{
    struct queue *queue = queue_of(source);
    struct queue_entry *entry = (struct queue_entry *)receipt;
    TAILQ_REMOVE(&queue->held, entry, link);
    queue->has_released = true;
    queue_entry_free(queue, entry);
}

void queue_bury(struct queue *queue, const struct queue_item *item)
{
    const struct disposition disposition = {.outcome = "dropped", .error = "delivered 5 times without an outcome"};
    struct queue_entry *entry = queue_entry_new(queue, item);
    if (!entry || !queue_entry_keep_words(entry, &disposition)) {
        if (entry)
            queue_entry_free(queue, entry);
        return; /* it comes again */
    }
    entry->is_dead = true;
    TAILQ_INSERT_TAIL(&queue->done, entry, link);
    queue_buried(queue, 1);
}

void queue_buried(struct queue *queue, uint64_t messages)
{
    const struct source_sink *sink = &queue->options.sink;
    if (messages == 0)
        return;
    sink->on_found(sink->context, messages);
    sink->on_lost(sink->context, messages);
    log_error(LOG_FIELDS(log_number("messages", messages)),
              "message dropped: it was delivered %d times without an outcome, and is a dead letter now",
              QUEUE_DELIVERIES_MAX);
}

/* --- the two connections ---------------------------------------------------------------------------------------- */

static void on_pong(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    (void)reply;
    queue->ping_ms = 0;
    queue->status.last_alive_ms = now_ms(queue);
}

/* INFO: "name:value" a line. NULL: it does not say. */
static const char *info_value(const redisReply *reply, const char *name)
{
    const char *at = reply->type == REDIS_REPLY_STRING ? strstr(reply->str, name) : NULL;
    return at ? at + strlen(name) : NULL;
}

/* Inside a transaction it would be too late to learn that the dead cannot be kept. */
static void on_dead_length(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    if (reply->type == REDIS_REPLY_ERROR)
        queue_refused(queue, reply);
    else
        queue->kind->set_up(queue);
}

/* Whoever may not ask learns from the commands themselves. */
static void on_info(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    struct queue_command command;
    const char *version = info_value(reply, "redis_version:");
    const char *policy = info_value(reply, "maxmemory_policy:");
    char *end = NULL;
    unsigned long major = version ? strtoul(version, &end, 10) : 0;
    unsigned long minor = end && *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    if (version && (major < 6 || (major == 6 && minor < 2))) {
        char reason[96];
        (void)snprintf(reason, sizeof reason, "Redis %lu.%lu is too old for redis_mode %s, which needs 6.2", major,
                       minor, queue->kind->mode);
        redis_link_drop(queue->worker, reason);
        return;
    }
    if (policy && strncmp(policy, "noeviction", 10) != 0 && !queue->warned_policy) {
        queue->warned_policy = true;
        log_warning(LOG_FIELDS(log_text("needed", "noeviction")),
                    "maxmemory-policy lets Redis evict keys when its memory is full: messages could be lost");
    }
    queue_command_begin(&command, "XLEN");
    queue_command_add(&command, queue->keys[QUEUE_KEY_DEAD]);
    queue_send(queue, queue->worker, &command, CALL_DEAD, on_dead_length);
}

static void on_worker_login(void *context)
{
    struct queue *queue = context;
    struct queue_command command;
    queue->ping_ms = 0;
    queue->is_ready = queue->is_set_up = queue->is_verifying = queue->is_verified = false;
    queue_command_begin(&command, "INFO");
    queue_send(queue, queue->worker, &command, CALL_INFO, on_info);
}

static void on_worker_lost(void *context, const char *reason)
{
    struct queue *queue = context;
    (void)reason;
    queue->is_ready = queue->is_set_up = queue->is_verifying = queue->is_verified = false;
    ack_failed(queue, NULL);
    if (queue->on_closed)
        finish_close(queue);
}

static void on_reader_id(void *context, const redisReply *reply)
{
    struct queue *queue = context;
    queue->reader_id[0] = '\0';
    if (reply->type == REDIS_REPLY_INTEGER)
        (void)snprintf(queue->reader_id, sizeof queue->reader_id, "%lld", reply->integer);
    if (redis_link_is_up(queue->reader))
        return;
    redis_link_confirm(queue->reader);
    if (queue->is_ready)
        (void)uv_timer_start(&queue->later, on_later, 0, 0);
    else
        verify(queue);
}

/* By its number a read that blocks can be ended early. Whoever may not ask is fine. */
static void on_reader_login(void *context)
{
    struct queue *queue = context;
    struct queue_command command;
    queue->reading = 0;
    queue_command_begin(&command, "CLIENT");
    queue_command_add(&command, "ID");
    queue_send(queue, queue->reader, &command, CALL_READER_ID, on_reader_id);
}

/* What was on its way is ours in Redis, and unknown here: it is asked for when the next connection stands. */
static void on_reader_lost(void *context, const char *reason)
{
    struct queue *queue = context;
    (void)reason;
    queue->reading = 0;
    queue->is_ready = false;
}

static void check_alive(struct queue *queue)
{
    int64_t interval_ms = queue->options.tuning.heartbeat_interval_ms;
    int64_t timeout_ms = queue->options.tuning.heartbeat_timeout_ms;
    struct queue_command command;
    if (interval_ms == 0)
        return;
    if (queue->reading > 0 && redis_link_received_bytes(queue->reader) != queue->read_bytes) {
        queue->read_bytes = redis_link_received_bytes(queue->reader); /* it is long, and on its way */
        queue->read_ms = now_ms(queue);
    }
    if (queue->reading > 0 && now_ms(queue) - queue->read_ms > (uint64_t)(QUEUE_BLOCK_MS + timeout_ms)) {
        queue->reading = 0;
        redis_link_drop(queue->reader, "no answer to a read");
    }
    if (!redis_link_is_up(queue->worker))
        return;
    if (queue->ping_ms > 0 && now_ms(queue) - queue->ping_ms >= (uint64_t)timeout_ms) {
        queue->ping_ms = 0;
        redis_link_drop(queue->worker, "no answer to the heartbeat");
    } else if (queue->ping_ms == 0 && now_ms(queue) - queue->pinged_ms >= (uint64_t)interval_ms) {
        queue->ping_ms = queue->pinged_ms = now_ms(queue);
        queue_command_begin(&command, "PING");
        queue_send(queue, queue->worker, &command, CALL_PING, on_pong);
    }
}

/* Whoever has been away for too long, stopped or cut off, may have lost what it held. */
static void keep_alive(struct queue *queue)
{
    uint64_t since_ms = now_ms(queue) - queue->alive_ms;
    if (since_ms < QUEUE_KEEP_ALIVE_MS)
        return;
    if (since_ms > QUEUE_TAKEOVER_MS - QUEUE_KEEP_ALIVE_MS || (queue->has_released && !queue->is_stopped)) {
        queue->has_released = false;
        verify(queue);
        return;
    }
    queue->alive_ms = now_ms(queue);
    queue->kind->keep_alive(queue);
}

static void on_tick(uv_timer_t *timer)
{
    struct queue *queue = timer->data;
    queue->read_rests = false;
    if (queue->is_giving_back)
        return;
    check_alive(queue);
    (void)uv_timer_start(&queue->later, on_later, 0, 0);
    if (!queue->is_verified || queue->is_verifying || !redis_link_is_up(queue->worker))
        return;
    keep_alive(queue); /* also while there is no reader: what is held is ours */
    if (queue->is_ready && now_ms(queue) >= queue->look_ms) {
        queue->look_ms = now_ms(queue) + QUEUE_LOOK_MS;
        queue->kind->look(queue);
    }
}

static void give_back(struct queue *queue);

/* Once a turn of the loop: what has ended in it is acknowledged together. */
static void on_later(uv_timer_t *timer)
{
    struct queue *queue = timer->data;
    acknowledge_more(queue);
    read_more(queue);
    if (!queue->on_closed || queue->is_giving_back)
        return;
    if (!queue->is_set_up)
        finish_close(queue);
    else if (queue->is_verifying)
        return; /* it comes here again */
    else if (TAILQ_EMPTY(&queue->done) && TAILQ_EMPTY(&queue->acking) && queue->reading == 0)
        give_back(queue);
}

/* --- as a source ------------------------------------------------------------------------------------------------ */

static void demand(struct source *source, size_t messages, size_t bytes)
{
    struct queue *queue = queue_of(source);
    bool had_room = queue->room > 0;
    queue->room = messages;
    queue->room_bytes = bytes;
    if (!had_room && messages > 0)
        (void)uv_timer_start(&queue->later, on_later, 0, 0);
}

static struct redis_link_tuning link_tuning(const struct source_tuning *tuning)
{
    return (struct redis_link_tuning){
        .backoff_max_ms = tuning->backoff_max_ms,
        .breaker_failures = tuning->breaker_failures,
        .breaker_reset_ms = tuning->breaker_reset_ms,
        .bulk_max_bytes = tuning->message_max_bytes,
        .reply_max_bytes = tuning->memory_max_bytes + tuning->message_max_bytes + REPLY_EXTRA_BYTES,
    };
}

static void set_tuning(struct source *source, const struct source_tuning *tuning)
{
    struct queue *queue = queue_of(source);
    const struct redis_link_tuning link = link_tuning(tuning);
    queue->options.tuning = *tuning;
    redis_link_set_tuning(queue->reader, &link);
    redis_link_set_tuning(queue->worker, &link);
}

static void get_status(const struct source *source, struct source_status *status)
{
    const struct queue *queue = (const struct queue *)source;
    unsigned failures[] = {redis_link_failures(queue->reader), redis_link_failures(queue->worker)};
    *status = queue->status;
    status->mode = queue->kind->mode;
    redis_link_server_name(queue->worker, status->server);
    status->is_up = !queue->is_stopped && queue->is_ready && redis_link_is_up(queue->reader) &&
                    redis_link_is_up(queue->worker);
    status->heartbeat_is_well = queue->ping_ms == 0 || now_ms(queue) - queue->ping_ms < TICK_MS;
    status->circuit_is_open = redis_link_circuit_is_open(queue->reader) || redis_link_circuit_is_open(queue->worker);
    status->failures = failures[0] > failures[1] ? failures[0] : failures[1];
    status->memory_bytes = queue->held_bytes;
    status->keeps_queue = true;
}

static bool reset_circuit(struct source *source)
{
    struct queue *queue = queue_of(source);
    bool reader = redis_link_close_circuit(queue->reader);
    return redis_link_close_circuit(queue->worker) || reader;
}

static void stop(struct source *source)
{
    struct queue *queue = queue_of(source);
    queue->is_stopped = true;
    end_read(queue);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct queue *queue = handle->data;
    if (--queue->open_handles > 0)
        return;
    void (*on_closed)(void *) = queue->on_closed;
    void *context = queue->closed_context;
    for (size_t i = 0; i < sizeof queue->keys / sizeof queue->keys[0]; i++)
        free(queue->keys[i]);
    free(queue);
    on_closed(context);
}

static void on_link_closed(void *context)
{
    struct queue *queue = context;
    if (--queue->open_links > 0)
        return;
    uv_close((uv_handle_t *)&queue->tick, on_handle_closed);
    uv_close((uv_handle_t *)&queue->later, on_handle_closed);
}

/* The receipts have come back; what is left here was done, and could not be acknowledged. */
static void finish_close(struct queue *queue)
{
    struct queue_entry *entry;
    size_t left = 0;
    if (queue->is_closing)
        return;
    queue->is_closing = true;
    TAILQ_CONCAT(&queue->done, &queue->acking, link);
    for (; (entry = TAILQ_FIRST(&queue->done)); left++) {
        TAILQ_REMOVE(&queue->done, entry, link);
        queue_entry_free(queue, entry);
    }
    if (left > 0)
        log_warning(LOG_FIELDS(log_number("messages", left)),
                    "stopping before Redis has taken all acknowledgements; these messages come again, as duplicates");
    redis_link_close(queue->reader);
    redis_link_close(queue->worker);
}

void queue_given_back(struct queue *queue)
{
    finish_close(queue);
}

static void give_back(struct queue *queue)
{
    queue->is_giving_back = true;
    queue->kind->give_back(queue);
}

static void close_source(struct source *source, void (*on_closed)(void *context), void *context)
{
    struct queue *queue = queue_of(source);
    queue->on_closed = on_closed;
    queue->closed_context = context;
    if (redis_link_is_up(queue->worker))
        (void)uv_timer_start(&queue->later, on_later, 0, 0);
    else
        finish_close(queue);
}

/* --- opening ---------------------------------------------------------------------------------------------------- */

bool queue_name_keys(struct queue *queue, const char *const suffixes[])
{
    const char *channel = queue->options.channel;
    for (size_t i = 0; suffixes[i]; i++) {
        size_t size = strlen(channel) + strlen(suffixes[i]) + 3;
        queue->keys[i] = malloc(size);
        if (!queue->keys[i])
            return false;
        (void)snprintf(queue->keys[i], size, suffixes[i][0] ? "{%s}%s" : "%s%s", channel, suffixes[i]);
    }
    return true;
}

/* Unique among all machines and all times: whoever comes later must not take another's messages for its own. */
static bool name_consumer(struct queue *queue)
{
    char host[64] = "";
    uint32_t chance;
    if (getentropy(&chance, sizeof chance) != 0)
        return false;
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(queue->consumer, sizeof queue->consumer, "%s-%ld-%08x", host[0] ? host : "promptd", (long)getpid(),
                   (unsigned)chance);
    return true;
}

static struct redis_link *new_link(struct queue *queue, bool is_second, void (*on_login)(void *context),
                                   void (*on_lost)(void *context, const char *reason))
{
    return redis_sentinel_link_new(&(struct redis_link_options){
        .loop = queue->options.loop,
        .address = queue->options.address,
        .tls = queue->options.tls,
        .dial_timeout_ms = DIAL_TIMEOUT_MS,
        .backoff_base_ms = BACKOFF_BASE_MS,
        .tuning = link_tuning(&queue->options.tuning),
        .is_second = is_second,
        .on_login = on_login,
        .on_lost = on_lost,
        .on_closed = on_link_closed,
        .context = queue,
    });
}

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
    struct queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return NULL;
    queue->source.ops = &ops;
    queue->options = *options;
    queue->kind = kind;
    TAILQ_INIT(&queue->held);
    TAILQ_INIT(&queue->done);
    TAILQ_INIT(&queue->acking);
    queue->open_links = queue->open_handles = 2;
    if (!name_consumer(queue) || !kind->init(queue))
        return NULL; /* the process ends */
    queue->worker = new_link(queue, false, on_worker_login, on_worker_lost);
    queue->reader = new_link(queue, true, on_reader_login, on_reader_lost);
    if (!queue->worker || !queue->reader)
        return NULL;
    (void)uv_timer_init(options->loop, &queue->tick); /* always 0 */
    (void)uv_timer_init(options->loop, &queue->later);
    queue->tick.data = queue;
    queue->later.data = queue;
    (void)uv_timer_start(&queue->tick, on_tick, TICK_MS, TICK_MS);
    return &queue->source;
}
