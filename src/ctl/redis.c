/* SPDX-License-Identifier: MIT */
/* redis_dial, on a loop that runs until what is awaited is there, or the connection is over. */
#include "redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "promptd/clock.h"
#include "promptd/redis_sentinel_find.h"

enum {
    REDIS_TIMEOUT_US = 5000000,
    REDIS_US_PER_BYTE = 10, /* an answer that takes longer must bring more, or it would never end */
    REDIS_TICK_MS = 250,
    REDIS_REPLY_BYTES_MAX = 67108864 /* and a message: of a page of dead letters, whatever the settings were then */
};

/* ---- why not ---- */

static bool unavailable(const struct redis_client *client, const char *reason, struct error *error)
{
    return error_set(error, ERROR_UNAVAILABLE, "Redis at %s cannot be reached: %s", client->server, reason);
}

static bool begins_with(const char *text, const char *const *beginnings)
{
    for (; *beginnings; beginnings++) {
        if (strncmp(text, *beginnings, strlen(*beginnings)) == 0)
            return true;
    }
    return false;
}

/* Errors that pass by themselves say nothing against the set-up. */
static bool refuse(const struct redis_client *client, const char *message, struct error *error)
{
    static const char *const pass_by_themselves[] = {"LOADING",  "BUSY", "MASTERDOWN", "CLUSTERDOWN",
                                                     "TRYAGAIN", "OOM",  "NOREPLICAS", "ERR max number of clients",
                                                     NULL};
    char shown[256];
    redis_address_copy_error(&client->address, message, shown, sizeof shown);
    if (begins_with(message, pass_by_themselves))
        return unavailable(client, shown, error);
    return error_set(error, ERROR_CONFIG, "Redis at %s refuses: %s", client->server, shown);
}

/* Who has been let in and is sent away has no mistake in the set-up. */
static bool explain(const struct redis_client *client, struct error *error)
{
    const struct redis_dial_end *end = &client->end;
    if (end->refused && (client->subscribes || !end->was_up))
        return refuse(client, end->reason, error);
    if (end->misfit && !end->was_up)
        return error_set(error, ERROR_CONFIG, "Redis at %s cannot be used: %s", client->server, end->reason);
    return unavailable(client, end->reason, error);
}

bool redis_client_misunderstand(const struct redis_client *client, const char *command, struct error *error)
{
    return error_set(error, ERROR_UNAVAILABLE, "%s is no Redis: its answer to %s is of another type", client->server,
                     command);
}

/* ---- the dial's callbacks ---- */

static void on_login(void *context)
{
    struct redis_client *client = context;
    const char *const words[] = {"PING"};
    redis_dial_command(client->dial, 1, words, NULL, &client->ping);
}

/* A server that lets nobody in says so at the first command, if there was no login. That PING itself is forbidden, or
 * unknown, or refused as if it were a write, is no fault. */
static void on_pong(void *context, const redisReply *reply)
{
    static const char *const faultless[] = {"NOPERM", "ERR unknown command", "MISCONF", NULL};
    struct redis_client *client = context;
    unsigned passed_over;
    bool is_error = reply->type == REDIS_REPLY_ERROR;
    if (reply->type == REDIS_REPLY_STATUS || (is_error && begins_with(reply->str, faultless)))
        (void)redis_dial_confirm(client->dial, &passed_over);
    else if (is_error)
        (void)redis_dial_refuse(client->dial, reply->str);
    else
        (void)redis_dial_drop(client->dial, "this is no Redis: its answer to PING is of another type");
}

/* hiredis frees the reply behind this call. It may keep the shell: what is in there, up to 64 MB, is taken out. */
static void on_reply(void *context, const redisReply *reply)
{
    struct redis_client *client = context;
    redisReply *shell = (redisReply *)(uintptr_t)reply;
    client->reply = malloc(sizeof *client->reply);
    if (!client->reply) {
        (void)redis_dial_drop(client->dial, "out of memory");
        return;
    }
    *client->reply = *shell;
    *shell = (redisReply){.type = REDIS_REPLY_NIL};
    client->is_answered = true;
}

