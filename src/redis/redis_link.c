/* SPDX-License-Identifier: MIT */
/*
 * The link as a state machine.
 *
 *     WAITING ─▶ RESOLVING ─▶ CONNECTING ─▶ LOGIN ─▶ OPENING ─confirm─▶ UP
 *        ▲           │             │          │         │               │
 *        └───────────┴──── fail ───┴──────────┴─────────┴───────────────┘
 *
 * hiredis may not be freed or dialled again inside its own callbacks: those only note what happened and start the
 * `later` timer, which acts.
 */
#include "promptd/redis_link.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"
#include "redis_adapter.h"

enum link_state {
    LINK_WAITING,    /* for the backoff to pass; leaves by the timer */
    LINK_RESOLVING,  /* for the name's addresses; leaves with the answer or the deadline */
    LINK_CONNECTING, /* for the socket to connect; leaves by hiredis' connect callback or the deadline */
    LINK_LOGIN,      /* for the answers to AUTH and SELECT */
    LINK_OPENING,    /* logged in; waits for the user to confirm */
    LINK_UP,         /* confirmed; leaves when the connection is lost or dropped */
    LINK_CLOSING     /* redis_link_close was called; waits for look-up and handles */
};

enum { LINK_ADDRESSES_MAX = 8 };

struct redis_link {
    struct redis_link_options options;
    enum link_state state;
    redisAsyncContext *redis;
    uv_getaddrinfo_t lookup;
    bool looking_up;
    char addresses[LINK_ADDRESSES_MAX][NI_MAXHOST]; /* numeric */
    size_t address_count;
    size_t address_next;
    struct breaker breaker;
    uv_timer_t timer; /* the backoff, then the dial's deadline */
    uv_timer_t later; /* acts on `failed` outside of hiredis */
    bool failed;      /* the connection is to be given up, for `reason` */
    char reason[256];
    bool refused;               /* the server itself said no: a matter of set-up */
    bool is_reported;           /* this outage stands in the log */
    char reported_refusal[256]; /* and so does this refusal in it */
    bool was_up;                /* at least once */
    int64_t up_since_ms;
    int64_t down_since_ms;
    unsigned attempts;
    struct redis_call auth_call;
    struct redis_call select_call;
    int open_handles;
};

static void start_dial(struct redis_link *link);
static void on_timer(uv_timer_t *timer);
static void on_later(uv_timer_t *timer);

/* --- state ---------------------------------------------------------------------------------------------------- */

static const char *state_name(enum link_state state)
{
    static const char *const names[] = {"waiting", "resolving", "connecting", "login", "opening", "up", "closing"};
    return names[state];
}

static void link_move(struct redis_link *link, enum link_state state)
{
    if (link->state == state)
        return;
    log_debug(LOG_FIELDS(log_text("from", state_name(link->state)), log_text("to", state_name(state))),
              "state changed");
    link->state = state;
}

/* Once an outage. What changes meanwhile is news only when the server itself answers, with a refusal. */
static void report_failure(struct redis_link *link, bool lost)
{
    bool is_news = !link->is_reported || (link->refused && strcmp(link->reported_refusal, link->reason) != 0);
    if (!is_news)
        return;
    char server[REDIS_ADDRESS_NAME_SIZE];
    redis_address_name(link->options.address, server);
    const struct log_field *fields = LOG_FIELDS(log_text("server", server), log_text("error", link->reason));
    if (lost)
        log_error(fields, "Redis connection lost");
    else if (link->refused)
        log_error(fields, "Redis refuses; trying again");
    else
        log_error(fields, "Redis cannot be reached; trying again");
    link->is_reported = true;
    if (link->refused)
        memcpy(link->reported_refusal, link->reason, sizeof link->reported_refusal);
}

static void report_up(struct redis_link *link)
{
    if (link->was_up)
        log_info(LOG_FIELDS(log_number("attempts", link->attempts)), "Redis connection back after %.1f s",
                 (double)((int64_t)uv_now(link->options.loop) - link->down_since_ms) / 1000);
    else
        log_info(NULL, "Redis connected");
    link->was_up = true;
    link->is_reported = false;
    link->reported_refusal[0] = '\0';
}

/* --- failing -------------------------------------------------------------------------------------------------- */

static void link_fail(struct redis_link *link, const char *reason)
{
    if (link->failed || link->state == LINK_CLOSING)
        return;
    link->failed = true;
    link->refused = false;
    (void)snprintf(link->reason, sizeof link->reason, "%s", reason && reason[0] ? reason : "connection lost");
    (void)uv_timer_start(&link->later, on_later, 0, 0);
}

