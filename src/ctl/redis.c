/* SPDX-License-Identifier: MIT */
/* hiredis, blocking. */
#include "redis.h"

#include <stdio.h>
#include <string.h>
#include <sys/time.h>

enum { REDIS_TIMEOUT_S = 5, REDIS_ARGUMENTS_MAX = 8 };

static bool unavailable(const struct redis_client *client, const char *reason, struct error *error)
{
    return error_set(error, ERROR_UNAVAILABLE, "Redis at %s cannot be reached: %s", client->server, reason);
}

static void name_server(struct redis_client *client)
{
    char name[REDIS_ADDRESS_NAME_SIZE];
    redis_address_name(&client->address, name);
    (void)snprintf(client->server, sizeof client->server, "%s%s", client->address.unix_path ? "unix:" : "", name);
}

bool redis_client_connect(struct redis_client *client, const struct settings *settings, struct error *error)
{
    const struct timeval timeout = {.tv_sec = REDIS_TIMEOUT_S};
    struct error phrase;
    *client = (struct redis_client){0};
    if (!redis_address_parse(settings->redis_url, &client->address, &phrase))
        return error_set(error, ERROR_CONFIG, "setting redis_url %s", phrase.text); /* cannot be: it was checked */
    name_server(client);
    if (client->address.unix_path)
        client->context = redisConnectUnixWithTimeout(client->address.unix_path, timeout);
    else
        client->context = redisConnectWithTimeout(client->address.host, client->address.port, timeout);
    if (!client->context)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    if (client->context->err != 0)
        return unavailable(client, client->context->errstr, error);
    return redisSetTimeout(client->context, timeout) == REDIS_OK || unavailable(client, client->context->errstr, error);
}

void redis_client_close(struct redis_client *client)
{
    if (client->context)
        redisFree(client->context);
    redis_address_free(&client->address);
    *client = (struct redis_client){0};
}

/* Errors that pass by themselves: nothing of the set-up is wrong. */
static bool passes_by_itself(const char *message)
{
    static const char *const beginnings[] = {
        "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "OOM", "ERR max number of clients"};
    for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
        if (strncmp(message, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    }
    return false;
}

static redisReply *check_reply(struct redis_client *client, redisReply *reply, struct error *error)
{
    if (!reply) {
        bool silent = client->context->err == REDIS_ERR_IO && strstr(client->context->errstr, "unavailable");
        (void)unavailable(client, silent ? "no answer within 5 s" : client->context->errstr, error);
        return NULL;
    }
    if (reply->type != REDIS_REPLY_ERROR)
        return reply;
    char shown[256];
    redis_address_copy_error(&client->address, reply->str, shown, sizeof shown);
    if (passes_by_itself(reply->str))
        (void)unavailable(client, shown, error);
    else
        (void)error_set(error, ERROR_CONFIG, "Redis at %s refuses: %s", client->server, shown);
    freeReplyObject(reply);
    return NULL;
}

redisReply *redis_client_call(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                              struct error *error)
{
    const char *words[REDIS_ARGUMENTS_MAX];
    for (int i = 0; i < argc; i++)
        words[i] = argv[i];
    return check_reply(client, redisCommandArgv(client->context, argc, words, lengths), error);
}

static bool call_for_ok(struct redis_client *client, int argc, const char *const *argv, struct error *error)
{
    redisReply *reply = redis_client_call(client, argc, argv, NULL, error);
    freeReplyObject(reply);
    return reply != NULL;
}

static bool authenticate(struct redis_client *client, struct error *error)
{
    const struct redis_address *address = &client->address;
    if (!address->password)
        return true;
    const char *words[3] = {"AUTH"};
    int count = 1;
    if (address->user)
        words[count++] = address->user;
    words[count++] = address->password;
    return call_for_ok(client, count, words, error);
}

bool redis_client_login(struct redis_client *client, struct error *error)
{
    char number[16];
    if (!authenticate(client, error))
        return false;
    if (client->address.database == 0)
        return true;
    (void)snprintf(number, sizeof number, "%d", client->address.database);
    const char *const words[] = {"SELECT", number};
    return call_for_ok(client, 2, words, error);
}
