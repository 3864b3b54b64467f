/* SPDX-License-Identifier: MIT */
/* The two connections to Redis of a list or a stream. */
#include "queue_links.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"

enum { COMPLAIN_MS = 3600000, REPLY_EXTRA_BYTES = 65536 };

static uint64_t now_ms(const struct queue_links *links)
{
    return uv_now(links->options.source->loop);
}

static void send_on(struct queue_links *links, struct redis_link *link, const struct queue_command *command,
                    void (*on_reply)(void *context, const redisReply *reply), void *context)
{
    struct redis_call *call = on_reply ? links->calls : NULL;
    for (; call && call->on_reply && call->on_reply != on_reply; call++)
        assert(call + 1 < links->calls + QUEUE_CALLS_MAX);
    if (call)
        *call = (struct redis_call){.on_reply = on_reply, .context = context};
    redis_dial_command(redis_link_dial(link), command->argc, command->argv, command->lengths, call);
}

void queue_links_ask(struct queue_links *links, const struct queue_command *command,
                     void (*on_reply)(void *context, const redisReply *reply))
{
    send_on(links, links->worker, command, on_reply, links->options.context);
}

void queue_links_read(struct queue_links *links, const struct queue_command *command,
                      void (*on_reply)(void *context, const redisReply *reply))
{
    links->is_reading = true;
    links->read_ms = now_ms(links);
    links->read_bytes = redis_dial_received_bytes(redis_link_dial(links->reader));
    send_on(links, links->reader, command, on_reply, links->options.context);
}

void queue_links_complain(struct queue_links *links, const char *what, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ERROR ||
        (links->complained_ms > 0 && now_ms(links) - links->complained_ms < COMPLAIN_MS))
        return;
    char text[QUEUE_ERROR_SIZE];
    redis_address_copy_error(links->options.source->address, reply->str, text, sizeof text);
    links->complained_ms = now_ms(links);
    log_warning(LOG_FIELDS(log_text("error", text)), "Redis refuses %s; there may be more, for an hour", what);
}

/* --- the worker --------------------------------------------------------------------------------------------------- */

/* INFO: "name:value" a line. NULL: it does not say. */
static const char *info_value(const redisReply *reply, const char *name)
{
    const char *at = reply->type == REDIS_REPLY_STRING ? strstr(reply->str, name) : NULL;
    return at ? at + strlen(name) : NULL;
}

/* Whoever may not ask learns from the commands themselves. */
static void on_info(void *context, const redisReply *reply)
{
    struct queue_links *links = context;
    const char *version = info_value(reply, "redis_version:");
    const char *policy = info_value(reply, "maxmemory_policy:");
    char *end = NULL;
    unsigned long major = version ? strtoul(version, &end, 10) : 0;
    unsigned long minor = end && *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
    if (version && (major < 6 || (major == 6 && minor < 2))) {
        char reason[96];
        (void)snprintf(reason, sizeof reason, "Redis %lu.%lu is too old for redis_mode %s, which needs 6.2", major,
                       minor, links->options.mode);
        (void)redis_dial_drop(redis_link_dial(links->worker), reason);
        return;
    }
    if (policy && strncmp(policy, "noeviction", 10) != 0 && !links->warned_policy) {
        links->warned_policy = true;
        log_warning(LOG_FIELDS(log_text("needed", "noeviction")),
                    "maxmemory-policy lets Redis evict keys when its memory is full: messages could be lost");
    }
    links->options.on_worker_login(links->options.context);
}

static void on_worker_login(void *context)
{
    struct queue_links *links = context;
    struct queue_command command;
    queue_command_begin(&command, "INFO");
    send_on(links, links->worker, &command, on_info, links);
}

static void on_worker_lost(void *context, const char *reason)
{
    struct queue_links *links = context;
    (void)reason;
    links->options.on_worker_lost(links->options.context);
}

static void on_pong(void *context, const redisReply *reply)
{
    struct queue_links *links = context;
    (void)reply;
    redis_link_answered(links->worker);
    links->alive_ms = now_ms(links);
}

static void ping(void *context)
{
    struct queue_links *links = context;
    struct queue_command command;
    queue_command_begin(&command, "PING");
    send_on(links, links->worker, &command, on_pong, links);
}

/* --- the reader --------------------------------------------------------------------------------------------------- */

static void on_reader_id(void *context, const redisReply *reply)
{
    struct queue_links *links = context;
    links->reader_id[0] = '\0';
    if (reply->type == REDIS_REPLY_INTEGER)
        (void)snprintf(links->reader_id, sizeof links->reader_id, "%lld", reply->integer);
    redis_link_confirm(links->reader);
    links->options.on_reader_up(links->options.context);
}

/* Whoever may not ask is fine. */
static void on_reader_login(void *context)
{
    struct queue_links *links = context;
    struct queue_command command;
    queue_command_begin(&command, "CLIENT", "ID");
    send_on(links, links->reader, &command, on_reader_id, links);
}