/* An error reply, or a connection that the server closed with one. */
static void link_refuse(struct redis_link *link, const char *reason)
{
    char shown[sizeof link->reason];
    redis_address_copy_error(link->options.address, reason, shown, sizeof shown);
    link_fail(link, shown);
    link->refused = true;
}

/* Lets go of the context. Its pending callbacks run inside and find no link any more. */
static void release_redis(struct redis_link *link)
{
    redisAsyncContext *redis = link->redis;
    if (!redis)
        return;
    link->redis = NULL;
    redis->data = NULL;
    redisAsyncFree(redis);
}

/* Each moment of waiting is one of deafness: what has worked for a while is dialled again at once, and once only. */
static void dial_at_once(struct redis_link *link)
{
    link_move(link, LINK_WAITING);
    (void)uv_timer_start(&link->timer, on_timer, 0, 0);
}

static void wait_and_dial(struct redis_link *link)
{
    bool opened;
    int64_t wait_ms = breaker_fail(&link->breaker, backoff_chance(), &opened);
    if (opened)
        log_critical(LOG_FIELDS(log_number("failures", link->breaker.failures), log_text("error", link->reason)),
                     "Redis circuit opened; one attempt every %lld s from now on", (long long)(wait_ms / 1000));
    log_debug(LOG_FIELDS(log_number("wait_ms", wait_ms), log_text("error", link->reason)), "next dial");
    link_move(link, LINK_WAITING);
    uv_update_time(link->options.loop);
    (void)uv_timer_start(&link->timer, on_timer, (uint64_t)wait_ms, 0);
}

static void finish_close(struct redis_link *link);

static void on_later(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    if (link->state == LINK_CLOSING) {
        release_redis(link);
        finish_close(link);
        return;
    }
    if (!link->failed)
        return;
    link->failed = false;
    bool lost = link->state == LINK_UP;
    bool try_next = link->state == LINK_CONNECTING && link->address_next < link->address_count;
    release_redis(link);
    (void)uv_timer_stop(&link->timer);
    if (try_next) {
        start_dial(link);
        return;
    }
    link->address_count = 0; /* the next dial looks the name up again */
    link->address_next = 0;
    int64_t now_ms = (int64_t)uv_now(link->options.loop);
    if (lost) {
        link->down_since_ms = now_ms;
        link->attempts = 0;
    }
    report_failure(link, lost);
    if (lost && now_ms - link->up_since_ms >= link->options.backoff_base_ms)
        dial_at_once(link);
    else
        wait_and_dial(link);
    if (lost)
        link->options.on_lost(link->options.context, link->reason);
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    if (link->state == LINK_WAITING)
        start_dial(link);
    else
        link_fail(link, "no answer in time while dialling");
}

/* --- commands ------------------------------------------------------------------------------------------------- */

static void on_reply(redisAsyncContext *redis, void *reply, void *data)
{
    const struct redis_call *call = data;
    struct redis_link *link = redis->data;
    if (reply && link && !link->failed && link->state != LINK_CLOSING)
        call->on_reply(call->context, reply);
}

void redis_link_command(struct redis_link *link, int argc, const char **argv, const size_t *lengths,
                        const struct redis_call *call)
{
    if (!link->redis || link->failed)
        return;
    redisCallbackFn *callback = call ? on_reply : NULL;
    if (redisAsyncCommandArgv(link->redis, callback, (void *)(uintptr_t)call, argc, argv, lengths) != REDIS_OK)
        link_fail(link, link->redis->errstr);
}

/* --- login ---------------------------------------------------------------------------------------------------- */

static void login_done(struct redis_link *link)
{
    const char *name[] = {"CLIENT", "SETNAME", "promptd"};
    const size_t lengths[] = {6, 7, 7};
    redis_link_command(link, 3, name, lengths, NULL); /* a courtesy: an account that may not do it is fine */
    link_move(link, LINK_OPENING);
    link->options.on_login(link->options.context);
}

static void on_selected(void *context, const redisReply *reply)
{
    struct redis_link *link = context;
    if (reply->type == REDIS_REPLY_ERROR)
        link_refuse(link, reply->str);
    else
        login_done(link);
}

static void select_database(struct redis_link *link)
{
    char number[16];
    int length = snprintf(number, sizeof number, "%d", link->options.address->database);
    if (link->options.address->database == 0) {
        login_done(link);
        return;
    }
    const char *select[] = {"SELECT", number};
    const size_t lengths[] = {6, (size_t)length};
    redis_link_command(link, 2, select, lengths, &link->select_call);
}