static void on_subscribed(void *context)
{
    struct redis_client *client = context;
    client->is_answered = true;
}

static void on_message(void *context, const char *bytes, size_t length)
{
    (void)context;
    (void)bytes;
    (void)length;
}

static void on_over(void *context, const struct redis_dial_end *end)
{
    struct redis_client *client = context;
    client->end = *end;
    client->is_over = true;
}

static void on_closed(void *context)
{
    (void)context;
}

/* ---- opening ---- */

static bool find_master(struct redis_client *client, struct error *error)
{
    struct redis_endpoint master = {0};
    struct error phrase;
    if (!redis_sentinel_find(&client->address, client->tls, &master, &phrase)) {
        (void)unavailable(client, phrase.text, error);
        error->code = phrase.code;
        return false;
    }
    client->address.host = master.host;
    client->address.port = master.port;
    redis_address_name(&client->address, client->server);
    return true;
}

static bool start(struct redis_client *client, const struct settings *settings, struct error *error)
{
    int status = uv_loop_init(&client->loop);
    if (status != 0)
        return error_set(error, ERROR_INTERNAL, "%s", uv_strerror(status));
    client->ping = (struct redis_call){.on_reply = on_pong, .context = client};
    client->call = (struct redis_call){.on_reply = on_reply, .context = client};
    client->subscriber = (struct resp_subscriber){
        .on_subscribed = on_subscribed, .on_message = on_message, .context = client};
    client->dial = redis_dial_new(&(struct redis_dial_options){
        .loop = &client->loop,
        .address = &client->address,
        .wants_master = client->address.service,
        .tls = client->tls,
        .timeout_ms = REDIS_TIMEOUT_US / 1000,
        .limits = {.bulk_bytes = SIZE_MAX, .reply_bytes = REDIS_REPLY_BYTES_MAX + (size_t)settings->message_max_bytes},
        .on_login = on_login,
        .on_over = on_over,
        .on_closed = on_closed,
        .context = client,
    });
    if (client->dial)
        return uv_timer_init(&client->loop, &client->tick) == 0; /* always */
    (void)uv_loop_close(&client->loop);
    return error_set(error, ERROR_INTERNAL, "out of memory");
}

static bool dial(struct redis_client *client, struct error *error)
{
    client->is_over = false;
    redis_dial_begin(client->dial, &client->address);
    while (!client->is_over && !redis_dial_is_up(client->dial))
        (void)uv_run(&client->loop, UV_RUN_ONCE);
    if (client->is_over)
        return explain(client, error);
    redis_dial_describe_tls(client->dial, &client->end.tls);
    return true;
}

bool redis_client_open(struct redis_client *client, const struct settings *settings, struct error *error)
{
    struct error phrase;
    *client = (struct redis_client){0};
    if (!redis_address_parse(settings->redis_url, &client->address, &phrase))
        return error_set(error, ERROR_CONFIG, "setting redis_url %s", phrase.text); /* cannot be: it was checked */
    redis_address_name(&client->address, client->server);
    if (client->address.tls && !(client->tls = redis_tls_new(settings, error)))
        return false;
    if (client->address.service && !find_master(client, error))
        return false;
    return start(client, settings, error) && dial(client, error);
}

bool redis_client_is_up(const struct redis_client *client)
{
    return client->dial && !client->is_over;
}

void redis_client_close(struct redis_client *client)
{
    if (client->dial) {
        redis_dial_close(client->dial);
        uv_close((uv_handle_t *)&client->tick, NULL);
        (void)uv_run(&client->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&client->loop); /* nothing is left in it */
        redis_dial_free(client->dial);
    }
    redis_tls_free(client->tls);
    redis_address_free(&client->address);
    *client = (struct redis_client){0};
}

/* ---- calls ---- */

