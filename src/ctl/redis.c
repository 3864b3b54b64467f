/* SPDX-License-Identifier: MIT */
/* hiredis, blocking. */
#include "redis.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "promptd/redis_login.h"

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

static bool refuse(const struct redis_client *client, const char *message, struct error *error)
{
    char shown[256];
    redis_address_copy_error(&client->address, message, shown, sizeof shown);
    if (passes_by_itself(message))
        return unavailable(client, shown, error);
    return error_set(error, ERROR_CONFIG, "Redis at %s refuses: %s", client->server, shown);
}

/* An error reply that lies unread because a write, or the connecting, failed first: the server has closed the
 * connection behind it. hiredis' descriptor is 0 or -1 where there is no socket. */
static bool hear_last_words(const struct redis_client *client, char *said, size_t size)
{
    int fd = client->context->fd;
    ssize_t count = fd > 0 ? recv(fd, said, size - 1, MSG_DONTWAIT) : -1;
    if (count < 2 || said[0] != '-')
        return false;
    said[count] = '\0';
    said[strcspn(said, "\r\n")] = '\0';
    return true;
}

static bool explain_failure(const struct redis_client *client, struct error *error)
{
    char said[256];
    bool silent = client->context->err == REDIS_ERR_IO && strstr(client->context->errstr, "unavailable");
    if (hear_last_words(client, said, sizeof said))
        return refuse(client, said + 1, error);
    return unavailable(client, silent ? "no answer within 5 s" : client->context->errstr, error);
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
        return explain_failure(client, error);
    return redisSetTimeout(client->context, timeout) == REDIS_OK || unavailable(client, client->context->errstr, error);
}

/* Any reply, or NULL with *error. */
static redisReply *ask(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                       struct error *error)
{
    const char *words[REDIS_ARGUMENTS_MAX];
    for (int i = 0; i < argc; i++)
        words[i] = argv[i];
    redisReply *reply = redisCommandArgv(client->context, argc, words, lengths);
    if (!reply)
        (void)explain_failure(client, error);
    return reply;
}

redisReply *redis_client_call(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                              struct error *error)
{
    redisReply *reply = ask(client, argc, argv, lengths, error);
    if (!reply || reply->type != REDIS_REPLY_ERROR)
        return reply;
    (void)refuse(client, reply->str, error);
    freeReplyObject(reply);
    return NULL;
}

bool redis_client_login(struct redis_client *client, struct error *error)
{
    struct redis_login login;
    enum redis_login_result result = redis_login_begin(&login, &client->address);
    while (result == REDIS_LOGIN_SEND) {
        redisReply *reply = ask(client, login.argc, login.argv, login.lengths, error);
        if (!reply)
            return false;
        result = redis_login_answer(&login, reply);
        if (result == REDIS_LOGIN_REFUSED)
            (void)refuse(client, reply->str, error);
        else if (result == REDIS_LOGIN_STRANGE)
            (void)unavailable(client, "this is no Redis: its answer to the login is neither OK nor an error", error);
        freeReplyObject(reply);
    }
    return result == REDIS_LOGIN_DONE;
}