static void on_authenticated(void *context, const redisReply *reply)
{
    struct redis_link *link = context;
    if (reply->type == REDIS_REPLY_ERROR)
        link_refuse(link, reply->str);
    else
        select_database(link);
}

static void login(struct redis_link *link)
{
    const struct redis_address *address = link->options.address;
    link_move(link, LINK_LOGIN);
    if (!address->password) {
        select_database(link);
        return;
    }
    const char *auth[3] = {"AUTH"};
    size_t lengths[3] = {4};
    int argc = 1;
    if (address->user) {
        auth[argc] = address->user;
        lengths[argc++] = strlen(address->user);
    }
    auth[argc] = address->password;
    lengths[argc++] = strlen(address->password);
    redis_link_command(link, argc, auth, lengths, &link->auth_call);
}

/* --- connecting ----------------------------------------------------------------------------------------------- */

/* hiredis 0.14 sets the outer error too late for the connect callback; the inner one is always there. */
static void on_connect(const redisAsyncContext *redis, int status)
{
    struct redis_link *link = redis->data;
    if (!link)
        return;
    if (status == REDIS_OK) {
        login(link);
        return;
    }
    link->redis = NULL; /* hiredis frees it after this callback */
    link_fail(link, redis->c.errstr[0] ? redis->c.errstr : "connection refused");
}

static void on_disconnect(const redisAsyncContext *redis, int status)
{
    (void)status;
    struct redis_link *link = redis->data;
    if (!link)
        return;
    link->redis = NULL;
    const char *reason = redis->errstr && redis->errstr[0] ? redis->errstr : "connection closed";
    if (redis->err == REDIS_ERR_OTHER) /* hiredis' name for an error reply that ends the connection: NOPERM, NOAUTH */
        link_refuse(link, reason);
    else
        link_fail(link, reason);
}

/* A peer that vanished without a word is noticed by the kernel too, besides the deadlines above it. */
static void set_socket_options(int fd)
{
    const int on = 1;
    const int idle_s = 5;
    const int interval_s = 2;
    const int probes = 3;
    const unsigned user_timeout_ms = 12000;
    bool ok = setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes) == 0 &&
              setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms) == 0;
    if (!ok)
        log_debug(NULL, "TCP keepalive could not be set");
}

static void on_reply_too_large(redisAsyncContext *redis)
{
    struct redis_link *link = redis->data;
    if (!link || link->failed || link->state == LINK_CLOSING)
        return;
    link->options.on_oversize(link->options.context, redis->c.reader->len);
    link_fail(link, "a message far above message_max_bytes was on its way");
    release_redis(link);
}

static redisAsyncContext *open_context(struct redis_link *link)
{
    const struct redis_address *address = link->options.address;
    if (address->unix_path)
        return redisAsyncConnectUnix(address->unix_path);
    return redisAsyncConnect(link->addresses[link->address_next++], address->port);
}

static void connect_next(struct redis_link *link)
{
    link_move(link, LINK_CONNECTING);
    redisAsyncContext *redis = open_context(link);
    if (!redis) {
        link_fail(link, "out of memory");
        return;
    }
    if (redis->err) {
        link_fail(link, redis->errstr);
        redisAsyncFree(redis);
        return;
    }
    if (!link->options.address->unix_path)
        set_socket_options(redis->c.fd);
    const struct redis_adapter_cap cap = {.reply_bytes = link->options.tuning.reply_max_bytes,
                                          .on_exceeded = on_reply_too_large};
    if (!redis_adapter_attach(link->options.loop, redis, &cap)) {
        link_fail(link, "the socket cannot be watched");
        redisAsyncFree(redis);
        return;
    }
    redis->data = link;
    link->redis = redis;
    (void)redisAsyncSetConnectCallback(redis, on_connect); /* fails only when one is set already */
    (void)redisAsyncSetDisconnectCallback(redis, on_disconnect);
}

static void on_resolved(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
    struct redis_link *link = lookup->data;
    link->looking_up = false;
    link->address_count = 0;
    link->address_next = 0;
    for (const struct addrinfo *at = found; at && link->address_count < LINK_ADDRESSES_MAX; at = at->ai_next)
        if (getnameinfo(at->ai_addr, at->ai_addrlen, link->addresses[link->address_count], NI_MAXHOST, NULL, 0,
                        NI_NUMERICHOST) == 0)
            link->address_count++;
    uv_freeaddrinfo(found);
    if (link->state == LINK_CLOSING)
        finish_close(link);
    else if (link->state != LINK_RESOLVING || link->failed)
        return; /* too late: the deadline has passed */
    else if (link->address_count == 0)
        link_fail(link, status ? uv_strerror(status) : "the name has no address");
    else
        connect_next(link);
}