static void on_tick(uv_timer_t *timer)
{
    (void)timer; /* await_answer looks at the clock */
}

/* false with *error. A peer that says or takes a byte now and then must not keep us: each byte is worth so much time,
 * and none is saved up. */
static bool await_answer(struct redis_client *client, struct error *error)
{
    int64_t until_us = clock_monotonic_us() + REDIS_TIMEOUT_US;
    int64_t before = redis_dial_progress(client->dial);
    client->is_answered = false;
    (void)uv_timer_start(&client->tick, on_tick, 0, REDIS_TICK_MS);
    while (!client->is_answered && !client->is_over) {
        int64_t now_us = clock_monotonic_us();
        int64_t progress = redis_dial_progress(client->dial);
        until_us += (progress - before) * REDIS_US_PER_BYTE;
        before = progress;
        if (until_us > now_us + REDIS_TIMEOUT_US)
            until_us = now_us + REDIS_TIMEOUT_US;
        if (until_us < now_us)
            (void)redis_dial_drop(client->dial, "no answer within 5 s");
        (void)uv_run(&client->loop, UV_RUN_ONCE);
    }
    (void)uv_timer_stop(&client->tick);
    return client->is_answered || explain(client, error);
}

/* Any reply, or NULL with *error. */
static redisReply *ask(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                       struct error *error)
{
    redis_dial_command(client->dial, argc, argv, lengths, &client->call);
    return await_answer(client, error) ? client->reply : NULL;
}

/* To the server that has the key. */
static bool follow(struct redis_client *client, const struct redis_endpoint *server, struct error *error)
{
    char *copy = strdup(server->host[0] ? server->host : client->address.host);
    if (!copy)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    (void)redis_dial_drop(client->dial, "the key is on another server of the Redis Cluster");
    while (!client->is_over)
        (void)uv_run(&client->loop, UV_RUN_ONCE);
    free(client->address.host);
    client->address.host = copy;
    client->address.port = server->port;
    redis_address_name(&client->address, client->server);
    return dial(client, error);
}

static bool is_moved(const struct redis_client *client, const redisReply *reply, char host[REDIS_ADDRESS_NAME_SIZE],
                     struct redis_endpoint *server)
{
    return reply && reply->type == REDIS_REPLY_ERROR && !client->in_transaction && !client->address.unix_path &&
           redis_address_read_moved(reply->str, host, server);
}

static void note_transaction(struct redis_client *client, const char *command)
{
    bool ends = strcmp(command, "EXEC") == 0 || strcmp(command, "DISCARD") == 0;
    client->in_transaction = (client->in_transaction && !ends) || strcmp(command, "MULTI") == 0;
}

redisReply *redis_client_call(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                              struct error *error)
{
    struct redis_endpoint server;
    char host[REDIS_ADDRESS_NAME_SIZE];
    redisReply *reply = ask(client, argc, argv, lengths, error);
    note_transaction(client, argv[0]);
    if (is_moved(client, reply, host, &server)) {
        bool followed = follow(client, &server, error);
        freeReplyObject(reply);
        reply = followed ? ask(client, argc, argv, lengths, error) : NULL;
    }
    if (!reply || reply->type != REDIS_REPLY_ERROR)
        return reply;
    (void)refuse(client, reply->str, error);
    freeReplyObject(reply);
    return NULL;
}

redisReply *redis_client_call_for(struct redis_client *client, int type, int argc, const char *const *argv,
                                  const size_t *lengths, struct error *error)
{
    redisReply *reply = redis_client_call(client, argc, argv, lengths, error);
    if (!reply || reply->type == type)
        return reply;
    (void)redis_client_misunderstand(client, argv[0], error);
    freeReplyObject(reply);
    return NULL;
}

bool redis_client_subscribe(struct redis_client *client, const char *channel, struct error *error)
{
    client->subscribes = true;
    redis_dial_subscribe(client->dial, channel, &client->subscriber);
    return await_answer(client, error);
}
