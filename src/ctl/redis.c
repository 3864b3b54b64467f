/* SPDX-License-Identifier: MIT */
/* hiredis, blocking. */
#include "redis.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "promptd/clock.h"
#include "promptd/redis_login.h"
#include "promptd/redis_read.h"
#include "promptd/redis_sentinel_find.h"

enum {
    REDIS_TIMEOUT_S = 5,
    REDIS_BYTES_MIN_PER_S = 100000, /* an answer that takes longer must bring more, or it would never end */
    REDIS_ADDRESS_TIMEOUT_S = 2,    /* where another address is left to try */
    REDIS_ADDRESSES_MAX = 8,
    REDIS_ARGUMENTS_MAX = 20,
    REDIS_REPLY_BYTES_MAX = 67108864 /* and a message: of a page of dead letters, whatever the settings were then */
};

static bool unavailable(const struct redis_client *client, const char *reason, struct error *error)
{
    return error_set(error, ERROR_UNAVAILABLE, "Redis at %s cannot be reached: %s", client->server, reason);
}

static bool misfit(const struct redis_client *client, const char *reason, struct error *error)
{
    return error_set(error, ERROR_CONFIG, "Redis at %s cannot be used: %s", client->server, reason);
}

static bool report(const struct redis_client *client, const struct error *phrase, struct error *error)
{
    bool fits = phrase->code != ERROR_CONFIG;
    return fits ? unavailable(client, phrase->text, error) : misfit(client, phrase->text, error);
}

static void name_server(struct redis_client *client)
{
    char name[REDIS_ADDRESS_NAME_SIZE];
    redis_address_name(&client->address, name);
    (void)snprintf(client->server, sizeof client->server, "%s%s", client->address.unix_path ? "unix:" : "", name);
}

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
    name_server(client);
    return true;
}

void redis_client_close(struct redis_client *client)
{
    if (client->context)
        redisFree(client->context);
    redis_tls_free(client->tls);
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

/* A port that speaks TLS ends a connection that does not: Redis itself does it without a word. */
static bool explain_plain(const struct redis_client *client, struct error *error)
{
    const char *reason = client->context->errstr;
    char guess[200];
    bool is_first = client->is_connected && !client->has_answered && !client->address.unix_path;
    (void)snprintf(guess, sizeof guess, "%s before any answer; perhaps this port speaks TLS: rediss://", reason);
    return unavailable(client, is_first ? guess : reason, error);
}

static bool explain_fault(const struct redis_client *client, struct error *error)
{
    char text[200];
    const char *fault = client->guard.fault;
    if (strcmp(fault, RESP_GUARD_SPEAKS_TLS) == 0 && !client->has_answered)
        return misfit(client, fault, error);
    (void)snprintf(text, sizeof text, "this is not the protocol of Redis: %s", fault);
    return unavailable(client, text, error);
}

/* Who has been let in and is sent away has no mistake in the set-up. */
static bool explain_words(const struct redis_client *client, const char *said, struct error *error)
{
    (void)refuse(client, said, error);
    if (error && client->has_answered)
        error->code = ERROR_UNAVAILABLE;
    return false;
}

static bool explain_failure(const struct redis_client *client, struct error *error)
{
    char said[256];
    struct error phrase;
    bool silent = client->context->err == REDIS_ERR_IO && strstr(client->context->errstr, "unavailable");
    if (client->guard.fault)
        return explain_fault(client, error);
    if (client->guard.was_told)
        return explain_words(client, client->guard.error, error);
    if (!client->session && hear_last_words(client, said, sizeof said))
        return explain_words(client, said + 1, error);
    if (silent)
        return unavailable(client, "no answer within 5 s", error);
    if (!client->session)
        return explain_plain(client, error);
    redis_tls_explain(client->session, client->context->errstr, &phrase);
    return report(client, &phrase, error);
}

/* From here on only the timeout of single answers counts. */
static bool prepare(struct redis_client *client, struct error *error)
{
    const struct timeval timeout = {.tv_sec = REDIS_TIMEOUT_S};
    struct error phrase;
    if (redisSetTimeout(client->context, timeout) != REDIS_OK)
        return unavailable(client, client->context->errstr, error);
    client->is_connected = true;
    if (!client->address.tls)
        return true;
    client->session = redis_tls_begin(client->tls, client->context, client->address.host, &phrase);
    return client->session || report(client, &phrase, error);
}

/* Takes the context, and lets go of it where it is of no use. */
static bool take_context(struct redis_client *client, redisContext *context, struct error *error)
{
    client->context = context;
    resp_guard_reset(&client->guard);
    if (!context)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    bool good = context->err == 0 ? prepare(client, error) : explain_failure(client, error);
    if (!good) {
        redisFree(context);
        client->context = NULL;
    }
    return good;
}

static bool try_address(struct redis_client *client, const struct addrinfo *at, bool is_last, struct error *error)
{
    const struct timeval timeout = {.tv_sec = is_last ? REDIS_TIMEOUT_S : REDIS_ADDRESS_TIMEOUT_S};
    char numeric[NI_MAXHOST];
    int status = getnameinfo(at->ai_addr, at->ai_addrlen, numeric, sizeof numeric, NULL, 0, NI_NUMERICHOST);
    if (status != 0)
        return unavailable(client, gai_strerror(status), error);
    return take_context(client, redisConnectWithTimeout(numeric, client->address.port, timeout), error);
}

/* Whatever a name's addresses are, in the resolver's order. A server that is set up wrong is not passed over. */
static bool try_addresses(struct redis_client *client, struct error *error)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int status = getaddrinfo(client->address.host, NULL, &hints, &found);
    if (status != 0)
        return unavailable(client, gai_strerror(status), error);
    bool good = false;
    size_t tried = 0;
    for (const struct addrinfo *at = found; at && !good && tried < REDIS_ADDRESSES_MAX; at = at->ai_next) {
        bool is_last = !at->ai_next || ++tried == REDIS_ADDRESSES_MAX;
        good = try_address(client, at, is_last, error);
        if (!good && error->code != ERROR_UNAVAILABLE)
            break;
    }
    freeaddrinfo(found);
    return good;
}