static void on_reader_lost(void *context, const char *reason)
{
    struct queue_links *links = context;
    (void)reason;
    links->is_reading = false;
    links->options.on_reader_lost(links->options.context);
}

void queue_links_end_read(struct queue_links *links)
{
    links->is_reading = false;
    links->alive_ms = now_ms(links);
}

void queue_links_unblock(struct queue_links *links)
{
    struct queue_command command;
    if (!links->is_reading || !links->reader_id[0] || !redis_link_is_up(links->worker))
        return;
    queue_command_begin(&command, "CLIENT", "UNBLOCK", links->reader_id);
    send_on(links, links->worker, &command, NULL, NULL);
}

void queue_links_tick(struct queue_links *links)
{
    const struct source_tuning *tuning = &links->options.source->tuning;
    uint64_t bytes = redis_dial_received_bytes(redis_link_dial(links->reader));
    if (tuning->link.heartbeat_interval_ms == 0 || !links->is_reading)
        return;
    if (bytes != links->read_bytes) { /* it is long, and on its way */
        links->read_bytes = bytes;
        links->read_ms = now_ms(links);
    }
    if (now_ms(links) - links->read_ms > (uint64_t)(QUEUE_BLOCK_MS + tuning->link.heartbeat_timeout_ms))
        (void)redis_dial_drop(redis_link_dial(links->reader), "no answer to a read");
}

/* --- both --------------------------------------------------------------------------------------------------------- */

void queue_links_refuse(struct queue_links *links, struct redis_link *link, const redisReply *reply)
{
    struct redis_endpoint server;
    char host[REDIS_ADDRESS_NAME_SIZE];
    char text[QUEUE_ERROR_SIZE];
    const char *error = reply->type == REDIS_REPLY_ERROR ? reply->str : "an answer of another type";
    if (redis_address_read_moved(error, host, &server)) {
        redis_link_redirect(link, &server);
        if (link == links->worker) /* all keys are in one slot; the worker itself is told by its own commands */
            redis_link_redirect(links->reader, &server);
        return;
    }
    redis_address_copy_error(links->options.source->address, error, text, sizeof text);
    (void)redis_dial_refuse(redis_link_dial(link), text);
}

bool queue_links_reset_circuit(struct queue_links *links)
{
    bool reader = redis_link_close_circuit(links->reader);
    return redis_link_close_circuit(links->worker) || reader;
}

bool queue_links_are_up(const struct queue_links *links)
{
    return redis_link_is_up(links->reader) && redis_link_is_up(links->worker);
}

void queue_links_get_status(const struct queue_links *links, struct source_status *status)
{
    unsigned reader = redis_link_failures(links->reader);
    unsigned worker = redis_link_failures(links->worker);
    redis_link_server_name(links->worker, status->server);
    status->heartbeat_is_well = !redis_link_is_overdue(links->worker);
    status->circuit_is_open = redis_link_circuit_is_open(links->reader) || redis_link_circuit_is_open(links->worker);
    status->failures = reader > worker ? reader : worker;
    status->last_alive_ms = links->alive_ms;
}

static struct resp_guard_limits limits_of(const struct source_tuning *tuning, size_t bulk_max_bytes)
{
    return (struct resp_guard_limits){.bulk_bytes = bulk_max_bytes,
                                      .reply_bytes = tuning->memory_max_bytes + bulk_max_bytes + REPLY_EXTRA_BYTES,
                                      .leaves_out = true};
}

void queue_links_set_tuning(struct queue_links *links, size_t bulk_max_bytes)
{
    const struct source_tuning *tuning = &links->options.source->tuning;
    const struct resp_guard_limits limits = limits_of(tuning, bulk_max_bytes);
    redis_link_set_tuning(links->reader, &tuning->link);
    redis_link_set_tuning(links->worker, &tuning->link);
    redis_dial_set_limits(redis_link_dial(links->reader), &limits);
    redis_dial_set_limits(redis_link_dial(links->worker), &limits);
}

static void on_link_closed(void *context)
{
    struct queue_links *links = context;
    if (--links->open == 0)
        links->options.on_closed(links->options.context);
}

bool queue_links_open(struct queue_links *links, const struct queue_links_options *options, size_t bulk_max_bytes)
{
    const struct source_options *source = options->source;
    struct redis_link_options link = {
        .loop = source->loop,
        .address = source->address,
        .tls = source->tls,
        .tuning = source->tuning.link,
        .limits = limits_of(&source->tuning, bulk_max_bytes),
        .on_login = on_worker_login,
        .on_lost = on_worker_lost,
        .on_beat = ping,
        .on_closed = on_link_closed,
        .context = links,
    };
    links->options = *options;
    links->open = 2;
    links->worker = redis_link_new(&link);
    link.is_second = true;
    link.on_login = on_reader_login;
    link.on_lost = on_reader_lost;
    link.on_beat = NULL; /* a read that blocks answers nothing else: see queue_links_tick */
    links->reader = redis_link_new(&link);
    return links->worker && links->reader;
}

void queue_links_close(struct queue_links *links)
{
    redis_link_close(links->reader);
    redis_link_close(links->worker);
}