static void resolve(struct redis_link *link)
{
    if (link->looking_up) {
        link_fail(link, "the name server does not answer");
        return;
    }
    link_move(link, LINK_RESOLVING);
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    link->lookup.data = link;
    int status = uv_getaddrinfo(link->options.loop, &link->lookup, on_resolved, link->options.address->host, NULL,
                                &hints);
    if (status == 0)
        link->looking_up = true;
    else
        link_fail(link, uv_strerror(status));
}

static void start_dial(struct redis_link *link)
{
    link->attempts++;
    breaker_attempt(&link->breaker);
    uv_update_time(link->options.loop);
    (void)uv_timer_start(&link->timer, on_timer, (uint64_t)link->options.dial_timeout_ms, 0);
    bool has_address = link->options.address->unix_path || link->address_next < link->address_count;
    if (has_address)
        connect_next(link);
    else
        resolve(link);
}

/* --- the rest of the interface -------------------------------------------------------------------------------- */

void redis_link_confirm(struct redis_link *link)
{
    if (link->state != LINK_OPENING || link->failed)
        return;
    (void)uv_timer_stop(&link->timer);
    link_move(link, LINK_UP);
    link->up_since_ms = (int64_t)uv_now(link->options.loop);
    if (breaker_close(&link->breaker))
        log_info(NULL, "Redis circuit closed");
    report_up(link);
}

void redis_link_set_tuning(struct redis_link *link, const struct redis_link_tuning *tuning)
{
    link->options.tuning = *tuning;
    link->breaker.backoff.max_ms = tuning->backoff_max_ms;
    link->breaker.max_failures = tuning->breaker_failures;
    link->breaker.reset_ms = tuning->breaker_reset_ms;
}

unsigned redis_link_failures(const struct redis_link *link)
{
    return link->breaker.failures;
}

bool redis_link_circuit_is_open(const struct redis_link *link)
{
    return link->breaker.state != BREAKER_CLOSED;
}

bool redis_link_close_circuit(struct redis_link *link)
{
    bool was_open = breaker_close(&link->breaker);
    if (was_open)
        log_info(NULL, "Redis circuit closed by hand");
    if (link->state == LINK_WAITING)
        (void)uv_timer_start(&link->timer, on_timer, 0, 0);
    return was_open;
}

bool redis_link_is_up(const struct redis_link *link)
{
    return link->state == LINK_UP && !link->failed;
}

void redis_link_drop(struct redis_link *link, const char *reason)
{
    link_fail(link, reason);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct redis_link *link = handle->data;
    if (--link->open_handles > 0)
        return;
    void (*on_closed)(void *) = link->options.on_closed;
    void *context = link->options.context;
    free(link);
    on_closed(context);
}

static void finish_close(struct redis_link *link)
{
    if (link->looking_up || link->redis)
        return; /* comes here again when they are done */
    uv_close((uv_handle_t *)&link->timer, on_handle_closed);
    uv_close((uv_handle_t *)&link->later, on_handle_closed);
}

void redis_link_close(struct redis_link *link)
{
    link_move(link, LINK_CLOSING);
    if (link->looking_up)
        (void)uv_cancel((uv_req_t *)&link->lookup); /* a look-up that runs already is waited for */
    (void)uv_timer_stop(&link->timer);
    (void)uv_timer_start(&link->later, on_later, 0, 0);
}

struct redis_link *redis_link_new(const struct redis_link_options *options)
{
    struct redis_link *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    link->options = *options;
    link->breaker.backoff.base_ms = options->backoff_base_ms;
    redis_link_set_tuning(link, &options->tuning);
    link->auth_call = (struct redis_call){.on_reply = on_authenticated, .context = link};
    link->select_call = (struct redis_call){.on_reply = on_selected, .context = link};
    (void)uv_timer_init(options->loop, &link->timer); /* always 0 */
    (void)uv_timer_init(options->loop, &link->later);
    link->timer.data = link;
    link->later.data = link;
    link->open_handles = 2;
    link->down_since_ms = (int64_t)uv_now(options->loop);
    (void)uv_timer_start(&link->timer, on_timer, 0, 0); /* LINK_WAITING: the first dial is due */
    return link;
}