/* The client's address. */
static bool dial(struct redis_client *client, struct error *error)
{
    const struct timeval timeout = {.tv_sec = REDIS_TIMEOUT_S};
    if (client->address.unix_path)
        return take_context(client, redisConnectUnixWithTimeout(client->address.unix_path, timeout), error);
    return try_addresses(client, error);
}

bool redis_client_connect(struct redis_client *client, const struct settings *settings, struct error *error)
{
    struct error phrase;
    *client = (struct redis_client){0};
    if (!redis_address_parse(settings->redis_url, &client->address, &phrase))
        return error_set(error, ERROR_CONFIG, "setting redis_url %s", phrase.text); /* cannot be: it was checked */
    client->guard.limits = (struct resp_guard_limits){
        .bulk_bytes = SIZE_MAX, .reply_bytes = REDIS_REPLY_BYTES_MAX + (size_t)settings->message_max_bytes};
    name_server(client);
    if (client->address.tls && !client->address.unix_path && !(client->tls = redis_tls_new(settings, error)))
        return false;
    if (client->address.service && !find_master(client, error))
        return false;
    return dial(client, error);
}

/* As hiredis does when a timeout of its own has passed. */
static bool time_out(redisContext *context)
{
    context->err = REDIS_ERR_IO;
    (void)snprintf(context->errstr, sizeof context->errstr, "%s", strerror(EAGAIN));
    return false;
}

/* A peer that says or takes a byte now and then must not keep us. */
static bool is_in_time(int64_t began_ms, uint64_t bytes)
{
    int64_t most_ms = 1000 * (REDIS_TIMEOUT_S + (int64_t)(bytes / REDIS_BYTES_MIN_PER_S));
    return clock_monotonic_ms() - began_ms <= most_ms;
}

static bool send_all(redisContext *context, size_t bytes)
{
    int64_t began_ms = clock_monotonic_ms();
    int done = 0;
    while (redisBufferWrite(context, &done) == REDIS_OK) {
        if (done)
            return true;
        if (!is_in_time(began_ms, bytes))
            return time_out(context);
    }
    return false;
}

/* The reply that is awaited. What lies behind it, and should not, is for the next one to find. */
static bool receive(struct redis_client *client, void **reply)
{
    redisContext *context = client->context;
    int64_t began_ms = clock_monotonic_ms();
    uint64_t before = client->guard.received_bytes;
    while (redisReaderGetReply(context->reader, reply) == REDIS_OK) {
        if (*reply)
            return true;
        if (client->guard.fault || !redis_read(context, &client->guard))
            return false;
        if (!is_in_time(began_ms, client->guard.received_bytes - before))
            return time_out(context);
    }
    context->err = context->reader->err;
    (void)snprintf(context->errstr, sizeof context->errstr, "%s", context->reader->errstr);
    return false;
}

/* Any reply, or NULL with *error. */
static redisReply *ask(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                       struct error *error)
{
    const char *words[REDIS_ARGUMENTS_MAX];
    size_t bytes = 0;
    void *reply = NULL;
    if (!client->context) {
        (void)unavailable(client, "it was lost on the way to another server", error);
        return NULL;
    }
    for (int i = 0; i < argc; i++) {
        words[i] = argv[i];
        bytes += lengths ? lengths[i] : strlen(argv[i]);
    }
    resp_guard_expect(&client->guard);
    if (client->context->err == 0 && !client->guard.fault &&
        redisAppendCommandArgv(client->context, argc, words, lengths) == REDIS_OK && send_all(client->context, bytes) &&
        receive(client, &reply))
        client->has_answered = true;
    else
        client->is_lost = !explain_failure(client, error);
    return reply;
}

bool redis_client_login(struct redis_client *client, struct error *error)
{
    struct redis_login login;
    enum redis_login_result result = redis_login_begin(&login, &client->address, false);
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

bool redis_client_check_role(struct redis_client *client, struct error *error)
{
    const char *const words[] = {"ROLE"};
    if (!client->address.service)
        return true;
    redisReply *reply = redis_client_call(client, 1, words, NULL, error);
    if (!reply)
        return error->code == ERROR_CONFIG; /* an account that may not ask: the Sentinels are believed */
    const char *role = redis_login_role(reply);
    bool is_master = role && strcmp(role, "master") == 0;
    if (!is_master)
        (void)error_set(error, ERROR_UNAVAILABLE, "Redis at %s, which the Sentinels name, is no master: ROLE says %s",
                        client->server, role ? role : "something else");
    freeReplyObject(reply);
    return is_master;
}

/* To the server that "MOVED slot host:port" names; without a host it is the one we know. */
static bool follow(struct redis_client *client, const char *moved, struct error *error)
{
    char host[256];
    const char *place = strrchr(moved, ' ');
    const char *colon = place ? strrchr(place, ':') : NULL;
    long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (port <= 0 || port > UINT16_MAX || client->address.unix_path)
        return refuse(client, moved, error);
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - place - 1), place + 1);
    char *copy = strdup(*host ? host : client->address.host);
    if (!copy)
        return error_set(error, ERROR_INTERNAL, "out of memory");
    free(client->address.host);
    client->address.host = copy;
    client->address.port = (int)port;
    redisFree(client->context);
    client->context = NULL;
    client->session = NULL; /* went with it */
    name_server(client);
    return dial(client, error) && redis_client_login(client, error);
}

static void note_transaction(struct redis_client *client, const char *command)
{
    bool ends = strcmp(command, "EXEC") == 0 || strcmp(command, "DISCARD") == 0;
    client->in_transaction = (client->in_transaction && !ends) || strcmp(command, "MULTI") == 0;
}

redisReply *redis_client_call(struct redis_client *client, int argc, const char *const *argv, const size_t *lengths,
                              struct error *error)
{
    redisReply *reply = ask(client, argc, argv, lengths, error);
    note_transaction(client, argv[0]);
    if (reply && reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "MOVED ", 6) == 0 && !client->in_transaction) {
        bool followed = follow(client, reply->str, error);
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

bool redis_client_misunderstand(const struct redis_client *client, const char *command, struct error *error)
{
    return error_set(error, ERROR_UNAVAILABLE, "%s is no Redis: its answer to %s is of another type", client->server,
                     command);
}

bool redis_client_is_up(const struct redis_client *client)
{
    return client->context && !client->is_lost;
}

bool redis_client_open(struct redis_client *client, const struct settings *settings, struct error *error)
{
    return redis_client_connect(client, settings, error) && redis_client_login(client, error) &&
           redis_client_check_role(client, error);
}
